//! Carries out a plan. Every effect is journaled before it happens.

use std::{fs, io, path::Path, sync::Arc};

use futures_util::future::try_join_all;
use tokio::time::timeout;

use super::{ladder::climb, member::Member, run::Run};
use crate::{
    error::{Error, Kind, Phase},
    evidence::Event,
    guest,
    host::{Effect, Process},
    hypervisor,
    net::Links,
};

/// Makes network and machines and waits until every machine answers.
///
/// Dropped at any point, it leaves only what the journal and the keeper name; `teardown` removes that.
///
/// # Errors
/// The first thing that failed; a timeout names every node that is not ready with the rung that it waits for.
pub(crate) async fn provision(run: &Run, keys: &guest::ssh::Keys) -> Result<(), Error> {
    make_network(run).await.map_err(|e| e.in_phase(Phase::Provision))?;
    run.emit(&Event::NetworkUp { after: run.elapsed() });
    let boots = run.members.iter().map(|member| async move {
        let node = &member.plan.name;
        launch(run, member, keys).await.map_err(|e| e.on_node(node).in_phase(Phase::Provision))?;
        climb(run, member).await.map_err(|e| e.on_node(node).in_phase(Phase::Ready))
    });
    let limit = run.plan.boot_timeout;
    match timeout(limit.saturating_sub(run.elapsed()), try_join_all(boots)).await {
        Ok(result) => result.map(drop)?,
        Err(_) => return Err(not_ready(run).in_phase(Phase::Ready)),
    }
    run.emit(&Event::Ready { after: run.elapsed() });
    Ok(())
}

async fn make_network(run: &Run) -> Result<(), Error> {
    let links = run.links.get_or_try_init(Links::open)?;
    links.loopback_up().await?;
    let bridge = run.journal.intent(Effect::Link { name: run.plan.network.bridge.clone() })?;
    links.add_bridge(&run.plan.network).await?;
    run.journal.done(bridge, None)?;
    for member in &run.members {
        let tap = run.journal.intent(Effect::Link { name: member.plan.tap.clone() })?;
        links.add_port(&run.plan.network, &member.plan).await?;
        run.journal.done(tap, None)?;
    }
    Ok(())
}

async fn launch(run: &Run, member: &Arc<Member>, keys: &guest::ssh::Keys) -> Result<(), Error> {
    let plan = run.hypervisor.render(&member.plan);
    let folder = run.journal.intent(Effect::NodeDir { name: member.plan.name.clone() })?;
    let rendered = serde_json::to_string_pretty(&plan).expect("a launch plan is plain data");
    let made = fs::create_dir(&member.dir).and_then(|()| fs::write(member.dir.join("launch.json"), rendered));
    made.map_err(|e| cannot_write(&member.dir, e))?;
    let config = guest::config(&run.plan, member.plan.index, keys);
    let base = run.plan.base_initramfs[member.plan.index].clone();
    let initramfs = member.dir.join(&member.plan.initramfs);
    let append = move || vmtest_images::append_seed(base.as_ref(), &initramfs, &config);
    let written = tokio::task::spawn_blocking(append).await.map_err(io::Error::other).flatten();
    written.map_err(|e| cannot_write(&member.dir, e))?;
    run.journal.done(folder, None)?;

    let intent = run.journal.intent(Effect::Process { node: member.plan.name.clone() })?;
    let (pidfd, id) = hypervisor::start(&plan, &member.dir, &run.keeper).await?;
    run.journal.done(intent, Some(id))?;
    let process = Process::of_child(pidfd).map_err(|e| Error::new(Kind::Host, "cannot watch the VMM").caused_by(e))?;
    run.engine.spawn(member.clone().attend(process, member.dir.join(&plan.console)));
    Ok(())
}

fn cannot_write(dir: &Path, why: io::Error) -> Error {
    let hint = if why.kind() == io::ErrorKind::StorageFull {
        " (free space there, or set VMTEST_RUN to another place)"
    } else {
        ""
    };
    Error::new(Kind::Host, format!("cannot write to {}{hint}", dir.display())).caused_by(why)
}

fn not_ready(run: &Run) -> Error {
    let limit = run.plan.boot_timeout;
    let waiting: Vec<_> = run
        .members
        .iter()
        .filter_map(|member| {
            let rung = member.waits_for()?;
            let (name, climbed) = (&member.plan.name, member.climbed());
            Some(format!("node `{name}` waits for `{rung}` after: {climbed}{}", member.console_tail()))
        })
        .collect();
    let message =
        format!("not all machines were ready within {:.1} s\n  {}", limit.as_secs_f64(), waiting.join("\n  "));
    Error::new(Kind::Timeout, message).after(limit)
}
