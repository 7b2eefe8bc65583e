//! From a node's plan to the first process of its namespaces. Pure.

use std::time::Duration;

use serde::Serialize;

use super::INIT_AT;
use crate::{
    hypervisor::{CONSOLE, DirectoryPlan, LaunchPlan, RootPlan, VMM_LOG},
    plan::NodePlan,
    spec::{Fake, Fault},
};

/// What this machine is told about itself; like all these, a name in the node's folder.
pub(super) const SEED: &str = "seed";
/// The content of its image.
pub(super) const TREE: &str = "tree";
/// The id of its boot.
pub(super) const BOOT_ID: &str = "boot_id";

/// The content of the disk at this position.
pub(super) fn disk(number: usize) -> String {
    format!("disk{number}")
}

/// What starting this node as namespaces takes.
pub(super) fn render(node: &NodePlan) -> LaunchPlan {
    let faults = node.fake.iter().flat_map(|Fake { faults, .. }| faults).filter_map(argument);
    LaunchPlan {
        program: "/bin/sh".into(),
        args: [INIT_AT.to_owned()].into_iter().chain(faults).collect(),
        sockets: vec![],
        files: vec![],
        api: vec![],
        own_sockets: vec![],
        own_files: vec![],
        console: CONSOLE.into(),
        console_is_stdout: false,
        log: VMM_LOG.into(),
        goes_on: false,
        one_cpu: false,
        root: (!node.fake.as_ref().is_some_and(Fake::is_scripted)).then(|| RootPlan {
            hostname: node.name.clone(),
            layers: vec![SEED.into(), TREE.into()],
            disks: (0..)
                .zip(&node.disks)
                .map(|(number, plan)| DirectoryPlan {
                    path: disk(number),
                    at: plan.at.clone(),
                    read_only: plan.read_only,
                })
                .collect(),
            boot_id: BOOT_ID.into(),
        }),
    }
}

/// The word by which the first process is told of a fault; `None` for those that are not the guest's.
fn argument(fault: &Fault) -> Option<String> {
    let seconds = |name: &str, time: &Duration| Some(format!("{name}={}", time.as_secs_f64()));
    match fault {
        Fault::Stops(rung) => Some(format!("stops={}", name(rung))),
        Fault::Dies(rung) => Some(format!("dies={}", name(rung))),
        Fault::Panics(rung) => Some(format!("panics={}", name(rung))),
        Fault::BootsSlowly(time) => seconds("slow", time),
        Fault::Crashes(time) => seconds("crashes", time),
        Fault::RefusesKey => Some("refuses_key".to_owned()),
        Fault::IgnoresShutdown => Some("ignores_shutdown".to_owned()),
        Fault::IgnoresSigterm => Some("ignores_sigterm".to_owned()),
        Fault::Refuses(_) | Fault::Hangs(_) => None,
    }
}

/// The name that a value has in data.
fn name(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).expect("a name is plain data");
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Call, Rung};

    #[test]
    fn every_fault_of_a_guest_is_a_word_that_its_first_process_knows() {
        let init = include_str!("init.sh");
        let faults = [
            (Fault::RefusesKey, "refuses_key"),
            (Fault::IgnoresShutdown, "ignores_shutdown"),
            (Fault::IgnoresSigterm, "ignores_sigterm"),
        ];
        for (fault, word) in faults {
            assert_eq!(argument(&fault).as_deref(), Some(word));
            assert!(init.contains(&format!("is_to {word} ")), "{word}");
        }
        assert_eq!(argument(&Fault::BootsSlowly(Duration::from_millis(1500))).as_deref(), Some("slow=1.5"));
        assert_eq!(argument(&Fault::Refuses(Call::Quit)), None);
        for rung in [Rung::VmmAlive, Rung::KernelSpeaks, Rung::NetworkAnswers, Rung::SshBanner] {
            assert!(init.contains(&format!("\nrung {}\n", name(&rung))), "{rung}");
        }
        assert_eq!(argument(&Fault::Dies(Rung::SshAuthenticated)).as_deref(), Some("dies=ssh_authenticated"));
    }
}
