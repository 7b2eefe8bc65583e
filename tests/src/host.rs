//! What is on this host that a run could have left.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::net::if_::if_nameindex;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::Value;

/// A killed VMM is gone in under 20 ms; one that is there after this will stay.
const GONE_WITHIN: Duration = Duration::from_secs(120);
/// What a SIGKILLed run leaves to the kernel is gone within a tenth of a second; what is there after this will stay.
const KERNEL_ENDS_WITHIN: Duration = Duration::from_secs(120);
/// A look at all of `/proc` takes some milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What one test could leave: processes, mounts and files that are named after its runs, and what the whole host has,
/// links and packet filters.
#[derive(Debug)]
pub struct Host {
    runs: PathBuf,
    /// A cache that nobody else uses, with the names of all that is in it.
    cache: Option<(PathBuf, BTreeSet<PathBuf>)>,
    links: Vec<String>,
    filters: Option<String>,
    /// The ids of the runs that there have been.
    seen: RefCell<BTreeSet<String>>,
}

/// A process that a run started, held by a descriptor.
#[derive(Debug)]
pub struct Vmm {
    pid: i32,
    pidfd: OwnedFd,
    namespace: u64,
}

impl Host {
    /// Looks at the host before a run whose directories will be in `runs`.
    pub fn before(runs: &Path) -> Self {
        let runs = runs.to_owned();
        Self { runs, cache: None, links: links(), filters: filters(), seen: RefCell::default() }
    }

    /// Looks at this cache too, which nobody else uses.
    pub(crate) fn watch_cache(&mut self, cache: &Path) {
        self.cache = Some((cache.to_owned(), names_in(cache)));
    }

    /// The run directories that are there now.
    pub fn run_dirs(&self) -> Vec<PathBuf> {
        let lease = self.runs.join("lease");
        paths(&self.runs).into_iter().filter(|path| path.is_dir() && *path != lease).collect()
    }

    /// The processes that work in one of the run directories now.
    pub fn vmms(&self) -> Vec<Vmm> {
        pids().filter_map(|pid| self.vmm(pid).ok().flatten()).collect()
    }

    fn vmm(&self, pid: i32) -> io::Result<Option<Vmm>> {
        if !fs::read_link(format!("/proc/{pid}/cwd"))?.starts_with(&self.runs) && !self.is_fake(pid)? {
            return Ok(None);
        }
        let pidfd = pidfd_open(Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?;
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net"))?.ino();
        Ok(Some(Vmm { pid, pidfd, namespace }))
    }

    /// Whether it is the first process of a fake machine: that of a namespace, with a root that is named after a run.
    fn is_fake(&self, pid: i32) -> io::Result<bool> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        if !pids.split_whitespace().skip(1).any(|pid| pid == "1") {
            return Ok(false);
        }
        Ok(self.is_in(&fs::read_to_string(format!("/proc/{pid}/mounts"))?))
    }

    /// Whether a list of mounts has one that is named after a run, or below a directory of one.
    fn is_in(&self, mounts: &str) -> bool {
        let mut seen = self.seen.borrow_mut();
        seen.extend(self.run_dirs().iter().filter_map(|run| Some(run.file_name()?.to_string_lossy().into_owned())));
        let dirs = [Some(&self.runs), self.cache.as_ref().map(|(cache, _)| cache)];
        let below = |dir: &PathBuf| mounts.contains(&format!(" {}/", dir.display()));
        dirs.into_iter().flatten().any(below) || seen.iter().any(|run| mounts.contains(&format!("vmtest-{run}-")))
    }

