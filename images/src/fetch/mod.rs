//! Files by address and digest, kept in the cache.

mod digest;
mod download;
mod page;
mod transfer;
mod tries;

use std::{path::PathBuf, time::Duration};

use ureq::{
    Agent, Body,
    http::{Response, header},
};

pub use digest::{Algorithm, Digest};
pub(crate) use download::Download;
pub(crate) use page::page;
pub(crate) use transfer::{Failed, Remote, agent, range};
pub(crate) use tries::{GivenUp, Patience, Stop, patiently};

#[cfg(doc)]
use crate::Error;
use crate::{Cache, Progress, Result};

/// How much of a file's own name is kept: with the digits of a SHA-512 before it, it is none that is too long.
const LONGEST_NAME: usize = 100;

/// One file of the network.
#[derive(Debug, Clone)]
pub struct Fetch {
    url: String,
    digest: Digest,
    executable: bool,
    patience: Patience,
}

impl Fetch {
    /// The file at this `http` or `https` address, which must have this digest: the 64 hexadecimal digits of a SHA-256, or
    /// `sha512:` and the 128 of a SHA-512.
    ///
    /// # Errors
    /// [`Error::NoDigest`]: without one nobody knows what has come, and nothing is fetched.
    pub fn new(url: impl Into<String>, digest: &str) -> Result<Self> {
        Ok(Self::known(url, digest.parse()?))
    }

    /// The same with a digest that was read already.
    pub(crate) fn known(url: impl Into<String>, digest: Digest) -> Self {
        Self { url: url.into(), digest, executable: false, patience: Patience::default() }
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
        self.patience = Patience { silence, first_pause };
        self
    }

    /// What it must have.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
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
        let (dir, what) = (cache.downloads(), format!("fetching {}", self.url));
        let remote = Address { url: &self.url, agent: agent(self.patience.silence).build().into() };
        let place = self.place(cache);
        let download = Download {
            remote: &remote,
            url: &self.url,
            digest: self.digest,
            size: None,
            incoming: &dir,
            place: place.clone(),
            mode: if self.executable { 0o755 } else { 0o444 },
            first_pause: self.patience.first_pause,
            stop: &Stop::default(),
        };
        let waits = || progress.step(0, "waiting for another process that fetches it");
        let show = |at: u64, whole: Option<u64>| progress.step(whole.map_or(0, |whole| at * 100 / whole.max(1)), &what);
        match download.run(cache, waits, &show) {
            Ok(()) => Ok(place),
            Err(why) => Err(why.expect("nobody stops it")),
        }
    }

    fn place(&self, cache: &Cache) -> PathBuf {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let name = path.rsplit('/').next().unwrap_or_default().chars().filter(|&c| plain(c));
        let name: String = name.take(LONGEST_NAME).collect();
        cache.downloads().join(format!("{}-{name}", self.digest))
    }
}

/// An address that anybody may ask.
struct Address<'a> {
    url: &'a str,
    agent: Agent,
}

impl Remote for Address<'_> {
    fn ask(&self, have: u64) -> std::result::Result<Response<Body>, Failed> {
        let request = self.agent.get(self.url);
        let request = if have > 0 { request.header(header::RANGE, range(have)) } else { request };
        Ok(request.call()?)
    }
}
