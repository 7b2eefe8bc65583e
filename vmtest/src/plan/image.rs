//! Which image a node has, and what follows from that.

use std::{path::Path, sync::Arc};

use vmtest_images::{ImageSpec, OwnFiles, OwnImage};

use super::{
    BackendFacts, CloudFacts, DiskPlan, Facts, ImageFacts, ROOT, RootFacts, SCRATCH, node::SEED, problems::Problems,
};
use crate::spec::{Capability, GuestImage, ImageFiles, NodeSettings};

/// The image of a node that names none.
const DEFAULT_IMAGE: &str = "micro";
/// Size of the disk on which a machine with a root file system writes, where it says nothing. It is sparse, but the lease counts
/// all of it: at 8 GiB three machines would not fit where a CI host has 14 free.
pub(super) const DEFAULT_ROOT_DISK: u64 = 2 << 30;

/// The image of a node: its own and that of the test together, with what is said of each.
pub(crate) fn image_of(own: &NodeSettings, defaults: &NodeSettings, base: &Path) -> ImageSpec {
    let asked = own.image.as_ref().or(defaults.image.as_ref());
    let named = match asked.and_then(|image| image.own()) {
        Some(image) => ImageSpec::from(made_by(image, base)),
        None => ImageSpec::from(asked.map_or(DEFAULT_IMAGE, |image| image.name())),
    };
    let prepare = own.prepare.as_ref().or(defaults.prepare.as_ref());
    let spec = ImageSpec {
        packages: defaults.packages.union(&own.packages).cloned().collect(),
        prepare: prepare.map(|program| base.join(program)),
        ..named
    };
    spec.seen_from(base)
}

/// What a type of somebody's own makes, for a package at `base`.
fn made_by(image: &Arc<dyn GuestImage>, base: &Path) -> OwnImage {
    let (make, at) = (image.clone(), base.to_owned());
    let key = image.key(base).map_err(|e| e.to_string());
    OwnImage::new(image.name(), key, move |dir, progress| {
        let ImageFiles { kernel, disk, arguments, memory, login, ready } =
            make.build(&at, dir, progress).map_err(|e| e.to_string())?;
        Ok(OwnFiles { kernel, disk, arguments, memory, login, ready })
    })
}

/// Whether a machine of this backend can run it.
pub(super) fn check(node: &str, image: &ImageSpec, backend: &BackendFacts, problems: &mut Problems) {
    if image.is_kernel() {
        problems.spec(format!("node `{node}`: `{image}` is a kernel and no image: name it in `kernel = \"..\"`"));
    }
    if !backend.capabilities.has(Capability::OwnKernel) && !image.needs_no_kernel() {
        problems.spec(format!(
            "node `{node}`: the image `{image}` has a kernel of its own, which a machine of `{}` does not have: write \
             `backend = \"qemu\"`, or take the image `{DEFAULT_IMAGE}`",
            backend.name
        ));
    }
}

/// Whether a machine of this image can be entered by, and started by, what was asked of it.
pub(super) fn check_start(
    node: &str,
    image: &ImageFacts,
    [own, defaults]: [&NodeSettings; 2],
    facts: &Facts,
    problems: &mut Problems,
) -> Option<String> {
    let of_cloud = "a cloud image, or one of your own with a disk";
    if image.cloud.is_none() && own.login.as_ref().or(defaults.login.as_ref()).is_some_and(|login| login != ROOT) {
        problems.spec(format!("node `{node}`: `login` is for {of_cloud}: this one lets in root, and nobody else"));
    }
    let no_kernel = image.cloud.as_ref().and_then(|cloud| cloud.no_kernel.as_ref());
    let Some(asked) = own.firmware.as_ref().or(defaults.firmware.as_ref()) else {
        if let Some(why) = no_kernel {
            problems.spec(format!(
                "node `{node}`: no kernel was found on the disk of its image: {why}: write `firmware = \"bios\"` or \
                 `firmware = \"uefi\"` if it has a boot loader"
            ));
        }
        return None;
    };
    if image.cloud.is_none() {
        problems.spec(format!("node `{node}`: `firmware` starts {of_cloud}: this one has no boot loader"));
    }
    let said = |said: fn(&NodeSettings) -> bool| said(own) || said(defaults);
    for (key, said) in [
        ("kernel", said(|settings| settings.kernel.is_some())),
        ("kernel_args", said(|settings| settings.kernel_args.is_some())),
    ] {
        if said {
            problems.spec(format!(
                "node `{node}`: `{key}` is for a kernel that vmtest starts, and `firmware` starts that of the disk: leave out one \
                 of the two"
            ));
        }
    }
    if let Ok(backend) = &facts.backend
        && !backend.capabilities.has(Capability::Firmware)
    {
        problems.spec(format!(
            "node `{node}`: machines of `{}` are not started by firmware: write `backend = \"qemu\"`",
            backend.name
        ));
    }
    facts.firmwares.get(asked)?.as_ref().ok().cloned()
}

