//! The table of keys: what exists, where it may stand, how it is written and what it becomes.

use std::fmt;

use syn::LitStr;

use crate::setting::Setting;

/// Where an attribute stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// `#[vm_test(..)]`: for the test, and the default of all its nodes.
    Test,
    /// `#[node(..)]` on a parameter: for that node alone.
    Node,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Test => "the test",
            Self::Node => "a node",
        })
    }
}

/// How a value is written, and the setting that it becomes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    Text(fn(LitStr) -> Setting),
    /// A string; on the test also strings in brackets, which make one test each, with this word in its name.
    Choice(fn(LitStr) -> Setting, &'static str),
    /// The same, or the path of a function.
    Image,
    /// `true` or `false`.
    Flag(fn(bool) -> Setting),
    /// A whole number, at least 1.
    Count(fn(u32) -> Setting),
    /// A string with a unit; bytes.
    Size(fn(u64) -> Setting),
    /// A string with a unit; bits a second.
    Rate(fn(u64) -> Setting),
    /// A string with units; milliseconds.
    Duration(fn(u64) -> Setting),
    /// An IPv4 address in a string.
    Ip(fn([u8; 4]) -> Setting),
    /// A hardware address in a string.
    Mac(fn([u8; 6]) -> Setting),
    /// `fixture("dir", at = "..", label = "..")`, any number of times.
    Fixture,
    /// `volume("name", at = "..", size = "..", access = "..")`, any number of times; the last is one of [`ACCESS`].
    Volume,
    /// `network("name", ip = "..", mac = "..")`, any number of times; on the test also one of [`PLACES`], once.
    Network,
    /// `packages("..", "..")`: strings in parentheses, any number of times; a setting for each.
    Texts(fn(LitStr) -> Setting),
    /// `allow("..", "..")`: strings in parentheses, each the first of one of these pairs; the second is the variant of
    /// `vmtest::__private::Allow`.
    Allow(&'static [(&'static str, &'static str)]),
    /// `requires(a, b)`: names in parentheses, each one of [`CAPABILITIES`].
    Requires,
    /// `budget(nodes = 3, memory = "..", cpus = 2, disk = "..")`, of which only `nodes` is needed, and the phases of
    /// [`PHASES`] with durations, with it or without.
    Budget,
    /// The path of this library, for crates that rename or wrap it.
    Crate,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) places: &'static [Place],
    pub(crate) form: Form,
    /// How it is written, for messages.
    pub(crate) example: &'static str,
}

const ANYWHERE: &[Place] = &[Place::Test, Place::Node];
const TEST: &[Place] = &[Place::Test];
const NODE: &[Place] = &[Place::Node];

/// What can be allowed, with the variant that it becomes.
const ALLOWED: &[(&str, &str)] = &[
    ("task-panic", "TaskPanic"),
    ("oops", "Oops"),
    ("bug", "Bug"),
    ("lockup", "Lockup"),
    ("hung-task", "HungTask"),
    ("oom", "Oom"),
    ("filesystem-error", "FilesystemError"),
    ("segfault", "Segfault"),
];

/// What can be required of a backend, with the variant of `vmtest::__private::Capability`. A new one is a row here and one
/// in the table of `vmtest::spec::Capability`.
pub const CAPABILITIES: &[(&str, &str)] = &[
    ("own_kernel", "OwnKernel"),
    ("faults", "Faults"),
    ("nested", "Nested"),
    ("vsock", "Vsock"),
    ("snapshot", "Snapshot"),
    ("resize", "Resize"),
    ("disk_rate", "DiskRate"),
    ("hotplug", "Hotplug"),
    ("panic_device", "PanicDevice"),
    ("screenshot", "Screenshot"),
    ("firmware", "Firmware"),
];

