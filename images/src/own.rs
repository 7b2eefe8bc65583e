//! Images whose files are somebody else's: made by code of a user, or given by their paths.

use std::{
    cmp::Ordering,
    fmt,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Error, Progress, Result, cloud,
    image::{Built, DISK, Part},
    key::short,
};

/// Raised with every change to what is made of such files.
const FORMAT: u32 = 3;
/// What the name of such an image begins with.
pub(crate) const PREFIX: &str = "own:";
/// The share of the whole, in percent, at which the files have been made.
const MADE: u64 = 60;

/// Makes the files in an empty directory, and says how far it is, in percent, and at what.
type Make = dyn Fn(&Path, &dyn Fn(u64, &str)) -> std::result::Result<OwnFiles, String> + Send + Sync;

/// How an image is made that this crate knows nothing of. Two with the same name and key are the same.
#[derive(Clone)]
pub struct OwnImage {
    name: String,
    key: std::result::Result<String, String>,
    make: Arc<Make>,
}

/// The files of such an image. They are copied into the cache, and may be anywhere.
#[derive(Debug, Clone, Default)]
pub struct OwnFiles {
    /// A kernel and an initramfs; without, there is a disk, on which they are looked for as on that of a cloud image.
    pub kernel: Option<(PathBuf, PathBuf)>,
    /// A disk, qcow2 or raw, of which each machine has a layer of its own. Its facts come on a disk of the data source NoCloud
    /// then; without, they are behind the initramfs.
    pub disk: Option<PathBuf>,
    /// The words of the kernel's command line that belong to it, as `root=/dev/vda1 rw`.
    pub arguments: String,
    /// Memory in bytes of a machine that says nothing.
    pub memory: Option<u64>,
    /// The account by which its machines are reached, where root is not let in.
    pub login: Option<String>,
    /// A command that has to succeed before a machine counts as ready.
    pub ready: Option<String>,
}

impl OwnImage {
    /// An image of this name. `key` tells apart what `make` would make. An error of either is why the image cannot be had.
    pub fn new(
        name: impl Into<String>,
        key: std::result::Result<String, String>,
        make: impl Fn(&Path, &dyn Fn(u64, &str)) -> std::result::Result<OwnFiles, String> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), key, make: Arc::new(make) }
    }

    /// Its name as an image.
    pub fn name(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    /// # Errors
    /// Why the image cannot be had.
    pub(crate) fn key(&self) -> std::result::Result<String, &str> {
        let key = self.key.as_deref().map_err(String::as_str)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&FORMAT.to_le_bytes()).update(self.name.as_bytes()).update(&[0]).update(key.as_bytes());
        Ok(short(hasher.finalize()))
    }

    /// Builds the image in a directory that is removed with everything else in it afterwards.
    pub(crate) fn build(&self, work: &Path, progress: &dyn Progress) -> Result<Built> {
        let refused = |why: String| Error::Refused { image: self.name(), why };
        let key = self.key().map_err(|why| refused(why.to_owned()))?;
        let (parts, out) = (work.join("parts"), work.join("image"));
        for dir in [&parts, &out] {
            fs::create_dir(dir).map_err(Error::file("make", dir))?;
        }
        let show = |percent: u64, what: &str| progress.step(percent.min(100) * MADE / 100, what);
        let files = (self.make)(&parts, &show).map_err(refused)?;
        let read = |path: &Path| fs::read(path).map_err(|e| refused(format!("{}: {e}", path.display())));
        let given = files.kernel.as_ref().map(|(kernel, initramfs)| {
            Ok(cloud::Boot { kernel: read(kernel)?, initramfs: read(initramfs)?, arguments: files.arguments.clone() })
        });
        let given = given.transpose()?;
        let built = match (&files.disk, given) {
            (Some(disk), given) => {
                let part = Part { progress, from: MADE, to: 100 };
                let show = |percent| part.step(percent, "reading the disk");
                let bytes = cloud::import(disk, &out.join(DISK), &show, &refused)?;
                let boot = given.map_or_else(|| cloud::find_boot(&out.join(DISK)), Ok);
                cloud::finish(key, out, bytes, boot, &refused)?
            }
            // Its root file system is its initramfs, behind which each machine finds its facts.
            (None, Some(boot)) => {
                let release = cloud::put_start(&out, &boot, &refused)?;
                Built { arguments: boot.arguments, ..Built::new(key, out, release) }
            }
            (None, None) => return Err(refused("it has neither a disk nor a kernel with an initramfs".to_owned())),
        };
        progress.step(100, "done");
        let memory = files.memory.or(built.memory);
        Ok(Built { memory, login: files.login, ready: files.ready, ..built })
    }
}

