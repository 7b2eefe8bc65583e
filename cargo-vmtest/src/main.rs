//! The `cargo vmtest` command.

mod bench;
mod demo;
mod fixture;
mod install;
mod lab;
mod prune;
mod report;
mod suite;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use install::Purpose;

const EXIT_CODES: &str =
    "Exit codes: 0 success, 1 failure, 2 wrong usage. `test` and `lab` pass on the exit code of what they run.";

/// Tests on real Linux machines.
#[derive(Parser)]
#[command(name = "cargo vmtest", bin_name = "cargo vmtest", version, after_help = EXIT_CODES)]
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
        /// Arguments for `cargo test` (or `cargo nextest run`, with --nextest).
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
        /// Run the tests with nextest.
        #[arg(long)]
        nextest: bool,
    },
    /// Measure: boots beside bare QEMUs, commands and copies beside OpenSSH, network and teardown.
    Bench {
        #[command(flatten)]
        install: Install,
        /// Print the figures as JSON.
        #[arg(long)]
        json: bool,
        /// How many pairs of each.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        pairs: u32,
    },
    /// Make fixture disks, and look into them.
    #[command(subcommand)]
    Fixture(fixture::Command),
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
        #[arg(value_enum)]
        program: install::Vmm,
        /// Where to get it from, in place of the project's own release page: the same file, or that of --sha256.
        #[arg(long)]
        url: Option<String>,
        /// What its SHA-256 must be, where it is another release.
        #[arg(long, requires = "url")]
        sha256: Option<String>,
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
        /// The directory of one attempt, or of many; by default that of the workspace, `target/vmtest`.
        dir: Option<PathBuf>,
        /// Pages in that directory, or a summary on stdout.
        #[arg(long, value_enum, default_value_t = report::Format::Html)]
        format: report::Format,
    },
}

#[derive(Args)]
struct Install {
    /// Install what is missing first (Debian and Ubuntu; as root).
    #[arg(long)]
    install: bool,
}

fn main() -> ExitCode {
    // Cargo calls `cargo-vmtest vmtest ..` for `cargo vmtest ..`.
    let is_cargo = |args: &[String]| args.get(1).is_some_and(|arg| arg == "vmtest");
    let mut args: Vec<_> = std::env::args().collect();
    if is_cargo(&args) {
        args.remove(1);
    }
    let result = match Cli::parse_from(args).command {
        Command::Demo { install, json } => {
            install::ensure(install.install, Purpose::Cluster).and_then(|()| rootless()).and_then(|()| demo::run(json))
        }
        Command::Test { install, args, nextest } => {
            install::ensure(install.install, Purpose::Tests).and_then(|()| suite::run(nextest, &args))
        }
        Command::Bench { install, json, pairs } => {
            install::ensure(install.install, Purpose::Cluster).and_then(|()| bench::run(pairs, json))
        }
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
        Command::Report { dir, format } => report::run(dir, format),
        Command::Prune { dry_run, json } => rootless().and_then(|()| prune::run(dry_run, json)),
    };
    result.unwrap_or_else(|message| {
        eprintln!("error: {message}");
        ExitCode::FAILURE
    })
}

/// After what needs root, and not before `test`: the runner and what it builds stay outside.
fn rootless() -> Result<(), String> {
    vmtest::enter_rootless().map_err(|e| e.to_string())
}