/// The phases of a test inside `budget(..)`. A new one is a row here and one in `vmtest::spec::TimedPhase`.
pub(crate) const PHASES: &[Key] = &[
    phase("plan", Form::Duration(|ms| Setting::PhaseBudget("Plan", ms)), r#"plan = "2m""#),
    phase("lease", Form::Duration(|ms| Setting::PhaseBudget("Lease", ms)), r#"lease = "10m""#),
    phase("network", Form::Duration(|ms| Setting::PhaseBudget("Network", ms)), r#"network = "1s""#),
    phase("boot", Form::Duration(|ms| Setting::PhaseBudget("Boot", ms)), r#"boot = "20s""#),
    phase("body", Form::Duration(|ms| Setting::PhaseBudget("Body", ms)), r#"body = "10s""#),
    phase("teardown", Form::Duration(|ms| Setting::PhaseBudget("Teardown", ms)), r#"teardown = "2s""#),
];

const fn phase(name: &'static str, form: Form, example: &'static str) -> Key {
    Key { name, places: TEST, form, example }
}

/// Where a network can be, with the variant that it becomes.
pub(crate) const PLACES: &[(&str, &str)] = &[("own", "Own"), ("host", "Host")];

/// How a machine has a volume, and whether it only reads it then.
pub(crate) const ACCESS: &[(&str, bool)] = &[("read-write", false), ("read-only", true)];

/// Every key, in the order in which messages list them.
pub(crate) const KEYS: &[Key] = &[
    Key { name: "image", places: ANYWHERE, form: Form::Image, example: r#"image = "micro""# },
    Key {
        name: "packages",
        places: ANYWHERE,
        form: Form::Texts(Setting::Package),
        example: r#"packages("etcd-server", "curl")"#,
    },
    Key {
        name: "prepare",
        places: ANYWHERE,
        form: Form::Text(Setting::Prepare),
        example: r#"prepare = "tests/data/setup.sh""#,
    },
    Key { name: "login", places: ANYWHERE, form: Form::Text(Setting::Login), example: r#"login = "debian""# },
    Key {
        name: "ready",
        places: ANYWHERE,
        form: Form::Text(Setting::Ready),
        example: r#"ready = "cloud-init status --wait""#,
    },
    Key { name: "firmware", places: ANYWHERE, form: Form::Text(Setting::Firmware), example: r#"firmware = "uefi""# },
    Key { name: "cpus", places: ANYWHERE, form: Form::Count(Setting::Cpus), example: "cpus = 2" },
    Key { name: "max_cpus", places: ANYWHERE, form: Form::Count(Setting::MaxCpus), example: "max_cpus = 4" },
    Key { name: "memory", places: ANYWHERE, form: Form::Size(Setting::Memory), example: r#"memory = "512MiB""# },
    Key {
        name: "max_memory",
        places: ANYWHERE,
        form: Form::Size(Setting::MaxMemory),
        example: r#"max_memory = "1GiB""#,
    },
    Key { name: "disk", places: ANYWHERE, form: Form::Size(Setting::Disk), example: r#"disk = "8GiB""# },
    Key { name: "disk_rate", places: ANYWHERE, form: Form::Size(Setting::DiskRate), example: r#"disk_rate = "10MiB""# },
    Key { name: "disk_iops", places: ANYWHERE, form: Form::Count(Setting::DiskIops), example: "disk_iops = 500" },
    Key { name: "fixture", places: ANYWHERE, form: Form::Fixture, example: r#"fixture("tests/data", at = "/srv")"# },
    Key {
        name: "volume",
        places: ANYWHERE,
        form: Form::Volume,
        example: r#"volume("pgdata", at = "/srv", size = "4GiB")"#,
    },
    Key {
        name: "kernel",
        places: ANYWHERE,
        form: Form::Choice(Setting::Kernel, "with_kernel"),
        example: r#"kernel = "tests/bzImage""#,
    },
    Key {
        name: "kernel_args",
        places: ANYWHERE,
        form: Form::Text(Setting::KernelArgs),
        example: r#"kernel_args = "quota=off""#,
    },
    Key { name: "nested", places: ANYWHERE, form: Form::Flag(Setting::Nested), example: "nested = true" },
    Key { name: "rate", places: ANYWHERE, form: Form::Rate(Setting::Rate), example: r#"rate = "10Mbit""# },
    Key { name: "ip", places: NODE, form: Form::Ip(Setting::Ip), example: r#"ip = "10.77.0.50""# },
    Key { name: "mac", places: NODE, form: Form::Mac(Setting::Mac), example: r#"mac = "52:54:00:00:00:50""# },
    Key { name: "network", places: ANYWHERE, form: Form::Network, example: r#"network("front")"# },
    Key { name: "nodes", places: TEST, form: Form::Count(Setting::Nodes), example: "nodes = 3" },
    Key { name: "mtu", places: TEST, form: Form::Count(Setting::Mtu), example: "mtu = 1400" },
    Key { name: "egress", places: TEST, form: Form::Flag(Setting::Egress), example: "egress = true" },
    Key { name: "timeout", places: TEST, form: Form::Duration(Setting::Timeout), example: r#"timeout = "3m""# },
    Key { name: "backend", places: TEST, form: Form::Choice(Setting::Backend, "on"), example: r#"backend = "qemu""# },
    Key { name: "requires", places: TEST, form: Form::Requires, example: "requires(nested)" },
    Key { name: "budget", places: TEST, form: Form::Budget, example: "budget(nodes = 3)" },
    Key { name: "allow", places: TEST, form: Form::Allow(ALLOWED), example: r#"allow("task-panic")"# },
    Key { name: "crate", places: TEST, form: Form::Crate, example: r#"crate = "::vmtest""# },
];

impl Key {
    pub(crate) fn is_valid_on(&self, place: Place) -> bool {
        self.places.contains(&place)
    }

    /// Whether it may be given more than once in the same place.
    pub(crate) fn is_repeatable(&self) -> bool {
        matches!(self.form, Form::Fixture | Form::Volume | Form::Network | Form::Texts(_))
    }
}

/// The key of that name, or the text that says what could have been meant.
pub(crate) fn find(name: &str, place: Place) -> Result<&'static Key, String> {
    let Some(key) = KEYS.iter().find(|key| key.name == name) else {
        let valid: Vec<&str> = KEYS.iter().filter(|key| key.is_valid_on(place)).map(|key| key.name).collect();
        return Err(unknown(name, &place.to_string(), &valid));
    };
    if key.is_valid_on(place) {
        return Ok(key);
    }
    Err(match place {
        Place::Node => format!("`{name}` belongs on the test, not on {place}: write `#[vm_test({})]`", key.example),
        Place::Test => {
            format!("`{name}` belongs on a node, not on {place}: write `#[node({})]` before its parameter", key.example)
        }
    })
}

/// The text for a key that `place` does not take.
pub(crate) fn unknown(name: &str, place: &str, valid: &[&str]) -> String {
    let keys: Vec<String> = valid.iter().map(|key| format!("`{key}`")).collect();
    format!("unknown key `{name}`{}\n{place} takes {}", hint(name, valid), keys.join(", "))
}

/// The text for a value that `key` does not take.
pub(crate) fn unknown_value(value: &str, key: &str, valid: &[&str]) -> String {
    let values: Vec<String> = valid.iter().map(|value| format!("`{value}`")).collect();
    format!("`{key}` does not take `{value}`{}\n`{key}` takes {}", hint(value, valid), values.join(", "))
}

/// The nearest of the valid names, as part of a sentence; empty if none is near.
fn hint(name: &str, valid: &[&str]) -> String {
    // One slip in a short word, two in most, more only in long ones: beyond that the guess is noise.
    let tolerated = name.len().div_ceil(3);
    valid
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= tolerated)
        .min_by_key(|(distance, _)| *distance)
        .map_or_else(String::new, |(_, nearest)| format!(", did you mean `{nearest}`?"))
}

#[cfg(test)]
mod tests {
    use super::{CAPABILITIES, KEYS, hint};

    #[test]
    fn only_a_near_key_is_proposed() {
        let valid: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(hint("memroy", &valid), ", did you mean `memory`?");
        assert_eq!(hint("cpu", &valid), ", did you mean `cpus`?");
        assert_eq!(hint("kernelargs", &valid), ", did you mean `kernel_args`?");
        assert_eq!(hint("weather", &valid), "");
    }

    #[test]
    fn the_page_for_users_has_every_key() {
        let page = include_str!("vm_test.md");
        for key in KEYS {
            assert!(page.contains(&format!("| `{}` |", key.name)), "`{}` is missing from vm_test.md", key.name);
            assert!(page.contains(key.example), "the example of `{}` is missing from vm_test.md", key.name);
        }
        for phase in super::PHASES {
            let row = format!("| `{}` | `{}` |", phase.name, phase.example);
            assert!(page.contains(&row), "`{}` is missing from vm_test.md", phase.name);
        }
        for (name, _) in CAPABILITIES {
            assert!(page.contains(&format!("| `requires({name})` |")), "`{name}` is missing from vm_test.md");
        }
    }
}
