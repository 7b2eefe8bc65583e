//! A test as the macro writes it down.

use std::{any::Any, future::Future, path::PathBuf, pin::Pin, time::Duration};

use vmtest_fixtures::Fixture;

use super::{
    context::Context,
    end::{self, End},
    extract::{FromCluster, Param},
    session::Session,
    settings::Settings,
    verdict::Verdict,
};
use crate::{
    cluster::Cluster,
    failure::Failure,
    spec::{
        Allow, Budget, Capability, ClusterSpec, FixtureSpec, Image, NetworkPlace, NetworkSpec, NodeSettings, NodeSpec,
        TimedPhase, Volume, VolumeSpec,
    },
};

/// One test: the constant that `#[vm_test]` emits.
#[derive(Debug)]
pub struct TestCase {
    /// `module_path!()`.
    pub module: &'static str,
    /// The function's name.
    pub name: &'static str,
    /// `file!()`.
    pub file: &'static str,
    /// `line!()`.
    pub line: u32,
    /// `CARGO_PKG_NAME`.
    pub package: &'static str,
    /// `CARGO_MANIFEST_DIR` of the build; a runner's own value goes before it, for archives that were moved.
    pub manifest_dir: &'static str,
    /// The attribute's keys.
    pub options: &'static [Setting],
    /// The function's parameters.
    pub params: &'static [Parameter],
}

