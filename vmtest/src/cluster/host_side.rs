//! What a cluster has in the network of whoever started the test.
//!
//! Its bridge and all ports of it are in its own network as ever, so no packet filter of the host sees what its machines
//! say to each other, and the kernel destroys all of it with the run. A pair of interfaces leads from the bridge to the
//! host's network, where its end has the gateway's addresses.

use std::{
    fs::File,
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
};

use super::run::Run;
use crate::{
    error::Error,
    host::{Effect, host_prefix},
    net::{
        Claimed, Condition, Hook, Links, Pair, Rule, Table, Verdict,
        egress::{host_rules, host_table, turn_forwarding_on},
        hold_namespace, mark, own_namespace, tables, within,
    },
    plan::{EgressPlan, HostEndPlan, InterfacePlan, NetworkPlan, NodePlan},
    spec::Fake,
};

/// A cluster's claim on a part of somebody else's network.
#[derive(Debug)]
pub(crate) struct HostSide {
    /// The inode of that network namespace.
    namespace: u64,
    claimed: Mutex<Vec<Claimed>>,
}

impl HostSide {
    /// In the network of the calling thread.
    ///
    /// # Errors
    /// Without `/proc`.
    pub(crate) fn here(claimed: Vec<Claimed>) -> Result<Self, Error> {
        Ok(Self { namespace: own_namespace()?, claimed: Mutex::new(claimed) })
    }

    /// Lets others have the networks. Idempotent.
    pub(super) fn release(&self) {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Connects the bridge with the host's network, if that is planned: the filters first, so that nothing passes without.
pub(super) async fn connect(run: &Run, links: &Links) -> Result<(), Error> {
    let Some(side) = &run.host else { return Ok(()) };
    let ends: Vec<_> = run.plan.networks.iter().filter_map(|network| Some((network, network.host.as_ref()?))).collect();
    if ends.is_empty() {
        return Ok(());
    }
    let (namespace, id) = (side.namespace, run.dir.id());
    let table = run.journal.intent(Effect::HostTable { name: id.to_owned(), namespace })?;
    in_host(side, async || filters(id, ends.iter().map(|(_, end)| *end)).make())?;
    run.journal.done(table, None)?;
    for (network, end) in ends {
        let link = run.journal.intent(Effect::HostLink { name: end.link.clone(), namespace })?;
        let own = hold_namespace()?;
        in_host(side, async || add_end(id, network, end, &own).await)?;
        run.journal.done(link, None)?;
        links.plug(&end.port, &network.bridge).await?;
    }
    Ok(())
}

/// Makes the host's end of the way out of the cluster's network, in the order in which it is undone the other way round:
/// the host forwards for as long as it has the filters.
pub(super) async fn lead_out(run: &Run, egress: &EgressPlan, link: &str, mac: &str) -> Result<(), Error> {
    let side = run.host.as_ref().expect("a pair is planned with what was claimed for it");
    let (namespace, id) = (side.namespace, run.dir.id());
    let forwarding = run.journal.intent(Effect::HostForwarding { namespace })?;
    let table = run.journal.intent(Effect::HostTable { name: host_table(id), namespace })?;
    in_host(side, async || host_rules(egress, link, id).make())?;
    run.journal.done(table, None)?;
    let end = run.journal.intent(Effect::HostLink { name: link.to_owned(), namespace })?;
    let own = hold_namespace()?;
    in_host(side, async || {
        let links = Links::open()?;
        let pair = Pair { run: id, name: link, mac, peer: &egress.uplink, mtu: egress.mtu };
        links.add_pair(&pair, own.as_fd()).await?;
        links.add_addresses(link, (egress.gateway, egress.prefix), None).await
    })?;
    run.journal.done(end, None)?;
    in_host(side, async || turn_forwarding_on())?;
    run.journal.done(forwarding, None)
}

/// Tells the host where a node's address on this network is, as its own bridge is told.
pub(super) fn add_neighbour(
    run: &Run,
    network: &NetworkPlan,
    interface: &InterfacePlan,
    node: &NodePlan,
) -> Result<(), Error> {
    let (Some(side), Some(end)) = (&run.host, &network.host) else { return Ok(()) };
    // A machine with replies has no interface: it is reached at the bridge.
    let scripted = node.fake.as_ref().is_some_and(Fake::is_scripted);
    let mac = if scripted { &end.bridge_mac } else { &interface.mac };
    in_host(side, async || Links::open()?.add_neighbour(&end.link, interface, mac).await)
}

/// What is there with the mark of the run, though its journal does not name it any more.
pub(super) fn leaked(run: &Run) -> Vec<String> {
    let Some(side) = &run.host else { return Vec::new() };
    let id = run.dir.id();
    let outstanding = run.journal.outstanding();
    let look = async || {
        let links = Links::open()?.marked(&host_prefix(id), id).await?;
        let tables = tables()?.into_iter().filter(|name| name.starts_with(id));
        let links = links.into_iter().map(|name| Effect::HostLink { name, namespace: side.namespace });
        Ok(links.chain(tables.map(|name| Effect::HostTable { name, namespace: side.namespace })).collect::<Vec<_>>())
    };
    match within(side.namespace, look) {
        Ok(found) => {
            let unnamed = |effect: &Effect| !outstanding.iter().any(|entry| entry.effect == *effect);
            found.into_iter().flatten().filter(unnamed).map(|effect| effect.to_string()).collect()
        }
        Err(e) => vec![e.to_string()],
    }
}

fn in_host(side: &HostSide, work: impl AsyncFnOnce() -> Result<(), Error> + Send) -> Result<(), Error> {
    // It cannot be gone: a thread of this process is in it, that of the test.
    within(side.namespace, work).map(|_| ())
}

/// The host talks to the machines and they to it. What only passes through the host is dropped, whether it forwards or not.
fn filters<'a>(run: &str, ends: impl Iterator<Item = &'a HostEndPlan>) -> Table {
    let rules = ends.flat_map(|end| {
        [Condition::From(end.link.clone()), Condition::To(end.link.clone())].map(|of| Rule::new([of], Verdict::Drop))
    });
    Table::new(run, &mark(run)).chain(Hook::Forward, Verdict::Accept, rules.collect::<Vec<_>>())
}

async fn add_end(run: &str, network: &NetworkPlan, end: &HostEndPlan, own: &File) -> Result<(), Error> {
    let links = Links::open()?;
    let pair = Pair { run, name: &end.link, mac: &network.mac, peer: &end.port, mtu: network.mtu };
    links.add_pair(&pair, own.as_fd()).await?;
    links.add_addresses(&end.link, (network.gateway, network.prefix), Some((network.gateway6, network.prefix6))).await
}
