//! What a machine boots.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::Failure;

/// What machines boot: one that vmtest knows by a name, files by their paths, or whatever a type of yours makes.
///
/// ```
/// # use vmtest::prelude::*;
/// let debian = NodeSpec::new("db").image("debian-12");
/// let ours = NodeSpec::new("edge").image(Image::direct("out/bzImage", "out/initramfs", "out/root.ext4"));
/// # drop((debian, ours));
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Image {
    name: String,
    own: Option<Own>,
}

/// An image that a type of yours makes: once, into the cache, for all machines of all tests whose image has the same key. Any
/// such type is taken by [`NodeSpec::image`](super::NodeSpec::image), and a function that returns one by
/// `#[vm_test(image = function)]`.
///
/// ```
/// use std::path::Path;
/// use vmtest::{GuestImage, ImageFiles, prelude::*};
///
/// /// What the build of the appliance has left in a directory.
/// #[derive(Debug)]
/// struct Appliance;
///
/// impl GuestImage for Appliance {
///     fn name(&self) -> String {
///         "appliance".into()
///     }
///
///     fn key(&self, base: &Path) -> Result<String> {
///         Ok(std::fs::read_to_string(base.join("out/version"))?)
///     }
///
///     fn build(&self, base: &Path, _dir: &Path, progress: &dyn Fn(u64, &str)) -> Result<ImageFiles> {
///         progress(0, "looking for the appliance");
///         Ok(ImageFiles::disk(base.join("out/disk.qcow2")).login("admin"))
///     }
/// }
///
/// let node = NodeSpec::new("appliance").image(Appliance).firmware("uefi");
/// # drop(node);
/// ```
pub trait GuestImage: fmt::Debug + Send + Sync + 'static {
    /// What it is called, in messages and by `cargo vmtest image ls`.
    fn name(&self) -> String;

    /// Identifies everything that goes into it, for a package at `base`: where this is another, another image is made. Asked each
    /// time a test begins, so it should take milliseconds.
    ///
    /// # Errors
    /// Why it cannot be made, as a missing file; the test fails with that before anything boots.
    fn key(&self, base: &Path) -> Result<String, Failure>;

    /// Makes it. `dir` is empty, has room, and is removed when the files have been copied into the cache; `progress` is told how
    /// much is done, in percent, and what is being done. Blocks. Of several processes one does this, and the others wait.
    ///
    /// # Errors
    /// Why it cannot be made. Nothing of it stays.
    fn build(&self, base: &Path, dir: &Path, progress: &dyn Fn(u64, &str)) -> Result<ImageFiles, Failure>;
}

/// The files of an image. Machines never write them: each has a layer of its own over a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFiles {
    pub(crate) kernel: Option<(PathBuf, PathBuf)>,
    pub(crate) disk: Option<PathBuf>,
    pub(crate) arguments: String,
    pub(crate) memory: Option<u64>,
    pub(crate) login: Option<String>,
    pub(crate) ready: Option<String>,
}

impl ImageFiles {
    /// A kernel, as a bzImage or an ELF file, an initramfs, and a disk, raw or a qcow2. The guest finds what it is (name,
    /// addresses, keys, mounts) on a further disk, of the data source NoCloud, as cloud-init reads it. The kernel is told
    /// `root=/dev/vda rw` where [`arguments`](Self::arguments) says nothing else.
    pub fn direct(kernel: impl Into<PathBuf>, initramfs: impl Into<PathBuf>, disk: impl Into<PathBuf>) -> Self {
        Self { disk: Some(disk.into()), arguments: "root=/dev/vda rw".into(), ..Self::in_memory(kernel, initramfs) }
    }

    /// A kernel and an initramfs that is all of its system. The guest finds what it is in files that are added to that: its
    /// name, addresses, mounts and keys, in `/etc` and `/root/.ssh`.
    pub fn in_memory(kernel: impl Into<PathBuf>, initramfs: impl Into<PathBuf>) -> Self {
        Self { kernel: Some((kernel.into(), initramfs.into())), ..Self::empty() }
    }

    /// A disk, raw or a qcow2, with everything on it. What is on it starts it, by the node's
    /// [`firmware`](super::NodeSpec::firmware), or its kernel and initramfs are looked for as on a cloud image. The guest finds
    /// what it is on a further disk, of the data source NoCloud.
    pub fn disk(disk: impl Into<PathBuf>) -> Self {
        Self { disk: Some(disk.into()), ..Self::empty() }
    }

    fn empty() -> Self {
        Self { kernel: None, disk: None, arguments: String::new(), memory: None, login: None, ready: None }
    }

    /// What the kernel is told beside the console: where its root file system is.
    #[must_use]
    pub fn arguments(mut self, words: impl Into<String>) -> Self {
        self.arguments = words.into();
        self
    }

    /// Memory in bytes of a machine that says nothing: 1 GiB with a disk, else 256 MiB.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// The account by which its machines are reached, as [`NodeSpec::login`](super::NodeSpec::login) says.
    #[must_use]
    pub fn login(mut self, account: impl Into<String>) -> Self {
        self.login = Some(account.into());
        self
    }

