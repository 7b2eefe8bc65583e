//! Looks at the host for what a plan needs, and makes what the cache does not have.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::runtime::Handle;
use vmtest_fixtures::{Cache, Disk, Fixture};
use vmtest_images::{ImageSpec, Progress};

use super::{
    choice::{Chosen, choose, describe, lacks_required_kvm},
    progress::BuildProgress,
    settings::Settings,
    volumes::volume_facts,
};
use crate::{
    cluster::Planner,
    error::{Error, Kind},
    evidence::{Event, Recorder, say},
    host::host_prefix,
    hypervisor::{self, Hypervisor},
    net::{self, Claimed},
    plan::{
        BackendFacts, BudgetFacts, Capabilities, CloudFacts, Facts, FixtureFacts, HostFacts, ImageFacts, KernelFacts,
        ModulesFacts, NetworkPlan, RootFacts, image_of, plan_more,
    },
    spec::{Capability, ClusterSpec, NetworkPlace, NodeSpec},
};

/// What a plan is made from.
pub(super) struct Gathered {
    pub(super) facts: Facts,
    pub(super) hypervisor: Option<Arc<dyn Hypervisor>>,
    /// The backend for people, with why it is not one that comes before it.
    pub(super) backend: String,
    /// Whether a test that cannot be planned may be skipped: the settings say so, images, fixtures and volumes are not to blame, and
    /// `VMTEST_REQUIRE` does not name what the host lacks.
    pub(super) may_skip: bool,
    /// Keep the disks and images in the cache.
    pub(super) held: Held,
}

/// What a run has in the caches, which nobody removes as long as this lives.
#[derive(Debug, Default)]
pub(super) struct Held {
    disks: Vec<Disk>,
    images: Vec<vmtest_images::Held>,
}

/// What there is for a cluster in the network of whoever started the test.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    facts: Option<HostFacts>,
    egress: Option<HostFacts>,
    missing: Vec<String>,
}

/// Claims what the cluster of this run shall have in the network of the calling thread, which may block.
pub(super) fn claim_host(spec: &ClusterSpec, run: &str, caller: &Handle) -> (Host, Vec<Claimed>) {
    let facts_of = |claimed: &[Claimed]| {
        let numbers: Vec<_> = claimed.iter().map(|claimed| claimed.number).collect();
        (!numbers.is_empty()).then(|| HostFacts { prefix: host_prefix(run), numbers })
    };
    if spec.place == NetworkPlace::Own {
        let claimed = if spec.egress { claim_way_out(spec, caller) } else { Vec::new() };
        let egress = facts_of(&claimed);
        let missing = if spec.egress { net::egress::missing(egress.is_some()) } else { Vec::new() };
        return (Host { egress, missing, ..Host::default() }, claimed);
    }
    let mut host = Host { missing: net::missing_for_host(), ..Host::default() };
    let mut claimed = Vec::new();
    if host.missing.is_empty() {
        match caller.block_on(net::claim(NetworkPlan::names(spec).len(), 0)) {
            Ok(free) => claimed = free,
            Err(e) => host.missing.push(e.to_string()),
        }
    }
    host.facts = facts_of(&claimed);
    (host, claimed)
}

/// A network for a pair of interfaces that leads out of the cluster's; none where the way out is through `pasta`.
fn claim_way_out(spec: &ClusterSpec, caller: &Handle) -> Vec<Claimed> {
    let claimed = match (net::egress::why_no_pair(), u8::try_from(NetworkPlan::names(spec).len())) {
        (Some(why), _) => Err(why),
        (None, Err(_)) => Err("the cluster has all networks itself".into()),
        // It must be none of those that the cluster itself has.
        (None, Ok(first)) => caller.block_on(net::claim(1, first)).map_err(|e| e.to_string()),
    };
    claimed.unwrap_or_else(|why| {
        tracing::debug!("the way out is through pasta, not by a pair of interfaces to the host's network: {why}");
        Vec::new()
    })
}

