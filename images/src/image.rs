//! Images by name: found in the cache, or built into it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Cache, Error, ImageSpec, Result, micro, spec::Recipe};

/// A kernel and an initramfs with busybox and dropbear.
pub(crate) const MICRO: &str = "micro";

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
    /// Its root file system; without, it is the initramfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// How much memory in bytes a machine has that says nothing; without, as little as any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The program in the guest that starts the service of a container's image, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
}

/// A read-only disk that all machines of an image share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The disk, an ext4.
    pub disk: PathBuf,
    /// Its label.
    pub label: String,
}

impl Image {
    /// Where its files are, but perhaps for the kernel.
    pub(crate) fn dir(&self) -> &Path {
        self.initramfs.parent().unwrap_or(Path::new("."))
    }

    /// Whether it is still complete.
    pub(crate) fn is_there(&self) -> bool {
        self.files().all(Path::is_file)
    }

    /// All of its files.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.kernel, &self.initramfs, &self.nested].into_iter();
        files.chain(self.root.as_ref().map(|root| &root.disk)).map(PathBuf::as_path)
    }
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
    &[MICRO, "debian-12", "debian-13"]
}

/// Looks for a built image; takes well under a millisecond and starts no program.
///
/// # Errors
/// [`Error::Unknown`], or why it cannot be as it was asked for.
pub fn find(cache: &Cache, spec: &ImageSpec) -> Result<Option<Image>> {
    Ok(read_current(cache, &stem(spec, &spec.recipe()?)))
}

/// Finds the image, or builds it. Of several processes one builds; the others wait for it. A killed build leaves only
/// a temporary directory, which the next one removes.
///
/// # Errors
/// Those of [`find`], or why it could not be built.
pub fn ensure(cache: &Cache, spec: &ImageSpec, progress: &dyn Progress) -> Result<Image> {
    let recipe = spec.recipe()?;
    let stem = stem(spec, &recipe);
    if let Some(image) = read_current(cache, &stem) {
        return Ok(image);
    }
    let _lock = cache.lock(&stem, || progress.step(0, "waiting for another process that builds it"))?;
    if let Some(image) = read_current(cache, &stem) {
        return Ok(image);
    }
    remove_stale(cache, &stem)?;
    let work = tempfile::Builder::new().prefix(&work_prefix(&stem)).tempdir_in(cache.images());
    let work = work.map_err(Error::file("make a directory in", cache.images()))?;
    let built = match recipe {
        Recipe::Micro => micro::build(work.path(), progress)?,
        Recipe::Debian(request) => request.build(work.path(), progress)?,
        Recipe::Oci(request) => request.build(cache, work.path(), progress)?,
    };
    publish(cache, spec, &stem, built)
}

/// The kernel and initramfs that a build made, still in its own directory.
pub(crate) struct Built {
    pub(crate) key: String,
    pub(crate) dir: PathBuf,
    pub(crate) kernel_version: String,
    /// The label of its root file system.
    pub(crate) root: Option<String>,
    pub(crate) memory: Option<u64>,
    /// The program in the guest that starts its service.
    pub(crate) entrypoint: Option<String>,
}

pub(crate) const KERNEL: &str = "vmlinuz";
pub(crate) const INITRAMFS: &str = "initramfs.cpio";
pub(crate) const NESTED: &str = "initramfs-nested.cpio";
pub(crate) const ROOT: &str = "root.ext4";

/// Makes files of an image read-only.
pub(crate) fn seal(dir: &Path, names: &[&str]) -> Result<()> {
    for file in names.iter().map(|name| dir.join(name)) {
        fs::set_permissions(&file, Permissions::from_mode(0o444)).map_err(Error::file("change the mode of", file))?;
    }
    Ok(())
}

fn publish(cache: &Cache, spec: &ImageSpec, stem: &str, built: Built) -> Result<Image> {
    let dir = cache.images().join(format!("{}-{}", spec.kind(), built.key));
    if !dir.exists() {
        fs::rename(&built.dir, &dir).map_err(Error::file("rename", &built.dir))?;
    }
    let image = Image {
        name: spec.name.clone(),
        key: built.key,
        kernel: dir.join(KERNEL),
        initramfs: dir.join(INITRAMFS),
        nested: dir.join(NESTED),
        kernel_version: built.kernel_version,
        root: built.root.map(|label| Root { disk: dir.join(ROOT), label }),
        memory: built.memory,
        entrypoint: built.entrypoint,
    };
    let text = serde_json::to_string_pretty(&image).expect("an image is plain data");
    let path = current_path(cache, stem);
    let file = tempfile::NamedTempFile::new_in(cache.images()).map_err(Error::file("write in", cache.images()))?;
    fs::write(file.path(), text).map_err(Error::file("write", file.path()))?;
    file.persist(&path).map_err(|e| Error::file("write", path)(e.error))?;
    Ok(image)
}

fn read_current(cache: &Cache, stem: &str) -> Option<Image> {
    let text = fs::read(current_path(cache, stem)).ok()?;
    let image: Image = serde_json::from_slice(&text).ok()?;
    image.is_there().then_some(image)
}

/// The file that says which build of this image the cache has; for whoever copies a cache.
///
/// # Errors
/// Those of [`find`].
pub fn record(cache: &Cache, spec: &ImageSpec) -> Result<PathBuf> {
    Ok(current_path(cache, &stem(spec, &spec.recipe()?)))
}

/// What the files of this image in the cache are called. One for each recipe, so that projects with different versions of
/// this crate do not undo each other's builds.
fn stem(spec: &ImageSpec, recipe: &Recipe) -> String {
    format!("{}-{}", spec.kind(), recipe.key())
}

fn current_path(cache: &Cache, stem: &str) -> PathBuf {
    cache.images().join(format!("{stem}.json"))
}

fn work_prefix(stem: &str) -> String {
    format!(".{stem}-build-")
}

/// Removes what killed builds left; the caller holds the lock, so nobody builds now.
fn remove_stale(cache: &Cache, stem: &str) -> Result<()> {
    let read = |path: &Path| fs::read_dir(path);
    for entry in read(&cache.images()).map_err(Error::file("read", cache.images()))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&work_prefix(stem)) {
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
        let error = find(&cache, &"mikro".into()).expect_err("there is no such image").to_string();
        assert_eq!(error, "there is no image `mikro`: known are micro, debian-12, debian-13");
        assert!(find(&cache, &"micro".into()).expect("it is known").is_none());
    }
}
