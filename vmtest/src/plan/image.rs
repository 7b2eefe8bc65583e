//! Which image a node has, and what follows from that.

use std::path::Path;

use vmtest_images::ImageSpec;

use super::{BackendFacts, DiskPlan, RootFacts, problems::Problems};
use crate::spec::{Capability, NodeSettings};

/// The image of a node that names none.
const DEFAULT_IMAGE: &str = "micro";
/// Size of the disk on which a machine with a root file system writes, where it says nothing. It is sparse, but the lease counts
/// all of it: at 8 GiB three machines would not fit where a CI host has 14 free.
pub(super) const DEFAULT_ROOT_DISK: u64 = 2 << 30;

/// The image of a node: its own and that of the test together, with what is said of each.
pub(crate) fn image_of(own: &NodeSettings, defaults: &NodeSettings, base: &Path) -> ImageSpec {
    let name = own.image.as_deref().or(defaults.image.as_deref()).unwrap_or(DEFAULT_IMAGE);
    let prepare = own.prepare.as_ref().or(defaults.prepare.as_ref());
    let spec = ImageSpec {
        name: name.to_owned(),
        packages: defaults.packages.union(&own.packages).cloned().collect(),
        prepare: prepare.map(|program| base.join(program)),
    };
    spec.seen_from(base)
}

/// Whether a machine of this backend can run it.
pub(super) fn check(node: &str, image: &ImageSpec, backend: &BackendFacts, problems: &mut Problems) {
    if !backend.capabilities.has(Capability::OwnKernel) && !image.needs_no_kernel() {
        problems.spec(format!(
            "node `{node}`: the image `{image}` has a kernel of its own, which a machine of `{}` does not have: write \
             `backend = \"qemu\"`, or take the image `{DEFAULT_IMAGE}`",
            backend.name
        ));
    }
}

/// The disk with the root file system of an image.
pub(super) fn root_disk(RootFacts { path, label }: &RootFacts) -> DiskPlan {
    DiskPlan { path: path.display().to_string(), label: label.clone(), at: "/".into(), read_only: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::{
            Facts, ImageFacts, KernelFacts,
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
        assert_eq!(node.mounted().iter().map(|disk| disk.at.as_str()).collect::<Vec<_>>(), ["/scratch"]);
        let (lower, upper) = node.root_disks().unwrap();
        assert_eq!((lower.label.as_str(), upper.read_only), ("vmtest-root", false));

        spec.nodes[0] = NodeSpec::new("db").package("postgresql").disk(1 << 30).memory(1 << 30);
        let node = plan(&spec, &facts).unwrap().nodes.remove(0);
        assert_eq!((node.memory, node.scratch), (1 << 30, Some(1 << 30)));
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
            let kernel = KernelFacts { path: format!("/src/{release}").into(), release: release.to_owned() };
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
