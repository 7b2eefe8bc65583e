//! Reads what is kept of an attempt, also of one that was killed in the middle of a line.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    attempt::{FAILURE, NODES, STARTED, TIMELINE, VERDICT, ending},
    place::other_than,
};

/// Of shards, each in its directory: shard, test, attempt; and one more for whoever collects them.
const DEPTH: u32 = 4;

/// How an attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// Nothing ran, for what the host lacks.
    Skipped,
    /// It was killed, or it runs: there is no verdict.
    NoVerdict,
}

impl Ending {
    /// In a word, as it is written down.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::NoVerdict => "killed",
        }
    }

    /// That of this word, if it says one.
    pub(super) fn of(word: &str) -> Option<Self> {
        [Self::Passed, Self::Failed, Self::Skipped].into_iter().find(|ending| ending.word() == word)
    }

    /// Whether somebody must look at it.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::NoVerdict)
    }
}

/// What is kept of one attempt of a test. What cannot be read is left out: the rest says something too.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Kept {
    /// Its directory.
    pub dir: PathBuf,
    /// The test's name.
    pub test: String,
    /// The name of the package in which the test is, where it was known.
    pub package: Option<String>,
    /// The name of the binary in which the test is.
    pub binary: String,
    /// The backend on which it ran; `None` for one that has not come so far.
    pub backend: Option<String>,
    /// When it began, in seconds since 1970.
    pub began: f64,
    /// How it has ended.
    pub ending: Ending,
    /// How long it took in seconds, as far as that is known.
    pub took: f64,
    /// The words of its failure; empty for one without.
    pub failure: String,
    /// Where to look first: an object with `at`, `node` and `what`, or null.
    pub first_cause: Value,
    /// The names of its machines.
    pub nodes: Vec<String>,
    /// The events in their order: objects with `at` and `event`.
    pub events: Vec<Value>,
}

/// A line of a console.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConsoleLine {
    /// When it was seen, in seconds on the clock of the timeline.
    pub at: f64,
    /// What is not UTF-8 is replaced.
    pub text: String,
}

impl Kept {
    /// Reads the attempt in this directory.
    ///
    /// # Errors
    /// When it is none: it has no start marker.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let started = fs::read(dir.join(STARTED))?;
        let started: Value = serde_json::from_slice(&started).unwrap_or_default();
        let timeline = lines(&dir.join(TIMELINE));
        let events: Vec<Value> = timeline.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut nodes: BTreeSet<_> =
            events.iter().filter_map(|event| Some(event["node"].as_str()?.to_owned())).collect();
        nodes.extend(names(&dir.join(NODES)));
        let last = events.iter().rev().find_map(|event| event["at"].as_f64()).unwrap_or_default();
        let json = |name: &str| -> Value {
            fs::read(dir.join(name)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
        };
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let verdict = json(VERDICT);
        Ok(Self {
            dir: dir.to_owned(),
            test: text(&started["test"]),
            package: started["package"].as_str().map(str::to_owned),
            binary: text(&started["binary"]),
            backend: json("plan.json")["backend"].as_str().map(str::to_owned),
            began: started["unix_time"].as_f64().unwrap_or_default(),
            ending: ending(dir),
            took: verdict["after"].as_f64().unwrap_or(last),
            failure: match lines(&dir.join(FAILURE)).join("\n") {
                none if none.is_empty() => verdict["failure"].as_str().unwrap_or_default().to_owned(),
                failure => failure,
            },
            first_cause: json("first-cause.json"),
            nodes: nodes.into_iter().collect(),
            events,
        })
    }

    /// All attempts below this directory, the newest first. It may be one itself, or what one run of tests has left, or have
    /// what several have left, each in a directory of its own.
    pub fn all(dir: &Path) -> Vec<Self> {
        let (mut all, mut dirs) = (Vec::new(), vec![(dir.to_owned(), 0)]);
        while let Some((dir, depth)) = dirs.pop() {
            match Self::read(&dir) {
                Ok(one) => all.push(one),
                Err(_) if depth < DEPTH => {
                    dirs.extend(names(&dir).into_iter().map(|name| (dir.join(name), depth + 1)));
                }
                Err(_) => {}
            }
        }
        all.sort_by(|a, b| b.began.total_cmp(&a.began));
        all
    }

    /// The directory of the run of tests that has left it, among others.
    pub fn root(&self) -> &Path {
        self.dir.parent().and_then(Path::parent).unwrap_or(&self.dir)
    }

