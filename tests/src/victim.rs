//! A test in a process of its own, to see how it ends.

use std::{
    io::{BufRead, BufReader, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::ExitStatusExt,
    },
    panic::Location,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::Host;

/// Starts a program as this user, and without the right to make networks. Root keeps the others: one without CAP_SETFCAP
/// is root of no namespace.
pub const WITHOUT_RIGHTS: [&str; 3] =
    ["setpriv", "--bounding-set=-sys_admin,-net_admin", "--inh-caps=-sys_admin,-net_admin"];

/// Starts a program where KVM is none, if there is one.
pub const WITHOUT_KVM: [&str; 5] =
    ["unshare", "--mount", "sh", "-c", "[ ! -e /dev/kvm ] || mount --bind /dev/null /dev/kvm && exec \"$0\" \"$@\""];

/// An ignored test of the calling binary, to be run by another test.
///
/// Its run directories are in a root of its own, so that what it leaves can be told from what others do.
#[derive(Debug)]
pub struct Victim {
    command: Command,
    runs: TempDir,
    host: Host,
}

impl Victim {
    /// The victim of this name in the module `victims` of the file that calls this.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        Self::within(&[], name)
    }

    /// A victim that may make no networks, as an ordinary user's may not.
    #[track_caller]
    pub fn without_rights(name: &str) -> Self {
        Self::within(&WITHOUT_RIGHTS, name)
    }

    /// A victim that is started by another program, which gets the test binary and its arguments behind its own.
    #[track_caller]
    pub fn within(wrapper: &[&str], name: &str) -> Self {
        let runs = TempDir::new().expect("a temporary directory");
        let binary = std::env::current_exe().expect("a running test knows its binary");
        let name = format!("{}victims::{name}", module(Location::caller().file()));
        let words = wrapper.iter().copied().map(PathBuf::from).chain([binary]).collect::<Vec<_>>();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args([&name, "--exact", "--ignored", "--nocapture"]);
        command.env("VMTEST_RUN", runs.path());
        let host = Host::before(runs.path());
        Self { command, runs, host }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives it a cache of its own, which is looked at too.
    #[must_use]
    pub fn with_cache(mut self, cache: &Path) -> Self {
        self.host.watch_cache(cache);
        self.env("VMTEST_CACHE", cache)
    }

    /// Puts the run directories under a root that others use too.
    #[must_use]
    pub fn beside(self, runs: &Path) -> Self {
        self.env("VMTEST_RUN", runs)
    }

    /// Changes the command as it is.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// The root of its run directories.
    pub fn runs(&self) -> &Path {
        self.runs.path()
    }

    /// Runs it to its end.
    pub fn run(self) -> Ended {
        self.start().finish()
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let complaints = tempfile::tempfile().expect("a temporary file");
        let stderr = complaints.try_clone().expect("it can be duplicated");
        let started = Instant::now();
        let mut child = self.command.stdout(Stdio::piped()).stderr(stderr).spawn().expect("the test binary runs");
        let stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        Running { child, stdout, printed: String::new(), complaints, started, runs: self.runs, host: self.host }
    }
}

/// The module that this file is, with `::` behind it; nothing for the root of a test binary, as `tests/<name>.rs` is one.
fn module(file: &str) -> String {
    let path = Path::new(file).with_extension("");
    let mut below: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    let tests = below.iter().rposition(|part| part == "tests").expect("it is called by a test");
    // The first name is the binary's.
    below.drain(..=tests + 1);
    below.iter().filter(|part| *part != "main").map(|part| format!("{part}::")).collect()
}

/// A victim that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    printed: String,
    complaints: std::fs::File,
    started: Instant,
    runs: TempDir,
    host: Host,
}

impl Running {
    /// Waits until it prints a line with this text, and gives that line.
    ///
    /// # Panics
    /// When it ends without.
    pub fn wait_for(&mut self, text: &str) -> String {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let read = self.stdout.read_line(&mut line).expect("its output can be read");
            assert!(read > 0, "it ended before it printed `{text}`: {}{}", self.printed, self.complained());
            self.printed += &line;
        }
        line
    }

    /// Waits until this text is on its standard error.
    ///
    /// # Panics
    /// When it ends without.
    pub fn wait_to_complain(&mut self, text: &str) {
        while !self.complained().contains(text) {
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(
                ended.is_none() || self.complained().contains(text),
                "it ended without `{text}`: {}",
                self.complained()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What the kernel says that it does: `R` and `S` for running, `T` for stopped.
    pub fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it is there");
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).expect("a process has a state")
    }

    /// Sends it, and nobody else, a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).expect("a child that was not waited for can be signalled");
    }

    /// Sends a signal to all of its process group, which must be its own.
    pub fn signal_group(&self, signal: Signal) {
        let group = Pid::from_raw(-self.child.id().cast_signed());
        kill(group, signal).expect("a child that was not waited for can be signalled");
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it may leave.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The reading end of its standard output.
    pub fn output(&self) -> BorrowedFd<'_> {
        self.stdout.get_ref().as_fd()
    }

    /// The root of its run directories.
    pub fn runs(&self) -> &Path {
        self.runs.path()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Ended {
        self.stdout.read_to_string(&mut self.printed).expect("its output can be read");
        let status = self.child.wait().expect("a child can be waited for");
        assert!(!self.printed.contains("\nrunning 0 tests\n"), "there is no such victim");
        let text = format!("{}{}", self.printed, self.complained());
        Ended { status, text, took: self.started.elapsed(), runs: self.runs, host: self.host }
    }

    fn complained(&self) -> String {
        use std::os::unix::fs::FileExt;
        let length = self.complaints.metadata().map_or(0, |meta| meta.len());
        let mut bytes = vec![0; usize::try_from(length).expect("it fits into memory")];
        self.complaints.read_exact_at(&mut bytes, 0).expect("what was written can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// How a victim ended.
#[derive(Debug)]
pub struct Ended {
    status: ExitStatus,
    text: String,
    took: Duration,
    runs: TempDir,
    host: Host,
}

impl Ended {
    /// Everything it printed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How long it ran.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The root of its run directories.
    pub fn runs(&self) -> &Path {
        self.runs.path()
    }

    /// What it may have left.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<Signal> {
        self.status.signal().and_then(|number| Signal::try_from(number).ok())
    }

    /// Whether it passed.
    pub fn passed(&self) -> bool {
        self.status.success()
    }

    /// Checks that it passed.
    ///
    /// # Panics
    /// With what it printed.
    #[must_use]
    pub fn assert_passed(self) -> Self {
        assert!(self.status.success(), "{}", self.text);
        self
    }

    /// Checks that it failed as a test fails, and said all of this.
    ///
    /// # Panics
    /// With what it printed instead.
    #[must_use]
    pub fn assert_failed_with(self, said: &[&str]) -> Self {
        assert_eq!(self.status.code(), Some(101), "{}", self.text);
        for part in said {
            assert!(self.text.contains(part), "it does not say `{part}`:\n{}", self.text);
        }
        self
    }

    /// Checks that the host is as before.
    ///
    /// # Panics
    /// With the name of what was left.
    pub fn assert_nothing_left(&self) {
        self.host.assert_as_before();
    }
}
