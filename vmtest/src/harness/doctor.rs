//! What tests need from a host, and what of it this one has.

use std::{fs, path::Path};

use bytesize::ByteSize;
use serde::Serialize;

use super::{prune::places, settings::Settings};
use crate::{
    error::Error,
    host::{Asked, Entrance, HostBudget, Ledger, apparmor, entrance, find_program},
    hypervisor::{KvmProbe, probe_kvm},
    net::{self, missing_nft, missing_right, missing_tun},
};

/// A machine with the default image takes half of this while it boots, under emulation.
const FEW_MEMORY: u64 = 1 << 30;
/// The guests' image, and that of the lab, are a third of this.
const FEW_DISK: u64 = 2 << 30;
/// The kernel's device.
const KVM: &str = "/dev/kvm";

/// How a host is in one respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Health {
    /// As it should be.
    Good,
    /// Some tests cannot run, or run slowly.
    Limited,
    /// No test can run.
    Missing,
}

/// Something that tests need, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it is.
    pub health: Health,
    /// What was found, with the remedy where something is missing.
    pub found: String,
}

impl Check {
    /// A check whose result is known.
    pub fn new(name: impl Into<String>, health: Health, found: impl Into<String>) -> Self {
        Self { name: name.into(), health, found: found.into() }
    }

    /// Good, or this bad for the reason that there is.
    fn unless(name: &str, health: Health, why: Option<String>, good: impl Into<String>) -> Self {
        match why {
            Some(why) => Self::new(name, health, why),
            None => Self::new(name, Health::Good, good),
        }
    }
}

/// Looks at everything but programs and backends, as the calling process sees it: one that has
/// [entered its user namespace](crate::enter_rootless) if it shall. Changes nothing but the place of run directories, which it
/// makes; takes half a second at most.
///
/// # Errors
/// [`Kind::Spec`](crate::Kind::Spec) for a wrong setting.
pub fn checks() -> Result<Vec<Check>, Error> {
    let settings = Settings::get()?;
    Ok(vec![
        kvm(),
        Check::unless("tun", Health::Missing, missing_tun(), "taps can be made"),
        Check::unless("user namespaces", Health::Missing, missing_right(), namespaces()),
        security_module(),
        ids(),
        Check::unless(
            "nft",
            Health::Limited,
            missing_nft().map(|why| format!("no way out (`egress`), and no `network = \"host\"`: {why}")),
            "packet filters can be made",
        ),
        Check::unless(
            "way out",
            Health::Limited,
            net::egress::missing(net::egress::why_no_pair().is_none()).first().cloned(),
            "machines can be given a way out (`egress`)",
        ),
        netem(),
        room(settings),
    ])
}

fn kvm() -> Check {
    let probe = probe_kvm(Path::new(KVM));
    let health = if probe == KvmProbe::Works { Health::Good } else { Health::Limited };
    let slow = if probe.works() { "" } else { "; QEMU emulates, and a machine takes two to three seconds to boot" };
    Check::new("KVM", health, format!("{probe}{slow}"))
}

fn namespaces() -> String {
    match entrance() {
        Some(Entrance::Entered { .. }) => "this user is root of a namespace of its own".into(),
        _ => "not needed: this process may make networks".into(),
    }
}

/// Whether AppArmor is why there are no namespaces, or would be for another user.
fn security_module() -> Check {
    match apparmor(Path::new("/proc/sys")) {
        Ok(found) => Check::new("AppArmor", Health::Good, found),
        Err(why) => Check::new("AppArmor", Health::Limited, why),
    }
}

/// What fake machines of a user need who is not root.
fn ids() -> Check {
    let why = match entrance() {
        Some(Entrance::Entered { no_range: Some(why) }) => Some(format!("fake machines can only be scripted: {why}")),
        Some(Entrance::Refused(_) | Entrance::TurnedOff) => Some("no user namespace, so no ids in one".into()),
        _ => None,
    };
    Check::unless("subuid", Health::Limited, why, "fake machines have ids of their own")
}

/// The kernel's own link faults: loss, delay, reordering.
fn netem() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let modules = Path::new("/lib/modules").join(&release);
    let lists =
        ["modules.builtin", "modules.dep"].map(|list| fs::read_to_string(modules.join(list)).unwrap_or_default());
    let there = Path::new("/sys/module/sch_netem").exists() || lists.iter().any(|list| list.contains("sch_netem"));
    let why = (!there).then(|| {
        format!(
            "Linux {release} has no sch_netem: on Ubuntu install linux-modules-extra-{release}, else another kernel"
        )
    });
    Check::unless("netem", Health::Limited, why, "the kernel can delay and lose packets")
}

/// Memory, CPUs and disk that machines may take.
fn room(settings: &Settings) -> Check {
    let measure = || {
        let ledger = Ledger::open(&places(settings)?.runs)?;
        HostBudget::measure(&ledger, Asked::default(), settings.cache_dir())
    };
    match measure() {
        Ok(budget) => {
            let whole = budget.whole();
            let (memory, disk) = (ByteSize(whole.memory), ByteSize(whole.disk));
            let few = whole.memory < FEW_MEMORY || whole.disk < FEW_DISK;
            let remedy = if few {
                format!(": give the host more, at least {} and {}", ByteSize(FEW_MEMORY), ByteSize(FEW_DISK))
            } else {
                String::new()
            };
            let found = format!(
                "machines may take {memory} of memory, {} CPUs and {disk} of disk in {}{remedy}",
                whole.cpus,
                settings.cache_dir().display()
            );
            Check::new("memory and disk", if few { Health::Limited } else { Health::Good }, found)
        }
        Err(e) => Check::new("memory and disk", Health::Missing, e.to_string()),
    }
}

/// Where this program is: on PATH, or where those for root are.
pub fn program(name: &str) -> Option<std::path::PathBuf> {
    find_program(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_runs_these_tests_lacks_nothing_that_all_tests_need() {
        let checks = checks().unwrap();
        let names: Vec<_> = checks.iter().map(|check| check.name.as_str()).collect();
        let all = ["KVM", "tun", "user namespaces", "AppArmor", "subuid", "nft", "way out", "netem", "memory and disk"];
        assert_eq!(names, all);
        let missing: Vec<_> = checks.iter().filter(|check| check.health == Health::Missing).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
