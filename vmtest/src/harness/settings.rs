//! The settings of a process: environment variables that begin with `VMTEST_`, read once.

use std::{path::PathBuf, sync::OnceLock};

use super::setting_table::SETTINGS;
use crate::{
    cluster::HoldPolicy,
    error::{Error, Kind, Phase},
    evidence::Keeping,
    host::{Asked, CrashPoint, ROOTLESS, caller},
    hypervisor::{self, Search},
    spec::parse_size,
};

pub(super) const ARTIFACTS: &str = "VMTEST_ARTIFACTS";
pub(super) const BACKEND: &str = "VMTEST_BACKEND";
pub(super) const BUDGET: &str = "VMTEST_BUDGET";
pub(super) const CACHE: &str = "VMTEST_CACHE";
pub(super) const CACHE_LIMIT: &str = "VMTEST_CACHE_LIMIT";
pub(super) const CATALOG: &str = vmtest_images::CATALOG;
pub(super) const HOLD: &str = "VMTEST_HOLD";
/// What becomes of a test whose host lacks something.
pub(super) const ON_MISSING: &str = "VMTEST_ON_MISSING";
pub(super) const RUN: &str = "VMTEST_RUN";
pub(super) const TIMEOUT_SCALE: &str = "VMTEST_TIMEOUT_SCALE";
pub(super) const CLOUD_HYPERVISOR: &str = "VMTEST_CLOUD_HYPERVISOR";
pub(super) const FIRECRACKER: &str = "VMTEST_FIRECRACKER";
pub(super) const PACKETS: &str = "VMTEST_PACKETS";
pub(super) const QEMU: &str = "VMTEST_QEMU";
pub(super) const REQUIRE: &str = "VMTEST_REQUIRE";
/// What `VMTEST_REQUIRE` takes beside the names of backends.
const KVM: &str = "kvm";
/// Where our own tests have the process killed.
const CRASH_AT: &str = "VMTEST_INTERNAL_CRASH_AT";
/// Takes KVM to work, for our own tests whose VMM runs no guests.
const ASSUME_KVM: &str = "VMTEST_INTERNAL_ASSUME_KVM";
/// Has tests hold their clusters in place of running their bodies; set by `cargo vmtest up`.
pub const UP: &str = "VMTEST_INTERNAL_UP";
/// Variables of our own tests.
const INTERNAL: &str = "VMTEST_INTERNAL_";

/// What the environment says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// Where the artifacts of tests are kept.
    pub(crate) artifacts: Keeping,
    /// Backends in order of preference; empty is `auto`.
    pub(crate) backends: Vec<String>,
    /// How much of the host machines may take.
    pub(crate) budget: Asked,
    /// Where images and fixture disks are kept.
    pub(crate) cache: Option<PathBuf>,
    /// How large all fixture disks may become together, in bytes.
    pub(crate) cache_limit: Option<u64>,
    /// Which clusters are kept when their bodies have ended.
    pub(crate) hold: Option<HoldPolicy>,
    /// How many bytes of the last packets of each machine are kept for its failure; `None` is none.
    pub(crate) packets: Option<u64>,
    /// Where run directories are made.
    pub(crate) run: Option<PathBuf>,
    /// Every timeout is multiplied by it.
    pub(crate) timeout_scale: f64,
    /// Backends that must be able to run here.
    pub(crate) require: Vec<String>,
    /// Whether KVM must run guests here.
    pub(crate) require_kvm: bool,
    /// Whether a test whose host lacks something is skipped, and does not fail.
    pub(crate) skip_missing: bool,
    /// Where VMMs are looked for.
    pub(crate) search: Search,
    /// Whether tests hold their clusters in place of running their bodies.
    pub(crate) up: bool,
    /// Where our own tests have the process killed.
    pub(crate) crash_at: Option<CrashPoint>,
}

