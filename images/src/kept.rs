//! What the cache has of images: held while somebody uses it, and removed when nobody does.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{major, minor};
use serde::Serialize;
use vmtest_fixtures::allocated;

use crate::{Cache, Error, Image, Result, cache::try_lock};

/// In the directory of an image, and in that of what registries gave: locked by who uses it, and changed when that begins.
pub(crate) const USED: &str = "used";
const LOCKS: &str = "/proc/locks";
/// What the names of directories begin with that are about to be gone.
pub(crate) const LEAVING: &str = ".leaving-";

/// An image that is used: as long as this lives, nobody removes it. The kernel gives it back when the process ends, however it
/// does.
#[derive(Debug)]
pub struct Held {
    /// Without, nobody can remove anything there.
    _lock: Option<File>,
}

impl Held {
    /// Holds what a build has made in this directory, where nobody else can find it yet.
    pub(crate) fn of_new(dir: &Path) -> Result<Self> {
        let file = open_used(dir).and_then(|file| file.lock_shared().map(|()| file));
        Ok(Self { _lock: Some(file.map_err(Error::file("lock", dir.join(USED)))?) })
    }
}

impl Image {
    /// Holds the image; `None` where somebody has removed it since it was found. Waits while somebody is about to.
    ///
    /// # Errors
    /// When its directory cannot be written.
    pub fn hold(&self) -> Result<Option<Held>> {
        let dir = self.dir();
        let file = match open_used(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            // A cache that others fill, as on a disk that machines share.
            Err(e) if matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => {
                return Ok(self.is_there().then_some(Held { _lock: None }));
            }
            other => other.map_err(Error::file("open", dir.join(USED)))?,
        };
        let failed = Error::file("lock", dir.join(USED));
        file.lock_shared().and_then(|()| file.set_modified(SystemTime::now())).map_err(failed)?;
        Ok(self.is_there().then_some(Held { _lock: Some(file) }))
    }
}

pub(crate) fn open_used(dir: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(dir.join(USED))
}

/// An image as the cache has it.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct KeptImage {
    /// Its name and its key.
    pub id: String,
    /// What it is; without, no record names it: another version of this crate or of a package has made it.
    pub image: Option<Image>,
    /// The names that stand for it, without double ones: an image of a registry may have several.
    pub names: Vec<String>,
    /// Its directory.
    pub dir: PathBuf,
    /// Bytes that it takes on the host's disk.
    pub bytes: u64,
    /// When somebody began to use it, or when it was made, in seconds since 1970.
    pub used: u64,
    /// The processes that use it.
    pub used_by: Vec<u32>,
    /// Whether anybody does, also where it cannot be told who.
    pub in_use: bool,
}

impl KeptImage {
    /// Whether it was replaced, or nobody has used it for so long.
    pub fn is_unused(&self, for_so_long: Duration) -> bool {
        let used = SystemTime::UNIX_EPOCH + Duration::from_secs(self.used);
        is_unused(self.image.is_some(), used, for_so_long)
    }

    /// Removes it with its records. `false` where somebody uses it: nothing is gone then.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove(&self, cache: &Cache) -> Result<bool> {
        self.remove_if(cache, |_| true)
    }

    /// The same for one that [was replaced or not used for so long](Self::is_unused). That is looked at again when nobody can take
    /// it any more: since it was listed, a build may have given it a name, or a test may have used it.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove_unused(&self, cache: &Cache, for_so_long: Duration) -> Result<bool> {
        self.remove_if(cache, |has_record| is_unused(has_record, last_use(&self.dir), for_so_long))
    }

    fn remove_if(&self, cache: &Cache, wanted: impl FnOnce(bool) -> bool) -> Result<bool> {
        // Held until it is gone, so that nobody takes it meanwhile.
        let Some(_lock) = lock_alone(&self.dir)? else { return Ok(false) };
        let records: Vec<_> = records(cache)?.into_iter().filter(|(_, image)| image.dir() == self.dir).collect();
        if !wanted(!records.is_empty()) {
            return Ok(false);
        }
        for (path, _) in records {
            fs::remove_file(&path).map_err(Error::file("remove", path))?;
        }
        take_away(cache, &self.dir)?;
        Ok(true)
    }
}

/// Whether it was replaced, which is when no record names it, or nobody has used it for so long.
fn is_unused(has_record: bool, used: SystemTime, for_so_long: Duration) -> bool {
    !has_record || age(used) >= for_so_long
}

/// Removes the directory of an image; the caller has its lock. One that is killed here leaves what is no image to anybody.
pub(crate) fn take_away(cache: &Cache, dir: &Path) -> Result<()> {
    let id = dir.file_name().unwrap_or_default().to_string_lossy();
    let leaving = cache.images().join(format!("{LEAVING}{id}"));
    // What one has left that was killed.
    remove(&leaving)?;
    fs::rename(dir, &leaving).map_err(Error::file("rename", dir))?;
    remove(&leaving)
}

