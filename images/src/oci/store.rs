//! Where an image is: a directory or an archive in the layout of the Open Container Initiative.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Take},
    path::{Path, PathBuf},
};

use oci_spec::image::{Descriptor, DigestAlgorithm, ImageIndex};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::{
    Wrong,
    platform::{Found, choose},
};

/// By which an index names what is in it.
const NAME: &str = "org.opencontainers.image.ref.name";
const INDEX: &str = "index.json";
/// Where all that descriptors name is.
pub(super) const BLOBS: &str = "blobs/sha256";
/// Bytes in a document of an image; a larger one is none.
pub(super) const DOCUMENT: u64 = 8 << 20;

/// The place of an image.
pub(super) struct Store {
    path: PathBuf,
    /// Of an archive, where each file begins and how long it is.
    files: Option<HashMap<PathBuf, (u64, u64)>>,
}

impl Store {
    /// The blobs of this directory, whatever images they are of.
    pub(super) fn of_blobs(path: PathBuf) -> Self {
        Self { path, files: None }
    }

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
            _ => choose(&wanted, &names, &|descriptor| self.document(descriptor)),
        }
    }

    /// All of a small blob.
    pub(super) fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Wrong> {
        let mut blob = self.blob(descriptor)?;
        let mut text = Vec::new();
        let what = descriptor.digest().to_string();
        (&mut blob)
            .take(DOCUMENT)
            .read_to_end(&mut text)
            .map_err(|e| Wrong::new(format!("cannot read {what}: {e}")))?;
        blob.finish()?;
        Ok(text)
    }

    /// A blob, which is compared with its digest as it is read.
    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Blob, Wrong> {
        let digest = sha256(descriptor)?;
        let path = Path::new(BLOBS).join(digest);
        let missing = || Wrong::new(format!("it is not complete: there is no {}", path.display()));
        let file = self.file(&path)?.ok_or_else(missing)?;
        Ok(Blob { file, hash: Sha256::new(), read: 0, size: descriptor.size(), digest: digest.to_owned() })
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

/// The digest of what is described, without its algorithm.
pub(super) fn sha256(descriptor: &Descriptor) -> Result<&str, Wrong> {
    let digest = descriptor.digest();
    match digest.algorithm() {
        DigestAlgorithm::Sha256 => Ok(digest.digest()),
        _ => Err(Wrong::new(format!("{digest}: only digests by SHA-256 can be checked"))),
    }
}

/// A digest as an image names what has it.
pub(super) fn named(hash: Sha256) -> String {
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
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
    /// Its digest, with the algorithm.
    pub(super) fn name(&self) -> String {
        format!("sha256:{}", self.digest)
    }

    /// Bytes in it, as its descriptor says.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads what is left, and compares all of it with the digest.
    pub(super) fn finish(mut self) -> Result<(), Wrong> {
        let name = self.name();
        io::copy(&mut self, &mut io::sink()).map_err(|e| Wrong::new(format!("cannot read {name}: {e}")))?;
        let is = named(self.hash);
        if self.read < self.size {
            let (read, size) = (self.read, self.size);
            return Err(Wrong::new(format!("{name} is cut off: {read} of its {size} bytes are there")));
        }
        if is != name {
            return Err(Wrong::new(format!("what should be {name} is {is}")));
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
