//! Images by name: found in the cache, or built into it.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Cache, Error, ImageSpec, Result,
    kept::{self, Held},
    micro, oci,
    publish::{Lengths, put, record_as},
    spec::Recipe,
    vmlinux::to_be_started,
};

/// A kernel and an initramfs with busybox and dropbear.
pub(crate) const MICRO: &str = "micro";
/// What is behind the name of what is being made in that of its directory.
pub(crate) const BUILD: &str = "-build-";

/// A built image. Its files are read-only and stay where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its name, whole.
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
    /// What its name stood for when it was made, such as `sha256:4711…`: of a container's image the digest of its manifest, of a
    /// cloud image that was fetched that of its file, as its publisher gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The disk of a cloud image, whose kernel and initramfs are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<CloudDisk>,
    /// The words of the kernel's command line that belong to it, as those that name its root file system.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arguments: String,
    /// The account by which its machines are reached; without, that is root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// A command that has to succeed before a machine of it counts as ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Whether its machines, with its own kernel, ask the firmware of QEMU for what they are told, under
    /// [`FIRMWARE_FILE`](crate::FIRMWARE_FILE), where nothing is behind its initramfs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks_firmware: bool,
}

/// A read-only disk with partitions; each machine has a layer of its own over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudDisk {
    /// The disk, raw.
    pub disk: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Why no kernel was found on it. It can be started by firmware alone then, and the image has neither kernel nor initramfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_kernel: Option<String>,
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
    /// What it is called in the cache: its kind and its key.
    pub fn id(&self) -> &str {
        self.dir().file_name().and_then(OsStr::to_str).unwrap_or_default()
    }

    /// Where its files are, but perhaps for the kernel.
    pub(crate) fn dir(&self) -> &Path {
        self.initramfs.parent().unwrap_or(Path::new("."))
    }

    /// Its kernel as the distribution has it: it begins with code that asks a BIOS for the screen.
    pub fn shipped_kernel(&self) -> PathBuf {
        let shipped = self.kernel.with_file_name(SHIPPED);
        if self.kernel.file_name() == Some(OsStr::new(KERNEL)) && shipped.exists() {
            shipped
        } else {
            self.kernel.clone()
        }
    }

    /// Whether it is still complete: all of its files are there, and as long as they were.
    pub(crate) fn is_there(&self) -> bool {
        let lengths = Lengths::read(self.dir());
        self.files().all(|file| lengths.fit(file))
    }

    /// All of its files.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let no_kernel = self.cloud.as_ref().is_some_and(|cloud| cloud.no_kernel.is_some());
        let files = [&self.kernel, &self.initramfs, &self.nested].into_iter().filter(move |_| !no_kernel);
        let disks = [self.root.as_ref().map(|root| &root.disk), self.cloud.as_ref().map(|cloud| &cloud.disk)];
        files.chain(disks.into_iter().flatten()).map(PathBuf::as_path)
    }
}

/// Is told how a build goes.
pub trait Progress {
    /// This much of the whole is done, and this is being done now. The same step may be reported many times.
    fn step(&self, percent: u64, what: &str);
}

/// A part of something longer.
pub(crate) struct Part<'a> {
    pub(crate) progress: &'a dyn Progress,
    /// What was done before it and what is when it is done, in percent of the whole.
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Progress for Part<'_> {
    fn step(&self, percent: u64, what: &str) {
        self.progress.step(self.from + percent * (self.to - self.from) / 100, what);
    }
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
    let _lock = lock(cache, &stem, progress)?;
    match read_current(cache, &stem) {
        Some(image) => Ok(image),
        None => make(cache, spec, &stem, recipe, progress),
    }
}

/// An image of a registry, as it is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// Whether the cache had none of this name, or another.
    pub changed: bool,
}

/// Asks the registry what an image's name stands for now, and makes that. Tests that have the image from before go on with it;
/// a digest in the name always stands for the same image, and nobody is asked for one that is there.
///
/// # Errors
/// [`Error::Refused`] for an image that is in no registry or not for this machine, or why it could not be fetched or built.
pub fn pull(cache: &Cache, spec: &ImageSpec, progress: &dyn Progress) -> Result<Pulled> {
    if !spec.name.starts_with(oci::REGISTRY) {
        let why = "it is in no registry: `cargo vmtest image build` makes it, and `image pull` takes names as \
                   `docker://registry.example/repository:tag`";
        return Err(Error::refused(spec, why));
    }
    let recipe = spec.recipe()?;
    let (stem, never_changes) = (stem(spec, &recipe), spec.name.contains('@'));
    let _lock = lock(cache, &stem, progress)?;
    let before = read_current(cache, &stem);
    if let Some(image) = before.clone().filter(|_| never_changes) {
        return Ok(Pulled { image, changed: false });
    }
    let image = make(cache, spec, &stem, recipe, progress)?;
    Ok(Pulled { changed: before.is_none_or(|before| before.key != image.key), image })
}