/// Removes a file or a directory, which somebody else may be removing too.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::file("remove", path)),
    }
}

/// The exclusive lock, if nobody uses what is in this directory. To take it is no use.
pub(crate) fn lock_alone(dir: &Path) -> Result<Option<File>> {
    let (path, used) = (dir.join(USED), last_use(dir));
    let is_new = !path.exists();
    let opened = open_used(dir).and_then(|file| if is_new { file.set_modified(used).map(|()| file) } else { Ok(file) });
    try_lock((opened.map_err(Error::file("open", &path))?, path))
}

/// When somebody began to use what is in this directory, or when it was made.
fn last_use(dir: &Path) -> SystemTime {
    let used = fs::metadata(dir.join(USED)).or_else(|_| fs::metadata(dir)).and_then(|meta| meta.modified());
    used.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// How long ago that was.
pub(crate) fn age(then: SystemTime) -> Duration {
    SystemTime::now().duration_since(then).unwrap_or_default()
}

impl Cache {
    /// All images, what was used last first.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn kept(&self) -> Result<Vec<KeptImage>> {
        let dirs = dirs(self)?;
        // What was there then has its record by now.
        let records = records(self)?;
        let locks = fs::read_to_string(LOCKS).unwrap_or_default();
        let mut all = Vec::new();
        for (id, dir) in dirs {
            let images: Vec<_> = records.iter().map(|(_, image)| image).filter(|image| image.dir() == dir).collect();
            let names: BTreeSet<_> = images.iter().map(|image| image.name.clone()).collect();
            let used = last_use(&dir).duration_since(SystemTime::UNIX_EPOCH);
            all.push(KeptImage {
                id,
                image: images.first().copied().cloned(),
                names: names.into_iter().collect(),
                bytes: allocated(&dir),
                used: used.unwrap_or_default().as_secs(),
                used_by: holders(&dir.join(USED), &locks),
                in_use: dir.join(USED).exists() && lock_alone(&dir)?.is_none(),
                dir,
            });
        }
        all.sort_by_key(|kept| std::cmp::Reverse(kept.used));
        Ok(all)
    }

    /// The image of this id, as [`Image::id`] gives it, if it is there and whole: also one that is not built any more under the
    /// name by which it was asked for.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn by_id(&self, id: &str) -> Result<Option<Image>> {
        Ok(records(self)?.into_iter().map(|(_, image)| image).find(|image| image.id() == id && image.is_there()))
    }
}

/// The directories of images, with their ids.
pub(crate) fn dirs(cache: &Cache) -> Result<Vec<(String, PathBuf)>> {
    let is_image = |(id, dir): &(String, PathBuf)| !id.starts_with('.') && dir.is_dir();
    Ok(entries(cache)?.into_iter().filter(is_image).collect())
}

pub(crate) fn entries(cache: &Cache) -> Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(cache.images()).map_err(Error::file("read", cache.images()))?;
    let entry = |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, entry.path()));
    Ok(entries.flatten().filter_map(entry).collect())
}

/// The files that name images, with what they say.
fn records(cache: &Cache) -> Result<Vec<(PathBuf, Image)>> {
    let is_record = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
    let paths = entries(cache)?.into_iter().map(|(_, path)| path).filter(is_record);
    Ok(paths.filter_map(|path| Some((path.clone(), serde_json::from_slice(&fs::read(path).ok()?).ok()?))).collect())
}

/// The image in this directory, if a record says what it is and it is complete.
pub(crate) fn recorded(cache: &Cache, dir: &Path) -> Result<Option<Image>> {
    Ok(records(cache)?.into_iter().map(|(_, image)| image).find(|image| image.dir() == dir && image.is_there()))
}

