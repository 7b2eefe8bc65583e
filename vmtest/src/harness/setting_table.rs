//! Every setting that a user may make, in one table: for the message about a wrong name, and for the book.

use super::settings::{
    ARTIFACTS, BACKEND, BUDGET, CACHE, CACHE_LIMIT, CATALOG, CLOUD_HYPERVISOR, FIRECRACKER, HOLD, ON_MISSING, PACKETS,
    QEMU, REQUIRE, RUN, TIMEOUT_SCALE,
};
use crate::host::ROOTLESS;

/// A setting, as people read about it.
#[derive(Debug)]
pub(super) struct Row {
    /// The variable.
    pub(super) name: &'static str,
    /// What it can be.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the page of the book, which a test writes"))]
    pub(super) values: &'static str,
    /// What it is where it is not set.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the page of the book, which a test writes"))]
    pub(super) default: &'static str,
    /// What it means.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the page of the book, which a test writes"))]
    pub(super) meaning: &'static str,
}

/// All of them, by name.
pub(super) const SETTINGS: &[Row] = &[
    Row {
        name: ARTIFACTS,
        values: "a directory, or `none` to keep nothing",
        default: "`vmtest` in the target directory in which the test was built",
        meaning: "where the artifacts of tests are kept",
    },
    Row {
        name: BACKEND,
        values: "`auto`, or names separated by commas: `cloud-hypervisor`, `qemu`, `firecracker`, `fake`",
        default: "`auto`: cloud-hypervisor where KVM runs guests, else QEMU",
        meaning: "the backends of tests, the preferred one first. A test that names backends itself runs on one of those",
    },
    Row {
        name: BUDGET,
        values: "`memory=8GiB,cpus=8,disk=20GiB`, or some of these",
        default: "measured",
        meaning: "what the machines of all tests of this user may take together",
    },
    Row {
        name: CACHE,
        values: "a directory",
        default: "`$XDG_CACHE_HOME/vmtest`, else `~/.cache/vmtest`",
        meaning: "where images, fixture disks, volumes, fetched VMMs and the scratch disks of runs are",
    },
    Row {
        name: CACHE_LIMIT,
        values: "a size with a unit",
        default: "`10GiB`",
        meaning: "how much of the host's disk fixture disks may take together; those that no live test has go first",
    },
    Row {
        name: CATALOG,
        values: "a file",
        default: "none",
        meaning: "the catalog of your own, whose images come before ours: `cloud:` and a name \
                  ([Images](../guide/images.md#images-by-name))",
    },
    Row {
        name: CLOUD_HYPERVISOR,
        values: "a path",
        default: "from PATH, then what `cargo vmtest install` has fetched",
        meaning: "the program of that backend",
    },
    Row { name: FIRECRACKER, values: "a path", default: "from PATH", meaning: "the program of that backend" },
    Row {
        name: HOLD,
        values: "`never`, `failed`, `always`",
        default: "only what a body holds with `Cluster::hold`",
        meaning: "which clusters are kept when their bodies have ended, until somebody lets them go; `never` keeps none, not \
                  even for `Cluster::hold`",
    },
    Row {
        name: ON_MISSING,
        values: "`fail`, `skip`",
        default: "`fail`",
        meaning: "what becomes of a test whose host lacks something that it needs: a VMM, KVM, `/dev/net/tun`, a right, memory. \
                  A test that is skipped says so on standard error, past libtest's capture, and `cargo vmtest test` lists them \
                  in the end; libtest and nextest call them passed, but for a \
                  binary without libtest ([CI](../guide/ci.md)). Images and fixtures that cannot be made, and clusters that \
                  are asked for in code, fail all the same",
    },
    Row {
        name: PACKETS,
        values: "a size with a unit",
        default: "none",
        meaning: "how much of the last packets of each machine is kept in memory, and saved when its test fails: \
                  `nodes/<name>/packets.pcapng`, for Wireshark",
    },
    Row { name: QEMU, values: "a path", default: "from PATH", meaning: "the program of that backend" },
    Row {
        name: REQUIRE,
        values: "names of backends, `kvm`, separated by commas",
        default: "none",
        meaning: "backends that must be able to run here: a test that would be passed on to another one, or skipped, fails. With \
                  `kvm`, KVM must run guests here, or all tests but those on fake machines fail",
    },
    Row {
        name: ROOTLESS,
        values: "`on`, `off`",
        default: "`on`",
        meaning: "whether a process that may not make networks becomes the root of a user namespace; with `off` its tests fail \
                  where that takes root",
    },
    Row {
        name: RUN,
        values: "a directory",
        default: "`$XDG_RUNTIME_DIR/vmtest`, else `/tmp/vmtest-<uid>`",
        meaning: "where run directories are made",
    },
    Row {
        name: TIMEOUT_SCALE,
        values: "a number above 0",
        default: "`1`",
        meaning: "multiplies every timeout; under emulation they are four times as long already",
    },
];

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    #[test]
    fn the_page_of_the_book_is_that_of_the_table() {
        let rows = SETTINGS
            .iter()
            .map(|Row { name, values, default, meaning }| format!("| `{name}` | {values} | {default} | {meaning} |\n"));
        let page = format!(
            "# Settings\n\n\
             <!-- Written by a test: see the end of this page. -->\n\n\
             Environment variables, read once by each process. An unknown name that begins with `VMTEST_`, or a wrong value, fails \
             every test with the valid ones. Names that begin with `VMTEST_INTERNAL_` belong to vmtest's own tests and \
             commands.\n\n\
             | variable | values | where it is not set | meaning |\n|---|---|---|---|\n{}\n---\n\n\
             This page is made of the table from which settings are read by a test in `vmtest/src/harness/setting_table.rs`, \
             which fails when they differ; `UPDATE_EXPECT=1` writes it anew.\n",
            rows.collect::<String>()
        );
        expect_file!["../../../docs/reference/settings.md"].assert_eq(&page);
    }
}
