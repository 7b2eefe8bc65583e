//! Files by address and SHA-256, kept in the cache.

mod digest;
mod transfer;

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

pub use digest::Digest;
use transfer::{Failed, Transfer};

use crate::{Cache, Error, Progress, Result};

/// A server that is silent for longer than this is given up: TCP has sent a lost packet again several times by then.
const SILENCE: Duration = Duration::from_secs(30);
/// The pause before the second try; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Tries in a row that bring next to nothing; with their pauses they outlast the restart of a server.
const TRIES: u32 = 5;
/// A try that brings as much as this has not failed, so that a large file on a bad line arrives in the end.
const SOMETHING: u64 = 256 << 10;

/// One file of the network.
#[derive(Debug, Clone)]
pub struct Fetch {
    url: String,
    sha256: Digest,
    executable: bool,
    silence: Duration,
    first_pause: Duration,
}

impl Fetch {
    /// The file at this `http` or `https` address, which must have this SHA-256: 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::NoDigest`]: without one nobody knows what has come, and nothing is fetched.
    pub fn new(url: impl Into<String>, sha256: &str) -> Result<Self> {
        let sha256 = sha256.parse()?;
        Ok(Self { url: url.into(), sha256, executable: false, silence: SILENCE, first_pause: FIRST_PAUSE })
    }

    /// It is a program: its mode is 0755, not 0444.
    #[must_use]
    pub fn executable(mut self) -> Self {
        self.executable = true;
        self
    }

    /// For how long the server may be silent, 30 s otherwise, and how long the first pause between two tries is, half a second
    /// otherwise.
    #[must_use]
    pub fn patience(mut self, silence: Duration, first_pause: Duration) -> Self {
        (self.silence, self.first_pause) = (silence, first_pause);
        self
    }

    /// Where the cache has it, if it does; touches no network. What is there was checked when it came.
    pub fn find(&self, cache: &Cache) -> Option<PathBuf> {
        Some(self.place(cache)).filter(|path| path.is_file())
    }

    /// Finds it in the cache, or fetches it: goes on where an earlier try has ended, also one of a process that was killed;
    /// tries again after failures that may pass, each time after a longer pause; checks the digest, and only then gives the
    /// file its name. Of several processes one fetches, and the others wait for it. Blocks.
    ///
    /// # Errors
    /// [`Error::Download`], [`Error::Corrupt`], of which nothing stays, or a file of the cache that cannot be written.
    pub fn run(&self, cache: &Cache, progress: &dyn Progress) -> Result<PathBuf> {
        if let Some(path) = self.find(cache) {
            return Ok(path);
        }
        let dir = cache.downloads();
        fs::create_dir_all(&dir).map_err(Error::file("make", &dir))?;
        let _lock = cache.lock_in(&dir, &self.sha256.to_string(), || {
            progress.step(0, "waiting for another process that fetches it")
        })?;
        if let Some(path) = self.find(cache) {
            return Ok(path);
        }
        let part = dir.join(format!("{}.part", self.sha256));
        let resumed = fs::metadata(&part).is_ok_and(|meta| meta.len() > 0);
        let checked = self.transfer(&part, progress).and_then(|()| self.check(&part));
        match checked {
            // What a host had not written when its power failed can be the reason.
            Err(Error::Corrupt { .. }) if resumed => {
                self.transfer(&part, progress)?;
                self.check(&part)?;
            }
            other => other?,
        }
        self.publish(&part, cache)
    }

    fn place(&self, cache: &Cache) -> PathBuf {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let name: String = path.rsplit('/').next().unwrap_or_default().chars().filter(|&c| plain(c)).collect();
        cache.downloads().join(format!("{}-{name}", self.sha256))
    }

    /// Brings the file's bytes to `part`, behind those that are there.
    fn transfer(&self, part: &Path, progress: &dyn Progress) -> Result<()> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(part);
        let mut file = file.map_err(Error::file("open", part))?;
        let transfer = Transfer::new(&self.url, self.silence);
        let what = format!("fetching {}", self.url);
        let show = |percent| progress.step(percent, &what);
        let (mut failures, mut pause) = (0, self.first_pause);
        show(0);
        loop {
            let before = file.metadata().map_or(0, |meta| meta.len());
            let why = match transfer.go_on(&mut file, &show) {
                Ok(()) => return Ok(()),
                Err(Failed::Here(e)) => return Err(Error::file("write", part)(e)),
                Err(Failed::ForGood(why)) => return Err(self.failed(why, failures + 1)),
                Err(Failed::ForNow(why)) => why,
            };
            if file.metadata().is_ok_and(|meta| meta.len() >= before + SOMETHING) {
                (failures, pause) = (0, self.first_pause);
            }
            failures += 1;
            if failures == TRIES {
                return Err(self.failed(why, failures));
            }
            tracing::debug!("{}: {why}; trying again after {pause:?}", self.url);
            thread::sleep(pause);
            pause *= 2;
        }
    }

    fn failed(&self, why: String, tries: u32) -> Error {
        Error::Download { url: self.url.clone(), why, tries }
    }

    /// Removes what is not what was asked for.
    fn check(&self, part: &Path) -> Result<()> {
        let is = Digest::of_file(part).map_err(Error::file("read", part))?;
        if is == self.sha256 {
            return Ok(());
        }
        fs::remove_file(part).map_err(Error::file("remove", part))?;
        Err(Error::Corrupt { url: self.url.clone(), is: is.to_string(), expected: self.sha256.to_string() })
    }

    fn publish(&self, part: &Path, cache: &Cache) -> Result<PathBuf> {
        let mode = if self.executable { 0o755 } else { 0o444 };
        fs::set_permissions(part, PermissionsExt::from_mode(mode)).map_err(Error::file("change the mode of", part))?;
        File::open(part).and_then(|file| file.sync_all()).map_err(Error::file("write", part))?;
        let place = self.place(cache);
        fs::rename(part, &place).map_err(Error::file("rename", part))?;
        Ok(place)
    }
}
