//! Files that grow line by line, and lose nothing when their writer is killed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// A file to which whole lines are added, each by one call of the kernel: what was written is there although the process
/// is killed. Never fails and never grows beyond its limit: whoever writes has something more important to do.
#[derive(Debug)]
pub(crate) struct LineLog {
    file: File,
    /// The last line of a log that would grow beyond its limit.
    cut: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many bytes may still be written.
    left: usize,
    /// The last line has no end: there was no space for all of it.
    torn: bool,
}

impl LineLog {
    /// Opens a log, and makes it where there is none. At the limit, in bytes, the line `cut` is written and then nothing.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn open(path: &Path, limit: usize, cut: &'static str) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self { file, cut, state: Mutex::new(State { left: limit, torn: false }) })
    }

    /// Adds a line, which is given with its end. What there is no space for is left out.
    pub(crate) fn add(&self, line: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.left == 0 {
            return;
        }
        let fits = line.len() <= state.left;
        let line = if fits { line } else { self.cut.as_bytes() };
        state.left = if fits { state.left - line.len() } else { 0 };
        let whole = [b"\n", line].concat();
        let line = if state.torn { &whole[..] } else { line };
        // A disk that is full now may have space again later.
        if let Ok(written) = (&self.file).write(line) {
            state.torn = written < line.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_log_ends_at_its_limit_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let log = LineLog::open(&dir.path().join("log"), 20, "and more\n").unwrap();
        for line in ["the first\n", "the second, too long\n", "x\n"] {
            log.add(line.as_bytes());
        }
        assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), "the first\nand more\n");
    }

    #[test]
    fn a_full_disk_is_no_error() {
        let log = LineLog::open(Path::new("/dev/full"), 1000, "").unwrap();
        log.add(b"a line\n");
        log.add(b"another\n");
    }

    #[test]
    fn after_half_a_line_comes_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let log = LineLog::open(&dir.path().join("log"), 1000, "").unwrap();
        log.add(b"half");
        log.state.lock().unwrap().torn = true;
        log.add(b"whole\n");
        assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), "half\nwhole\n");
    }
}
