//! A file of which the digest is known, from wherever it comes.

use std::{
    cell::Cell,
    fs::{self, File, OpenOptions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Digest, GivenUp, Remote, Stop, patiently, transfer::go_on};
use crate::{Cache, Error, Result, cache::PART};

/// A try that brings as much as this has not failed, so that a large file on a bad line arrives in the end.
const SOMETHING: u64 = 256 << 10;

/// What is wanted, where it comes from, and where it goes.
pub(crate) struct Download<'a> {
    pub(crate) remote: &'a dyn Remote,
    /// Where that is, for people.
    pub(crate) url: &'a str,
    pub(crate) digest: Digest,
    /// How many bytes it has at most.
    pub(crate) size: Option<u64>,
    /// A directory for what is not complete.
    pub(crate) incoming: &'a Path,
    pub(crate) place: PathBuf,
    pub(crate) mode: u32,
    pub(crate) first_pause: Duration,
    pub(crate) stop: &'a Stop,
}

impl Download<'_> {
    /// Brings it to its place: goes on where an earlier try has ended, also one of a process that was killed; checks the digest,
    /// and only then gives the file its name. Of several processes one fetches, and the others wait for it.
    ///
    /// # Errors
    /// `None` where it was stopped; [`Error::Download`], [`Error::Corrupt`], of which nothing stays, or a file of the cache that
    /// cannot be written.
    pub(crate) fn run(
        &self,
        cache: &Cache,
        waits: impl FnOnce(),
        show: &dyn Fn(u64, Option<u64>),
    ) -> std::result::Result<(), Option<Error>> {
        fs::create_dir_all(self.incoming).map_err(Error::file("make", self.incoming))?;
        let _lock = cache.lock_in(self.incoming, &self.digest.to_string(), waits)?;
        if self.place.is_file() {
            return Ok(());
        }
        show(0, self.size);
        let part = self.incoming.join(format!("{}{PART}", self.digest));
        let resumed = fs::metadata(&part).is_ok_and(|meta| meta.len() > 0);
        self.transfer(&part, show)?;
        match self.check(&part) {
            // What a host had not written when its power failed can be the reason.
            Err(Error::Corrupt { .. }) if resumed => {
                self.transfer(&part, show)?;
                self.check(&part)?;
            }
            other => other?,
        }
        Ok(self.publish(&part)?)
    }

    /// Brings the file's bytes to `part`, behind those that are there.
    fn transfer(&self, part: &Path, show: &dyn Fn(u64, Option<u64>)) -> std::result::Result<(), Option<Error>> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(part);
        let mut file = file.map_err(Error::file("open", part))?;
        let length = || fs::metadata(part).map_or(0, |meta| meta.len());
        let before = Cell::new(0);
        let one = || {
            before.set(length());
            go_on(self.remote, &mut file, self.size, self.stop, show)
        };
        let progress = || length() >= before.get() + SOMETHING;
        let ended = patiently(self.url, self.first_pause, self.stop, one, progress);
        if ended.is_err() && length() == 0 {
            // There is nothing to go on from.
            fs::remove_file(part).map_err(Error::file("remove", part))?;
        }
        ended.map_err(|why| match why {
            GivenUp::Failed { why, tries } => Some(Error::Download { url: self.url.to_owned(), why, tries }),
            GivenUp::Here(e) => Some(Error::file("write", part)(e)),
            GivenUp::Stopped => None,
        })
    }

    /// Removes what is not what was asked for.
    fn check(&self, part: &Path) -> Result<()> {
        let algorithm = self.digest.algorithm();
        let is = Digest::of_file_by(algorithm, part).map_err(Error::file("read", part))?;
        if is == self.digest {
            return Ok(());
        }
        fs::remove_file(part).map_err(Error::file("remove", part))?;
        let (is, expected) = (is.to_string(), self.digest.to_string());
        Err(Error::Corrupt { url: self.url.to_owned(), algorithm, is, expected })
    }

    fn publish(&self, part: &Path) -> Result<()> {
        fs::set_permissions(part, PermissionsExt::from_mode(self.mode))
            .map_err(Error::file("change the mode of", part))?;
        File::open(part).and_then(|file| file.sync_all()).map_err(Error::file("write", part))?;
        fs::rename(part, &self.place).map_err(Error::file("rename", part))
    }
}
