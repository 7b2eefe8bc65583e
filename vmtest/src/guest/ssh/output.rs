//! What a command printed and how it ended.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::Arc,
    time::Duration,
};

/// What one stream keeps in memory; the rest goes to a file, so that a gigabyte of output costs no memory.
const IN_MEMORY: usize = 1 << 20;

/// What a command printed and how it ended. Standard output, standard error and exit code are apart.
#[derive(Debug, Clone)]
pub struct Output {
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
    pub(super) code: Option<i32>,
    pub(super) signal: Option<String>,
    pub(super) elapsed: Duration,
}

impl Output {
    /// Standard output as text, without white space at its ends; what is not UTF-8 is replaced.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Standard error as text, like [`stdout`](Self::stdout).
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Standard output, byte for byte.
    pub fn stdout_raw(&self) -> Cow<'_, [u8]> {
        self.stdout.bytes()
    }

    /// Standard error, byte for byte.
    pub fn stderr_raw(&self) -> Cow<'_, [u8]> {
        self.stderr.bytes()
    }

    /// The exit code; `None` for a command that a signal ended.
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// The signal that ended the command, without `SIG`.
    pub fn signal(&self) -> Option<&str> {
        self.signal.as_deref()
    }

    /// Whether it ended with exit code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// How long it ran, as seen from here.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

/// One stream of a command.
#[derive(Debug, Clone, Default)]
pub(super) struct Captured {
    memory: Vec<u8>,
    /// What came after the memory was full, and its length.
    file: Option<(Arc<File>, usize)>,
}

impl Captured {
    pub(super) fn push(&mut self, data: &[u8]) -> io::Result<()> {
        let room = if self.file.is_some() { 0 } else { IN_MEMORY.saturating_sub(self.memory.len()) };
        let (first, rest) = data.split_at(room.min(data.len()));
        self.memory.extend_from_slice(first);
        if !rest.is_empty() {
            let (file, len) = match &mut self.file {
                Some(file) => file,
                none => none.insert((Arc::new(tempfile::tempfile()?), 0)),
            };
            (&mut &**file).write_all(rest)?;
            *len += rest.len();
        }
        Ok(())
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        let Some((file, len)) = &self.file else { return Cow::Borrowed(&self.memory) };
        let mut all = self.memory.clone();
        all.resize(self.memory.len() + len, 0);
        match file.read_exact_at(&mut all[self.memory.len()..], 0) {
            Ok(()) => Cow::Owned(all),
            // An unnamed file of our own on a disk that fails: what was kept in memory is all there is.
            Err(_) => Cow::Borrowed(&self.memory),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_into_memory_is_kept_all_the_same() {
        let data: Vec<u8> = (0..3 << 20).map(|i: u32| (i % 251) as u8).collect();
        let mut captured = Captured::default();
        data.chunks(32 << 10).for_each(|chunk| captured.push(chunk).unwrap());
        assert_eq!(captured.memory.len(), IN_MEMORY);
        assert_eq!(*captured.bytes(), *data);
        assert_eq!(*captured.clone().bytes(), *data);
    }
}