    /// Its package and its binary for people, in one word.
    pub fn suite(&self) -> String {
        match other_than(self.package.as_deref(), &self.binary) {
            Some(package) => format!("{package}::{}", self.binary),
            None => self.binary.clone(),
        }
    }

    /// The console of a machine.
    pub fn console(&self, node: &str) -> Vec<ConsoleLine> {
        let all = lines(&self.dir.join(NODES).join(node).join("console.log"));
        let mut last = 0.0;
        let read = |line: &String| {
            // A line that was cut has no time of its own.
            let parsed = line.trim_start().split_once(' ').and_then(|(at, text)| Some((at.parse().ok()?, text)));
            let (at, text) = parsed.unwrap_or((last, line));
            last = at;
            ConsoleLine { at, text: text.to_owned() }
        };
        all.iter().map(read).collect()
    }

    /// What the kernel's log and the journal of a machine say, as they were when the test failed, at the times of the timeline
    /// as far as its clock was read. Empty without that.
    pub fn guest_log(&self, node: &str) -> Vec<ConsoleLine> {
        let of_node = |event: &&Value| event["event"] == "guest_clock" && event["node"] == node;
        let Some(offset) = self.events.iter().rev().find(of_node).and_then(|event| event["offset"].as_f64()) else {
            return Vec::new();
        };
        let files = ["dmesg.txt", "journal.txt"].into_iter();
        let logged = files.flat_map(|file| lines(&self.dir.join(NODES).join(node).join(file)));
        let line = |line: String| {
            let (at, text) = line.trim_start().strip_prefix('[')?.split_once(']')?;
            let at: f64 = at.trim().parse().ok()?;
            Some(ConsoleLine { at: at + offset, text: text.trim_start().to_owned() })
        };
        logged.filter_map(line).collect()
    }

    /// All files of it, by their paths in its directory.
    pub fn files(&self) -> Vec<String> {
        files(&self.dir)
    }
}

/// All files below a directory, by their paths in it.
pub(super) fn files(root: &Path) -> Vec<String> {
    let (mut found, mut dirs) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                _ => found.extend(entry.path().strip_prefix(root).map(|path| path.display().to_string())),
            }
        }
    }
    found.sort();
    found
}

fn lines(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
}

/// The names of the directories in this one.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_guests_are_placed_by_their_clocks() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join(NODES).join("db");
        fs::create_dir_all(&node).unwrap();
        fs::write(dir.path().join(STARTED), "{}").unwrap();
        let clock =
            |offset: f64| format!("{{\"at\":9,\"event\":\"guest_clock\",\"node\":\"db\",\"offset\":{offset}}}\n");
        fs::write(dir.path().join(TIMELINE), clock(1.0) + &clock(2.5)).unwrap();
        fs::write(node.join("dmesg.txt"), "[    0.500000] Linux version\nno time\n").unwrap();
        fs::write(node.join("journal.txt"), b"[    3.250000] db systemd[1]: up \xff\n").unwrap();
        let kept = Kept::read(dir.path()).unwrap();
        let log: Vec<_> = kept.guest_log("db").into_iter().map(|line| (line.at, line.text)).collect();
        assert_eq!(log, [(3.0, "Linux version".to_owned()), (5.75, "db systemd[1]: up \u{fffd}".to_owned())]);
        assert!(kept.guest_log("web").is_empty());
    }

    #[test]
    fn what_a_killed_test_has_left_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let attempt = dir.path().join("a.test").join("1");
        fs::create_dir_all(attempt.join(NODES).join("db")).unwrap();
        fs::write(attempt.join(STARTED), r#"{"test":"a::test","binary":"a","unix_time":5.5}"#).unwrap();
        fs::write(attempt.join(TIMELINE), b"{\"at\":1.5,\"event\":\"step\",\"what\":\"x\"}\n\xff\n{\"at\":2,\"ev")
            .unwrap();
        fs::write(attempt.join(NODES).join("db").join("console.log"), b"    1.25 a\xff b\nhalf\n").unwrap();
        let all = Kept::all(dir.path());
        let [kept] = &all[..] else { panic!("{all:?}") };
        assert_eq!(
            (kept.test.as_str(), kept.ending, kept.took, kept.events.len()),
            ("a::test", Ending::NoVerdict, 1.5, 1)
        );
        assert_eq!(kept.nodes, ["db"]);
        let console: Vec<_> = kept.console("db").into_iter().map(|line| (line.at, line.text)).collect();
        assert_eq!(console, [(1.25, "a\u{fffd} b".to_owned()), (1.25, "half".to_owned())]);
        assert_eq!(kept.files(), ["nodes/db/console.log", "started.json", "timeline.jsonl"]);
    }
}