    /// All processes of the runs: they work in a directory of one, see the mounts of one, or have inherited the root of
    /// the run directories from a test that was given one of its own.
    pub fn processes(&self) -> Vec<i32> {
        let runs = format!("VMTEST_RUN={}\0", self.runs.display());
        let of_run = |pid: i32| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&self.runs))
                || String::from_utf8_lossy(&read("environ")).contains(&runs)
                || self.is_in(&String::from_utf8_lossy(&read("mounts")))
        };
        pids().filter(|&pid| of_run(pid)).collect()
    }

    /// Waits until the kernel has ended all processes of runs whose owner is gone, and destroyed this network namespace
    /// of one; the result is how long that took.
    ///
    /// # Panics
    /// With what is there after ten seconds.
    pub fn await_the_kernel(&self, namespace: u64) -> Duration {
        let began = Instant::now();
        loop {
            let (processes, holders) = (self.processes(), holders(namespace));
            if processes.is_empty() && holders.is_empty() {
                return began.elapsed();
            }
            let waited = began.elapsed();
            assert!(
                waited < KERNEL_ENDS_WITHIN,
                "after {waited:?} there are still the processes {processes:?}, and these hold the network: {holders:?}"
            );
            // Of processes that nobody knows there is no event.
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Checks that processes, links and run directories are as before.
    ///
    /// # Panics
    /// With the name of what was left.
    pub fn assert_as_before(&self) {
        self.assert_as_before_beside(&[]);
    }

    /// The same while these processes go on, such as a test that prints its failure.
    ///
    /// # Panics
    /// With the name of what was left.
    pub fn assert_as_before_beside(&self, going_on: &[u32]) {
        assert_eq!(self.run_dirs(), Vec::<PathBuf>::new(), "run directories were left");
        for files in ["claims", "queue"] {
            assert_eq!(paths(&self.runs.join("lease").join(files)), Vec::<PathBuf>::new(), "{files} were left");
        }
        let pids: Vec<_> = self.vmms().iter().map(|vmm| vmm.pid).collect();
        assert_eq!(pids, Vec::<i32>::new(), "processes were left");
        let others = |pid: &i32| !going_on.contains(&pid.unsigned_abs());
        let processes: Vec<_> = self.processes().into_iter().filter(others).collect();
        assert_eq!(processes, Vec::<i32>::new(), "processes were left");
        assert_eq!(links(), self.links, "network interfaces were left");
        assert_eq!(filters(), self.filters, "packet filters were left");
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts can be read");
        assert!(!self.is_in(&mounts), "mounts were left: {mounts}");
        let shared = ["registry.lock", "lease"].map(|name| self.runs.join(name));
        let files: Vec<_> = paths(&self.runs).into_iter().filter(|path| !shared.contains(path)).collect();
        assert_eq!(files, Vec::<PathBuf>::new(), "files were left beside the run directories");
        if let Some((cache, before)) = &self.cache {
            let left: Vec<_> = names_in(cache).difference(before).cloned().collect();
            assert_eq!(left, Vec::<PathBuf>::new(), "files were left in the cache");
        }
    }
}

impl Vmm {
    /// Waits until the process has ended, and checks that nobody is in its network namespace any more: then the kernel
    /// has destroyed it with all its links.
    ///
    /// # Panics
    /// When it does not end.
    pub fn assert_gone(&self) {
        let deadline = Instant::now() + GONE_WITHIN;
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let limit = Timespec::try_from(GONE_WITHIN).expect("a few seconds are a timespec");
        let ended = poll(&mut fds, Some(&limit)).expect("a pidfd can be polled");
        assert_eq!(ended, 1, "process {} outlives its test", self.pid);
        while self.is_populated() {
            assert!(Instant::now() < deadline, "somebody is still in the network namespace of process {}", self.pid);
            // A thread group leaves its namespace a moment after its leader has ended, and nobody tells.
            std::thread::yield_now();
        }
    }

    fn is_populated(&self) -> bool {
        let pids = fs::read_dir("/proc").expect("/proc is there").flatten();
        pids.filter_map(|entry| fs::metadata(entry.path().join("ns/net")).ok()).any(|ns| ns.ino() == self.namespace)
    }
}

/// What is in this directory; nothing where there is none.
fn paths(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

fn links() -> Vec<String> {
    let links = if_nameindex().expect("the links can be listed");
    links.iter().map(|link| link.name().to_string_lossy().into_owned()).collect()
}

/// The packet filters, where there is a program that lists them.
fn filters() -> Option<String> {
    let listed = Command::new("nft").args(["list", "ruleset"]).output().ok()?;
    Some(String::from_utf8_lossy(&listed.stdout).into_owned())
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What keeps a network namespace: threads that are in it, and descriptors and mounts of it.
fn holders(namespace: u64) -> Vec<String> {
    let name = format!("net:[{namespace}]");
    let is_it = |path: &Path| fs::read_link(path).is_ok_and(|link| link.as_os_str() == name.as_str());
    let below = |path: String| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found = Vec::new();
    for pid in pids() {
        found.extend(below(format!("/proc/{pid}/task")).map(|task| task.join("ns/net")).filter(|path| is_it(path)));
        found.extend(below(format!("/proc/{pid}/fd")).filter(|path| is_it(path)));
        let mounts = PathBuf::from(format!("/proc/{pid}/mountinfo"));
        found.extend(fs::read_to_string(&mounts).is_ok_and(|text| text.contains(&name)).then_some(mounts));
    }
    found.iter().map(|path| path.display().to_string()).collect()
}

/// What is in a cache: its directories, and what is in each of them, unless it is only a lock.
fn names_in(cache: &Path) -> BTreeSet<PathBuf> {
    let list =
        |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let all = list(cache).into_iter().flat_map(|dir| list(&dir).into_iter().chain([dir]));
    // Who has one of the last kind uses what is beside it.
    let is_lock = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "lock") || path.ends_with("used");
    all.filter(|path| !is_lock(path)).collect()
}

/// Where a program is, if it is on PATH.
pub fn find_on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Where a program is.
///
/// # Panics
/// When it is not on PATH.
pub fn on_path(program: &str) -> PathBuf {
    find_on_path(program).unwrap_or_else(|| panic!("there is no {program} on PATH"))
}

/// The directory of a run of this process.
pub fn run_dir(run: &str) -> PathBuf {
    let runs = std::env::var("VMTEST_RUN").or_else(|_| std::env::var("XDG_RUNTIME_DIR").map(|dir| dir + "/vmtest"));
    let runs = runs.unwrap_or_else(|_| format!("/tmp/vmtest-{}", caller()));
    Path::new(&runs).join(run)
}

/// The user id by which this user is known outside of a user namespace of one.
fn caller() -> u32 {
    let map = fs::read_to_string("/proc/self/uid_map").expect("/proc is there");
    let ids: Vec<u32> = map.split_whitespace().map_while(|id| id.parse().ok()).collect();
    match ids.as_slice() {
        [0, outside, 1, ..] => *outside,
        _ => nix::unistd::geteuid().as_raw(),
    }
}

/// The process that runs a machine now, as the journal of its run says.
///
/// # Panics
/// When there is none.
pub fn vmm_of(run: &str, node: &str) -> i32 {
    let journal = fs::read_to_string(run_dir(run).join("journal.jsonl")).expect("the run has a journal");
    let lines: Vec<Value> = journal.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let mut intents = lines.iter().filter(|line| line["effect"]["kind"] == "process" && line["effect"]["node"] == node);
    let last = intents.next_back().expect("the machine was started");
    let done = lines.iter().find(|line| line["type"] == "done" && line["id"] == last["id"]).expect("it was started");
    let pid = done["process"]["pid"].as_i64().expect("the process is known");
    i32::try_from(pid).expect("a pid fits")
}
