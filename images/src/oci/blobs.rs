//! What has come from registries, in the cache: each blob under its digest, so that images which share layers fetch them once.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::store::{BLOBS, Store};
use crate::{
    Cache, Error, Result,
    kept::{USED, lock_alone, open_used},
};

/// Where blobs are that are not complete.
const INCOMING: &str = "incoming";

/// The blobs of a cache. As long as this lives, nobody removes any.
pub(super) struct Blobs {
    dir: PathBuf,
    _lock: File,
}

impl Blobs {
    pub(super) fn open(cache: &Cache) -> Result<Self> {
        let dir = cache.registries();
        for dir in [dir.join(BLOBS), dir.join(INCOMING)] {
            fs::create_dir_all(&dir).map_err(Error::file("make", dir))?;
        }
        let lock = open_used(&dir).and_then(|file| file.lock_shared().map(|()| file));
        Ok(Self { _lock: lock.map_err(Error::file("lock", dir.join(USED)))?, dir })
    }

    pub(super) fn store(&self) -> Store {
        Store::of_blobs(self.dir.clone())
    }

    pub(super) fn place(&self, sha256: &str) -> PathBuf {
        self.dir.join(BLOBS).join(sha256)
    }

    pub(super) fn incoming(&self) -> PathBuf {
        self.dir.join(INCOMING)
    }

    /// Whether this blob is there; it is used now if it is.
    pub(super) fn has(&self, sha256: &str) -> bool {
        let file = File::open(self.place(sha256));
        // Whose cache that is says how old its blobs are.
        file.is_ok_and(|file| file.set_modified(SystemTime::now()).is_ok() || file.metadata().is_ok())
    }

    /// Puts a small one there, of which the digest is known to be right.
    pub(super) fn put(&self, sha256: &str, content: &[u8]) -> Result<()> {
        let incoming = self.incoming();
        let file = tempfile::Builder::new().prefix(sha256).tempfile_in(&incoming);
        let mut file = file.map_err(Error::file("write in", &incoming))?;
        let written = file.write_all(content).and_then(|()| file.as_file().sync_all());
        written.map_err(Error::file("write", file.path()))?;
        let place = self.place(sha256);
        file.persist(&place).map(drop).map_err(|e| Error::file("write", place)(e.error))
    }

    /// Removes one that is not what it should be.
    pub(super) fn forget(&self, sha256: &str) {
        // What cannot be removed is found to be wrong again.
        _ = fs::remove_file(self.place(sha256));
    }
}

impl Cache {
    /// How many bytes on the host's disk the layers take that have come from registries.
    pub fn layer_bytes(&self) -> u64 {
        files(&self.registries()).map(|(_, meta)| meta.blocks() * 512).sum()
    }

    /// Removes the layers that nobody has used for so long; none where somebody is making an image of some. Images that were
    /// made of them stay. Returns how many bytes that were, or would be.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(crate) fn sweep_layers(&self, older_than: Duration, dry_run: bool) -> Result<u64> {
        let dir = self.registries();
        if !dir.is_dir() {
            return Ok(0);
        }
        let Some(_lock) = lock_alone(&dir)? else { return Ok(0) };
        let (now, mut freed) = (SystemTime::now(), 0);
        for (path, meta) in files(&dir) {
            let age = meta.modified().ok().and_then(|used| now.duration_since(used).ok()).unwrap_or_default();
            if age >= older_than {
                if !dry_run {
                    fs::remove_file(&path).map_err(Error::file("remove", path))?;
                }
                freed += meta.blocks() * 512;
            }
        }
        Ok(freed)
    }
}

/// The blobs of this directory, and those that are not complete.
fn files(dir: &Path) -> impl Iterator<Item = (PathBuf, fs::Metadata)> {
    let dirs = [dir.join(BLOBS), dir.join(INCOMING)];
    let entries = dirs.into_iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok().filter(fs::Metadata::is_file)?)))
}
