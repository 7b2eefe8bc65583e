//! Machines that join and leave while the test runs.

use std::{io, sync::Arc};

use futures_util::future::{join_all, try_join_all};
use tokio::sync::oneshot;

use super::{
    Cluster, Node,
    boot::boot_in_time,
    member::Member,
    power::{Action, State},
    provision::add_ports,
    run::Run,
};
use crate::{
    error::{Error, Kind, Phase},
    evidence::{Event, ShownWait},
    plan::{NodePlan, hosts},
    spec::{NodeSpec, Resources},
};

/// A line of `/etc/hosts` is changed in milliseconds; a machine that does not do it in this time does nothing.
const TOLD_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

impl Cluster {
    /// Adds a machine, and returns when it answers and all running machines know its name.
    ///
    /// # Errors
    /// [`Kind::Spec`] or [`Kind::Missing`] for one that cannot be planned or for which there is no room, else why it
    /// does not come up.
    pub async fn add(&self, node: NodeSpec) -> Result<Node, Error> {
        let mut added = self.add_all([node]).await?;
        added.pop().ok_or_else(|| Error::new(Kind::Spec, "no machine was added"))
    }

    /// Adds machines, which boot beside each other, and returns when all answer and all running machines know their
    /// names. They get the test's defaults.
    ///
    /// They take their share of the host from what `budget(nodes = ..)` has kept for them. Without, or beyond it, they
    /// take what is free, or wait for it; this time does not count against the test's timeout. Where all tests that
    /// hold a share wait in this way, the one that began last gets an error, so that the others go on.
    ///
    /// ```no_run
    /// # use vmtest::prelude::*;
    /// # async fn body(cluster: Cluster) -> Result {
    /// let late = cluster.add_all((1..=3).map(|n| NodeSpec::new(format!("late{n}")))).await?;
    /// late[0].sh("ping -c 1 late2").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`add`](Self::add); then none of them joins.
    pub async fn add_all(&self, nodes: impl IntoIterator<Item = NodeSpec>) -> Result<Vec<Node>, Error> {
        let (run, nodes) = (self.run.clone(), nodes.into_iter().collect::<Vec<_>>());
        let (tell, added) = oneshot::channel();
        let work = async move {
            let members = plan(&run, nodes).await.map_err(|e| e.in_phase(Phase::Body))?;
            let cost = cost(&run, &members);
            let leased = lease(&run, cost).await;
            let has_share = leased.is_ok();
            let joined = match leased {
                Ok(()) => join(&run, &members).await,
                Err(e) => Err(e),
            };
            if joined.is_err() {
                if has_share {
                    run.claim.give_back(memory_and_cpus(cost));
                }
                for member in &members {
                    run.leave(&member.plan.name);
                    // Its VMM is in the journal; a teardown would end it as well.
                    drop(member.process().map(|process| process.kill()));
                }
            }
            joined.map_err(|e| e.in_phase(Phase::Body))?;
            Ok(members.into_iter().map(|member| Node::new(run.clone(), member)).collect())
        };
        // Whoever asked may have gone.
        self.run.tasks.spawn(async move { drop(tell.send(work.await)) });
        added.await.unwrap_or_else(|_| Err(self.run.tasks.unanswered().in_phase(Phase::Body)))
    }

    /// Removes a machine that is off: its name is forgotten by the others, and its place on the bridge is free. What is
    /// left of it, its console for example, goes with the cluster.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a machine that runs, or of another cluster.
    pub async fn remove(&self, node: &Node) -> Result<(), Error> {
        if !Arc::ptr_eq(&self.run, &node.run) {
            let message = format!("`{}` is a machine of another cluster", node.name());
            return Err(Error::new(Kind::Spec, message).on_node(node.name()).in_phase(Phase::Body));
        }
        let removal = node.change(Action::Remove, true, |run, member| async move {
            member.set_state(State::Removed);
            run.leave(&member.plan.name);
            run.claim.give_back(memory_and_cpus(member.plan.cost(&run.plan.capabilities)));
            if let Some(links) = run.links.get() {
                for link in member.plan.links() {
                    links.remove(link).await?;
                }
            }
            // Another may have these addresses next, with other hardware addresses.
            let forget = |ip| format!("sed -i '/^{ip} /d' /etc/hosts; ip neigh flush to {ip}");
            let script: Vec<_> = member.plan.interfaces.iter().map(|interface| forget(interface.ip)).collect();
            tell_all(&run, |_| script.join("\n")).await;
            Ok(())
        });
        removal.await
    }
}

async fn plan(run: &Arc<Run>, nodes: Vec<NodeSpec>) -> Result<Vec<Arc<Member>>, Error> {
    let mut joined = run.joining.lock().await;
    let (first, count) = (run.plan.nodes.len() + *joined, nodes.len());
    let planning = run.clone();
    // In the caller's network: an image that nobody has built yet comes from there.
    let planned = run.outside.spawn_blocking(move || {
        let others: Vec<_> = planning.members().iter().map(|member| member.plan.clone()).collect();
        let planned = (planning.planner)(&nodes, &others, first)?;
        planning.volumes.take_for(planned.iter().map(|(node, _)| node)).map(|()| planned)
    });
    let failed = |e| Err(Error::new(Kind::Host, "cannot plan").caused_by(io::Error::other(e)));
    let planned = planned.await.unwrap_or_else(failed)?;
    *joined += count;
    let members: Vec<_> = planned.into_iter().map(|(node, base)| run.new_member(node, base.into())).collect();
    run.join(members.clone());
    Ok(members)
}

/// What these machines take from the host.
fn cost(run: &Run, members: &[Arc<Member>]) -> Resources {
    members.iter().map(|member| member.plan.cost(&run.plan.capabilities)).sum()
}

/// What a machine gives back that is off: its disk stays until the cluster goes.
fn memory_and_cpus(cost: Resources) -> Resources {
    Resources { disk: 0, ..cost }
}

/// Takes the share of machines that join. The test's time stands still while it waits.
pub(super) async fn lease(run: &Run, cost: Resources) -> Result<(), Error> {
    let _stopped = run.clock.stop();
    let emit = |event: &Event| run.emit(event);
    let wait = ShownWait::of(&run.plan.name, &emit);
    wait.during(run.claim.extend(cost, |waiting| wait.step(waiting))).await
}

async fn join(run: &Arc<Run>, members: &[Arc<Member>]) -> Result<(), Error> {
    for member in members {
        add_ports(run, member).await?;
    }
    let joined: Vec<_> = members.iter().map(|member| member.plan.clone()).collect();
    let line = |(ip, names): (String, String)| format!("echo {ip} {names} >>/etc/hosts\n");
    tell_all(run, |viewer| hosts(viewer, &joined).into_iter().map(line).collect()).await;
    try_join_all(members.iter().map(|member| boot_in_time(run, member, None))).await.map(drop)
}

/// Has all machines that run carry out a script; the others are told everything when they start.
async fn tell_all(run: &Run, script: impl Fn(&NodePlan) -> String) {
    let members = run.members();
    let running = members.iter().filter(|member| member.state() == State::Running);
    join_all(running.map(|member| {
        let script = script(&member.plan).into_bytes();
        async move {
            // One that is about to go off will be told when it starts.
            if !member.has_run(script, TOLD_WITHIN).await {
                tracing::warn!("{} could not be told of a change of names", member.plan.name);
            }
        }
    }))
    .await;
}