/// One key of an attribute with its value.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Setting {
    /// `image = ".."`
    Image(&'static str),
    /// `image = function`
    ImageOf(fn() -> Image),
    /// `packages(..)`; one for each of its values.
    Package(&'static str),
    /// `prepare = ".."`
    Prepare(&'static str),
    /// `cpus = n`
    Cpus(u32),
    /// `memory = ".."`, in bytes.
    Memory(u64),
    /// `disk = ".."`, in bytes.
    Disk(u64),
    /// `fixture("dir", at = "..", label = "..")`
    Fixture {
        /// The directory.
        dir: &'static str,
        /// Where it is mounted.
        at: Option<&'static str>,
        /// The disk's label.
        label: Option<&'static str>,
    },
    /// `volume("name", at = "..", size = "..", access = "..")`
    Volume {
        /// Its name.
        name: &'static str,
        /// Where it is mounted.
        at: Option<&'static str>,
        /// Its size in bytes.
        bytes: Option<u64>,
        /// Whether it is only read.
        read_only: bool,
    },
    /// `network("name", ip = "..", mac = "..")`
    Network {
        /// Its name.
        name: &'static str,
        /// The node's address there.
        ip: Option<[u8; 4]>,
        /// The node's hardware address there.
        mac: Option<[u8; 6]>,
    },
    /// `max_cpus = n`
    MaxCpus(u32),
    /// `max_memory = ".."`, in bytes.
    MaxMemory(u64),
    /// `disk_rate = ".."`, in bytes a second.
    DiskRate(u64),
    /// `disk_iops = n`
    DiskIops(u32),
    /// `nested = bool`
    Nested(bool),
    /// `rate = ".."`, in bits a second.
    Rate(u64),
    /// `ip = ".."`
    Ip([u8; 4]),
    /// `mac = ".."`
    Mac([u8; 6]),
    /// `timeout = ".."`, in milliseconds.
    Timeout(u64),
    /// `kernel = ".."`
    Kernel(&'static str),
    /// `login = ".."`
    Login(&'static str),
    /// `ready = ".."`
    Ready(&'static str),
    /// `firmware = ".."`
    Firmware(&'static str),
    /// `kernel_args = ".."`
    KernelArgs(&'static str),
    /// `backend = ".."`, one or more, separated by commas.
    Backend(&'static str),
    /// `requires(..)`; one for each of its values.
    Requires(Capability),
    /// `nodes = n`
    Nodes(u32),
    /// `network = ".."`
    Place(NetworkPlace),
    /// `mtu = n`
    Mtu(u32),
    /// `egress = true`
    Egress(bool),
    /// `budget(nodes = n, memory = "..", cpus = n, disk = "..")`, sizes in bytes.
    Budget {
        /// How many machines.
        nodes: u32,
        /// Memory of each.
        memory: Option<u64>,
        /// CPUs of each.
        cpus: Option<u32>,
        /// Disk of each.
        disk: Option<u64>,
    },
    /// `budget(boot = "..")`, in milliseconds; one for each of its phases.
    PhaseBudget(TimedPhase, u64),
    /// `allow("..")`; one for each of its values.
    Allow(Allow),
}

/// A parameter and what its type declares and extracts.
#[derive(Debug)]
pub struct Parameter {
    param: Param,
    declare: fn(&Param, &mut ClusterSpec),
    extract: for<'a> fn(&'a Param, &'a Cluster) -> Extraction<'a>,
}

/// A value on its way, of a type that the macro knows.
type Extraction<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Any>, Failure>> + 'a>>;

impl Parameter {
    /// The parameter of a type. The only place that asks for the trait, so that rustc complains of a lack of it once.
    pub const fn of<T: FromCluster + 'static>(param: Param) -> Self {
        Self {
            param,
            declare: T::declare,
            extract: |param, cluster| {
                Box::pin(async { Ok(Box::new(T::extract(param, cluster).await?) as Box<dyn Any>) })
            },
        }
    }

    pub(super) async fn extract(&self, cluster: &Cluster) -> Result<Box<dyn Any>, Failure> {
        (self.extract)(&self.param, cluster).await
    }
}

impl TestCase {
    /// Its path, as libtest shows it: the crate's own name leads the module path and says nothing beside the test binary's.
    pub fn path(&self) -> String {
        self.module.split_once("::").map_or(self.name.to_owned(), |(_, rest)| format!("{rest}::{}", self.name))
    }

    /// What this test asks for.
    pub fn spec(&self) -> ClusterSpec {
        let mut spec = ClusterSpec::new(self.path());
        spec.base = manifest_dir(self.manifest_dir, self.package);
        apply_node_settings(self.options, &mut spec.defaults);
        for option in self.options {
            match *option {
                Setting::Network { name, .. } => spec.networks.push(name.to_owned()),
                Setting::Place(place) => spec.place = place,
                Setting::Mtu(bytes) => spec.mtu = Some(bytes),
                Setting::Egress(on) => spec.egress = on,
                Setting::Timeout(ms) => spec.timeout = Some(Duration::from_millis(ms)),
                Setting::Backend(names) => spec.backends.extend(names.split(',').map(|name| name.trim().to_owned())),
                Setting::Requires(capability) => drop(spec.requires.insert(capability)),
                Setting::Budget { nodes, memory, cpus, disk } => spec.budget = Budget { nodes, memory, cpus, disk },
                Setting::PhaseBudget(phase, ms) => drop(spec.phase_budgets.insert(phase, Duration::from_millis(ms))),
                Setting::Allow(what) => drop(spec.allow.insert(what)),
                Setting::Nodes(n) => spec.nodes.extend((1..=n).map(|i| NodeSpec::new(format!("node{i}")))),
                _ => {}
            }
        }
        for parameter in self.params {
            (parameter.declare)(&parameter.param, &mut spec);
        }
        spec
    }
}

/// What `#[node(..)]` says.
pub(super) fn apply_to_node(settings: &[Setting], to: &mut NodeSpec) {
    apply_node_settings(settings, &mut to.settings);
    for setting in settings {
        match *setting {
            Setting::Ip(octets) => to.ip = Some(octets.into()),
            Setting::Mac(bytes) => to.mac = Some(written(bytes)),
            Setting::Network { name, ip, mac } => {
                let network = NetworkSpec { name: name.to_owned(), ip: ip.map(Into::into), mac: mac.map(written) };
                to.networks.push(network);
            }
            _ => {}
        }
    }
}

fn written(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn apply_node_settings(settings: &[Setting], to: &mut NodeSettings) {
    for setting in settings {
        match *setting {
            Setting::Image(name) => to.image = Some(name.into()),
            Setting::ImageOf(make) => to.image = Some(make()),
            Setting::Package(name) => drop(to.packages.insert(name.to_owned())),
            Setting::Prepare(program) => to.prepare = Some(program.into()),
            Setting::Login(account) => to.login = Some(account.to_owned()),
            Setting::Ready(command) => to.ready = Some(command.to_owned()),
            Setting::Firmware(name) => to.firmware = Some(name.into()),
            Setting::Cpus(n) => to.cpus = Some(n),
            Setting::MaxCpus(n) => to.max_cpus = Some(n),
            Setting::Memory(bytes) => to.memory = Some(bytes),
            Setting::MaxMemory(bytes) => to.max_memory = Some(bytes),
            Setting::Disk(bytes) => to.disk = Some(bytes),
            Setting::DiskRate(bytes) => to.disk_rate = Some(bytes),
            Setting::DiskIops(n) => to.disk_iops = Some(n),
            Setting::Nested(flag) => to.nested = Some(flag),
            Setting::Rate(bits) => to.rate = Some(bits),
            Setting::Kernel(path) => to.kernel = Some(path.into()),
            Setting::KernelArgs(args) => to.kernel_args = Some(args.to_owned()),
            Setting::Fixture { dir, at, label } => {
                let fixture = Fixture::from_dir(dir);
                let fixture = label.into_iter().fold(fixture, Fixture::label);
                to.fixtures.push(FixtureSpec { fixture, at: at.map(str::to_owned) });
            }
            Setting::Volume { name, at, bytes, read_only } => {
                let volume = bytes.into_iter().fold(Volume::new(name), Volume::size);
                let volume = if read_only { volume.read_only() } else { volume };
                to.volumes.push(VolumeSpec { volume, at: at.map(str::to_owned) });
            }
            Setting::Ip(_)
            | Setting::Mac(_)
            | Setting::Network { .. }
            | Setting::Timeout(_)
            | Setting::Backend(_)
            | Setting::Requires(_)
            | Setting::Nodes(_)
            | Setting::Place(_)
            | Setting::Mtu(_)
            | Setting::Egress(_)
            | Setting::Budget { .. }
            | Setting::PhaseBudget(..)
            | Setting::Allow(_) => {}
        }
    }
}

/// Where a crate is now: as Cargo or another runner says when it runs the tests of this very package, which may have come
/// here in an archive, else where it was compiled.
pub fn manifest_dir(compiled: &str, package: &str) -> PathBuf {
    let is_ours = std::env::var_os("CARGO_PKG_NAME").is_none_or(|name| name == package);
    let now = std::env::var_os("CARGO_MANIFEST_DIR").filter(|_| is_ours);
    now.map_or_else(|| compiled.into(), PathBuf::from)
}

/// What `cargo vmtest up` has a test do: everything up to its body, whose arguments live until somebody lets the cluster go.
async fn instead_of_body(cluster: &Cluster, test: &TestCase) -> Result<(), Failure> {
    let mut arguments = Vec::new();
    for parameter in test.params {
        arguments.push(parameter.extract(cluster).await?);
    }
    cluster.hold_without_body().await?;
    drop(arguments);
    Ok(())
}

/// Runs a test: makes its cluster, runs the body in it, removes everything, and panics if the test failed.
///
/// # Panics
/// With the body's own panic, or with the message of what went wrong.
pub fn run<R: Verdict>(test: &'static TestCase, body: impl AsyncFnOnce(&mut Context) -> R + Send + 'static) {
    let spec = test.spec();
    let name = spec.name.clone();
    end::report(&name, ended(test, spec, body));
}

/// How a trial has ended: why it was skipped, if it was, or why it has failed.
pub type TrialEnd = Result<Option<String>, String>;

/// Runs a test as [`run`] does, for a harness that knows of tests that were skipped.
///
/// # Errors
/// The message of what went wrong.
///
/// # Panics
/// With the body's own panic.
pub fn run_trial<R: Verdict>(
    test: &'static TestCase,
    body: impl AsyncFnOnce(&mut Context) -> R + Send + 'static,
) -> TrialEnd {
    let spec = test.spec();
    let name = spec.name.clone();
    end::of_trial(&name, ended(test, spec, body))
}

fn ended<R: Verdict>(
    test: &'static TestCase,
    spec: ClusterSpec,
    body: impl AsyncFnOnce(&mut Context) -> R + Send + 'static,
) -> End {
    let session = Session::new(spec, None, true);
    let up = Settings::get().is_ok_and(|settings| settings.up);
    session.run(async move |cluster| {
        if up {
            return instead_of_body(&cluster, test).await.map_err(|e| format!("{e:?}"));
        }
        let mut cx = Context::new(cluster, test.params);
        body(&mut cx).await.into_result()
    })
}
