//! The way out of a cluster's network, made for a run that asks for it.

use std::{io, sync::Arc};

use super::{host_side, run::Run};
use crate::{
    error::{Error, Kind},
    host::{Effect, Process, spawn_program},
    net::{
        Links,
        egress::{Output, Relay, Uplink, forward, pasta, rules},
    },
    plan::{EgressPlan, WayOut},
};

/// Makes it, and a name server for the machines. What is inside of the cluster's network ends with it.
///
/// # Errors
/// [`Kind::Host`] or [`Kind::Timeout`], with what the program said that did not do it.
pub(super) async fn make_egress(run: &Arc<Run>, egress: &EgressPlan) -> Result<(), Error> {
    // Before there is anywhere to go.
    rules(&run.plan.networks, egress, run.dir.id()).make()?;
    forward()?;
    for network in &run.plan.networks {
        let relay = Relay::bind(network.gateway, run.outside.clone()).await?;
        run.spawn(relay.serve());
    }
    match &egress.way {
        WayOut::Pasta => start_pasta(run, egress).await?,
        WayOut::Pair { link, mac } => {
            host_side::lead_out(run, egress, link, mac).await?;
            run.links.get_or_try_init(Links::open)?.lead_out(egress).await?;
        }
    }
    tracing::debug!(way = ?egress.way, "the cluster's network has a way out");
    Ok(())
}

async fn start_pasta(run: &Arc<Run>, egress: &EgressPlan) -> Result<(), Error> {
    let cannot = |e: io::Error| Error::new(Kind::Host, "cannot start pasta").caused_by(e);
    let keeper = run.outer_keeper.as_ref().expect("a run with a way out through pasta has one in the caller's network");
    let uplink = Uplink::awaited()?;
    let (request, output) = pasta(egress, run.dir.path())?;
    let intent = run.journal.intent(Effect::Helper { name: "pasta".into() })?;
    let (pidfd, id) = keeper.spawn(move || spawn_program(request)).await.map_err(cannot)?;
    run.journal.done(intent, Some(id))?;
    let process = Process::of_child(pidfd).map_err(cannot)?;
    tokio::select! {
        up = uplink.up() => up.map_err(|e| with_output(e, &output))?,
        ended = process.ended() => {
            let how = ended.map_or_else(|e| e.to_string(), |ended| ended.to_string());
            let message = format!("there is no way out of the cluster's network: pasta ended with {how}");
            run.journal.released(intent);
            return Err(with_output(Error::new(Kind::Host, message), &output));
        }
    }
    let attending = run.clone();
    run.spawn(async move {
        _ = process.ended().await;
        attending.journal.released(intent);
        tracing::warn!("pasta has ended, and with it the way out of the cluster's network: {}", output.text());
    });
    Ok(())
}

fn with_output(error: Error, output: &Output) -> Error {
    match output.text() {
        said if said.is_empty() => error,
        said => error.caused_by(io::Error::other(format!("it says: {said}"))),
    }
}
