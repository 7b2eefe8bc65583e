//! The directory of one attempt of a test: everything that is known about it, written as it becomes known.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Ending, Printed, Started, history, kept,
    passwords::without_passwords,
    place,
    runner::{Runner, print_attachments},
};
use crate::host::{LineLog, random};

/// What is there from the first moment on. A directory with it and without [`VERDICT`] is of a process that was killed.
pub(crate) const STARTED: &str = "started.json";
/// What is written last.
pub(crate) const VERDICT: &str = "verdict.json";
/// What was asked for.
pub(crate) const SPEC: &str = "spec.json";
/// What was decided.
pub(crate) const PLAN: &str = "plan.json";
/// The events, a line each.
pub(crate) const TIMELINE: &str = "timeline.jsonl";
/// The whole text of a failure.
pub(crate) const FAILURE: &str = "failure.txt";
/// What was printed of it.
pub(crate) const DIGEST: &str = "digest.txt";
/// The folders of the machines.
pub(crate) const NODES: &str = "nodes";
/// What the test itself has kept.
pub(crate) const SAVED: &str = "saved";
/// What commands printed that was too long for the timeline.
const OUTPUTS: &str = "outputs";

/// How many attempts that passed are kept of each test; those that failed and those that were killed all are.
const KEPT_SUCCESSES: usize = 3;
/// A test of some minutes with a command every ten milliseconds.
const TIMELINE_LIMIT: usize = 64 << 20;
/// A console that prints at the speed of a serial line does not reach it in an hour.
const CONSOLE_LIMIT: usize = 16 << 20;
/// What all commands together may print beyond what is in the timeline.
const OUTPUTS_LIMIT: u64 = 64 << 20;
/// Text up to this is part of its event.
const INLINE: usize = 4 << 10;
/// How much is kept of the end of a log of a VMM.
const LOG_TAIL: u64 = 1 << 20;
/// The last line of a timeline that has reached its limit.
const TIMELINE_CUT: &str = "{\"event\":\"cut\",\"why\":\"the timeline has reached its limit\"}\n";

/// One attempt. Nothing in here fails a test: what cannot be written is left out.
#[derive(Debug)]
pub(crate) struct Attempt {
    dir: PathBuf,
    timeline: LineLog,
    /// How many bytes of outputs were written.
    outputs: AtomicU64,
}

impl Attempt {
    /// Makes the directory, with its marker.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn begin(root: &Path, started: &Started) -> io::Result<Self> {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string().replace([':', '-'], "");
        let suffix = Runner::get().map(|runner| runner.suffix()).unwrap_or_default();
        let id = format!("{time}-{:08x}{suffix}", u32::from_ne_bytes(random()?));
        let of_test = place::directory_of(started.package.as_deref(), &started.binary, &started.test);
        let dir = root.join(of_test).join(id);
        DirBuilder::new().recursive(true).mode(0o755).create(&dir)?;
        let timeline = LineLog::open(&dir.join(TIMELINE), TIMELINE_LIMIT, TIMELINE_CUT)?;
        let attempt = Self { dir, timeline, outputs: AtomicU64::new(0) };
        attempt.write_json(STARTED, started);
        Ok(attempt)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of a machine; made if it must.
    pub(crate) fn node(&self, name: &str) -> PathBuf {
        let dir = self.dir.join(NODES).join(name);
        // What cannot be made shows when something is written to it.
        drop(fs::create_dir_all(&dir));
        dir
    }

    /// Adds an event, which is given as a line.
    pub(crate) fn add(&self, line: &str) {
        self.timeline.add(without_passwords(line).as_bytes());
    }

    /// A log of the console of a machine, with times.
    pub(crate) fn console(&self, node: &str) -> Option<LineLog> {
        let opened = LineLog::open(&self.node(node).join("console.log"), CONSOLE_LIMIT, "[the console goes on]\n");
        opened.inspect_err(|e| tracing::warn!("the console of {node} is not kept: {e}")).ok()
    }

