//! The `cargo vmtest` command.

mod bench;
mod binaries;
mod cache_key;
mod cargo;
mod catalog;
mod completions;
mod console;
mod cp;
mod declared;
mod demo;
mod doctor;
mod filter;
mod fixture;
mod hold;
mod image;
mod install;
mod lab;
mod last_use;
mod list;
mod ls;
mod matrix;
mod meant;
mod nextest_config;
mod output;
mod prune;
#[cfg(test)]
mod reference;
mod report;
mod repro;
mod shard;
mod ssh;
mod suite;
mod target;
mod up;
mod volume;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use install::Purpose;

use super::VERSION;

const EXIT_CODES: &str =
    "Exit codes: 0 success, 1 failure, 2 wrong usage. `test`, `lab`, `up`, `repro`, `shard` and `ssh` pass on the exit code of what they run.

Runs are named by their id or test, machines by `run/node` or `node`; a unique part is enough.";

/// Tests on real Linux machines.
#[derive(Parser)]
#[command(name = "cargo vmtest", bin_name = "cargo vmtest", version = VERSION, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot three machines, let them talk, and remove them.
    Demo {
        #[command(flatten)]
        install: Install,
        /// Print the events of the run as JSON lines instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Run the tests of the workspace.
    Test {
        #[command(flatten)]
        install: Install,
        /// What runs them. nextest is told what the tests declare, as `nextest-config` writes it, unless some were chosen.
        #[arg(long, value_enum, default_value_t = suite::Runner::Auto)]
        runner: suite::Runner,
        /// Arguments for `cargo nextest run` or `cargo test`, as `--no-fail-fast`, `--test web` or a name. Without
        /// packages among them, those of the whole workspace are meant.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure: boots beside bare VMMs, commands and copies beside OpenSSH, our own memory, network and teardown.
    Bench {
        #[command(flatten)]
        install: Install,
        /// Print the figures as JSON.
        #[arg(long)]
        json: bool,
        /// How many pairs of each.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        pairs: u32,
        /// Measure only this.
        #[arg(long, value_enum)]
        only: Option<bench::Part>,
        /// Measure in place of all that what it costs these tests that artifacts are kept of them. They are given behind `--`
        /// as to `cargo test`, with a second `--` before what is for the test binaries, and run on fakes unless VMTEST_BACKEND
        /// says otherwise.
        #[arg(last = true, conflicts_with = "only")]
        tests: Vec<String>,
    },
    /// Make fixture disks, and look into them.
    #[command(subcommand)]
    Fixture(fixture::Command),
    /// Make guest images before a test wants them.
    #[command(subcommand)]
    Image(image::Command),
    /// Look at the disks that tests keep from one run to the next, and remove some.
    #[command(subcommand)]
    Volume(volume::Command),
    /// Run a program, such as a test binary, on a machine that can run machines itself: with a /dev/kvm that works, whatever
    /// this host has. As a runner of Cargo, `cargo vmtest lab --` runs a whole suite there.
    Lab {
        #[command(flatten)]
        install: Install,
        #[command(flatten)]
        options: lab::Options,
    },
    /// Fetch a VMM for the tests of this user: its SHA-256 is checked, and it is used where none is on PATH. Tests themselves
    /// never fetch any.
    Install {
        /// Which VMM.
        #[arg(value_enum)]
        program: install::Vmm,
        /// Where to get it from, in place of the project's own release page: the same file, or that of --sha256.
        #[arg(long)]
        url: Option<String>,
        /// What its SHA-256 must be, where it is another release.
        #[arg(long, requires = "url")]
        sha256: Option<String>,
    },
    /// Show the tests that make clusters, with what they declare.
    List {
        /// Print them as JSON, for `--tests` of other commands.
        #[arg(long)]
        json: bool,
        /// Arguments for `cargo test` that say what is built; without, `--workspace`.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Print the jobs of a CI run: backends by images by shards.
    Matrix(matrix::Options),
    /// Write a configuration of nextest from what the tests declare: weights, a group for those that need machines, and the
    /// time after which they are slow.
    NextestConfig(nextest_config::Options),
    /// Run one machine's part of the tests of an archive of nextest, which needs neither Cargo nor a compiler; `report` puts
    /// together what all of them have kept.
    Shard(shard::Options),
    /// Print a name for what a CI keeps of the cache: it changes when one of these images is made in another way.
    CacheKey {
        /// The images that the tests use.
        #[arg(default_value = "micro")]
        images: Vec<String>,
    },
    /// Make the cluster that a test declares, and hold it in place of running the body.
    Up {
        /// The test's path, its end or a unique part of it; `binary/test` where several binaries have it.
        test: String,
        /// Arguments for `cargo test` that say what is built; without, `--workspace`.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Show the runs of now with their machines.
    Ls {
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Log in to a machine, or run a command there.
    Ssh {
        /// Give the command a terminal.
        #[arg(short = 't', long)]
        terminal: bool,
        /// The machine.
        node: String,
        /// What to run there; without, a shell.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Print entries for the configuration of OpenSSH, for other tools that log in: rsync, ansible, an editor.
    SshConfig {
        /// The run; without, all.
        run: Option<String>,
    },
    /// Make standard input and output a connection to a port of a machine; `ssh` uses it as its ProxyCommand.
    Connect {
        /// The directory of the run; without, the machine's name says which run.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The machine.
        node: String,
        /// Its TCP port.
        port: u16,
    },
    /// Print what a machine's serial console has shown.
    Console {
        /// Go on with what it shows from now on, until the machine ends.
        #[arg(short, long)]
        follow: bool,
        /// The machine.
        node: String,
    },
    /// Print what VMMs and consoles have said.
    Logs {
        /// A machine or a run; without, the only run.
        name: Option<String>,
    },
    /// Copy a file or a directory from or to a machine, with modes and links.
    Cp {
        /// What to copy: a path here, or `node:path`.
        from: String,
        /// Where to: `node:path`, or a path here. One that ends in `/` keeps the name.
        to: String,
    },
    /// Keep the cluster of a test that runs when its body has ended.
    Hold {
        /// The run; without, the only one.
        run: Option<String>,
    },
    /// Let a test go on whose cluster is held.
    Resume {
        /// The run; without, the only one.
        run: Option<String>,
    },
    /// End a run: a hold ends, and a test whose body runs fails. Returns when nothing of it is left.
    Down {
        /// The run; without, the only one.
        run: Option<String>,
        /// All runs.
        #[arg(long, conflicts_with = "run")]
        all: bool,
    },
    /// Look at everything that tests need from this host, and say what to do about what is missing.
    Doctor {
        /// Install the packages that are missing first (Debian and Ubuntu; as root).
        #[arg(long)]
        fix: bool,
        /// Print what was found as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Remove what killed runs left behind; live runs are never touched.
    Prune {
        /// Say what would be removed, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Print what there was as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what is kept of tests: a page for each, which opens at the first cause of its failure, and an index.
    Report {
        /// The directory of one attempt, of many, or of what several machines have kept, each in a directory of its own; by
        /// default that of the workspace, `target/vmtest`.
        dir: Option<PathBuf>,
        /// Pages in that directory, or a summary on stdout.
        #[arg(long, value_enum)]
        format: Option<report::Format>,
        /// In place of single attempts: p50 and p95 of each phase over all runs, and the tests that have passed and failed, by
        /// what their failures have in common. Also with `--format json`.
        #[arg(long, conflicts_with = "expect")]
        history: bool,
        /// Fail if these are not the results of all tests of this list, which `cargo vmtest list --json` has printed, each from
        /// one machine.
        #[arg(long, value_name = "FILE")]
        expect: Option<PathBuf>,
        /// Backends that the machines have, separated by commas: each of the expected tests must have run on all of these that
        /// it may run on.
        #[arg(long = "backend", value_delimiter = ',', requires = "expect")]
        backends: Vec<String>,
    },
    /// Run a test again as it was run, with its settings and on its backend, and say what is otherwise now: this host, images,
    /// the plan. A failed test prints this line.
    Repro {
        /// The directory of the attempt.
        dir: PathBuf,
        /// Keep the cluster where the test fails, to look into it.
        #[arg(long)]
        hold: bool,
        /// The test binary, where it is not built here: of an archive, for example.
        #[arg(long, conflicts_with = "args")]
        binary: Option<PathBuf>,
        /// More arguments for `cargo test` that say how it is built, such as features.
        #[arg(last = true)]
        args: Vec<String>,
    },
}

#[derive(Args)]
struct Install {
    /// Install what is missing first (Debian and Ubuntu; as root).
    #[arg(long)]
    install: bool,
}

pub(crate) fn main() -> ExitCode {
    // Cargo calls `cargo-vmtest vmtest ..` for `cargo vmtest ..`.
    let is_cargo = |args: &[String]| args.get(1).is_some_and(|arg| arg == "vmtest");
    let mut args: Vec<_> = std::env::args().collect();
    if is_cargo(&args) {
        args.remove(1);
    }
    dispatch(Cli::parse_from(args).command).unwrap_or_else(|message| {
        eprintln!("error: {message}");
        ExitCode::FAILURE
    })
}

fn dispatch(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Demo { install, json } => {
            install::ensure(install.install, Purpose::Cluster).and_then(|()| rootless()).and_then(|()| demo::run(json))
        }
        Command::Test { install, args, runner } => {
            install::ensure(install.install, Purpose::Tests).and_then(|()| suite::run(runner, &args))
        }
        Command::Bench { install, json, pairs, only, tests } => install::ensure(install.install, Purpose::Cluster)
            .and_then(|()| {
                if tests.is_empty() { bench::run(pairs, json, only) } else { bench::of_tests(pairs, json, &tests) }
            }),
        Command::Lab { install, options } => install::ensure(install.install, Purpose::Cluster)
            .and_then(|()| rootless())
            .and_then(|()| lab::run(options)),
        Command::Fixture(command) => {
            // Making a disk takes no right, but removing an old one whose files belong to fake machines does.
            drop(rootless());
            fixture::run(command)
        }
        Command::Install { program: install::Vmm::CloudHypervisor, url, sha256 } => {
            install::cloud_hypervisor(url.as_deref(), sha256.as_deref())
        }
        Command::Report { dir, format, history: true, .. } => report::history(dir, format),
        Command::Report { dir, format, expect, backends, .. } => {
            let expected = expect.map(|list| report::Expected::read(&list, backends)).transpose();
            expected.and_then(|expected| report::run(dir, format.unwrap_or(report::Format::Html), expected.as_ref()))
        }
        Command::Repro { dir, hold, binary, args } => repro::run(&dir, hold, binary, &args),
        // Which make nothing.
        Command::Image(command @ (image::Command::Catalog { .. } | image::Command::Bump { .. })) => image::run(command),
        Command::Image(command) => rootless().and_then(|()| image::run(command)),
        Command::Volume(command) => {
            // As for fixtures: what fake machines have written is theirs.
            drop(rootless());
            volume::run(command)
        }
        Command::Prune { dry_run, json } => rootless().and_then(|()| prune::run(dry_run, json)),
        Command::Up { test, args } => up::run(&test, &args),
        Command::List { json, args } => list::run(json, &args),
        Command::Matrix(options) => matrix::run(&options),
        Command::NextestConfig(options) => nextest_config::run(&options),
        Command::Shard(options) => shard::run(&options),
        Command::CacheKey { images } => cache_key::run(&images),
        Command::Ls { json } => ls::run(json),
        Command::Ssh { terminal, node, command } => ssh::run(&node, terminal, &command),
        Command::SshConfig { run } => ssh::config(run.as_deref()),
        Command::Connect { dir, node, port } => ssh::connect(dir.as_deref(), &node, port),
        Command::Console { follow, node } => console::run(&node, follow),
        Command::Logs { name } => console::logs(name.as_deref()),
        Command::Cp { from, to } => cp::run(&from, &to),
        Command::Hold { run } => hold::hold(run.as_deref()),
        Command::Resume { run } => hold::resume(run.as_deref()),
        Command::Down { run, all } => hold::down(run.as_deref(), all),
        Command::Doctor { fix, json } => doctor::run(json, fix),
        Command::Completions { shell } => Ok(completions::run(shell)),
    }
}

/// After what needs root, and not before `test`: the runner and what it builds stay outside.
fn rootless() -> Result<(), String> {
    vmtest::enter_rootless().map_err(|e| e.to_string())
}
