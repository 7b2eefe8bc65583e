//! Cloud images as machines: the disk of one is shared by all of its machines, its own kernel and initramfs start it, and its
//! cloud-init is told what the machine is.

mod boot;
mod bump;
mod catalog;
mod date;
mod disk;
mod layer;
mod nocloud;
mod partitions;
mod publisher;
mod sums;

use std::{
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

pub(crate) use boot::{Boot, find as find_boot};
pub use bump::{Bumped, bump};
pub use catalog::{CATALOG, Catalog, CatalogEntry, Catalogued, catalog_file, catalogued};
pub use date::Date;
pub use layer::{copy_of, layer_over};
pub use nocloud::write_nocloud;
pub use publisher::Publisher;

use crate::{
    Algorithm, Cache, Digest, Error, Fetch, Progress, Result,
    image::{Built, CloudDisk, DISK, INITRAMFS, KERNEL, Part, put_kernel, seal},
    kernels::kernel_release,
    key::short,
    own::{hash_of_file, look_at},
};

/// Raised with every change to what is made of an image.
const FORMAT: u32 = 4;
/// What the name of such an image begins with.
pub(crate) const PREFIX: &str = "cloud:";
/// What the name of one begins with that comes from the network, behind that.
const SCHEMES: &[&str] = &["http://", "https://"];
/// Memory in bytes of a machine that says nothing: what the makers of these images ask for. A Debian boots in half of it.
pub(crate) const MEMORY: u64 = 1 << 30;
/// The share of the whole, in percent, at which the disk has come, and at which it is read.
const FETCHED: u64 = 60;
const READ: u64 = 95;

/// What is asked of one.
pub(crate) struct Request {
    /// As it was asked for.
    name: String,
    source: Source,
}

enum Source {
    File(PathBuf, Metadata),
    Network(Fetch),
    Catalog(Box<Catalogued>, Fetch),
}

/// Whether what stands behind [`PREFIX`] is a path, and neither an address nor a name of a catalog.
pub(crate) fn is_path(text: &str) -> bool {
    !is_address(text) && !catalog::has(text)
}

/// Whether a catalog that can be read has this name.
pub(crate) fn is_in_catalog(name: &str) -> bool {
    matches!(catalog::find(name), Ok(Some(_)))
}

fn is_address(text: &str) -> bool {
    SCHEMES.iter().any(|scheme| text.starts_with(scheme))
}

/// What stands between an address and a digest of this kind.
fn mark(algorithm: Algorithm) -> String {
    format!("#{}=", algorithm.tag())
}

/// The file at an address with its digest; `None` where it has none.
fn with_digest(text: &str) -> Option<Result<Fetch>> {
    Algorithm::ALL.into_iter().find_map(|algorithm| {
        let (url, digits) = text.split_once(&mark(algorithm))?;
        Some(algorithm.read(digits).map(|digest| Fetch::known(url, digest)))
    })
}

/// What tells images of the network apart, in the names of files.
fn key_of(digest: Digest) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&FORMAT.to_le_bytes()).update(digest.to_string().as_bytes());
    short(hasher.finalize())
}

impl Request {
    /// Looks at the image of this name, which begins with [`PREFIX`]. Reads nothing of it.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is neither such a file nor such a name, or the digest is not known; [`Error::NoDigest`]
    /// for a wrong one; [`Error::Catalog`].
    pub(crate) fn read(name: &str) -> Result<Self> {
        let text = name.strip_prefix(PREFIX).unwrap_or(name);
        let refused = |why: String| Error::Refused { image: name.to_owned(), why };
        let source = if is_address(text) {
            Source::Network(with_digest(text).ok_or_else(|| refused(no_digest(text)))??)
        } else if let Some(found) = catalog::find(text)? {
            let unknown =
                || refused(format!("the catalog does not know its address with its digest: {}", found.remedy()));
            let fetch = found.fetch().ok_or_else(unknown)?;
            Source::Catalog(Box::new(found), fetch)
        } else {
            let (path, meta) = look_at(Path::new(text)).map_err(|e| refused(no_file(text, &e)))?;
            Source::File(path, meta)
        };
        Ok(Self { name: name.to_owned(), source })
    }