/// Tells files apart by what a change of one changes, without reading it: where it is, how long, and when it was written.
///
/// # Errors
/// When one of them is not there.
pub fn key_of_files<'a>(paths: impl IntoIterator<Item = &'a Path>) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        let (whole, meta) = look_at(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        hash_of_file(&mut hasher, &whole, &meta);
    }
    Ok(short(hasher.finalize()))
}

/// A file as it really is called.
pub(crate) fn look_at(path: &Path) -> io::Result<(PathBuf, Metadata)> {
    let whole = fs::canonicalize(path)?;
    let meta = fs::metadata(&whole)?;
    Ok((whole, meta))
}

/// Adds what a change of a file changes.
pub(crate) fn hash_of_file(hasher: &mut blake3::Hasher, path: &Path, meta: &Metadata) {
    hasher.update(path.as_os_str().as_encoded_bytes()).update(&meta.len().to_le_bytes());
    for number in [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()] {
        hasher.update(&number.to_le_bytes());
    }
}

impl OwnImage {
    fn identity(&self) -> (&str, &std::result::Result<String, String>) {
        (&self.name, &self.key)
    }
}

impl fmt::Debug for OwnImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnImage").field("name", &self.name).field("key", &self.key).finish_non_exhaustive()
    }
}

impl PartialEq for OwnImage {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for OwnImage {}

impl PartialOrd for OwnImage {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OwnImage {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cache, ImageSpec, ensure};

    fn image(key: &str, files: OwnFiles) -> OwnImage {
        OwnImage::new("appliance", Ok(key.to_owned()), move |_, _| Ok(files.clone()))
    }

    fn said_of(own: OwnImage) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(dir.path()).expect("a cache");
        let error = ensure(&cache, &ImageSpec::from(own), &()).expect_err("it cannot be made").to_string();
        let left: Vec<_> = fs::read_dir(cache.images()).expect("it is there").flatten().collect();
        assert!(left.iter().all(|entry| entry.path().is_file()), "nothing half-made is left: {left:?}");
        error
    }

    #[test]
    fn what_its_maker_says_is_the_error() {
        let none =
            OwnImage::new("appliance", Err("its kernel: no such file".to_owned()), |_, _| Ok(OwnFiles::default()));
        assert_eq!(said_of(none), "`own:appliance` cannot be made: its kernel: no such file");
        let broken = OwnImage::new("appliance", Ok("1".to_owned()), |_, _| Err("the compiler is gone".into()));
        assert_eq!(said_of(broken), "`own:appliance` cannot be made: the compiler is gone");
        let nothing = said_of(image("1", OwnFiles::default()));
        assert!(nothing.ends_with("it has neither a disk nor a kernel with an initramfs"), "{nothing}");
        let gone = OwnFiles { kernel: Some(("/no/bzImage".into(), "/no/initramfs".into())), ..OwnFiles::default() };
        assert!(said_of(image("1", gone)).contains("/no/bzImage: No such file"));
    }

    #[test]
    fn a_disk_without_a_kernel_is_an_image_for_firmware() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = dir.path().join("disk.raw");
        fs::write(&disk, [7; 1000]).expect("it can be written");
        let cache = Cache::open(dir.path().join("cache")).expect("a cache");
        let files = OwnFiles { disk: Some(disk.clone()), memory: Some(64 << 20), ..OwnFiles::default() };
        let spec = ImageSpec::from(image("1", files));
        let made = ensure(&cache, &spec, &()).expect("it can be made");
        assert_eq!(ensure(&cache, &spec, &()).expect("it is there"), made);
        let cloud = made.cloud.as_ref().expect("it has a disk");
        assert_eq!((cloud.bytes, made.memory), (1024, Some(64 << 20)));
        assert_eq!(cloud.no_kernel.as_deref(), Some("it has neither a partition table nor an ext4"));
        assert!(made.hold().expect("it can be held").is_some());
        assert_eq!(fs::read(&cloud.disk).expect("it is there")[..1000], [7; 1000]);
    }

    #[test]
    fn files_are_told_apart_by_what_a_change_changes() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("bzImage");
        assert!(key_of_files([&*file]).expect_err("it is not there").to_string().contains("bzImage: "));
        fs::write(&file, "one").expect("it can be written");
        let key = key_of_files([&*file]).expect("it is there");
        assert_eq!(key_of_files([&*file]).expect("it is there"), key);
        fs::write(&file, "other").expect("it can be written");
        assert_ne!(key_of_files([&*file]).expect("it is there"), key);
    }
}
