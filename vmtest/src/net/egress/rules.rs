//! What passes between a cluster's bridge and its way out.

use std::{fs, io, net::Ipv4Addr, path::Path};

use super::host_table;
use crate::{
    error::{Error, Kind},
    net::{
        mark,
        nft::{Condition, Hook, Rule, Table, Verdict},
    },
    plan::{EgressPlan, NetworkPlan},
};

pub(super) const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// The table of a cluster's own network: machines begin connections, nobody begins one with them, and nothing passes from
/// one bridge to another.
pub(crate) fn rules(networks: &[NetworkPlan], egress: &EgressPlan, run: &str) -> Table {
    let (from_uplink, to_uplink) = (Condition::From(egress.uplink.clone()), Condition::To(egress.uplink.clone()));
    let (mut passing, mut leaving) = (Vec::new(), Vec::new());
    for network in networks {
        let (from, to) = (Condition::From(network.bridge.clone()), Condition::To(network.bridge.clone()));
        let source = Condition::Source((network.ends()[0], network.prefix));
        passing.extend([
            Rule::new([from.clone(), source.clone(), to_uplink.clone()], Verdict::Accept),
            Rule::new([from_uplink.clone(), to.clone(), Condition::Answer], Verdict::Accept),
            // On hosts where bridges ask the packet filter too (`br_netfilter`), machines talk to each other through this.
            Rule::new([from, to], Verdict::Accept),
        ]);
        leaving.push(Rule::new([source, to_uplink.clone()], Verdict::Masquerade));
    }
    let entering =
        [Rule::new([from_uplink.clone(), Condition::Answer], Verdict::Accept), Rule::new([from_uplink], Verdict::Drop)];
    Table::new("egress", run)
        .chain(Hook::Input, Verdict::Accept, entering)
        .chain(Hook::Forward, Verdict::Drop, passing)
        .chain(Hook::Postrouting, Verdict::Accept, leaving)
}

/// The table of the network to which this end of a pair leads from the cluster's: what comes from the cluster leaves with
/// the address of whatever interface it leaves through, and only answers get back. What does not concern the pair is
/// not touched.
pub(crate) fn host_rules(egress: &EgressPlan, link: &str, run: &str) -> Table {
    let (from, to) = (Condition::From(link.to_owned()), Condition::To(link.to_owned()));
    let network = Ipv4Addr::from_bits(egress.gateway.to_bits() & !(u32::MAX >> egress.prefix));
    let source = Condition::Source((network, egress.prefix));
    let passing = [
        Rule::new([to.clone(), Condition::Answer], Verdict::Accept),
        Rule::new([to], Verdict::Drop),
        Rule::new([from.clone(), source.clone()], Verdict::Accept),
        Rule::new([from], Verdict::Drop),
    ];
    let leaving = [Rule::new([source, Condition::NotTo(link.to_owned())], Verdict::Masquerade)];
    Table::new(&host_table(run), &mark(run)).chain(Hook::Forward, Verdict::Accept, passing).chain(
        Hook::Postrouting,
        Verdict::Accept,
        leaving,
    )
}

/// Forwards nothing in the network namespace of the calling thread, which must be the cluster's own: a new one has what
/// the host has, which may be a router.
///
/// # Errors
/// [`Kind::Host`] where it cannot be turned off.
pub(crate) fn no_forwarding() -> Result<(), Error> {
    set(FORWARD, false)?;
    if Path::new(FORWARD6).exists() { set(FORWARD6, false) } else { Ok(()) }
}

/// Forwards IPv4 there.
///
/// # Errors
/// [`Kind::Host`] where it cannot be turned on.
pub(crate) fn forward() -> Result<(), Error> {
    set(FORWARD, true)
}

pub(super) fn set(path: &str, on: bool) -> Result<(), Error> {
    let wanted = if on { "1" } else { "0" };
    let set = || -> io::Result<()> {
        // Where nothing has to be changed it need not be allowed.
        if fs::read_to_string(path)?.trim() == wanted { Ok(()) } else { fs::write(path, wanted) }
    };
    set().map_err(|e| Error::new(Kind::Host, format!("cannot set {path} to {wanted}")).caused_by(e))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::net::enter_new_namespace;

    #[test]
    fn what_a_new_network_has_inherited_is_turned_off() {
        let inside = || {
            enter_new_namespace().unwrap();
            let now = || [FORWARD, FORWARD6].map(|path| fs::read_to_string(path).unwrap_or_default().trim().to_owned());
            for path in [FORWARD, FORWARD6].into_iter().filter(|path| Path::new(path).exists()) {
                fs::write(path, "1").unwrap();
            }
            no_forwarding().unwrap();
            assert!(now().iter().all(|is| is != "1"), "{:?}", now());
            forward().unwrap();
            assert_eq!(now()[0], "1");
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap();
    }
}
