//! What the cache has beside images: how much that is, and what of it nobody needs.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use vmtest_fixtures::allocated;

use crate::{
    Cache, Error, Result,
    cache::PART,
    image::BUILD,
    kept::{LEAVING, USED, age, dirs, entries, lock_alone, open_used, remove},
    vmlinux::KERNEL,
};

/// What the names of records began with that were not complete, as earlier versions wrote them.
const RECORD: &str = ".tmp";

/// What a cache has beside images, in bytes on the host's disk.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Beside {
    /// Layers as they came from registries.
    pub layer_bytes: u64,
    /// Kernels that were unpacked for VMMs that load no other.
    pub kernel_bytes: u64,
    /// Files of the network that are no installed programs, whole or not.
    pub download_bytes: u64,
    /// What builds and removals are at, or have left when they were killed.
    pub unfinished_bytes: u64,
}

impl Beside {
    /// All of it together.
    pub fn bytes(&self) -> u64 {
        self.layer_bytes + self.kernel_bytes + self.download_bytes + self.unfinished_bytes
    }
}

impl Cache {
    /// How much there is beside images.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn beside_images(&self) -> Result<Beside> {
        let bytes = |paths: Vec<PathBuf>| paths.iter().map(|path| allocated(path)).sum();
        let unfinished = unfinished(self)?.into_iter().map(|(_, path)| path).collect();
        Ok(Beside {
            layer_bytes: self.layer_bytes(),
            kernel_bytes: bytes(kernels(self)?),
            download_bytes: bytes(downloads(self)?),
            unfinished_bytes: bytes(unfinished),
        })
    }

    /// Removes what killed builds and removals have left, and what nobody has used for so long: layers, downloads, and unpacked
    /// kernels, of these none as long as somebody uses an image. Says how much that is, or would be.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn sweep(&self, unused_for: Duration, dry_run: bool) -> Result<Beside> {
        let is_old = |path: &Path| changed(path).is_some_and(|then| age(then) >= unused_for);
        let gone = |path: &Path| {
            let bytes = allocated(path);
            if dry_run { Ok(bytes) } else { remove(path).map(|()| bytes) }
        };
        let mut swept = Beside { layer_bytes: self.sweep_layers(unused_for, dry_run)?, ..Beside::default() };
        for (maker, path) in unfinished(self)? {
            // Nobody makes it while the lock is to be had.
            let lock = maker.map(|name| self.try_lock(&name)).transpose()?;
            let is_left = match &lock {
                Some(lock) => lock.is_some(),
                None => !is_record(&path) || is_old(&path),
            };
            if is_left {
                swept.unfinished_bytes += gone(&path)?;
            }
        }
        swept.download_bytes = self.sweep_downloads(is_old, gone)?;
        let old: Vec<_> = kernels(self)?.into_iter().filter(|path| is_old(path)).collect();
        // A run that has found one looks whether it is there when it holds its image, and cannot hold any meanwhile.
        if !old.is_empty()
            && let Some(_locks) = lock_all(self)?
        {
            for path in old {
                swept.kernel_bytes += gone(&path)?;
            }
        }
        Ok(swept)
    }

    fn sweep_downloads(&self, is_old: impl Fn(&Path) -> bool, gone: impl Fn(&Path) -> Result<u64>) -> Result<u64> {
        let (dir, mut freed) = (self.downloads(), 0);
        let old: Vec<_> = downloads(self)?.into_iter().filter(|path| is_old(path)).collect();
        if old.is_empty() {
            return Ok(0);
        }
        let Some(_lock) = lock_alone(&dir)? else { return Ok(0) };
        for path in old {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let digest = name.strip_suffix(PART).or(name.split('-').next()).unwrap_or(&name);
            // Nobody fetches it.
            if let Some(_lock) = self.try_lock_in(&dir, digest)? {
                freed += gone(&path)?;
            }
        }
        Ok(freed)
    }

    /// As long as the result lives, nobody removes a download.
    pub(crate) fn hold_downloads(&self) -> Result<File> {
        let dir = self.downloads();
        fs::create_dir_all(&dir).map_err(Error::file("make", &dir))?;
        let held = open_used(&dir).and_then(|file| file.lock_shared().map(|()| file));
        held.map_err(Error::file("lock", dir.join(USED)))
    }
}

/// What is half made beside the images, or half removed, with the name that is locked by whoever makes it.
fn unfinished(cache: &Cache) -> Result<Vec<(Option<String>, PathBuf)>> {
    let maker = |name: &str| {
        let hidden = name.strip_prefix('.')?;
        let of_build = hidden.split_once(BUILD).map(|(stem, _)| stem);
        match of_build.or(hidden.starts_with(KERNEL).then_some(hidden)) {
            Some(locked) => Some(Some(locked.to_owned())),
            None => (name.starts_with(LEAVING) || name.starts_with(RECORD)).then_some(None),
        }
    };
    Ok(entries(cache)?.into_iter().filter_map(|(name, path)| Some((maker(&name)?, path))).collect())
}