/// Unpacks the layers of a container's image that is in a layout into this directory, which is empty: what its disk is made
/// of. Owners are those that a system has where it is made ([`ensure`] needs the same rights).
///
/// # Errors
/// [`Error::Refused`] for what is no such image, or a file that cannot be written.
pub fn unpack(spec: &ImageSpec, dir: &Path) -> Result<()> {
    match spec.recipe()? {
        Recipe::Oci(request) => request.unpack_to(dir),
        _ => Err(Error::refused(spec, "it is in no layout, and has no layers here")),
    }
}

fn lock(cache: &Cache, stem: &str, progress: &dyn Progress) -> Result<File> {
    cache.lock(stem, || progress.step(0, "waiting for another process that builds it"))
}

/// Makes the image; the caller has the lock.
fn make(cache: &Cache, spec: &ImageSpec, stem: &str, recipe: Recipe, progress: &dyn Progress) -> Result<Image> {
    remove_stale(cache, stem)?;
    let work = tempfile::Builder::new().prefix(&work_prefix(stem)).tempdir_in(cache.images());
    let work = work.map_err(Error::file("make a directory in", cache.images()))?;
    // Another name may stand for the same image.
    let once = |key: &str, build: &dyn Fn() -> Result<Built>| -> Result<(Image, Held)> {
        if let Some(image) = kept::recorded(cache, &place(cache, spec, key))?
            && let Some(held) = image.hold()?
        {
            return Ok((image, held));
        }
        put(cache, spec, build()?)
    };
    let container = |request: &oci::Request| once(&request.key(), &|| request.build(cache, work.path(), progress));
    // Held until a record names it.
    let (image, _held) = match recipe {
        Recipe::Micro => put(cache, spec, micro::build(work.path(), progress)?)?,
        Recipe::Debian(request) => put(cache, spec, request.build(work.path(), progress)?)?,
        Recipe::Oci(request) => container(&request)?,
        Recipe::Registry(_) => container(&oci::Pull::new(cache, &spec.name)?.resolve(cache, progress)?)?,
        Recipe::Kernel(request) => put(cache, spec, request.build(work.path(), progress)?)?,
        Recipe::Cloud(request) => {
            // The disk comes once, also where two names are asked for at the same time.
            let shared = format!("{}-{}", spec.kind(), request.key());
            let _lock = (shared != stem).then(|| lock(cache, &shared, progress)).transpose()?;
            once(&request.key(), &|| request.build(cache, work.path(), progress))?
        }
        Recipe::Own(own, _) => put(cache, spec, own.build(work.path(), progress)?)?,
    };
    let image = Image { name: spec.whole_name(), ..image };
    record_as(cache, stem, &image, work.path())?;
    Ok(image)
}

/// The kernel and initramfs that a build made, still in its own directory.
#[derive(Default)]
pub(crate) struct Built {
    pub(crate) key: String,
    pub(crate) dir: PathBuf,
    pub(crate) kernel_version: String,
    /// The label of its root file system.
    pub(crate) root: Option<String>,
    pub(crate) memory: Option<u64>,
    /// The program in the guest that starts its service.
    pub(crate) entrypoint: Option<String>,
    /// Its disk, by the name in its directory, if it is a cloud image.
    pub(crate) cloud: Option<CloudDisk>,
    /// Of a container's image the digest of its manifest, of a cloud image that was fetched that of its file.
    pub(crate) digest: Option<String>,
    /// The words of the kernel's command line that belong to it.
    pub(crate) arguments: String,
    pub(crate) login: Option<String>,
    pub(crate) ready: Option<String>,
    pub(crate) asks_firmware: bool,
}

impl Built {
    /// What is booted in memory, and has nothing else.
    pub(crate) fn new(key: String, dir: PathBuf, kernel_version: String) -> Self {
        Self { key, dir, kernel_version, ..Self::default() }
    }
}