/// The processes that have a lock on a file, from the kernel's list: `1: FLOCK ADVISORY READ 4711 fe:00:1234 0 EOF`.
fn holders(file: &Path, locks: &str) -> Vec<u32> {
    let Ok(meta) = fs::metadata(file) else { return Vec::new() };
    let id = format!("{:02x}:{:02x}:{}", major(meta.dev()), minor(meta.dev()), meta.ino());
    let holder = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        // One that waits has an arrow before its kind.
        (words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&&*id)).then(|| words.get(4)?.parse().ok()).flatten()
    };
    let mut pids: Vec<u32> = locks.lines().filter_map(holder).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache with an image of this name, and its record.
    fn cache_with(name: &str) -> (tempfile::TempDir, Cache, Image) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let home = cache.images().join(format!("{name}-0123"));
        fs::create_dir(&home).unwrap();
        let file = |name: &str| {
            fs::write(home.join(name), [1; 5000]).unwrap();
            home.join(name)
        };
        let image = Image {
            name: name.to_owned(),
            key: "0123".to_owned(),
            kernel: file("kernel"),
            initramfs: file("initramfs.cpio"),
            nested: file("initramfs-nested.cpio"),
            kernel_version: "6.1".to_owned(),
            root: None,
            memory: None,
            entrypoint: None,
            cloud: None,
            digest: None,
            arguments: String::new(),
            login: None,
            ready: None,
            asks_firmware: false,
        };
        fs::write(cache.images().join(format!("{name}-4567.json")), serde_json::to_vec(&image).unwrap()).unwrap();
        (dir, cache, image)
    }

    #[test]
    fn an_image_in_use_is_not_removed() {
        let (_dir, cache, image) = cache_with("micro");
        let held = image.hold().unwrap().expect("it is there");
        let [kept] = cache.kept().unwrap().try_into().unwrap();
        assert_eq!((kept.id.as_str(), kept.in_use, &kept.image), ("micro-0123", true, &Some(image.clone())));
        assert!(kept.bytes >= 3 * 8192, "{}", kept.bytes);
        assert!(kept.used_by.is_empty() || kept.used_by.contains(&std::process::id()), "{kept:?}");
        assert!(!kept.remove(&cache).unwrap());
        assert!(image.hold().unwrap().is_some(), "two may use it");
        assert_eq!(cache.by_id("micro-0123").unwrap(), Some(image.clone()));
        assert_eq!(cache.by_id("micro-4567").unwrap(), None);
        drop(held);
        assert!(cache.kept().unwrap()[0].remove(&cache).unwrap());
        assert!(image.hold().unwrap().is_none());
        assert!(cache.kept().unwrap().is_empty());
        assert_eq!(records(&cache).unwrap().len(), 0);
    }

    #[test]
    fn what_nobody_has_used_for_long_is_removed_by_its_last_use() {
        let (_dir, cache, image) = cache_with("micro");
        let day = Duration::from_secs(24 * 60 * 60);
        let used = |ago: Duration| open_used(image.dir()).unwrap().set_modified(SystemTime::now() - ago).unwrap();
        let listed = || -> KeptImage {
            let [kept] = cache.kept().unwrap().try_into().unwrap();
            kept
        };
        used(40 * day);
        let before = listed();
        assert!(before.is_unused(39 * day) && !before.is_unused(41 * day));
        assert!(!before.remove_unused(&cache, 41 * day).unwrap());
        // It was used since it was listed.
        drop(image.hold().unwrap().expect("it is there"));
        assert!(!listed().is_unused(day), "who holds it uses it");
        assert!(!before.remove_unused(&cache, 39 * day).unwrap());
        used(40 * day);
        assert!(before.remove_unused(&cache, 39 * day).unwrap());
        assert!(cache.kept().unwrap().is_empty() && records(&cache).unwrap().is_empty());
    }

    #[test]
    fn what_no_record_names_was_replaced_whenever_it_was_used() {
        let (_dir, cache, _) = cache_with("micro");
        let old = cache.images().join("debian-12-old");
        // A removal that was killed has left the same before.
        for dir in [old.clone(), cache.images().join(".leaving-debian-12-old/x")] {
            fs::create_dir_all(dir).unwrap();
        }
        let kept = cache.kept().unwrap();
        let replaced: Vec<_> = kept.iter().filter(|kept| kept.is_unused(Duration::MAX)).collect();
        let [replaced] = replaced.try_into().unwrap();
        assert_eq!(replaced.dir, old);
        drop(lock_alone(&old).unwrap().expect("nobody has it"));
        assert_eq!(cache.kept().unwrap().iter().find(|kept| kept.dir == old).unwrap().used, replaced.used);
        assert!(replaced.remove_unused(&cache, Duration::MAX).unwrap());
        let left = fs::read_dir(cache.images()).unwrap().flatten();
        assert!(!left.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("debian")));
    }

    #[test]
    fn who_has_a_lock_is_read_from_the_kernels_list() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let meta = file.as_file().metadata().unwrap();
        let id = format!("{:02x}:{:02x}:{}", major(meta.dev()), minor(meta.dev()), meta.ino());
        let locks = format!(
            "1: FLOCK  ADVISORY  READ 12 {id} 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 13 {id} 0 EOF\n\
             2: POSIX  ADVISORY  WRITE 14 {id} 0 EOF\n3: FLOCK  ADVISORY  READ 15 00:00:1 0 EOF\n\
             4: FLOCK  ADVISORY  READ 11 {id} 0 EOF\n"
        );
        assert_eq!(holders(file.path(), &locks), [11, 12]);
    }
}