fn is_record(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(RECORD))
}

fn kernels(cache: &Cache) -> Result<Vec<PathBuf>> {
    let is_kernel = |(name, path): &(String, PathBuf)| name.starts_with(KERNEL) && path.extension().is_none();
    Ok(entries(cache)?.into_iter().filter(is_kernel).map(|(_, path)| path).collect())
}

/// What has come from the network, but for programs that have a name.
fn downloads(cache: &Cache) -> Result<Vec<PathBuf>> {
    let programs = files(&cache.programs())?;
    let programs: Vec<_> = programs.iter().filter_map(|link| fs::canonicalize(link).ok()).collect();
    let is_one = |path: &PathBuf| {
        let of_locks = path.extension().is_some_and(|ending| ending == "lock") || path.ends_with(USED);
        !of_locks && fs::canonicalize(path).is_ok_and(|path| !programs.contains(&path))
    };
    Ok(files(&cache.downloads())?.into_iter().filter(is_one).collect())
}

/// What is in a directory that there may not be.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::file("read", dir)(e)),
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

/// The locks of all images, if nobody uses any.
fn lock_all(cache: &Cache) -> Result<Option<Vec<File>>> {
    dirs(cache)?.iter().map(|(_, dir)| lock_alone(dir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// A file of 5000 bytes that nobody has used for so long.
    fn leave(path: &Path, unused_for: Duration) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, [1; 5000]).unwrap();
        File::open(path).unwrap().set_modified(SystemTime::now() - unused_for).unwrap();
    }

    /// Those of these that are in this directory.
    fn there<'a>(dir: &Path, names: &[&'a str]) -> Vec<&'a str> {
        names.iter().copied().filter(|name| dir.join(name).exists()).collect()
    }

    #[test]
    fn what_kills_have_left_goes_whatever_its_age() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let images = cache.images();
        let left = [".micro-4567-build-x", ".leaving-micro-1", ".vmlinux-1", ".tmpAbCdEf"];
        let made = [".debian-12-9-build-y", ".vmlinux-2", ".tmpGhIjKl", "micro-1", "micro-1.json"];
        for name in left.into_iter().chain(made) {
            leave(&images.join(name), if name == ".tmpAbCdEf" { MONTH } else { Duration::ZERO });
        }
        let makers = ["debian-12-9", "vmlinux-2"].map(|name| cache.try_lock(name).unwrap().expect("nobody has it"));
        let would = cache.sweep(MONTH, true).unwrap();
        assert_eq!(there(&images, &left), left, "that was only asked");
        assert!(would.unfinished_bytes >= 4 * 5000 && would.unfinished_bytes == would.bytes(), "{would:?}");
        assert_eq!(cache.sweep(MONTH, false).unwrap(), would);
        assert_eq!((there(&images, &left).len(), there(&images, &made)), (0, made.to_vec()));
        drop(makers);
        cache.sweep(Duration::ZERO, false).unwrap();
        assert_eq!(there(&images, &made), made[3..]);
    }

    #[test]
    fn kernels_and_downloads_go_when_nobody_has_used_them_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let (images, downloads) = (cache.images(), cache.downloads());
        let old = ["vmlinux-old", "aaaa.part", "bbbb-disk.qcow2"];
        let new = ["vmlinux-new", "cccc.part", "dddd-disk.qcow2"];
        let place = |name: &&str| if name.starts_with(KERNEL) { images.join(name) } else { downloads.join(name) };
        old.iter().for_each(|name| leave(&place(name), 40 * DAY));
        new.iter().for_each(|name| leave(&place(name), 20 * DAY));
        let program = downloads.join("eeee-vmm");
        leave(&program, 40 * DAY);
        install(&cache, "vmm", &program).unwrap();
        let (used, now) = (images.join("micro-1"), cache.hold_downloads().unwrap());
        fs::create_dir(&used).unwrap();
        let image = open_used(&used).unwrap();
        image.lock_shared().unwrap();
        let is_there = |names: [&'static str; 3]| names.map(|name| place(&name).exists());

        assert_eq!(cache.sweep(MONTH, false).unwrap(), Beside::default(), "they may be in use");
        drop((image, now));
        let fetching = cache.try_lock_in(&downloads, "aaaa").unwrap().expect("nobody has it");
        cache.sweep(MONTH, false).unwrap();
        assert_eq!((is_there(old), is_there(new)), ([false, true, false], [true; 3]));
        drop(fetching);
        let would = cache.sweep(Duration::ZERO, true).unwrap();
        assert_eq!(would, cache.beside_images().unwrap());
        assert_eq!(cache.sweep(Duration::ZERO, false).unwrap(), would);
        assert_eq!((is_there(old), is_there(new)), ([false; 3], [false; 3]));
        assert!(program.exists(), "it has a name");
        assert_eq!(cache.beside_images().unwrap(), Beside::default());
    }
}
