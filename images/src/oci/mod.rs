//! Images of the Open Container Initiative as machines: the layers of one become a read-only disk, and the `micro` image is its
//! kernel and its initramfs, which brings what a machine needs that an image of a container does not have.

mod layer;
mod runtime;
mod store;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    fs::{self, Permissions},
    io::{self, BufReader, Read},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use oci_spec::image::Descriptor;
use ruzstd::decoding::StreamingDecoder;

use self::store::{Found, Store};
use crate::{
    Cache, Error, Image, Progress, Result,
    image::{Built, INITRAMFS, KERNEL, NESTED, ROOT, seal},
    inside::{Inside, no_space},
};

/// Raised with every change to what is built, beside that of the scripts.
const FORMAT: u32 = 1;
/// What the name of such an image begins with.
pub(crate) const PREFIX: &str = "oci:";
/// Run inside: makes the disk of the tree.
const DISK: &str = concat!("set -eu\nexec 2>&1 9<&0 </dev/null\nlabel=$1\n", include_str!("../guest/disk.sh"));
/// By which the guest finds its root.
const LABEL: &str = crate::debian::LABEL;
/// The share of the whole, in percent, at which the layers are unpacked.
const UNPACKED: u64 = 70;
/// What compressed layers begin with.
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Why an image is not taken, as the end of a sentence about it.
#[derive(Debug)]
pub(super) struct Wrong(String);

