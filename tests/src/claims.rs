//! Who holds a share of the host and who waits for one, as the files of `docs/lease.md` show it to anybody.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
};
use serde_json::Value;

/// Only against hanging: what is waited for takes milliseconds, or as long as machines need to boot.
const SEEN_WITHIN: Duration = Duration::from_secs(120);
/// The kernel tells that a file is closed a moment before it frees its lock, so a last look is due after this.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Looks at the claims of one root of run directories.
#[derive(Debug)]
pub struct Claims {
    dir: PathBuf,
}

/// A claim that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The test's path.
    pub test: String,
    /// The process.
    pub pid: u64,
    /// Its memory in bytes.
    pub memory: u64,
    /// Whether it waits for more.
    pub waits: bool,
}

impl Claims {
    /// Those of the runs in this root.
    ///
    /// # Panics
    /// When the root cannot be written.
    pub fn of(runs: &Path) -> Self {
        let dir = runs.join("lease");
        for folder in ["claims", "queue"] {
            fs::create_dir_all(dir.join(folder)).expect("the folders of the lease can be made");
        }
        Self { dir }
    }

    /// The claims that are held, and how many wait in the queue.
    ///
    /// # Panics
    /// When a held claim is not as the docs say.
    pub fn look(&self) -> (Vec<Seen>, usize) {
        let lock = File::create(self.dir.join("ledger.lock")).expect("the ledger can be opened");
        lock.lock().expect("the ledger can be locked");
        let claims = held(&self.dir.join("claims")).into_iter().map(|file| {
            let text = io::read_to_string(file).expect("a claim can be read");
            let claim: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
            Seen {
                test: claim["test"].as_str().expect("a claim names its test").to_owned(),
                pid: claim["pid"].as_u64().expect("a claim names its process"),
                memory: claim["memory"].as_u64().expect("a claim says how much memory"),
                waits: claim.get("waits").is_some(),
            }
        });
        (claims.collect(), held(&self.dir.join("queue")).len())
    }

    /// Looks whenever something changes, until it is as wanted.
    ///
    /// # Panics
    /// When that does not happen.
    pub fn until(&self, mut wanted: impl FnMut(&[Seen], usize) -> bool) {
        let inotify = inotify::init(CreateFlags::NONBLOCK).expect("inotify works");
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::CLOSE_WRITE | WatchFlags::MODIFY;
        for folder in ["claims", "queue"] {
            inotify::add_watch(&inotify, self.dir.join(folder), flags).expect("a folder can be watched");
        }
        let deadline = Instant::now() + SEEN_WITHIN;
        loop {
            let (claims, queue) = self.look();
            if wanted(&claims, queue) {
                return;
            }
            assert!(Instant::now() < deadline, "still {claims:?}, and {queue} in the queue");
            poll(&mut [PollFd::new(&inotify, PollFlags::IN)], Some(&LOOK_AGAIN)).expect("inotify can be polled");
            while rustix::io::read(&inotify, &mut [0; 4096]).is_ok_and(|read| read > 0) {}
        }
    }
}

fn held(dir: &Path) -> Vec<File> {
    let entries = fs::read_dir(dir).expect("the folder is there");
    let files = entries.flatten().filter_map(|entry| File::open(entry.path()).ok());
    files.filter(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))).collect()
}
