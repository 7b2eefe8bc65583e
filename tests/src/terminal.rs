//! A terminal in which a program runs.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::OFlag,
    libc::O_NOCTTY,
    pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt},
};

/// The end of a terminal at which a person sits; the terminal is closed with it.
#[derive(Debug)]
pub struct Terminal(PtyMaster);

impl Terminal {
    /// Starts a program in a new terminal, as the leader of its session, with its runs in this place.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(program: impl AsRef<OsStr>, args: &[&str], runs: &Path) -> (Self, Child) {
        // Closed in whatever another test starts meanwhile, or the terminal would stay open there.
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("there are terminals");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("it is ours");
        let name = ptsname_r(&master).expect("it has a name");
        let slave =
            || Stdio::from(File::options().read(true).write(true).custom_flags(O_NOCTTY).open(&name).expect("opened"));
        // It goes at the end, and with it our copies of the other end: a program that dies is not waited for.
        let mut command = Command::new("setsid");
        command.args(["--wait", "--ctty"]).arg(program).args(args).env("VMTEST_RUN", runs);
        let child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().expect("it runs");
        (Self(master), child)
    }

    /// Reads until this was printed, however long that takes.
    ///
    /// # Panics
    /// When the program ends without.
    pub fn read_until(&mut self, text: &str) {
        self.read_within(text, Duration::MAX);
    }

    /// The same, of a program that says something else for no longer than this.
    ///
    /// # Panics
    /// When the program ends without, or goes on without.
    pub fn read_within(&mut self, text: &str, within: Duration) {
        let (mut read, mut buffer, began) = (String::new(), [0; 4096], Instant::now());
        while !read.contains(text) {
            assert!(began.elapsed() < within, "it does not say `{text}`: {read}");
            let length = self.0.read(&mut buffer).unwrap_or_else(|e| panic!("it ended ({e}) before `{text}`: {read}"));
            read += &String::from_utf8_lossy(&buffer[..length]);
        }
    }

    /// Types this.
    ///
    /// # Panics
    /// When the terminal is closed.
    pub fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("it is open");
    }
}
