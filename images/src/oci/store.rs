//! Where an image is: a directory or an archive in the layout of the Open Container Initiative.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Take},
    path::{Path, PathBuf},
};

use oci_spec::image::{Descriptor, DigestAlgorithm, ImageConfiguration, ImageIndex, ImageManifest};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::Wrong;

/// By which an index names what is in it.
const NAME: &str = "org.opencontainers.image.ref.name";
const INDEX: &str = "index.json";
/// The architecture of this machine as images name it.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// Indices in indices, of which nobody needs two.
const DEEPEST: u32 = 4;
/// Bytes in a document of an image; a larger one is none.
const DOCUMENT: u64 = 8 << 20;

/// The place of an image.
pub(super) struct Store {
    path: PathBuf,
    /// Of an archive, where each file begins and how long it is.
    files: Option<HashMap<PathBuf, (u64, u64)>>,
}

/// An image of a store.
pub(super) struct Found {
    /// Identifies all of it.
    pub(super) digest: String,
    pub(super) layers: Vec<Descriptor>,
    pub(super) configuration: ImageConfiguration,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, Wrong> {
        let failed = |e: io::Error| Wrong::new(format!("{}: {e}", path.display()));
        let files = if path.metadata().map_err(failed)?.is_dir() {
            None
        } else {
            let file = BufReader::new(File::open(path).map_err(failed)?);
            Some(list(file).map_err(|e| Wrong::new(format!("{} is no archive: {e}", path.display())))?)
        };
        Ok(Self { path: path.to_owned(), files })
    }

    /// The image of this name, or the only one, for machines of this architecture.
    pub(super) fn find(&self, name: Option<&str>) -> Result<Found, Wrong> {
        let Some(index) = self.file(Path::new(INDEX))? else {
            return Err(Wrong::new(format!(
                "there is no `{INDEX}` in {}: it must be a directory or an archive in the OCI layout, as \
                 `skopeo copy … oci:DIR`, `podman save --format oci-archive` and `docker buildx build -o type=oci` write it",
                self.path.display()
            )));
        };
        let index: ImageIndex = read(index, INDEX)?;
        let named = |descriptor: &Descriptor| descriptor.annotations().as_ref()?.get(NAME).cloned();
        let all = index.manifests();
        let wanted: Vec<&Descriptor> = match name {
            Some(name) => all.iter().filter(|image| named(image).as_deref() == Some(name)).collect(),
            None => all.iter().collect(),
        };
        let names = || all.iter().filter_map(named).collect::<Vec<_>>().join(", ");
        match (wanted.as_slice(), name) {
            ([], Some(name)) => {
                Err(Wrong::new(format!("it has no image `{name}`; those with a name are: {}", names())))
            }
            _ => self.choose(&wanted, 0, &names),
        }
    }

    /// The one of these that this machine can run.
    fn choose(&self, all: &[&Descriptor], depth: u32, names: &dyn Fn() -> String) -> Result<Found, Wrong> {
        let runs = |image: &&&Descriptor| match image.platform() {
            Some(platform) => {
                platform.os().to_string() == "linux" && platform.architecture().to_string() == ARCHITECTURE
            }
            None => true,
        };
        let found: Vec<_> = all.iter().filter(runs).collect();
        let [one] = found.as_slice() else {
            let why = if found.is_empty() {
                format!("none of its images is for linux on {ARCHITECTURE}")
            } else {
                format!("it has several images: put a colon and the name of one behind the path. They are: {}", names())
            };
            return Err(Wrong::new(why));
        };
        let kind = one.media_type().to_string();
        if kind.contains("index") || kind.contains("manifest.list") {
            if depth == DEEPEST {
                return Err(Wrong::new("its index names indices without end".to_owned()));
            }
            let index: ImageIndex = self.document(one)?;
            return self.choose(&index.manifests().iter().collect::<Vec<_>>(), depth + 1, names);
        }
        let manifest: ImageManifest = self.document(one)?;
        let configuration: ImageConfiguration = self.document(manifest.config())?;
        let architecture = configuration.architecture().to_string();
        if architecture != ARCHITECTURE {
            return Err(Wrong::new(format!("it is for {architecture}, and this machine is {ARCHITECTURE}")));
        }
        Ok(Found { digest: one.digest().to_string(), layers: manifest.layers().clone(), configuration })
    }

    fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, Wrong> {
        let mut blob = self.blob(descriptor)?;
        let mut text = Vec::new();
        let what = descriptor.digest().to_string();
        (&mut blob)
            .take(DOCUMENT)
            .read_to_end(&mut text)
            .map_err(|e| Wrong::new(format!("cannot read {what}: {e}")))?;
        blob.finish()?;
        serde_json::from_slice(&text).map_err(|e| Wrong::new(format!("{what} is not what it should be: {e}")))
    }

    /// A blob, which is compared with its digest as it is read.
    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Blob, Wrong> {
        let digest = descriptor.digest();
        if *digest.algorithm() != DigestAlgorithm::Sha256 {
            return Err(Wrong::new(format!("{digest}: only digests by SHA-256 can be checked")));
        }
        let path = Path::new("blobs/sha256").join(digest.digest());
        let missing = || Wrong::new(format!("it is not complete: there is no {}", path.display()));
        let file = self.file(&path)?.ok_or_else(missing)?;
        Ok(Blob { file, hash: Sha256::new(), read: 0, size: descriptor.size(), digest: digest.digest().to_owned() })
    }

    fn file(&self, name: &Path) -> Result<Option<Take<File>>, Wrong> {
        let failed =
            |e: io::Error| Wrong::new(format!("cannot read {} of {}: {e}", name.display(), self.path.display()));
        let open = |path: &Path| match File::open(path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(e)),
        };
        match &self.files {
            None => Ok(open(&self.path.join(name))?.map(|file| file.take(u64::MAX))),
            Some(files) => {
                let (Some(&(start, length)), Some(mut file)) = (files.get(name), open(&self.path)?) else {
                    return Ok(None);
                };
                file.seek(SeekFrom::Start(start)).map_err(failed)?;
                Ok(Some(file.take(length)))
            }
        }
    }
}

/// Where each file of an archive is. Only headers are read.
fn list(archive: impl Read + Seek) -> io::Result<HashMap<PathBuf, (u64, u64)>> {
    let mut archive = tar::Archive::new(archive);
    let mut files = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() {
            let path = entry.path()?;
            let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
            files.insert(path, (entry.raw_file_position(), entry.size()));
        }
    }
    Ok(files)
}

fn read<T: DeserializeOwned>(document: impl Read, what: &str) -> Result<T, Wrong> {
    let read = serde_json::from_reader(BufReader::new(document.take(DOCUMENT)));
    read.map_err(|e| Wrong::new(format!("`{what}` is not what it should be: {e}")))
}

/// A blob while it is read.
pub(super) struct Blob {
    file: Take<File>,
    hash: Sha256,
    read: u64,
    size: u64,
    digest: String,
}

impl Blob {
    /// Bytes in it, as its descriptor says.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads what is left, and compares all of it with the digest.
    pub(super) fn finish(mut self) -> Result<(), Wrong> {
        let read = io::copy(&mut self, &mut io::sink());
        read.map_err(|e| Wrong::new(format!("cannot read sha256:{}: {e}", self.digest)))?;
        let is: String = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if self.read < self.size {
            let (read, size) = (self.read, self.size);
            return Err(Wrong::new(format!("sha256:{} is cut off: {read} of its {size} bytes are there", self.digest)));
        }
        if is != self.digest {
            return Err(Wrong::new(format!("what should be sha256:{} is sha256:{is}", self.digest)));
        }
        Ok(())
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.read += read as u64;
        Ok(read)
    }
}