impl Settings {
    /// The settings of this process.
    ///
    /// # Errors
    /// [`Kind::Spec`] for an unknown name or a wrong value, with the valid ones.
    pub(crate) fn get() -> Result<&'static Self, Error> {
        static SETTINGS: OnceLock<Result<Settings, String>> = OnceLock::new();
        let read = || {
            let ours = std::env::vars_os().filter_map(|(name, value)| {
                let name = name.into_string().ok().filter(|name| name.starts_with("VMTEST_"))?;
                Some((name, value.to_string_lossy().into_owned()))
            });
            Self::parse(ours)
        };
        let settings = SETTINGS.get_or_init(read).as_ref();
        settings.map_err(|why| Error::new(Kind::Spec, why.clone()).in_phase(Phase::Plan))
    }

    /// Where images, fixture disks and scratch disks are: absolute, because a VMM works in its node's folder. As it was
    /// given where that cannot be, without a current directory.
    pub(crate) fn cache_dir(&self) -> PathBuf {
        let cache = self.cache.clone().unwrap_or_else(|| vmtest_images::Cache::default_dir(caller()));
        std::path::absolute(&cache).unwrap_or(cache)
    }

    /// Where fixture disks are kept.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn fixtures(&self) -> Result<vmtest_fixtures::Cache, vmtest_fixtures::Error> {
        let cache = vmtest_fixtures::Cache::open(self.cache_dir())?;
        Ok(self.cache_limit.into_iter().fold(cache, vmtest_fixtures::Cache::limit))
    }

    fn parse(variables: impl Iterator<Item = (String, String)>) -> Result<Self, String> {
        let mut settings = Self {
            artifacts: Keeping::InTarget,
            backends: vec![],
            budget: Asked::default(),
            cache: None,
            cache_limit: None,
            hold: None,
            packets: None,
            run: None,
            timeout_scale: 1.0,
            require: vec![],
            require_kvm: false,
            skip_missing: false,
            search: Search::default(),
            up: false,
            crash_at: None,
        };
        for (name, value) in variables {
            match name.as_str() {
                ARTIFACTS => settings.artifacts = Keeping::of(value),
                BACKEND => settings.backends = parse_backends(BACKEND, &value)?,
                BUDGET => settings.budget = Asked::parse(&value).map_err(|why| format!("{BUDGET}: {why}"))?,
                CACHE => settings.cache = Some(value.into()),
                CACHE_LIMIT => settings.cache_limit = Some(parse_limit(CACHE_LIMIT, &value)?),
                PACKETS => settings.packets = Some(parse_limit(PACKETS, &value)?),
                HOLD => settings.hold = Some(parse_hold(&value)?),
                RUN => settings.run = Some(value.into()),
                TIMEOUT_SCALE => settings.timeout_scale = parse_scale(&value)?,
                // Read where images are named, which may be in another process.
                CATALOG => {}
                // Read where it is needed, before `main`.
                ROOTLESS => check_rootless(&value)?,
                REQUIRE => (settings.require, settings.require_kvm) = parse_required(&value)?,
                ON_MISSING => settings.skip_missing = parse_on_missing(&value)?,
                CLOUD_HYPERVISOR => settings.search.set_binary(hypervisor::CLOUD_HYPERVISOR, value),
                FIRECRACKER => settings.search.set_binary(hypervisor::FIRECRACKER, value),
                QEMU => settings.search.set_binary(hypervisor::QEMU, value),
                ASSUME_KVM => settings.search.assume_kvm(),
                UP => settings.up = true,
                CRASH_AT => settings.crash_at = Some(value.parse().map_err(|why| format!("{CRASH_AT}: {why}"))?),
                _ if name.starts_with(INTERNAL) => {}
                _ => {
                    let valid: Vec<_> = SETTINGS.iter().map(|row| row.name).collect();
                    return Err(format!("unknown setting `{name}`: valid are {}", valid.join(", ")));
                }
            }
        }
        settings.search.set_cache(settings.cache_dir());
        Ok(settings)
    }
}

fn parse_backends(setting: &str, value: &str) -> Result<Vec<String>, String> {
    let names: Vec<_> = value.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "auto").collect();
    match names.iter().find(|name| !hypervisor::NAMES.contains(name)) {
        Some(unknown) => {
            Err(format!("{setting}: unknown backend `{unknown}`: valid are auto, {}", hypervisor::NAMES.join(", ")))
        }
        None => Ok(names.into_iter().map(str::to_owned).collect()),
    }
}

/// Backends, and whether KVM is among them.
fn parse_required(value: &str) -> Result<(Vec<String>, bool), String> {
    let (kvm, backends): (Vec<_>, Vec<_>) = value.split(',').map(str::trim).partition(|name| *name == KVM);
    let backends = parse_backends(REQUIRE, &backends.join(",")).map_err(|why| format!("{why}, {KVM}"))?;
    Ok((backends, !kvm.is_empty()))
}

fn parse_on_missing(value: &str) -> Result<bool, String> {
    match value {
        "skip" => Ok(true),
        "fail" => Ok(false),
        _ => Err(format!("{ON_MISSING}: `{value}` is neither `fail`, the default, nor `skip`")),
    }
}

fn check_rootless(value: &str) -> Result<(), String> {
    match value {
        "on" | "off" => Ok(()),
        _ => Err(format!("{ROOTLESS}: `{value}` is neither `on`, the default, nor `off`")),
    }
}

fn parse_hold(value: &str) -> Result<HoldPolicy, String> {
    match value {
        "never" => Ok(HoldPolicy::Never),
        "failed" => Ok(HoldPolicy::Failed),
        "always" => Ok(HoldPolicy::Always),
        _ => Err(format!("{HOLD}: unknown value `{value}`: valid are never, failed, always")),
    }
}

