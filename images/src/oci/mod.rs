//! Images of the Open Container Initiative as machines: the layers of one become a read-only disk, and the `micro` image is its
//! kernel and its initramfs, which brings what a machine needs that an image of a container does not have.

mod ahead;
mod blobs;
mod frames;
mod layer;
mod platform;
mod registry;
mod removal;
mod runtime;
mod store;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    fs::{self, Permissions},
    io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use oci_spec::image::Descriptor;

pub(crate) use self::registry::{PREFIX as REGISTRY, Pull, whole};
use self::{platform::Found, store::Store};
use crate::{
    Cache, Error, Image, Progress, Result,
    image::{Built, INITRAMFS, KERNEL, NESTED, Part, ROOT, seal, share_kernel},
    inside::{Inside, no_space},
    key::short,
};

/// Raised with every change to what is built, beside that of the scripts.
const FORMAT: u32 = 4;
/// What the name of an image in a layout begins with.
pub(crate) const PREFIX: &str = "oci:";
/// Run inside: makes the disk of the tree.
const DISK: &str = concat!("set -eu\nexec 2>&1 9<&0 </dev/null\nlabel=$1\n", include_str!("../guest/disk.sh"));
/// By which the guest finds its root.
const LABEL: &str = crate::debian::LABEL;
/// The share of the whole, in percent, at which the layers of a registry are there.
const FETCHED: u64 = 50;
/// The share of the rest, in percent, at which the layers are unpacked.
const UNPACKED: u64 = 70;

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
    source: Source,
}

/// Where the layers of an image come from.
enum Source {
    /// They are there.
    Layout,
    Registry(Box<Pull>),
}

/// Identifies how images of registries are made, and what this name of one stands for, whatever that is: so it is known
/// before anybody is asked.
pub(crate) fn recipe(whole: &str) -> String {
    key(&["registry", whole])
}

/// Identifies this and how it is made.
fn key(of: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&FORMAT.to_le_bytes()).update(DISK.as_bytes()).update(crate::micro::recipe().as_bytes());
    for part in runtime::OWN_PARTS.iter().chain(of) {
        hasher.update(part.as_bytes());
    }
    short(hasher.finalize())
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
        Ok(Self { name: name.to_owned(), store, found, source: Source::Layout })
    }

    pub(crate) fn key(&self) -> String {
        key(&[&self.found.digest])
    }

    /// Builds the image in a directory that is removed with everything else in it afterwards.
    pub(crate) fn build(&self, cache: &Cache, work: &Path, progress: &dyn Progress) -> Result<Built> {
        let inside = Inside::find()?;
        let part = |from, to| Part { progress, from, to };
        let rest = match &self.source {
            Source::Layout => part(0, 100),
            Source::Registry(pull) => {
                pull.layers(cache, &self.found.layers, &part(0, FETCHED))?;
                part(FETCHED, 100)
            }
        };
        let progress: &dyn Progress = &rest;
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
        // It has as much memory as an empty machine: what its service wants, its author knows.
        Ok(Built {
            root: Some(LABEL.to_owned()),
            entrypoint: entrypoint.guest_path(),
            digest: Some(self.found.digest.clone()),
            asks_firmware: micro.asks_firmware,
            ..Built::new(self.key(), out, micro.kernel_version)
        })
    }

    /// Unpacks all layers into this directory, with the owners that they have where systems are made.
    pub(crate) fn unpack_to(&self, dir: &Path) -> Result<()> {
        self.unpack(dir, Inside::find()?.first(), &())
    }

    /// Unpacks all layers, each over those before it.
    fn unpack(&self, root: &Path, first: u32, progress: &dyn Progress) -> Result<()> {
        fs::set_permissions(root, Permissions::from_mode(0o755)).map_err(Error::file("change the mode of", root))?;
        chown(root, Some(first), Some(first)).map_err(Error::file("change the owner of", root))?;
        let layers = &self.found.layers;
        let total: u64 = layers.iter().map(Descriptor::size).sum();
        let mut before = 0;
        let diff_ids = self.found.configuration.rootfs().diff_ids();
        for (number, (layer, diff_id)) in layers.iter().zip(diff_ids).enumerate() {
            let what = format!("unpacking layer {} of {}", number + 1, layers.len());
            let wrong = |why: Wrong| {
                // So that it comes again the next time.
                if let Source::Registry(pull) = &self.source {
                    pull.forget(layer);
                }
                self.refused(why.to_string())
            };
            let blob = self.store.blob(layer).map_err(wrong)?;
            let size = blob.size();
            let tell = |read| progress.step((before + read) * UNPACKED / total.max(1), &what);
            // A layer that is not what it should be is often no archive either, and that it is not is what is said.
            let unpacked =
                ahead::read(blob, diff_id, tell, |plain| layer::unpack(plain, root, first)).map_err(wrong)?;
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
        share_kernel(micro, out)?;
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
