//! Which name leads where.

use super::NodePlan;

/// What this machine finds in `/etc/hosts` of the others and of itself: addresses with their names.
///
/// The name of a machine leads to the address that both share, the first of the viewer's networks before the others;
/// where they share none, to the other's first, which a route may lead to. On each network it also has its name with
/// that of the network behind, `db.back`.
pub(crate) fn hosts(viewer: &NodePlan, all: &[NodePlan]) -> Vec<(String, String)> {
    let lines = all.iter().flat_map(|node| {
        let shared = viewer.interfaces.iter().find_map(|own| node.interfaces.iter().find(|i| i.network == own.network));
        let best = shared.unwrap_or_else(|| node.first_interface());
        node.interfaces.iter().map(move |interface| {
            let full = format!("{}.{}", node.name, interface.network);
            let names = if interface == best { format!("{} {full}", node.name) } else { full };
            (interface.ip.to_string(), names)
        })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::cluster::tests::planned, spec::NodeSpec};

    #[test]
    fn a_name_leads_where_the_viewer_is() {
        let nodes = planned(vec![
            NodeSpec::new("client").network("front"),
            NodeSpec::new("router").network("front").network("back"),
            NodeSpec::new("db").network("back"),
        ]);
        let lines = |viewer: usize| {
            let lines = hosts(&nodes[viewer], &nodes);
            lines.into_iter().map(|(ip, names)| format!("{ip} {names}")).collect::<Vec<_>>()
        };
        let client = ["10.77.1.11 client client.front", "10.77.1.12 router router.front", "10.77.2.12 router.back"];
        assert_eq!(lines(0), [&client[..], &["10.77.2.13 db db.back"]].concat());
        let seen_from_db =
            ["10.77.1.11 client client.front", "10.77.1.12 router.front", "10.77.2.12 router router.back"];
        assert_eq!(lines(2), [&seen_from_db[..], &["10.77.2.13 db db.back"]].concat());
    }
}