    /// What has to succeed before a machine counts as ready, as [`NodeSpec::ready`](super::NodeSpec::ready) says.
    #[must_use]
    pub fn ready(mut self, command: impl Into<String>) -> Self {
        self.ready = Some(command.into());
        self
    }

    /// With relative paths seen from here.
    pub(crate) fn seen_from(mut self, base: &Path) -> Self {
        let see = |path: &mut PathBuf| *path = base.join(&*path);
        if let Some((kernel, initramfs)) = &mut self.kernel {
            see(kernel);
            see(initramfs);
        }
        self.disk.iter_mut().for_each(see);
        self
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let kernel = self.kernel.iter().flat_map(|(kernel, initramfs)| [kernel, initramfs]);
        kernel.chain(&self.disk).map(PathBuf::as_path)
    }
}

impl Image {
    /// The image of these files, absolute or seen from the package: a kernel, an initramfs and a disk, as
    /// [`ImageFiles::direct`] says.
    pub fn direct(kernel: impl Into<PathBuf>, initramfs: impl Into<PathBuf>, disk: impl Into<PathBuf>) -> Self {
        Self::files(ImageFiles::direct(kernel, initramfs, disk))
    }

    /// The image of this disk, absolute or seen from the package, as [`ImageFiles::disk`] says.
    pub fn disk(disk: impl Into<PathBuf>) -> Self {
        Self::files(ImageFiles::disk(disk))
    }

    /// The image of these files, absolute or seen from the package. It is made anew when one of them has changed: its length,
    /// or when it was written.
    pub fn files(files: ImageFiles) -> Self {
        Self::from(Files(files))
    }

    /// Its name: as it was given, or `own:` and what its type says.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What makes it, if that is a type of somebody's own.
    pub(crate) fn own(&self) -> Option<&Arc<dyn GuestImage>> {
        self.own.as_ref().map(|Own(image)| image)
    }
}

impl From<&str> for Image {
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}

impl From<String> for Image {
    fn from(name: String) -> Self {
        Self { name, own: None }
    }
}

impl<T: GuestImage> From<T> for Image {
    fn from(image: T) -> Self {
        Self { name: format!("own:{}", image.name()), own: Some(Own(Arc::new(image))) }
    }
}

impl From<Image> for String {
    fn from(image: Image) -> Self {
        image.name
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

/// The same only as itself: nothing else is known of it.
#[derive(Clone)]
struct Own(Arc<dyn GuestImage>);

impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Own {}

/// Files that are there already.
#[derive(Debug)]
struct Files(ImageFiles);

impl GuestImage for Files {
    fn name(&self) -> String {
        let last = self.0.disk.as_deref().or(self.0.paths().next()).and_then(Path::file_name);
        last.map_or_else(|| "files".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    fn key(&self, base: &Path) -> Result<String, Failure> {
        let files = self.0.clone().seen_from(base);
        let ImageFiles { arguments, memory, login, ready, .. } = &files;
        Ok(format!("{} {arguments:?} {memory:?} {login:?} {ready:?}", key_of(&files)?))
    }

    fn build(&self, base: &Path, _: &Path, _: &dyn Fn(u64, &str)) -> Result<ImageFiles, Failure> {
        Ok(self.0.clone().seen_from(base))
    }
}

#[cfg(target_os = "linux")]
fn key_of(files: &ImageFiles) -> std::io::Result<String> {
    vmtest_images::key_of_files(files.paths())
}

/// There is nobody here who would ask.
#[cfg(not(target_os = "linux"))]
fn key_of(_: &ImageFiles) -> std::io::Result<String> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_written_as_its_name() {
        let image = Image::from("debian-12");
        assert_eq!(serde_json::to_string(&image).expect("it is plain"), r#""debian-12""#);
        let own = Image::disk("out/disk.qcow2");
        assert_eq!((own.name(), format!("{own:?}").as_str()), ("own:disk.qcow2", r#""own:disk.qcow2""#));
        assert!(own == own.clone() && own != Image::disk("out/disk.qcow2") && image == Image::from("debian-12"));
    }

    #[test]
    fn paths_are_seen_from_the_package_and_tell_images_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["bzImage", "initramfs", "root"] {
            std::fs::write(dir.path().join(name), name).expect("it can be written");
        }
        let key = |files: ImageFiles| Files(files).key(dir.path()).map_err(|e| e.to_string());
        let files = || ImageFiles::direct("bzImage", "initramfs", "root");
        let keys = [
            files(),
            files().login("admin"),
            files().arguments("root=/dev/vda1"),
            files().memory(1),
            files().ready("true"),
            ImageFiles::in_memory("bzImage", "initramfs"),
            ImageFiles::disk("root"),
        ]
        .map(|files| key(files).expect("all are there"));
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len(), "{keys:?}");
        assert_eq!(key(files()).expect("all are there"), keys[0]);
        let error = key(ImageFiles::disk("gone")).expect_err("it is not there");
        assert!(error.contains(&format!("{}: ", dir.path().join("gone").display())), "{error}");
        let built = Files(files()).build(dir.path(), Path::new("/"), &|_, _| ()).map_err(|e| e.to_string());
        let built = built.expect("nothing is made");
        assert!(built.paths().all(|path| path.is_absolute()), "{built:?}");
    }
}
