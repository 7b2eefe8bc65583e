//! What is on this host that a run could have left.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::net::if_::if_nameindex;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::Value;

/// A killed VMM is gone in under 20 ms; one that is there after this will stay.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// The names of the network interfaces, and the root of the run directories that one test uses.
#[derive(Debug)]
pub struct Host {
    runs: PathBuf,
    links: Vec<String>,
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
        Self { runs: runs.to_owned(), links: links(), seen: RefCell::default() }
    }

    /// The run directories that are there now.
    pub fn run_dirs(&self) -> Vec<PathBuf> {
        let lease = self.runs.join("lease");
        paths(&self.runs).into_iter().filter(|path| path.is_dir() && *path != lease).collect()
    }

    /// The processes that work in one of the run directories now.
    pub fn vmms(&self) -> Vec<Vmm> {
        let pids = fs::read_dir("/proc").expect("/proc is there").flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter_map(|pid| self.vmm(pid).ok().flatten()).collect()
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
        let mounts = fs::read_to_string(format!("/proc/{pid}/mounts"))?;
        let mut seen = self.seen.borrow_mut();
        seen.extend(self.run_dirs().iter().filter_map(|run| Some(run.file_name()?.to_string_lossy().into_owned())));
        Ok(seen.iter().any(|run| mounts.contains(&format!("vmtest-{run}-"))))
    }

    /// Checks that processes, links and run directories are as before.
    ///
    /// # Panics
    /// With the name of what was left.
    pub fn assert_as_before(&self) {
        assert_eq!(self.run_dirs(), Vec::<PathBuf>::new(), "run directories were left");
        for files in ["claims", "queue"] {
            assert_eq!(paths(&self.runs.join("lease").join(files)), Vec::<PathBuf>::new(), "{files} were left");
        }
        let pids: Vec<_> = self.vmms().iter().map(|vmm| vmm.pid).collect();
        assert_eq!(pids, Vec::<i32>::new(), "processes were left");
        assert_eq!(links(), self.links, "network interfaces were left");
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

/// Where a program is.
///
/// # Panics
/// When it is not on PATH.
pub fn on_path(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("there is no {program} on PATH"))
}

/// The directory of a run of this process.
pub fn run_dir(run: &str) -> PathBuf {
    let runs = std::env::var("VMTEST_RUN").or_else(|_| std::env::var("XDG_RUNTIME_DIR").map(|dir| dir + "/vmtest"));
    let runs = runs.unwrap_or_else(|_| format!("/tmp/vmtest-{}", nix::unistd::geteuid()));
    Path::new(&runs).join(run)
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
