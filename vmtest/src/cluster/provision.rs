//! Carries out a plan. Every effect is journaled before it happens.

use std::sync::Arc;

use futures_util::future::try_join_all;

use super::{boot::boot, egress::make_egress, host_side, member::Member, run::Run};
use crate::{
    error::{Error, Kind, Phase},
    evidence::{Event, say},
    host::{Effect, timeout},
    hypervisor::Port,
    net::{Capture, Links, egress::no_forwarding},
    plan::NodePlan,
};

/// Makes network and machines and waits until every machine answers.
///
/// Dropped at any point, it leaves only what the journal and the keeper name; `teardown` removes that.
///
/// # Errors
/// The first thing that failed; a timeout names every node that is not ready with the rung that it waits for.
pub(crate) async fn provision(run: &Arc<Run>) -> Result<(), Error> {
    let members = run.members();
    let work = async {
        make_network(run, &members).await.map_err(|e| e.in_phase(Phase::Provision))?;
        run.emit(&Event::NetworkUp { after: run.elapsed() });
        let boots = members
            .iter()
            .map(|member| async move { boot(run, member, None).await.map_err(|e| e.in_phase(Phase::Ready)) });
        try_join_all(boots).await
    };
    let limit = run.plan.boot_timeout;
    match timeout(limit.saturating_sub(run.elapsed()), work).await {
        Ok(result) => result.map(drop)?,
        Err(_) => return Err(not_ready(run, &members).in_phase(Phase::Ready)),
    }
    run.emit(&Event::Ready { after: run.elapsed() });
    Ok(())
}

async fn make_network(run: &Arc<Run>, members: &[Arc<Member>]) -> Result<(), Error> {
    let links = run.links.get_or_try_init(Links::open)?;
    no_forwarding()?;
    links.loopback_up().await?;
    let before = links.names().await?.into_iter().map(|(_, name)| name).collect();
    // Another provisioning of the same run would have found the same.
    _ = run.links_before.set(before);
    for network in &run.plan.networks {
        let bridge = run.journal.intent(Effect::Link { name: network.bridge.clone() })?;
        links.add_bridge(network).await?;
        run.journal.done(bridge, None)?;
    }
    host_side::connect(run, links).await?;
    capture(run);
    for member in members {
        add_ports(run, member).await?;
    }
    if let Some(egress) = &run.plan.egress {
        make_egress(run, egress).await?;
    }
    Ok(())
}

/// Keeps the last packets of all machines from now on, if that is wanted. Where it cannot be, nothing fails for it.
fn capture(run: &Arc<Run>) {
    let Some(limit) = run.packets else { return };
    let capture = match Capture::open(limit) {
        Ok(capture) => Arc::new(capture),
        Err(e) => return say(format_args!("vmtest: {}: {e}", run.plan.name)),
    };
    if run.capture.set(capture.clone()).is_ok() {
        let of_run = run.clone();
        let is_port = move |name: &str| of_run.members().iter().any(|member| taps(&member.plan).any(|tap| tap == name));
        run.spawn(async move { capture.run(is_port).await });
    }
}

/// The ports of a machine.
pub(super) fn taps(node: &NodePlan) -> impl Iterator<Item = &str> {
    node.interfaces.iter().map(|interface| interface.tap.as_str())
}

/// Makes the ports of the bridges on which the machine will be.
pub(super) async fn add_ports(run: &Run, member: &Member) -> Result<(), Error> {
    let links = run.links.get_or_try_init(Links::open)?;
    for (network, interface) in member.plan.places(&run.plan.networks) {
        if let Some(rate) = &interface.rate {
            let ifb = run.journal.intent(Effect::Link { name: rate.ifb.clone() })?;
            links.add_ifb(network, rate).await?;
            run.journal.done(ifb, None)?;
        }
        let tap = run.journal.intent(Effect::Link { name: interface.tap.clone() })?;
        if run.hypervisor.port() == Port::Tap {
            links.add_tap(network, interface).await?;
        }
        links.add_neighbour(&network.bridge, interface, &interface.mac).await?;
        run.journal.done(tap, None)?;
        host_side::add_neighbour(run, network, interface, &member.plan)?;
    }
    Ok(())
}

fn not_ready(run: &Run, members: &[Arc<Member>]) -> Error {
    let limit = run.plan.boot_timeout;
    let waiting: Vec<_> = members.iter().filter_map(|member| member.not_ready()).collect();
    let message =
        format!("not all machines were ready within {:.1} s\n  {}", limit.as_secs_f64(), waiting.join("\n  "));
    Error::new(Kind::Timeout, message).after(limit)
}
