//! `cargo vmtest nextest-config`: what a runner should know of tests before it starts them.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use vmtest::{
    harness::{Capacity, capacity},
    spec::Resources,
};

use super::{
    declared::{FAKE, Source, Test},
    filter::filter,
    output::{line, print},
};

/// By which a file is known to be ours.
const MARK: &str = "# Written by `cargo vmtest nextest-config`";
/// Names of a tool's file begin so.
const GROUP: &str = "@tool:vmtest:machines";
/// Images that are made, and shares of the host that other runs have: neither counts against a test's own timeout.
const SPARE: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write it into this file, which must not be there or be an earlier one of this command; without, print it.
    #[arg(long)]
    output: Option<PathBuf>,
    /// How many threads nextest has for machines; without, as many as CPUs that they may take here.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    #[command(flatten)]
    source: Source,
}

/// Prints or writes the file for `--tool-config-file vmtest:<file>`.
pub(crate) fn run(options: &Options) -> Result<ExitCode, String> {
    if let Some(path) = &options.output {
        check_ours(path)?;
    }
    let tests = options.source.list()?;
    let text = render(&tests, &this_host()?, options.threads);
    match &options.output {
        None => print(text),
        Some(path) => {
            fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            line(format_args!("cargo nextest run --tool-config-file vmtest:{}", path.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The file for tests that run here.
///
/// # Errors
/// That this host cannot be measured.
pub(crate) fn of_this_host(tests: &[Test]) -> Result<String, String> {
    Ok(render(tests, &this_host()?, None))
}

fn this_host() -> Result<Capacity, String> {
    capacity().map_err(|e| e.to_string())
}

fn check_ours(path: &Path) -> Result<(), String> {
    match fs::read_to_string(path) {
        Ok(text) if !text.starts_with(MARK) => Err(format!(
            "{} was not written by this command: give another file, since nextest reads yours beside it, and yours goes \
             before",
            path.display()
        )),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(format!("cannot read {}: {e}", path.display())),
    }
}

/// What nextest is told of a test. Those of which it is the same are in one override.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Class {
    /// How many threads it takes of those for machines; `None` for one on machines that take nothing to speak of.
    threads: Option<u32>,
    /// In milliseconds, after which it is slow.
    timeout: u64,
}

fn render(tests: &[Test], capacity: &Capacity, threads: Option<u32>) -> String {
    let threads = threads.unwrap_or(capacity.whole.cpus).max(1);
    let memory = (capacity.whole.memory / u64::from(threads)).max(1);
    let mut classes: BTreeMap<Class, Vec<&Test>> = BTreeMap::new();
    for test in tests {
        let timeout = Duration::from_millis(test.declared.timeout).mul_f64(capacity.timeout_scale);
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        let only_fake = !test.declared.backends.is_empty() && test.declared.backends.iter().all(|name| name == FAKE);
        let class = Class { threads: (!only_fake).then(|| weight(test.declared.takes, threads, memory)), timeout };
        classes.entry(class).or_default().push(test);
    }
    let mib = memory >> 20;
    let mut text = format!(
        "{MARK} from what the tests declare: write it again when they change.
# Use it with `--tool-config-file vmtest:<this file>`. What .config/nextest.toml says goes before it.

# Tests that need machines wait for each other here, as far as they would for this host's share, so that the clock of nextest
# does not run while they wait.
[test-groups]
'{GROUP}' = {{ max-threads = {threads} }}
"
    );
    for (Class { threads, timeout }, tests) in classes {
        let filter = filter(tests);
        let period = Duration::from_millis(timeout);
        // A test ends itself when its time is over, with all that it knows, so this is for one that cannot.
        let most = period.mul_f64(capacity.slowest) + SPARE;
        let periods = most.as_secs_f64() / period.as_secs_f64();
        let (seconds, periods) = (period.as_secs_f64().ceil(), periods.ceil());
        // Writing to a string does not fail.
        _ = write!(text, "\n[[profile.default.overrides]]\nfilter = '''{filter}'''\n");
        if let Some(threads) = threads {
            _ = write!(
                text,
                "# One thread is a CPU, or {mib} MiB of memory.\nthreads-required = {threads}\ntest-group = '{GROUP}'\n"
            );
        }
        _ = writeln!(text, "slow-timeout = {{ period = \"{seconds}s\", terminate-after = {periods} }}");
    }
    text
}

/// How many threads a test takes: one more than there are would keep it from running beside nothing at all.
fn weight(takes: Resources, threads: u32, memory: u64) -> u32 {
    let by_memory = u32::try_from(takes.memory.div_ceil(memory)).unwrap_or(u32::MAX);
    takes.cpus.max(by_memory).clamp(1, threads)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::declared::examples::test;
    use super::*;

    fn host() -> Capacity {
        Capacity { whole: Resources { memory: 8 << 30, cpus: 4, disk: 1 << 40 }, timeout_scale: 1.0, slowest: 4.0 }
    }

    #[test]
    fn weights_groups_and_timeouts_follow_what_tests_declare() {
        let mut long = test("web::faults", "long", 2, &["qemu"]);
        long.declared.timeout = 600_000;
        let tests = [
            test("web", "boots", 1, &[]),
            test("web::faults", "elects", 3, &["qemu", "fake"]),
            test("web::faults", "late", 3, &[]),
            test("web::faults", "scripted", 3, &["fake"]),
            long,
        ];
        expect![[r##"
            # Written by `cargo vmtest nextest-config` from what the tests declare: write it again when they change.
            # Use it with `--tool-config-file vmtest:<this file>`. What .config/nextest.toml says goes before it.

            # Tests that need machines wait for each other here, as far as they would for this host's share, so that the clock of nextest
            # does not run while they wait.
            [test-groups]
            '@tool:vmtest:machines' = { max-threads = 4 }

            [[profile.default.overrides]]
            filter = '''binary_id(=web::faults) & test(/^(scripted)(::|$)/)'''
            slow-timeout = { period = "120s", terminate-after = 9 }

            [[profile.default.overrides]]
            filter = '''binary_id(=web) & test(/^(boots)(::|$)/)'''
            # One thread is a CPU, or 2048 MiB of memory.
            threads-required = 1
            test-group = '@tool:vmtest:machines'
            slow-timeout = { period = "120s", terminate-after = 9 }

            [[profile.default.overrides]]
            filter = '''binary_id(=web::faults) & test(/^(long)(::|$)/)'''
            # One thread is a CPU, or 2048 MiB of memory.
            threads-required = 2
            test-group = '@tool:vmtest:machines'
            slow-timeout = { period = "600s", terminate-after = 5 }

            [[profile.default.overrides]]
            filter = '''binary_id(=web::faults) & test(/^(elects|late)(::|$)/)'''
            # One thread is a CPU, or 2048 MiB of memory.
            threads-required = 3
            test-group = '@tool:vmtest:machines'
            slow-timeout = { period = "120s", terminate-after = 9 }
        "##]]
        .assert_eq(&render(&tests, &host(), None));
    }

    #[test]
    fn memory_weighs_too_and_nothing_weighs_more_than_all() {
        let memory = |memory| Resources { memory, cpus: 1, disk: 0 };
        assert_eq!(weight(memory(5 << 30), 4, 2 << 30), 3);
        assert_eq!(weight(memory(50 << 30), 4, 2 << 30), 4);
        assert_eq!(weight(Resources::NONE, 4, 2 << 30), 1);
    }

    #[test]
    fn a_file_of_somebody_else_is_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "[profile.default]\n").unwrap();
        assert!(check_ours(file.path()).unwrap_err().contains("was not written by this command"));
        fs::write(file.path(), render(&[], &host(), None)).unwrap();
        check_ours(file.path()).unwrap();
        check_ours(Path::new("/nonexistent/file")).unwrap();
    }
}
