//! Images of registries: what a name stands for is asked there, and what is not in the cache is brought into it.

mod client;
mod login;
mod reference;
#[cfg(test)]
mod standin;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
};

use oci_spec::image::{Descriptor, Digest};

pub(crate) use self::reference::whole;
use self::{
    client::{Client, Manifest},
    login::Login,
};
use super::{
    Request, Source, Wrong,
    blobs::Blobs,
    platform::{Found, choose},
    store::{DOCUMENT, sha256},
};
use crate::{
    Cache, Error, Progress, Result,
    fetch::{Download, Patience, Remote, Stop},
};

/// What the name of an image of a registry begins with.
pub(crate) const PREFIX: &str = "docker://";
/// Layers that are fetched at once: registries limit what one connection brings, and more than these they often refuse.
const AT_ONCE: usize = 3;

/// Why an image does not come.
enum Stopped {
    Wrong(Wrong),
    Failed(Error),
}

impl From<Wrong> for Stopped {
    fn from(why: Wrong) -> Self {
        Self::Wrong(why)
    }
}

impl From<Error> for Stopped {
    fn from(why: Error) -> Self {
        Self::Failed(why)
    }
}

/// An image of a registry.
pub(crate) struct Pull {
    client: Client,
    blobs: Blobs,
}

impl Pull {
    /// The image of this name, which begins with [`PREFIX`]. Asks nobody.
    ///
    /// # Errors
    /// [`Error::Refused`] for what is no name of an image, or a cache that cannot be written.
    pub(crate) fn new(cache: &Cache, image: &str) -> Result<Self> {
        Self::by(cache, image, Login::usual(), Patience::default())
    }

    fn by(cache: &Cache, image: &str, login: Login, patience: Patience) -> Result<Self> {
        let name = image.strip_prefix(PREFIX).unwrap_or(image);
        let refused = |why| Error::Refused { image: image.to_owned(), why };
        let reference = reference::parse(name).map_err(refused)?;
        Ok(Self { client: Client::new(image, reference, login, patience), blobs: Blobs::open(cache)? })
    }

    /// Asks the registry what the name stands for, and brings what is small of it.
    ///
    /// # Errors
    /// [`Error::Download`] and [`Error::Corrupt`], or [`Error::Refused`] for an image that is not for this machine.
    pub(crate) fn resolve(self, cache: &Cache, progress: &dyn Progress) -> Result<Request> {
        let reference = &self.client.reference;
        progress.step(0, &format!("asking {}", reference.registry()));
        let name = reference.digest().or(reference.tag()).unwrap_or_default();
        let top = self.kept(name).map_or_else(|| self.client.manifest(name), Ok)?;
        self.keep(&top)?;
        let document = |wanted: &Descriptor| self.document(cache, wanted, progress);
        let names = || "none of them has one".to_owned();
        let found = choose(&[&top.descriptor], &names, &document).map_err(|why| self.refused(why))?;
        Ok(self.into_request(found))
    }

    fn into_request(self, found: Found) -> Request {
        let store = self.blobs.store();
        Request { name: self.client.image().to_owned(), store, found, source: Source::Registry(Box::new(self)) }
    }

    /// What has this digest, if the cache has it: it never changes. What kind it is says itself.
    fn kept(&self, digest: &str) -> Option<Manifest> {
        let sha256 = digest.strip_prefix("sha256:")?;
        if !self.blobs.has(sha256) {
            return None;
        }
        let text = std::fs::read(self.blobs.place(sha256)).ok()?;
        let kind = serde_json::from_slice::<serde_json::Value>(&text).ok()?.get("mediaType")?.as_str()?.to_owned();
        let parsed: Digest = digest.parse().ok()?;
        let descriptor = Descriptor::new(kind.as_str().into(), text.len() as u64, parsed);
        // Whether it is right is seen when it is read.
        Some(Manifest { descriptor, text })
    }

    fn keep(&self, manifest: &Manifest) -> Result<()> {
        let digest = manifest.descriptor.digest().digest();
        if self.blobs.has(digest) { Ok(()) } else { self.blobs.put(digest, &manifest.text) }
    }

