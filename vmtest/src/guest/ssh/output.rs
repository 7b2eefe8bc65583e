//! What a command printed and how it ended.

use std::{borrow::Cow, fs::File, os::unix::fs::FileExt, sync::Arc, time::Duration};

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

    /// What was kept in memory of standard output, and how many bytes there were in all.
    pub(crate) fn stdout_head(&self) -> (&[u8], u64) {
        self.stdout.head()
    }

    /// The same of standard error.
    pub(crate) fn stderr_head(&self) -> (&[u8], u64) {
        self.stderr.head()
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

/// One stream of a command that has ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Captured {
    memory: Vec<u8>,
    /// What did not fit: a file, and from where to where it holds what came.
    file: Option<(Arc<File>, u64, u64)>,
}

impl Captured {
    pub(super) fn new(memory: Vec<u8>, file: Option<(Arc<File>, u64, u64)>) -> Self {
        Self { memory, file }
    }

    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        let Some((file, start, end)) = &self.file else { return Cow::Borrowed(&self.memory) };
        let mut all = self.memory.clone();
        all.resize(self.memory.len() + usize::try_from(end - start).unwrap_or_default(), 0);
        match file.read_exact_at(&mut all[self.memory.len()..], *start) {
            Ok(()) => Cow::Owned(all),
            // An unnamed file of our own on a disk that fails: what was kept in memory is all there is.
            Err(_) => Cow::Borrowed(&self.memory),
        }
    }

    fn head(&self) -> (&[u8], u64) {
        let beyond = self.file.as_ref().map_or(0, |(_, start, end)| end - start);
        (&self.memory, self.memory.len() as u64 + beyond)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).trim().to_owned()
    }
}
