//! Images by name: found in the cache, or built into it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Cache, Error, Result, micro};

/// The one image that there is: a kernel and an initramfs with busybox and dropbear.
const MICRO: &str = "micro";

/// A built image. Its files are read-only and stay where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Identifies its content: packages with their versions, and our own part.
    pub key: String,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs, an uncompressed archive to which [`crate::append_seed`] adds.
    pub initramfs: PathBuf,
    /// The same with the modules of a machine that runs machines itself.
    pub nested: PathBuf,
    /// The kernel's release, as `uname -r` says it.
    pub kernel_version: String,
}

/// Is told how a build goes.
pub trait Progress {
    /// This much of the whole is done, and this is being done now. The same step may be reported many times.
    fn step(&self, percent: u64, what: &str);
}

/// Tells nobody.
impl Progress for () {
    fn step(&self, _: u64, _: &str) {}
}

/// The images that can be named.
pub fn known() -> &'static [&'static str] {
    &[MICRO]
}

/// Looks for a built image; takes well under a millisecond and starts no program.
///
/// # Errors
/// [`Error::Unknown`].
pub fn find(cache: &Cache, name: &str) -> Result<Option<Image>> {
    if !known().contains(&name) {
        return Err(Error::Unknown { name: name.to_owned(), known: known().join(", ") });
    }
    Ok(read_current(cache, name))
}

/// Finds the image, or builds it. Of several processes one builds; the others wait for it. A killed build leaves only
/// a temporary directory, which the next one removes.
///
/// # Errors
/// [`Error::Unknown`], or why it could not be built.
pub fn ensure(cache: &Cache, name: &str, progress: &dyn Progress) -> Result<Image> {
    if let Some(image) = find(cache, name)? {
        return Ok(image);
    }
    let _lock = cache.lock(name, || progress.step(0, "waiting for another process that builds it"))?;
    if let Some(image) = read_current(cache, name) {
        return Ok(image);
    }
    remove_stale(cache, name)?;
    let work = tempfile::Builder::new().prefix(&work_prefix(name)).tempdir_in(cache.images());
    let work = work.map_err(Error::file("make a directory in", cache.images()))?;
    let built = micro::build(work.path(), progress)?;
    publish(cache, name, built)
}

/// The kernel and initramfs that a build made, still in its own directory.
pub(crate) struct Built {
    pub(crate) key: String,
    pub(crate) dir: PathBuf,
    pub(crate) kernel_version: String,
}

pub(crate) const KERNEL: &str = "vmlinuz";
pub(crate) const INITRAMFS: &str = "initramfs.cpio";
pub(crate) const NESTED: &str = "initramfs-nested.cpio";

fn publish(cache: &Cache, name: &str, built: Built) -> Result<Image> {
    let dir = cache.images().join(format!("{name}-{}", built.key));
    if !dir.exists() {
        fs::rename(&built.dir, &dir).map_err(Error::file("rename", &built.dir))?;
    }
    let image = Image {
        name: name.to_owned(),
        key: built.key,
        kernel: dir.join(KERNEL),
        initramfs: dir.join(INITRAMFS),
        nested: dir.join(NESTED),
        kernel_version: built.kernel_version,
    };
    let text = serde_json::to_string_pretty(&image).expect("an image is plain data");
    let path = current_path(cache, name);
    let file = tempfile::NamedTempFile::new_in(cache.images()).map_err(Error::file("write in", cache.images()))?;
    fs::write(file.path(), text).map_err(Error::file("write", file.path()))?;
    file.persist(&path).map_err(|e| Error::file("write", path)(e.error))?;
    Ok(image)
}

fn read_current(cache: &Cache, name: &str) -> Option<Image> {
    let text = fs::read(current_path(cache, name)).ok()?;
    let image: Image = serde_json::from_slice(&text).ok()?;
    let complete = [&image.kernel, &image.initramfs, &image.nested].into_iter().all(|file| file.is_file());
    complete.then_some(image)
}

/// The file that says which build of this image the cache has; for whoever copies a cache.
pub fn record(cache: &Cache, name: &str) -> PathBuf {
    current_path(cache, name)
}

fn current_path(cache: &Cache, name: &str) -> PathBuf {
    // One for each recipe, so that projects with different versions of this crate do not undo each other's builds.
    cache.images().join(format!("{name}-{}.json", micro::recipe()))
}

fn work_prefix(name: &str) -> String {
    format!(".{name}-build-")
}

/// Removes what killed builds left; the caller holds the lock, so nobody builds now.
fn remove_stale(cache: &Cache, name: &str) -> Result<()> {
    let read = |path: &Path| fs::read_dir(path);
    for entry in read(&cache.images()).map_err(Error::file("read", cache.images()))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&work_prefix(name)) {
            fs::remove_dir_all(entry.path()).map_err(Error::file("remove", entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_image_is_refused_with_the_known_ones() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::open(dir.path()).expect("a cache");
        let error = find(&cache, "mikro").expect_err("there is no such image").to_string();
        assert_eq!(error, "there is no image `mikro`: known are micro");
        assert!(find(&cache, "micro").expect("it is known").is_none());
    }
}