    /// A document of the image: another manifest, or its configuration.
    fn document(
        &self,
        cache: &Cache,
        wanted: &Descriptor,
        progress: &dyn Progress,
    ) -> std::result::Result<Vec<u8>, Stopped> {
        let digest = sha256(wanted)?;
        let store = self.blobs.store();
        if self.blobs.has(digest) {
            if let Ok(text) = store.document(wanted) {
                return Ok(text);
            }
            // It is not what came once.
            self.blobs.forget(digest);
        }
        if wanted.size() > DOCUMENT {
            return Err(Wrong::new(format!("its {digest} has {} bytes", wanted.size())).into());
        }
        let kind = wanted.media_type().to_string();
        if kind.contains("manifest") || kind.contains("index") {
            self.keep(&self.client.manifest(wanted.digest().as_ref())?)?;
        } else {
            let waits = || progress.step(0, "waiting for another process that fetches it");
            let came = self.bring(cache, wanted, &Stop::default(), waits, &|_| ());
            came.map_err(|why| why.expect("nobody stops it"))?;
        }
        Ok(store.document(wanted)?)
    }

    /// Brings all of these layers that the cache does not have, some at once.
    pub(super) fn layers(&self, cache: &Cache, layers: &[Descriptor], progress: &dyn Progress) -> Result<()> {
        let mut missing = BTreeMap::new();
        for layer in layers {
            let digest = sha256(layer).map_err(|why| self.refused(why.into()))?;
            if !self.blobs.has(digest) {
                missing.insert(digest, layer);
            }
        }
        let total: u64 = missing.values().map(|layer| layer.size()).sum();
        let what = format!("fetching {} layers, {}", missing.len(), size(total));
        let (stop, queue) = (Stop::default(), Mutex::new(missing.into_values().enumerate()));
        let (sender, arrived) = channel();
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = |tell: Sender<(usize, Result<u64>)>| {
            while let Some((number, layer)) = next() {
                let show = |at| _ = tell.send((number, Ok(at)));
                match self.bring(cache, layer, &stop, || (), &show) {
                    Ok(()) => show(layer.size()),
                    Err(Some(why)) => _ = tell.send((number, Err(why))),
                    Err(None) => return,
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                let tell = sender.clone();
                scope.spawn(|| work(tell));
            }
            drop(sender);
            let (mut there, mut failed) = (BTreeMap::new(), None);
            for (number, state) in arrived {
                match state {
                    Ok(at) => {
                        there.insert(number, at);
                        progress.step(there.values().sum::<u64>() * 100 / total.max(1), &what);
                    }
                    Err(why) => {
                        stop.set();
                        failed.get_or_insert(why);
                    }
                }
            }
            failed.map_or(Ok(()), Err)
        })
    }

    /// Brings one blob; an error of `None` says that it was stopped.
    fn bring(
        &self,
        cache: &Cache,
        wanted: &Descriptor,
        stop: &Stop,
        waits: impl FnOnce(),
        show: &dyn Fn(u64),
    ) -> std::result::Result<(), Option<Error>> {
        let digest = sha256(wanted).map_err(|why| self.refused(why.into()))?;
        let remote = self.client.blob(digest);
        let download = Download {
            remote: &remote as &dyn Remote,
            url: &remote.url,
            digest: digest.parse()?,
            size: Some(wanted.size()),
            incoming: &self.blobs.incoming(),
            place: self.blobs.place(digest),
            mode: 0o444,
            first_pause: self.client.patience().first_pause,
            stop,
        };
        download.run(cache, waits, &|at, _| show(at))
    }

    /// Removes what the cache has of a layer that is not what it should be.
    pub(super) fn forget(&self, layer: &Descriptor) {
        if let Ok(digest) = sha256(layer) {
            self.blobs.forget(digest);
        }
    }

    fn refused(&self, why: Stopped) -> Error {
        match why {
            Stopped::Wrong(why) => Error::Refused { image: self.client.image().to_owned(), why: why.to_string() },
            Stopped::Failed(why) => why,
        }
    }
}

/// So many bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}