/// Everything that the spec names, found or made. What failed is in the facts, for the plan to name all of it at once.
pub(super) fn gather(
    spec: &ClusterSpec,
    settings: &Settings,
    budget: BudgetFacts,
    host: &Host,
    recorder: &Recorder,
) -> Gathered {
    let cache = settings.cache_dir();
    let all = || spec.nodes.iter().map(|node| &node.settings).chain([&spec.defaults]);
    let chosen = choose(spec, settings);
    let known = chosen.known();
    let Chosen { hypervisor, passed_over, required, .. } = chosen;
    let backend = hypervisor.as_ref().map(|found| describe(&**found, &passed_over)).unwrap_or_default();
    // With the one of then, in a run that repeats another.
    let asked = |node: &NodeSpec| (image_of(&node.settings, &spec.defaults, &spec.base), recorder.image_then(node));
    let images: BTreeMap<_, _> = spec.nodes.iter().map(asked).collect();
    let kernels: BTreeSet<_> = all().filter_map(|node| node.kernel.as_ref()).collect();
    let fixtures: BTreeSet<_> = all().flat_map(|node| &node.fixtures).map(|asked| &asked.fixture).collect();
    let build = |asked: &Fixture| build_fixture(settings, &spec.base, asked, recorder);
    let mut held = Held::default();
    let mut fixture = |asked: &Fixture| {
        let facts = build(asked).map(|disk| {
            let facts = FixtureFacts { path: disk.path.clone(), label: disk.label.clone() };
            held.disks.push(disk);
            facts
        });
        (asked.clone(), facts)
    };
    let fixtures: Vec<_> = fixtures.into_iter().map(&mut fixture).collect();
    let mut missing = net::missing();
    missing.extend(host.missing.iter().cloned());
    // An image can take minutes to build, which nobody should wait for only to read what else is wrong.
    let build = hypervisor.is_ok() && missing.is_empty() && fixtures.iter().all(|(_, built)| built.is_ok());
    let own_kernel = hypervisor.as_ref().is_ok_and(|found| found.capabilities().has(Capability::OwnKernel));
    let elf = hypervisor.as_ref().is_ok_and(|found| found.boots_elf_only());
    let form = if elf {
        KernelForm::Elf
    } else if spec.requires.contains(&Capability::Screenshot) {
        KernelForm::Shipped
    } else {
        KernelForm::OfImage
    };
    let mut image = |spec: &ImageSpec, then: Option<&str>, may_build: bool| {
        // Nor is one built that this backend cannot run, which the plan says.
        let build = build && may_build && (own_kernel || spec.needs_no_kernel());
        let facts = find_image(&cache, spec, then, recorder, build.then_some(form)).map(|found| {
            found.map(|(facts, hold)| {
                held.images.push(hold);
                facts
            })
        });
        facts.transpose()
    };
    let of_node = |(spec, then): (ImageSpec, Option<String>)| {
        let found = image(&spec, then.as_deref(), !spec.is_kernel())?;
        Some((spec, found))
    };
    let images = images.into_iter().filter_map(of_node).collect();
    let kernel = |path: &PathBuf| match vmtest_images::kernel_by_name(path) {
        Some(spec) => Some((path.clone(), image(&spec, None, true)?.map(named_kernel))),
        None => Some((path.clone(), kernel(&cache, &spec.base, path, elf))),
    };
    let kernels = kernels.into_iter().filter_map(kernel).collect();
    let firmwares = all().filter_map(|node| node.firmware.clone());
    let firmwares = firmwares.map(|name| (name.clone(), hypervisor::find_firmware(&spec.base, &name))).collect();
    let facts = Facts {
        backend: match &hypervisor {
            Ok(found) => Ok(BackendFacts {
                name: found.name().to_owned(),
                capabilities: found.capabilities(),
                lacks: found.lacks(),
            }),
            Err(e) => Err(e.to_string()),
        },
        known,
        images,
        kernels,
        firmwares,
        fixtures,
        volumes: volume_facts(spec, settings, hypervisor.as_deref().ok()),
        missing,
        host: host.facts.clone(),
        egress: host.egress.clone(),
        budget,
        timeout_scale: settings.timeout_scale,
    };
    let ours = facts.fixtures.iter().all(|(_, built)| built.is_ok())
        && facts.images.values().all(Result::is_ok)
        && facts.volumes.values().all(Result::is_ok);
    Gathered { facts, hypervisor: hypervisor.ok(), backend, may_skip: ours && !required && settings.skip_missing, held }
}

