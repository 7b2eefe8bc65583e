//! What a test declares, for programs that plan runs: `cargo vmtest list`, `nextest-config`, `matrix` and `up`.

use std::{
    collections::BTreeSet,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use vmtest_images::ImageSpec;

use super::{
    case::TestCase,
    registry::{LIST, LISTED, MAKERS, Maker},
};
use crate::{
    plan::{DEFAULT_TIMEOUT, asked_resources, image_of},
    spec::{Capability, NetworkPlace, Resources},
};

/// What a test declares in its attribute and its signature, with the defaults for what it does not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Its path, as libtest shows it. Cases that another attribute makes of it have paths below.
    pub path: String,
    /// The source file, as the compiler was given it.
    pub file: PathBuf,
    /// Its line there.
    pub line: u32,
    /// How many machines it has from the start.
    pub nodes: usize,
    /// What all of these, and those for which it keeps room, are given: of what a backend needs beside that, nothing is
    /// known here.
    pub takes: Resources,
    /// The limit of boot and body together in milliseconds, before it is scaled.
    pub timeout: u64,
    /// The backends that may run it, in order of preference; without, the settings decide, and never for the fake one.
    pub backends: Vec<String>,
    /// The images of its machines; one that has no machines from the start has the image of those that join.
    pub images: BTreeSet<ImageSpec>,
    /// What a backend must be able to do for it.
    pub requires: BTreeSet<Capability>,
    /// Where its network is.
    pub place: NetworkPlace,
}

impl Declared {
    /// What this test declares. Calls `declare` of the types of its parameters, which may be the author's.
    pub(super) fn of(test: &TestCase) -> Self {
        let spec = test.spec();
        let settings = spec.nodes.iter().map(|node| &node.settings);
        let mut images: BTreeSet<_> = settings.map(|node| image_of(node, &spec.defaults, &spec.base)).collect();
        if images.is_empty() {
            images.insert(image_of(&spec.defaults, &spec.defaults, &spec.base));
        }
        let timeout = spec.timeout.unwrap_or(DEFAULT_TIMEOUT);
        Self {
            path: test.path(),
            file: test.file.into(),
            line: test.line,
            nodes: spec.nodes.len(),
            takes: asked_resources(&spec),
            timeout: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            images,
            backends: spec.backends,
            requires: spec.requires,
            place: spec.place,
        }
    }
}

/// Does what [`LIST`] says, if it is set.
pub(super) fn list_if_asked() {
    if std::env::var_os(LIST).is_none() {
        return;
    }
    let tests = MAKERS.iter().filter_map(|maker| match maker {
        Maker::Test(test) => Some(*test),
        Maker::Code(_) => None,
    });
    let line = |test| {
        let declared = serde_json::to_string(&Declared::of(test)).expect("a declaration is plain data");
        format!("{LISTED}{declared}\n")
    };
    // What an author's own types declare may panic, which must not unwind into what runs before `main`.
    let Ok(listed) = catch_unwind(AssertUnwindSafe(|| tests.map(line).collect::<String>())) else {
        std::process::exit(1);
    };
    // Whoever asked has gone when it cannot be written.
    let written = std::io::stdout().write_all(listed.as_bytes());
    std::process::exit(i32::from(written.is_err()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::{Setting, TestCase};

    const TEST: TestCase = TestCase {
        module: "web::faults",
        name: "late",
        file: "tests/web.rs",
        line: 7,
        package: "vmtest",
        manifest_dir: env!("CARGO_MANIFEST_DIR"),
        options: &[
            Setting::Nodes(2),
            Setting::Cpus(2),
            Setting::Image("debian-12"),
            Setting::Backend("qemu, cloud-hypervisor"),
            Setting::Budget { nodes: 1, memory: Some(64 << 20), cpus: None, disk: None },
        ],
        params: &[],
    };

    #[test]
    fn defaults_are_filled_in() {
        let declared = Declared::of(&TEST);
        assert_eq!((declared.path.as_str(), declared.nodes, declared.timeout), ("faults::late", 2, 120_000));
        assert_eq!(declared.backends, ["qemu", "cloud-hypervisor"]);
        assert_eq!(declared.images, ["debian-12".into()].into());
        let (memory, disk) = ((2 * 512 + 64) << 20, 3 * (2 << 30));
        assert_eq!(declared.takes, Resources { memory, cpus: 6, disk });
        let json = serde_json::to_string(&declared).unwrap();
        assert_eq!(serde_json::from_str::<Declared>(&json).unwrap(), declared);
    }

    #[test]
    fn a_test_without_machines_has_the_image_of_those_that_join() {
        let declared = Declared::of(&TestCase { options: &[], ..TEST });
        assert_eq!((declared.nodes, declared.takes), (0, Resources::NONE));
        assert_eq!(declared.images, ["micro".into()].into());
    }
}
