//! A line for each run that has ended, for statistics over many of them.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::spec::TimedPhase;

/// The directory of the history, beside those of the tests.
const DIR: &str = "history";
const DAY: u64 = 24 * 60 * 60;

/// What is remembered of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PastRun {
    /// What names it: that of its directory, which may be gone.
    pub id: String,
    /// The test's name.
    pub test: String,
    /// The name of its binary.
    pub binary: String,
    /// What ran it, with version and accelerator; empty if it did not come as far.
    pub backend: String,
    /// When it began, in seconds since 1970.
    pub began: f64,
    /// `passed`, `failed` or `skipped`.
    pub verdict: String,
    /// How long it took, in seconds.
    pub took: f64,
    /// How long its phases took, in seconds, as far as it came.
    pub phases: BTreeMap<TimedPhase, f64>,
    /// Of a failure, its words without what is different each time.
    pub signature: String,
}

impl PastRun {
    /// All runs below this directory of artifacts whose lines are there: those of the last days, at least since they were last
    /// [forgotten](Self::forget).
    pub fn all(root: &Path) -> Vec<Self> {
        let lines = files(root).into_iter().filter_map(|(_, path)| fs::read_to_string(path).ok());
        // A full disk may have left half a line.
        lines
            .flat_map(|lines| lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<_>>())
            .collect()
    }

    /// Removes the lines of days to which nobody adds any more.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn forget(root: &Path) -> io::Result<()> {
        // A process whose clock was read a moment before midnight may still write.
        let over = |day: &u64| day + 1 < today();
        files(root).into_iter().filter(|(day, _)| over(day)).try_for_each(|(_, path)| fs::remove_file(path))
    }

    /// Where the history of the tests is whose artifacts are here.
    pub fn dir(root: &Path) -> PathBuf {
        root.join(DIR)
    }
}

/// The files of lines, with their days.
fn files(root: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(root.join(DIR)).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter_map(|path| Some((path.file_name()?.to_str()?.strip_suffix(".jsonl")?.parse().ok()?, path))).collect()
}

fn today() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs) / DAY
}

/// Adds a run, by one call of the kernel, so that many processes can at once.
pub(super) fn add(root: &Path, run: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(run)?;
    line.push(b'\n');
    let path = root.join(DIR).join(format!("{}.jsonl", today()));
    let open = || OpenOptions::new().create(true).append(true).open(&path);
    let file = open().or_else(|e| match e.kind() {
        io::ErrorKind::NotFound => fs::create_dir_all(root.join(DIR)).and_then(|()| open()),
        _ => Err(e),
    });
    (&file?).write(&line).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str) -> PastRun {
        PastRun {
            id: id.to_owned(),
            test: "t".to_owned(),
            binary: "b".to_owned(),
            backend: "fake".to_owned(),
            began: 1.5,
            verdict: "passed".to_owned(),
            took: 2.5,
            phases: BTreeMap::from([(TimedPhase::Boot, 0.5)]),
            signature: String::new(),
        }
    }

    #[test]
    fn what_is_added_is_read_and_old_days_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), &run("1")).unwrap();
        add(dir.path(), &run("2")).unwrap();
        let old = PastRun::dir(dir.path()).join("1000.jsonl");
        fs::write(&old, serde_json::to_string(&run("0")).unwrap() + "\n{\"id\":\"ha").unwrap();
        let mut ids: Vec<_> = PastRun::all(dir.path()).into_iter().map(|run| run.id).collect();
        ids.sort();
        assert_eq!(ids, ["0", "1", "2"]);
        PastRun::forget(dir.path()).unwrap();
        assert_eq!(PastRun::all(dir.path()), [run("1"), run("2")]);
        assert!(!old.exists());
    }
}