pub(crate) const KERNEL: &str = "kernel";
/// The kernel as the distribution has it, where it is another.
const SHIPPED: &str = "vmlinuz";
pub(crate) const INITRAMFS: &str = "initramfs.cpio";
pub(crate) const NESTED: &str = "initramfs-nested.cpio";
pub(crate) const ROOT: &str = "root.ext4";
pub(crate) const DISK: &str = "disk.raw";

/// Takes a distribution's kernel into the image in this directory; one that is unpacked for that, also as it is.
pub(crate) fn put_kernel(vmlinuz: &Path, dir: &Path) -> Result<()> {
    let shipped = fs::read(vmlinuz).map_err(Error::file("read", vmlinuz))?;
    let write = |name: &str, content: &[u8]| {
        let out = dir.join(name);
        fs::write(&out, content).map_err(Error::file("write", &out))
    };
    match to_be_started(&shipped) {
        Some(unpacked) => {
            write(KERNEL, &unpacked)?;
            write(SHIPPED, &shipped)?;
            seal(dir, &[SHIPPED])
        }
        None => write(KERNEL, &shipped),
    }
}

/// Gives the image in this directory the kernel of another one, of which there are some 70 MB that never change.
pub(crate) fn share_kernel(of: &Image, dir: &Path) -> Result<()> {
    let shipped = of.shipped_kernel();
    let share = |kernel: &Path, name: &str| {
        let out = dir.join(name);
        let shared = fs::hard_link(kernel, &out).or_else(|_| fs::copy(kernel, &out).map(drop));
        shared.map_err(Error::file("copy", kernel))
    };
    share(&of.kernel, KERNEL)?;
    if shipped == of.kernel { Ok(()) } else { share(&shipped, SHIPPED) }
}

/// Makes files of an image read-only.
pub(crate) fn seal(dir: &Path, names: &[&str]) -> Result<()> {
    for file in names.iter().map(|name| dir.join(name)) {
        fs::set_permissions(&file, Permissions::from_mode(0o444)).map_err(Error::file("change the mode of", file))?;
    }
    Ok(())
}

/// Where the image of this key is.
pub(crate) fn place(cache: &Cache, spec: &ImageSpec, key: &str) -> PathBuf {
    cache.images().join(format!("{}-{key}", spec.kind()))
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

pub(crate) fn current_path(cache: &Cache, stem: &str) -> PathBuf {
    cache.images().join(format!("{stem}.json"))
}

fn work_prefix(stem: &str) -> String {
    format!(".{stem}{BUILD}")
}

/// Removes what killed builds left; the caller holds the lock, so nobody builds now. What cannot be removed, as where a program that
/// is about to end still writes, is in nobody's way and stays for the next one.
fn remove_stale(cache: &Cache, stem: &str) -> Result<()> {
    let read = |path: &Path| fs::read_dir(path);
    for entry in read(&cache.images()).map_err(Error::file("read", cache.images()))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&work_prefix(stem))
            && let Err(e) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!("{} of a killed build stays: {e}", entry.path().display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_image_is_refused_with_those_that_may_be_meant() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::open(dir.path()).expect("a cache");
        let said = |name: &str| find(&cache, &name.into()).expect_err("there is no such image").to_string();
        let known = |name| format!("there is no image `{name}`: known are micro, debian-12, debian-13; ");
        let of_registry =
            known("nginx") + "`docker://nginx` would be that of a registry, `cloud:` stands before names of the";
        assert!(said("nginx").starts_with(&of_registry), "{}", said("nginx"));
        assert_eq!(said("ubuntu-24.04"), known("ubuntu-24.04") + "the catalog has `cloud:ubuntu-24.04`");
        assert!(find(&cache, &"micro".into()).expect("it is known").is_none());
    }

    #[test]
    fn what_a_killed_build_has_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::open(dir.path()).expect("a cache");
        let left = |name: &str| cache.images().join(work_prefix("micro-1") + name);
        fs::create_dir_all(left("gone").join("root")).expect("it can be made");
        // No directory, so it cannot be removed as one.
        fs::write(left("stays"), "").expect("it can be written");
        remove_stale(&cache, "micro-1").expect("it goes on");
        assert_eq!([left("gone").exists(), left("stays").exists()], [false, true]);
    }
}