fn parse_limit(setting: &str, value: &str) -> Result<u64, String> {
    let wrong = || format!("{setting}: `{value}` is no size: give a number with a unit, such as 20GiB");
    parse_size(value).ok_or_else(wrong)
}

fn parse_scale(value: &str) -> Result<f64, String> {
    let scale = value.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale > 0.0);
    scale.ok_or_else(|| format!("{TIMEOUT_SCALE}: `{value}` is no factor: give a number above 0, such as 2.5"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<Settings, String> {
        Settings::parse([(name.to_owned(), value.to_owned())].into_iter())
    }

    #[test]
    fn wrong_settings_are_refused_with_the_valid_ones() {
        let error = parse("VMTEST_BAKEND", "qemu").unwrap_err();
        assert!(
            error.starts_with("unknown setting `VMTEST_BAKEND`: valid are VMTEST_ARTIFACTS, VMTEST_BACKEND,"),
            "{error}"
        );
        assert!(parse("VMTEST_BACKEND", "qemo").unwrap_err().contains("valid are auto, cloud-hypervisor, qemu"));
        let error = parse("VMTEST_REQUIRE", "kvm, qemo").unwrap_err();
        assert!(error.starts_with("VMTEST_REQUIRE: unknown backend `qemo`") && error.ends_with(", kvm"), "{error}");
        assert!(parse("VMTEST_ON_MISSING", "ignore").unwrap_err().contains("neither `fail`, the default, nor `skip`"));
        assert!(parse("VMTEST_TIMEOUT_SCALE", "-1").is_err());
        for wrong in ["20", "much", "20 apples", "-1GiB"] {
            let error = parse("VMTEST_CACHE_LIMIT", wrong).unwrap_err();
            assert!(error.contains("such as 20GiB"), "{error}");
        }
        assert!(parse("VMTEST_PACKETS", "many").unwrap_err().starts_with("VMTEST_PACKETS: `many` is no size"));
        assert!(parse("VMTEST_ROOTLESS", "no").unwrap_err().contains("nor `off`"));
        assert!(parse("VMTEST_HOLD", "yes").unwrap_err().ends_with("valid are never, failed, always"));
        let error = parse("VMTEST_BUDGET", "8GiB").unwrap_err();
        assert!(error.starts_with("VMTEST_BUDGET: `8GiB`") && error.contains("`memory=8GiB`"), "{error}");
        assert!(parse("VMTEST_INTERNAL_CRASH_AT", "here").unwrap_err().contains("no crash point"));
    }

    #[test]
    fn the_table_has_what_is_read() {
        for row in SETTINGS {
            // A name that nothing reads is unknown, whatever its value.
            let error = parse(row.name, "\u{1}").err().unwrap_or_default();
            assert!(!error.starts_with("unknown setting"), "{}: {error}", row.name);
        }
        assert!(SETTINGS.is_sorted_by_key(|row| row.name));
    }

    #[test]
    fn right_settings_are_read() {
        assert_eq!(parse("VMTEST_BACKEND", "auto").unwrap().backends, Vec::<String>::new());
        assert_eq!(parse("VMTEST_BACKEND", "qemu").unwrap().backends, ["qemu"]);
        assert_eq!(parse("VMTEST_REQUIRE", "cloud-hypervisor, qemu").unwrap().require, ["cloud-hypervisor", "qemu"]);
        let both = parse("VMTEST_REQUIRE", "kvm,qemu").unwrap();
        assert_eq!((both.require, both.require_kvm), (vec!["qemu".to_owned()], true));
        assert!(parse("VMTEST_ON_MISSING", "skip").unwrap().skip_missing);
        assert!(!parse("VMTEST_ON_MISSING", "fail").unwrap().skip_missing);
        assert_eq!(parse("VMTEST_CACHE_LIMIT", "20GiB").unwrap().cache_limit, Some(20 << 30));
        assert_eq!(parse("VMTEST_PACKETS", "8MiB").unwrap().packets, Some(8 << 20));
        assert_eq!(parse("VMTEST_TIMEOUT_SCALE", "2.5").unwrap().timeout_scale, 2.5);
        let budget = Asked { memory: Some(8 << 30), cpus: Some(3), disk: None };
        assert_eq!(parse("VMTEST_BUDGET", "memory=8GiB,cpus=3").unwrap().budget, budget);
        assert_eq!(parse("VMTEST_HOLD", "failed").unwrap().hold, Some(HoldPolicy::Failed));
        assert!(parse("VMTEST_ROOTLESS", "off").is_ok());
        assert!(parse("VMTEST_INTERNAL_KILLS", "3").is_ok());
    }
}
