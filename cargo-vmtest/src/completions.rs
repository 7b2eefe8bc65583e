//! `cargo vmtest completions`.

use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, output::bytes};

/// Prints the completions of a shell for `cargo-vmtest`, the program that `cargo vmtest` runs.
pub(crate) fn run(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    let mut command: Command = Cli::command().bin_name("cargo-vmtest");
    clap_complete::generate(shell, &mut command, "cargo-vmtest", &mut script);
    bytes(&script);
    ExitCode::SUCCESS
}