/// Plans machines that join the test's own later, with its defaults. As long as it lives, so do the run's fixture disks and images.
pub(super) fn planner(
    spec: ClusterSpec,
    networks: Vec<NetworkPlan>,
    settings: &'static Settings,
    budget: BudgetFacts,
    recorder: Arc<Recorder>,
    held: Held,
) -> Planner {
    let all = Mutex::new(held);
    Box::new(move |nodes, others, first| {
        let spec = ClusterSpec { nodes: nodes.to_vec(), ..spec.clone() };
        let Gathered { facts, held, .. } = gather(&spec, settings, budget.clone(), &Host::default(), &recorder);
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        all.disks.extend(held.disks);
        all.images.extend(held.images);
        drop(all);
        plan_more(&spec, &facts, &networks, others, first)
    })
}

/// Where the fixture disks of this process are kept, with the limit that its settings set.
///
/// # Errors
/// [`Kind::Spec`] for a wrong setting, [`Kind::Host`] when the directory cannot be made.
pub fn fixture_cache() -> Result<Cache, Error> {
    Settings::get()?.fixtures().map_err(|e| Error::new(Kind::Host, e.to_string()))
}

/// A backend as this host has it.
#[derive(Debug)]
pub struct Backend {
    /// Its name in settings and attributes.
    pub name: &'static str,
    /// Name, version and accelerator, for people, and what its machines can do; or what keeps it from running here.
    pub found: Result<(String, Capabilities), Error>,
    /// Whether `VMTEST_REQUIRE` names it, or KVM where that is what it lacks: that it cannot run here is then a failure.
    pub required: bool,
}

/// All backends that there are, here or not. Starts programs and asks the kernel; takes well under a second.
///
/// # Errors
/// [`Kind::Spec`] for a wrong setting.
pub fn backends() -> Result<Vec<Backend>, Error> {
    let settings = Settings::get()?;
    let missing = net::missing();
    let find = |name: &'static str| {
        if let Some(why) = missing.first() {
            return Err(Error::new(Kind::Missing, why.clone()));
        }
        let found = hypervisor::find(name, &settings.search)?;
        Ok((found.describe(), found.capabilities()))
    };
    let backend = |name| {
        let named = settings.require.iter().any(|required| required == name);
        match lacks_required_kvm(name, settings) {
            Some(error) => Backend { name, found: Err(error), required: true },
            None => Backend { name, found: find(name), required: named },
        }
    };
    Ok(hypervisor::NAMES.iter().map(|&name| backend(name)).collect())
}

/// How machines are to be given the kernel of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KernelForm {
    /// As the image has it.
    OfImage,
    /// As it was before it was compressed.
    Elf,
    /// As the distribution has it: one that has not asked a BIOS for the screen writes nothing there.
    Shipped,
}