/// The disk with the root file system of an image.
pub(super) fn root_disk(RootFacts { path, label }: &RootFacts) -> DiskPlan {
    DiskPlan {
        path: path.display().to_string(),
        label: label.clone(),
        at: "/".into(),
        read_only: true,
        below: None,
        volume: None,
    }
}

/// Adds to the fixtures of a machine what a cloud image has: its own disk, and what it is told. Machines of a backend that knows
/// layers write into one, the others into a copy.
pub(super) fn cloud_disks(
    fixtures: Vec<DiskPlan>,
    CloudFacts { path, .. }: &CloudFacts,
    layers: bool,
) -> Vec<DiskPlan> {
    let (name, below) = if layers { ("disk.qcow2", Some(path.display().to_string())) } else { ("disk.raw", None) };
    let path = format!("{SCRATCH}/{name}");
    let own = DiskPlan { path, label: String::new(), at: "/".into(), read_only: false, below, volume: None };
    let seed = DiskPlan {
        path: SEED.into(),
        label: "CIDATA".into(),
        at: String::new(),
        read_only: true,
        below: None,
        volume: None,
    };
    [vec![own], fixtures, vec![seed]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Failure,
        plan::{
            KernelFacts,
            cluster::tests::{backend, facts},
            plan,
        },
        spec::{ClusterSpec, FixtureSpec, NodeSpec},
    };

    fn debian(packages: &[&str]) -> ImageSpec {
        ImageSpec { packages: packages.iter().map(|&name| name.to_owned()).collect(), ..ImageSpec::from("debian-12") }
    }

    fn facts_with(image: ImageSpec) -> Facts {
        let debian = ImageFacts {
            kernel: "/cache/debian/vmlinuz".into(),
            initramfs: "/cache/debian/initramfs.cpio".into(),
            nested: "/cache/debian/nested.cpio".into(),
            release: "6.1.0-debian".into(),
            root: Some(RootFacts { path: "/cache/debian/root.ext4".into(), label: "vmtest-root".into() }),
            memory: Some(512 << 20),
            entrypoint: None,
            cloud: None,
            digest: Some("sha256:4711".to_owned()),
            arguments: String::new(),
            login: None,
            ready: None,
            asks_firmware: true,
        };
        let mut facts = facts();
        facts.images.insert(image, Ok(debian));
        facts
    }

    #[test]
    fn a_root_file_system_is_a_shared_disk_and_one_of_its_own() {
        let mut spec = ClusterSpec::new("t");
        spec.defaults.image = Some("debian-12".into());
        spec.defaults.packages.insert("curl".into());
        let fixture = FixtureSpec { fixture: "/src/schema".into(), at: Some("/scratch".into()) };
        spec.nodes = vec![NodeSpec::new("db").package("postgresql")];
        spec.nodes[0].settings.fixtures.push(fixture);
        let facts = facts_with(debian(&["curl", "postgresql"]));
        let node = plan(&spec, &facts).unwrap().nodes.remove(0);
        let disks: Vec<_> =
            node.disks.iter().map(|disk| (disk.path.as_str(), disk.at.as_str(), disk.read_only)).collect();
        assert_eq!(
            disks,
            [
                ("/cache/debian/root.ext4", "/", true),
                ("/cache/fixtures/1.ext4", "/scratch", true),
                ("scratch/disk.ext4", "/", false)
            ]
        );
        assert_eq!((node.memory, node.scratch), (512 << 20, Some(DEFAULT_ROOT_DISK)));
        assert_eq!(node.image_digest.as_deref(), Some("sha256:4711"));
        assert_eq!(node.mounted().iter().map(|disk| disk.at.as_str()).collect::<Vec<_>>(), ["/scratch"]);
        let (lower, upper) = node.root_disks().unwrap();
        assert_eq!((lower.label.as_str(), upper.read_only), ("vmtest-root", false));

        spec.nodes[0] = NodeSpec::new("db").package("postgresql").disk(1 << 30).memory(1 << 30);
        let node = plan(&spec, &facts).unwrap().nodes.remove(0);
        assert_eq!((node.memory, node.scratch), (1 << 30, Some(1 << 30)));
    }

    /// That of a cloud image of 3 GiB, on a backend with layers or without.
    fn facts_of_cloud(layers: bool) -> Facts {
        let image = ImageFacts {
            kernel: "/cache/cloud/vmlinuz".into(),
            initramfs: "/cache/cloud/initramfs.cpio".into(),
            nested: "/cache/cloud/initramfs.cpio".into(),
            release: "6.1.0-cloud".into(),
            root: None,
            memory: Some(1 << 30),
            entrypoint: None,
            digest: None,
            cloud: Some(CloudFacts { path: "/cache/cloud/disk.raw".into(), bytes: 3 << 30, no_kernel: None }),
            arguments: "root=UUID=1 rw".into(),
            login: Some("debian".into()),
            ready: Some("cloud-init status --wait".into()),
            asks_firmware: false,
        };
        let mut facts = facts();
        facts.images.insert(ImageSpec::from("cloud:/src/a.raw"), Ok(image));
        if let Ok(backend) = &mut facts.backend {
            backend.capabilities.layers = layers;
        }
        facts
    }

    fn cloud(node: NodeSpec) -> ClusterSpec {
        ClusterSpec { nodes: vec![node.image("cloud:/src/a.raw")], ..ClusterSpec::new("t") }
    }

    #[test]
    fn a_cloud_image_has_a_disk_of_its_own_and_one_that_tells_it_what_it_is() {
        let fixture = FixtureSpec { fixture: "/src/schema".into(), at: Some("/srv/schema".into()) };
        for (layers, own, below) in
            [(true, "scratch/disk.qcow2", Some("/cache/cloud/disk.raw")), (false, "scratch/disk.raw", None)]
        {
            let mut spec = cloud(NodeSpec::new("db"));
            spec.nodes[0].settings.fixtures.push(fixture.clone());
            let plan = plan(&spec, &facts_of_cloud(layers)).unwrap();
            let node = &plan.nodes[0];
            let disks: Vec<_> = node.disks.iter().map(|disk| (disk.path.as_str(), disk.read_only)).collect();
            assert_eq!(disks, [(own, false), ("/cache/fixtures/1.ext4", true), ("seed.img", true)]);
            assert_eq!(node.disks[0].below.as_deref(), below);
            assert_eq!(node.mounted().iter().map(|disk| disk.at.as_str()).collect::<Vec<_>>(), ["/srv/schema"]);
            assert_eq!((node.memory, node.scratch), (1 << 30, Some(3 << 30)));
            assert_eq!(node.scratch_disk(), Some((&node.disks[0], 3 << 30)));
            assert_eq!(node.cloud.as_deref(), Some("/cache/cloud/disk.raw"));
            assert_eq!(node.initramfs, "/cache/cloud/initramfs.cpio", "nothing is behind it");
            assert!(node.cmdline.contains(" root=UUID=1 rw"), "{}", node.cmdline);
            assert!(!node.root && plan.boot_timeout > plan.scaled(std::time::Duration::from_secs(60)));
        }
    }

    #[test]
    fn a_cloud_image_takes_a_larger_disk_and_no_other_kernel() {
        let mut facts = facts_of_cloud(true);
        let node = plan(&cloud(NodeSpec::new("db").disk(8 << 30)), &facts).unwrap().nodes.remove(0);
        assert_eq!(node.scratch, Some(8 << 30));
        let kernel = KernelFacts { path: "/src/bzImage".into(), release: "6.6".into(), modules: None };
        facts.kernels.insert("bzImage".into(), Ok(kernel));
        let wrong = cloud(NodeSpec::new("db").disk(1 << 30).kernel("bzImage"));
        let error = plan(&wrong, &facts).unwrap_err().to_string();
        assert!(error.contains("node `db`: a `disk` of 1024 MiB, but that of its image has 3072 MiB"), "{error}");
        assert!(error.contains("a cloud image has its own, which goes with its kernel, 6.1.0-cloud"), "{error}");
    }

    #[test]
    fn an_image_says_how_it_is_entered_and_a_node_says_otherwise() {
        let facts = facts_of_cloud(true);
        let planned = |node: NodeSpec| plan(&cloud(node), &facts).unwrap().nodes.remove(0);
        let node = planned(NodeSpec::new("db"));
        assert_eq!((node.login.as_deref(), node.ready.as_deref()), (Some("debian"), Some("cloud-init status --wait")));
        let node = planned(NodeSpec::new("db").login("admin").ready("true"));
        assert_eq!((node.login.as_deref(), node.ready.as_deref()), (Some("admin"), Some("true")));
        assert_eq!(planned(NodeSpec::new("db").login("root")).login, None);
        let wrong = ClusterSpec { nodes: vec![NodeSpec::new("db").login("admin")], ..ClusterSpec::new("t") };
        let error = plan(&wrong, &facts).unwrap_err().to_string();
        assert!(error.contains("node `db`: `login` is for a cloud image"), "{error}");
    }

    #[test]
    fn firmware_starts_what_has_a_boot_loader() {
        let mut facts = facts_of_cloud(true);
        let refused = |facts: &Facts, node: NodeSpec| plan(&cloud(node), facts).unwrap_err().to_string();
        facts.firmwares.insert("bios".into(), Ok("bios".into()));
        let error = refused(&facts, NodeSpec::new("db").firmware("bios"));
        assert!(error.contains("machines of `qemu` are not started by firmware"), "{error}");
        facts.backend = Ok(backend("qemu", true, &[Capability::OwnKernel, Capability::Firmware], 0));
        facts.firmwares.insert("uefi".into(), Err("there is no OVMF here".into()));
        let error = refused(&facts, NodeSpec::new("db").firmware("uefi"));
        assert!(error.contains("firmware `uefi`: there is no OVMF here"), "{error}");
        facts.firmwares.clear();
        facts.firmwares.insert("bios".into(), Ok("bios".into()));
        let error = refused(&facts, NodeSpec::new("db").firmware("bios").kernel_args("quiet"));
        assert!(error.contains("`kernel_args` is for a kernel that vmtest starts"), "{error}");
        let node = plan(&cloud(NodeSpec::new("db").firmware("bios")), &facts).unwrap().nodes.remove(0);
        assert_eq!(node.firmware.as_deref(), Some("bios"));

        if let Some(Ok(image)) = facts.images.get_mut(&ImageSpec::from("cloud:/src/a.raw"))
            && let Some(cloud) = &mut image.cloud
        {
            cloud.no_kernel = Some("it has no ext4".into());
        }
        let error = refused(&facts, NodeSpec::new("db"));
        assert!(
            error.contains("no kernel was found on the disk of its image: it has no ext4: write `firmware ="),
            "{error}"
        );
        plan(&cloud(NodeSpec::new("db").firmware("bios")), &facts).unwrap();
        let wrong = ClusterSpec { nodes: vec![NodeSpec::new("db").firmware("bios")], ..ClusterSpec::new("t") };
        let error = plan(&wrong, &facts).unwrap_err().to_string();
        assert!(error.contains("`firmware` starts a cloud image, or one of your own with a disk"), "{error}");
    }

    #[test]
    fn an_image_of_somebodys_own_is_one_with_its_name_and_its_key() {
        #[derive(Debug)]
        struct Appliance(&'static str);
        impl GuestImage for Appliance {
            fn name(&self) -> String {
                "appliance".into()
            }
            fn key(&self, base: &Path) -> Result<String, Failure> {
                Ok(format!("{} of {}", self.0, base.display()))
            }
            fn build(&self, _: &Path, _: &Path, _: &dyn Fn(u64, &str)) -> Result<ImageFiles, Failure> {
                Err(Failure::msg("nobody builds it here"))
            }
        }
        let of = |node: NodeSpec| image_of(&node.settings, &NodeSettings::default(), Path::new("/src"));
        let node = |version| NodeSpec::new("a").image(Appliance(version));
        assert_eq!(of(node("1")), of(node("1")));
        assert_ne!(of(node("1")), of(node("2")));
        assert_eq!(of(node("1")).to_string(), "own:appliance");
        let error = of(node("1").package("curl")).recipe_key().unwrap_err().to_string();
        assert!(error.contains("whoever makes it adds what it has"), "{error}");
    }

    #[test]
    fn packages_add_up_and_a_script_is_the_nodes_own() {
        let of = |own: NodeSpec, defaults: NodeSpec| image_of(&own.settings, &defaults.settings, Path::new("/src"));
        let image = of(NodeSpec::new("a").package("b"), NodeSpec::new("t").image("debian-12").package("a"));
        assert_eq!(image, debian(&["a", "b"]));
        let image = of(NodeSpec::new("a").prepare("own.sh"), NodeSpec::new("t").prepare("tests.sh"));
        assert_eq!((image.name.as_str(), image.prepare), ("micro", Some("/src/own.sh".into())));
        let image = of(NodeSpec::new("a"), NodeSpec::new("t").prepare("/abs/tests.sh"));
        assert_eq!(image.prepare, Some("/abs/tests.sh".into()));
    }

    #[test]
    fn a_debian_boots_another_kernel_with_its_modules_or_without() {
        let mut facts = facts_with(debian(&[]));
        for release in ["6.1.0-debian", "6.6.1"] {
            let kernel =
                KernelFacts { path: format!("/src/{release}").into(), release: release.to_owned(), modules: None };
            facts.kernels.insert(release.into(), Ok(kernel));
        }
        let node = |release: &str| NodeSpec::new("db").image("debian-12").kernel(release);
        let planned = |release| {
            let spec = ClusterSpec { nodes: vec![node(release)], ..ClusterSpec::new("t") };
            plan(&spec, &facts).unwrap().nodes.remove(0)
        };
        for (release, foreign) in [("6.1.0-debian", false), ("6.6.1", true)] {
            let node = planned(release);
            assert_eq!((node.kernel, node.foreign_kernel), (format!("/src/{release}"), foreign));
            assert!(node.root, "its root file system is the image's");
        }
    }

    #[test]
    fn machines_share_an_initramfs_whose_first_process_asks_the_firmware() {
        let mut facts = facts_with(debian(&[]));
        let kernel = KernelFacts { path: "/src/bzImage".into(), release: "6.1.0-debian".into(), modules: None };
        facts.kernels.insert("bzImage".into(), Ok(kernel));
        let node = || NodeSpec::new("db").image("debian-12");
        let initramfs = |facts: &Facts, node: NodeSpec| {
            let node =
                plan(&ClusterSpec { nodes: vec![node], ..ClusterSpec::new("t") }, facts).unwrap().nodes.remove(0);
            (node.initramfs, node.told)
        };
        let behind = ("initramfs".to_owned(), None);
        assert_eq!(initramfs(&facts, node()), behind, "the firmware of this backend tells nothing");
        facts.backend.as_mut().unwrap().capabilities.tells = true;
        let shared = ("/cache/debian/initramfs.cpio".to_owned(), Some("facts.cpio".to_owned()));
        assert_eq!(initramfs(&facts, node()), shared);
        assert_eq!(initramfs(&facts, node().nested(true)).0, "/cache/debian/nested.cpio");
        assert_eq!(initramfs(&facts, node().kernel("bzImage")), behind, "another kernel may have no such driver");
        facts.images.values_mut().for_each(|image| image.as_mut().unwrap().asks_firmware = false);
        assert_eq!(initramfs(&facts, node()), behind);
    }

    #[test]
    fn a_machine_without_a_kernel_runs_no_debian() {
        let mut facts = facts();
        facts.backend = Ok(backend("fake", false, &[Capability::Faults], 1 << 20));
        let spec = ClusterSpec { nodes: vec![NodeSpec::new("db").image("debian-12")], ..ClusterSpec::new("t") };
        let error = plan(&spec, &facts).unwrap_err().to_string();
        let said = "node `db`: the image `debian-12` has a kernel of its own, which a machine of `fake` does not have: write \
                    `backend = \"qemu\"`";
        assert!(error.contains(said), "{error}");
        let spec = ClusterSpec { nodes: vec![NodeSpec::new("db")], ..ClusterSpec::new("t") };
        plan(&spec, &facts).unwrap();
    }
}