    /// Identifies what is made. That of a file follows what a change of it changes: to read all of it would take seconds, each
    /// time.
    pub(crate) fn key(&self) -> String {
        match &self.source {
            Source::File(path, meta) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&FORMAT.to_le_bytes());
                hash_of_file(&mut hasher, path, meta);
                short(hasher.finalize())
            }
            Source::Network(fetch) => key_of(fetch.digest()),
            Source::Catalog(found, fetch) => found.entry.key(fetch.digest()),
        }
    }

    /// Identifies that under the name by which it was asked for: a name of a catalog may stand for something else tomorrow, and
    /// several for the same.
    pub(crate) fn recipe(&self) -> String {
        match &self.source {
            Source::File(..) | Source::Network(_) => self.key(),
            Source::Catalog(..) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(self.key().as_bytes()).update(self.name.as_bytes());
                short(hasher.finalize())
            }
        }
    }

    /// Builds the image in a directory that is removed with everything else in it afterwards.
    pub(crate) fn build(&self, cache: &Cache, work: &Path, progress: &dyn Progress) -> Result<Built> {
        let out = work.join("image");
        fs::create_dir(&out).map_err(Error::file("make", &out))?;
        let at = out.join(DISK);
        let (bytes, digest) = match &self.source {
            Source::File(path, _) => (self.import(path, &at, 0, progress)?, None),
            Source::Network(fetch) | Source::Catalog(_, fetch) => {
                let _held = cache.hold_downloads()?;
                let fetched =
                    fetch.run(cache, &Part { progress, from: 0, to: FETCHED }).map_err(|e| self.not_fetched(e))?;
                let bytes = self.import(&fetched, &at, FETCHED, progress)?;
                // The disk is in the cache once, and whoever removes the image wants its room.
                fs::remove_file(&fetched).map_err(Error::file("remove", fetched))?;
                (bytes, Some(fetch.digest().tagged()))
            }
        };
        progress.step(READ, "looking for its kernel");
        let built = finish(self.key(), out, bytes, find_boot(&at), &|why| self.refused(why))?;
        progress.step(100, "done");
        let said = match &self.source {
            Source::Catalog(found, _) => Some(&found.entry),
            Source::File(..) | Source::Network(_) => None,
        };
        let (login, ready) = said.map(|entry| (entry.login.clone(), entry.ready.clone())).unwrap_or_default();
        Ok(Built { digest, login, ready, ..built })
    }

    /// Publishers remove what is old, and not every machine reaches them.
    fn not_fetched(&self, e: Error) -> Error {
        let Error::Download { url, why, tries } = e else { return e };
        let remedy = match &self.source {
            Source::Catalog(found, _) => found.remedy(),
            Source::Network(_) | Source::File(..) => {
                format!("a file that came by another way is `{PREFIX}` and its path")
            }
        };
        Error::Download { url, why: format!("{why}; {remedy}"), tries }
    }

    fn import(&self, source: &Path, to: &Path, from: u64, progress: &dyn Progress) -> Result<u64> {
        let part = Part { progress, from, to: READ };
        let show = |percent| part.step(percent, "reading the disk");
        import(source, to, &show, &|why| self.refused(why))
    }

    fn refused(&self, why: String) -> Error {
        Error::Refused { image: self.name.clone(), why }
    }
}

/// Writes the content of a disk, a qcow2 or raw, to a new file in the directory of a build. The result is its size in bytes.
pub(crate) fn import(source: &Path, to: &Path, show: &dyn Fn(u64), refused: &dyn Fn(String) -> Error) -> Result<u64> {
    disk::import(source, to, show).map_err(|failed| match failed {
        disk::Failed::Source(why) => refused(why),
        // The directory of a build is gone when somebody reads this.
        disk::Failed::Write(e) if e.kind() == io::ErrorKind::StorageFull => {
            Error::Full { dir: to.ancestors().nth(3).unwrap_or(to).to_owned() }
        }
        disk::Failed::Write(e) => Error::file("write", to)(e),
    })
}

/// Puts beside the disk in `out` what it is started with. One on which there is no kernel can be started by firmware alone.
pub(crate) fn finish(
    key: String,
    out: PathBuf,
    bytes: u64,
    boot: std::result::Result<Boot, String>,
    refused: &dyn Fn(String) -> Error,
) -> Result<Built> {
    let disk = |no_kernel| Some(CloudDisk { disk: DISK.into(), bytes, no_kernel });
    let boot = match boot {
        Ok(boot) => boot,
        Err(why) => {
            seal(&out, &[DISK])?;
            return Ok(Built { memory: Some(MEMORY), cloud: disk(Some(why)), ..Built::new(key, out, String::new()) });
        }
    };
    let release = put_start(&out, &boot, refused)?;
    seal(&out, &[DISK])?;
    let (memory, cloud, arguments) = (Some(MEMORY), disk(None), boot.arguments);
    Ok(Built { memory, cloud, arguments, ..Built::new(key, out, release) })
}

/// Puts the kernel and the initramfs into the directory of a build. The result is the kernel's release.
pub(crate) fn put_start(out: &Path, boot: &Boot, refused: &dyn Fn(String) -> Error) -> Result<String> {
    for (name, content) in [(KERNEL, &boot.kernel), (INITRAMFS, &boot.initramfs)] {
        let path = out.join(name);
        fs::write(&path, content).map_err(Error::file("write", path))?;
    }
    let kernel = out.join(KERNEL);
    let release = kernel_release(&kernel).map_err(|e| refused(format!("its kernel: {e}")))?;
    put_kernel(&kernel, out)?;
    seal(out, &[KERNEL, INITRAMFS])?;
    Ok(release)
}

/// Why an address without a digest is none.
fn no_digest(text: &str) -> String {
    let url = text.split('#').next().unwrap_or(text);
    let [short, long] = Algorithm::ALL.map(|algorithm| (mark(algorithm), algorithm.digits()));
    format!(
        "nothing is fetched without its digest: write `{PREFIX}{url}{}` and its {} hexadecimal digits, or `{}` and its {}, as \
         the file of checksums beside it has them",
        short.0, short.1, long.0, long.1
    )
}

/// Why there is none at this path. That may be meant as a name: without a directory, or with that from which names are seen.
fn no_file(text: &str, e: &io::Error) -> String {
    if e.kind() == io::ErrorKind::NotFound {
        format!("{text}: {e}; the names of the catalog are {}", catalog::names())
    } else {
        format!("{text}: {e}")
    }
}
