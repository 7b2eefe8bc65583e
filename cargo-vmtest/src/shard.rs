//! `cargo vmtest shard`: one machine's part of an archive's tests, for any engine that starts many and numbers them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// What engines call the number of a machine among many, with its first, and how many there are.
const ENGINES: &[(&str, u32, Option<&str>)] = &[
    // Kubernetes, of an indexed Job.
    ("JOB_COMPLETION_INDEX", 0, None),
    // GitLab, with `parallel`.
    ("CI_NODE_INDEX", 1, Some("CI_NODE_TOTAL")),
    // Slurm, with `--array=1-n`.
    ("SLURM_ARRAY_TASK_ID", 1, Some("SLURM_ARRAY_TASK_COUNT")),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What `cargo nextest archive` has made.
    #[arg(long)]
    archive: PathBuf,
    /// Where the sources of the same commit are: the files that tests read.
    #[arg(long, default_value = ".")]
    sources: PathBuf,
    /// The directory in which all machines keep what tests leave, each in a directory of its own.
    #[arg(long)]
    kept: PathBuf,
    /// What `cargo vmtest list --json` has printed: nextest is told what the tests declare.
    #[arg(long)]
    tests: Option<PathBuf>,
    /// The number of this machine, from 1; without, as Kubernetes, GitLab or Slurm say it in the environment.
    #[arg(long)]
    index: Option<u32>,
    /// How many machines there are; without, as GitLab or Slurm say it.
    #[arg(long)]
    of: Option<u32>,
    /// More arguments for `cargo nextest run`.
    #[arg(last = true)]
    args: Vec<String>,
}

/// Runs the part of this machine, and passes on the exit code of nextest.
pub(crate) fn run(options: &Options) -> Result<ExitCode, String> {
    let (index, of) = place(options.index, options.of, |name| env::var(name).ok())?;
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()));
    let kept = absolute(&options.kept)?.join(format!("{index}-of-{of}"));
    fs::create_dir_all(&kept).map_err(|e| format!("cannot make {}: {e}", kept.display()))?;
    // By its own name: a machine that runs tests need not have Cargo.
    let mut nextest = Command::new("cargo-nextest");
    nextest.args(["nextest", "run", "--no-fail-fast", "--no-tests=pass", "--archive-file"]).arg(&options.archive);
    nextest.arg("--workspace-remap").arg(absolute(&options.sources)?);
    nextest.arg(format!("--partition=slice:{index}/{of}"));
    let config = tempfile::NamedTempFile::new().map_err(|e| format!("cannot make a temporary file: {e}"))?;
    if let Some(tests) = &options.tests {
        let text = super::nextest_config::of_this_host(&super::declared::read(tests)?)?;
        fs::write(config.path(), text).map_err(|e| format!("cannot write {}: {e}", config.path().display()))?;
        nextest.arg("--tool-config-file").arg(format!("vmtest:{}", config.path().display()));
    }
    let status = nextest.args(&options.args).env("VMTEST_ARTIFACTS", &kept).status();
    let status = status.map_err(|e| format!("cannot run cargo-nextest ({e}): install it as https://nexte.st says"))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// The number of this machine, from 1, and how many there are.
fn place(index: Option<u32>, of: Option<u32>, variable: impl Fn(&str) -> Option<String>) -> Result<(u32, u32), String> {
    let number = |name: &str| variable(name).and_then(|value| value.parse::<u32>().ok());
    let said = ENGINES.iter().find_map(|(name, first, total)| {
        let index = (number(name)? + 1).checked_sub(*first)?;
        Some((index, total.and_then(number)))
    });
    let index = index.or(said.map(|(index, _)| index));
    let of = of.or(said.and_then(|(_, of)| of));
    match (index, of) {
        (Some(index), Some(of)) if (1..=of).contains(&index) => Ok((index, of)),
        (Some(index), Some(of)) => Err(format!("there is no shard {index} of {of}: they are numbered from 1")),
        (None, _) => Err("nothing says which machine this is: give `--index`".to_owned()),
        (_, None) => Err("nothing says how many machines there are: give `--of`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_number_their_machines_and_options_go_before() {
        let place = |index, of, variables: &[(&str, &str)]| {
            place(index, of, |name| {
                variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(place(None, Some(8), &[("JOB_COMPLETION_INDEX", "0")]), Ok((1, 8)));
        assert_eq!(place(None, None, &[("CI_NODE_INDEX", "4"), ("CI_NODE_TOTAL", "4")]), Ok((4, 4)));
        assert_eq!(place(None, None, &[("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_ARRAY_TASK_COUNT", "3")]), Ok((2, 3)));
        assert_eq!(place(Some(2), Some(3), &[("CI_NODE_INDEX", "4"), ("CI_NODE_TOTAL", "4")]), Ok((2, 3)));
        assert!(place(None, Some(8), &[]).unwrap_err().contains("`--index`"));
        assert!(place(None, None, &[("JOB_COMPLETION_INDEX", "0")]).unwrap_err().contains("`--of`"));
        assert!(place(Some(9), Some(8), &[]).unwrap_err().contains("no shard 9 of 8"));
        assert!(place(Some(0), Some(8), &[]).unwrap_err().contains("from 1"));
    }
}