    /// Writes a file of this name, and says so where that is not possible.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        if let Err(e) = self.try_write(name, bytes) {
            tracing::warn!("{name} is not among the artifacts: {e}");
        }
    }

    /// The same with what is written as JSON.
    pub(crate) fn write_json(&self, name: &str, value: &impl Serialize) {
        let text = serde_json::to_string(value).unwrap_or_default();
        self.write(name, without_passwords(&text).as_bytes());
    }

    /// Writes a file of this name.
    ///
    /// # Errors
    /// When it cannot be written; then a half one is removed.
    pub(crate) fn try_write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.dir.join(name);
        if let Some(dir) = path.parent().filter(|dir| *dir != self.dir) {
            fs::create_dir_all(dir)?;
        }
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o644).open(&path)?;
        // Half a file that looks like a whole one is worse than none.
        file.write_all(bytes).inspect_err(|_| drop(fs::remove_file(&path)))
    }

    /// Keeps what a command has printed on this stream: this is its beginning, and so many bytes there were in all.
    pub(crate) fn printed(&self, id: u64, stream: &str, head: &[u8], bytes: u64) -> Printed {
        let text = shortened(head);
        let size = head.len() as u64;
        if head.len() <= INLINE || self.outputs.fetch_add(size, Ordering::Relaxed) + size > OUTPUTS_LIMIT {
            return Printed { text, file: None, bytes };
        }
        let name = format!("{OUTPUTS}/{id}.{stream}");
        let written = self.try_write(&name, head);
        Printed { text, file: written.is_ok().then_some(name), bytes }
    }

    /// Keeps the end of a log of a machine.
    pub(crate) fn keep_log(&self, node: &str, from: &Path) {
        let read = File::open(from).and_then(|mut file| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL).read_to_end(&mut bytes).map(|_| bytes)
        });
        let Ok(bytes) = read else { return };
        if let (false, Some(name)) = (bytes.is_empty(), from.file_name()) {
            self.write(&format!("{NODES}/{node}/{}", name.to_string_lossy()), &bytes);
        }
    }

    /// Says how it has ended, and removes old attempts of the same test that did not fail, beyond those that are kept. Of a
    /// failure nextest is told what there is.
    pub(crate) fn end(&self, ending: Ending, failure: Option<&str>, after: f64) {
        self.write_json(VERDICT, &json!({ "verdict": ending.word(), "after": after, "failure": failure }));
        if ending == Ending::Failed {
            if Runner::get().is_some() {
                print_attachments(&self.dir, &attached(&self.dir));
            }
        } else {
            forget_old(&self.dir);
        }
    }

    /// Adds a line to the history of all tests.
    pub(crate) fn remember(&self, run: &impl Serialize) {
        let root = self.dir.parent().and_then(Path::parent);
        let added = root.map_or(Ok(()), |root| history::add(root, run));
        added.unwrap_or_else(|e| tracing::warn!("the history does not have this run: {e}"));
    }

    /// What names it among all attempts.
    pub(crate) fn id(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// What somebody wants who has only the results: all but long outputs, what people read first.
fn attached(dir: &Path) -> Vec<String> {
    let mut files = kept::files(dir);
    files.retain(|file| !file.starts_with(OUTPUTS));
    files.sort_by_key(|file| ![FAILURE, DIGEST].contains(&file.as_str()));
    files
}

/// The text of a short output, or the beginning of a long one.
pub(crate) fn shortened(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(INLINE)]).into_owned()
}

/// How the attempt in this directory has ended.
pub(crate) fn ending(dir: &Path) -> Ending {
    let verdict = fs::read(dir.join(VERDICT)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    verdict.and_then(|verdict| Ending::of(verdict["verdict"].as_str()?)).unwrap_or(Ending::NoVerdict)
}

/// Removes what is old of the attempts of the same test as this one. Itself it stays: those that began in the same millisecond have
/// no order.
fn forget_old(this: &Path) {
    let entries = this.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.path()).collect();
    if names.len() <= KEPT_SUCCESSES {
        return;
    }
    // They begin with the time.
    names.sort();
    let others = names.iter().rev().filter(|path| *path != this);
    let good = others.filter(|path| matches!(ending(path), Ending::Passed | Ending::Skipped));
    for old in good.skip(KEPT_SUCCESSES - 1) {
        // Another process may have been faster.
        drop(fs::remove_dir_all(old));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_passed_the_newest_are_kept_and_of_what_failed_all() {
        let dir = tempfile::tempdir().unwrap();
        let started = Started::now("a::test", Path::new("/"), Path::new("/"));
        let begin = || Attempt::begin(dir.path(), &started).unwrap();
        let failed = begin();
        failed.end(Ending::Failed, Some("broken"), 1.0);
        let killed = begin();
        let passed: Vec<_> = (0..5).map(|_| begin()).collect();
        passed.iter().for_each(|attempt| attempt.end(Ending::Passed, None, 1.0));
        assert!(failed.dir().exists() && killed.dir().exists());
        assert_eq!((ending(killed.dir()), ending(failed.dir())), (Ending::NoVerdict, Ending::Failed));
        assert_eq!(passed.iter().filter(|attempt| attempt.dir().exists()).count(), KEPT_SUCCESSES);
        // Those of one millisecond have no order: the one that has just ended stays, also where it comes first.
        assert!(passed[4].dir().exists());
        let first = dir.path().join("00000000T000000.000Z-00000000");
        fs::rename(passed[4].dir(), &first).unwrap();
        forget_old(&first);
        assert!(first.exists());
        let skipped = begin();
        skipped.end(Ending::Skipped, Some("no KVM"), 0.1);
        assert_eq!(ending(skipped.dir()), Ending::Skipped);
    }

    #[test]
    fn long_outputs_are_files() {
        let dir = tempfile::tempdir().unwrap();
        let started = Started::now("t", Path::new("/"), Path::new("/"));
        let attempt = Attempt::begin(dir.path(), &started).unwrap();
        assert_eq!(attempt.printed(1, "stdout", b"\xffx", 2).text, "\u{fffd}x");
        let long = attempt.printed(2, "stderr", &[b'a'; 10_000], 20_000);
        assert_eq!((long.text.len(), long.bytes), (INLINE, 20_000));
        assert_eq!(fs::read(attempt.dir().join(long.file.unwrap())).unwrap().len(), 10_000);
    }
}