/// The image, built if the cache does not have it and it shall be, with its kernel in this form; else there may be none. That of
/// then, if there is one that a run repeats, in place of the one of now.
fn find_image(
    cache: &Path,
    spec: &ImageSpec,
    then: Option<&str>,
    recorder: &Recorder,
    build: Option<KernelForm>,
) -> Result<Option<(ImageFacts, vmtest_images::Held)>, String> {
    let make = |cache: &vmtest_images::Cache| {
        let show = |what: &str, percent| Event::Image { what: what.to_owned(), percent };
        let progress = BuildProgress::new(Some(recorder), format!("image {spec}"), &show);
        vmtest_images::ensure(cache, spec, &progress)
    };
    let find = |cache: &vmtest_images::Cache| -> vmtest_images::Result<_> {
        let Some(form) = build else { return vmtest_images::find(cache, spec) };
        let mut image = match then.map(|then| cache.by_id(then)).transpose()?.flatten() {
            Some(image) => image,
            None => make(cache)?,
        };
        if image.cloud.as_ref().is_none_or(|cloud| cloud.no_kernel.is_none()) {
            image.kernel = match form {
                KernelForm::OfImage => image.kernel,
                KernelForm::Elf => vmtest_images::vmlinux(cache, &image.kernel)?,
                KernelForm::Shipped => image.shipped_kernel(),
            };
        }
        Ok(Some(image))
    };
    let found = || -> vmtest_images::Result<_> {
        let cache = vmtest_images::Cache::open(cache)?;
        // Until one is held: somebody may remove it in the moment after it was found.
        loop {
            let Some(image) = find(&cache)? else { return Ok(None) };
            if let Some(held) = image.hold()? {
                if let Some(then) = then {
                    say_which(&cache, spec, then, &image)?;
                }
                return Ok(Some((image, held)));
            }
        }
    };
    let facts = |image: vmtest_images::Image| ImageFacts {
        kernel: image.kernel,
        initramfs: image.initramfs,
        nested: image.nested,
        release: image.kernel_version,
        root: image.root.map(|root| RootFacts { path: root.disk, label: root.label }),
        memory: image.memory,
        entrypoint: image.entrypoint,
        cloud: image.cloud.map(|cloud| CloudFacts { path: cloud.disk, bytes: cloud.bytes, no_kernel: cloud.no_kernel }),
        digest: image.digest,
        arguments: image.arguments,
        login: image.login,
        ready: image.ready,
        asks_firmware: image.asks_firmware,
    };
    let found = found().map_err(|e| e.to_string())?;
    Ok(found.map(|(image, held)| (facts(image), held)))
}

/// Says which image is taken, where that of then is not the one that would be taken without it.
fn say_which(
    cache: &vmtest_images::Cache,
    spec: &ImageSpec,
    then: &str,
    taken: &vmtest_images::Image,
) -> vmtest_images::Result<()> {
    if taken.id() != then {
        say(format_args!(
            "vmtest: the image `{spec}` of then, {then}, is not in the cache any more: {} is taken",
            taken.id()
        ));
        return Ok(());
    }
    if let Some(now) = vmtest_images::find(cache, spec)?.filter(|now| now.id() != then) {
        say(format_args!("vmtest: the image `{spec}` is that of then, {then}: now it would be {}", now.id()));
    }
    Ok(())
}

/// A kernel that is kept as images are, with its modules where those have an initramfs.
fn named_kernel(found: ImageFacts) -> KernelFacts {
    let modules = Some(ModulesFacts { usual: found.initramfs, nested: found.nested });
    KernelFacts { path: found.kernel, release: found.release, modules }
}

/// The kernel at this path of the package, as it was before it was compressed or as it is.
fn kernel(cache: &Path, base: &Path, path: &Path, elf: bool) -> Result<KernelFacts, String> {
    let path = base.join(path);
    let path = std::path::absolute(&path).unwrap_or(path);
    let release = vmtest_images::kernel_release(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => format!("there is no {}", path.display()),
        _ => e.to_string(),
    })?;
    let uncompressed = || vmtest_images::vmlinux(&vmtest_images::Cache::open(cache)?, &path);
    let path = if elf { uncompressed().map_err(|e| e.to_string())? } else { path };
    Ok(KernelFacts { path, release, modules: None })
}

fn build_fixture(settings: &Settings, base: &Path, fixture: &Fixture, recorder: &Recorder) -> Result<Disk, String> {
    let show = |what: &str, percent| Event::Fixture { fixture: fixture.to_string(), what: what.to_owned(), percent };
    let progress = BuildProgress::new(Some(recorder), format!("fixture {fixture}"), &show);
    let build = || {
        let cache = settings.fixtures()?;
        fixture.clone().relative_to(base).build_with(&cache, &|percent, what| progress.step(percent, what))
    };
    build().map_err(|e| e.to_string())
}