impl Wrong {
    fn new(why: String) -> Self {
        Self(why)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is asked of one.
pub(crate) struct Request {
    /// As it was asked for.
    name: String,
    store: Store,
    found: Found,
}

impl Request {
    /// Looks at the image of this name, which begins with [`PREFIX`]; reads a few kilobytes of it.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is no such image, or not for this machine.
    pub(crate) fn read(name: &str) -> Result<Self> {
        let refused = |why: &Wrong| Error::Refused { image: name.to_owned(), why: why.to_string() };
        let (path, reference) = split(name.strip_prefix(PREFIX).unwrap_or(name));
        let store = Store::open(&path).map_err(|e| refused(&e))?;
        let found = store.find(reference.as_deref()).map_err(|e| refused(&e))?;
        Ok(Self { name: name.to_owned(), store, found })
    }

    pub(crate) fn key(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&FORMAT.to_le_bytes()).update(DISK.as_bytes()).update(crate::micro::recipe().as_bytes());
        for part in runtime::OWN_PARTS {
            hasher.update(part.as_bytes());
        }
        hasher.update(self.found.digest.as_bytes());
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// Builds the image in a directory that is removed with everything else in it afterwards.
    pub(crate) fn build(&self, cache: &Cache, work: &Path, progress: &dyn Progress) -> Result<Built> {
        let inside = Inside::find()?;
        let micro = crate::image::ensure(cache, &crate::image::MICRO.into(), progress)?;
        let (tree, out) = (work.join("tree"), work.join("image"));
        let root = tree.join("root");
        for dir in [&tree, &root, &out] {
            fs::create_dir(dir).map_err(Error::file("make", dir))?;
        }
        self.unpack(&root, inside.first(), progress)?;
        let entrypoint = runtime::read(&self.found.configuration, &root).map_err(|why| self.refused(why))?;
        progress.step(UNPACKED, "making the disk");
        self.disk(&inside, &tree, &out.join(ROOT))?;
        progress.step(95, "packing the initramfs");
        self.pack(&micro, &entrypoint, &out)?;
        progress.step(100, "done");
        Ok(Built {
            key: self.key(),
            dir: out,
            kernel_version: micro.kernel_version,
            root: Some(LABEL.to_owned()),
            // As much as an empty machine: what its service wants, its author knows.
            memory: None,
            entrypoint: entrypoint.guest_path(),
        })
    }

    /// Unpacks all layers, each over those before it.
    fn unpack(&self, root: &Path, first: u32, progress: &dyn Progress) -> Result<()> {
        fs::set_permissions(root, Permissions::from_mode(0o755)).map_err(Error::file("change the mode of", root))?;
        chown(root, Some(first), Some(first)).map_err(Error::file("change the owner of", root))?;
        let layers = &self.found.layers;
        let total: u64 = layers.iter().map(Descriptor::size).sum();
        let mut before = 0;
        for (number, layer) in layers.iter().enumerate() {
            let what = format!("unpacking layer {} of {}", number + 1, layers.len());
            let blob = self.store.blob(layer).map_err(|why| self.refused(why.to_string()))?;
            let size = blob.size();
            let mut watched = Watched {
                blob,
                read: 0,
                tell: |read| {
                    progress.step((before + read) * UNPACKED / total.max(1), &what);
                },
            };
            let unpacked = decompressed(&mut watched).map_err(layer::Failure::from);
            let unpacked = unpacked.and_then(|plain| layer::unpack(plain, root, first));
            // A layer that is not what it should be is often no archive either, and that it is not is what is said.
            watched.blob.finish().map_err(|why| self.refused(why.to_string()))?;
            unpacked.map_err(|why| self.failed(layer, &why, root))?;
            before += size;
        }
        Ok(())
    }

    fn failed(&self, layer: &Descriptor, why: &layer::Failure, root: &Path) -> Error {
        let full = |e: &io::Error| e.kind() == io::ErrorKind::StorageFull;
        match why {
            layer::Failure::Io(e) | layer::Failure::Entry { source: e, .. } if full(e) => {
                Error::Full { dir: root.ancestors().nth(3).unwrap_or(root).to_owned() }
            }
            _ => self.refused(format!("the layer {} cannot be unpacked: {why}", layer.digest())),
        }
    }

    /// Makes the disk where all ids of a system are.
    fn disk(&self, inside: &Inside, tree: &Path, disk: &Path) -> Result<()> {
        let mut said = Vec::new();
        let ended = inside.run(DISK, &[LABEL], tree, disk, |line| said.push(line.to_owned()))?;
        if ended.success() {
            return Ok(());
        }
        let failed = || Error::Build { step: "making the disk".to_owned(), said: said.join("\n  ") };
        Err(no_space(&said, tree).unwrap_or_else(failed))
    }

    /// Puts kernel and initramfs beside the disk: those of the micro image, and behind them what this one adds.
    fn pack(&self, micro: &Image, entrypoint: &runtime::Runtime, out: &Path) -> Result<()> {
        let kernel = out.join(KERNEL);
        fs::copy(&micro.kernel, &kernel).map_err(Error::file("copy", &micro.kernel))?;
        for (base, name) in [(&micro.initramfs, INITRAMFS), (&micro.nested, NESTED)] {
            entrypoint.append_to(base, &out.join(name)).map_err(Error::file("write", out.join(name)))?;
        }
        seal(out, &[KERNEL, INITRAMFS, NESTED, ROOT])
    }

    fn refused(&self, why: String) -> Error {
        Error::Refused { image: self.name.clone(), why }
    }
}

/// The path, and the name of one image of it behind a colon.
fn split(text: &str) -> (PathBuf, Option<String>) {
    match text.rsplit_once(':') {
        Some((path, name)) if !name.contains('/') && !Path::new(text).exists() => (path.into(), Some(name.to_owned())),
        _ => (text.into(), None),
    }
}

/// A layer as it was before it was compressed.
fn decompressed<'a>(layer: &'a mut (impl Read + 'a)) -> io::Result<Box<dyn Read + 'a>> {
    let mut begin = Vec::new();
    layer.by_ref().take(4).read_to_end(&mut begin)?;
    let (gzip, zstd) = (begin.starts_with(GZIP), begin == ZSTD);
    let whole = BufReader::with_capacity(1 << 17, io::Cursor::new(begin).chain(layer));
    Ok(if gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if zstd {
        Box::new(StreamingDecoder::new(whole).map_err(io::Error::other)?)
    } else {
        Box::new(whole)
    })
}

/// A blob that tells how much of it was read.
struct Watched<F> {
    blob: store::Blob,
    read: u64,
    tell: F,
}

impl<F: Fn(u64)> Read for Watched<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read(buffer)?;
        self.read += read as u64;
        (self.tell)(self.read);
        Ok(read)
    }
}
