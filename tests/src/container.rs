//! Images of containers, made by hand.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// One entry of a layer: its path, what it is, its content or where it leads to.
pub type Part<'a> = (&'a str, EntryType, &'a [u8]);

/// A layer of these entries, all of them root's.
///
/// # Panics
/// For what no archive can hold.
pub fn layer(parts: &[Part<'_>]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for &(path, kind, content) in parts {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        let appended = if kind == EntryType::Symlink {
            header.set_size(0);
            archive.append_link(&mut header, path, std::str::from_utf8(content).expect("a path"))
        } else {
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, content)
        };
        appended.expect("memory takes it");
    }
    archive.into_inner().expect("memory takes it")
}

/// An image in the OCI layout, in a directory.
#[derive(Debug)]
pub struct Layout {
    dir: PathBuf,
    manifest: Value,
}

impl Layout {
    /// Makes this directory, with an image for this machine of these layers, with the configuration of its service.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn new(dir: &Path, layers: &[Vec<u8>], config: &Value) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("it can be made");
        let blob = |kind: &str, bytes: &[u8]| {
            let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(dir.join("blobs/sha256").join(&digest), bytes).expect("it can be written");
            json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"),
                "size": bytes.len() })
        };
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let layers: Vec<_> = layers.iter().map(|layer| blob("layer.v1.tar", layer)).collect();
        // They are not compressed, so what they hold is what they are.
        let diff_ids: Vec<_> = layers.iter().map(|layer| &layer["digest"]).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "config": config,
        });
        let config = blob("config.v1+json", config.to_string().as_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
        let manifest = blob("manifest.v1+json", manifest.to_string().as_bytes());
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        fs::write(dir.join("index.json"), index.to_string()).expect("it can be written");
        Self { dir: dir.to_owned(), manifest }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The digest of its manifest.
    pub fn digest(&self) -> &str {
        self.manifest["digest"].as_str().expect("it was made with one")
    }

    /// The bytes of its manifest.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn manifest(&self) -> Vec<u8> {
        fs::read(self.blobs().join(self.digest().trim_start_matches("sha256:"))).expect("it is there")
    }

    /// The directory of its blobs.
    pub fn blobs(&self) -> PathBuf {
        self.dir.join("blobs/sha256")
    }

    /// The same as an archive beside it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn archive(&self) -> PathBuf {
        let archive = self.dir.with_extension("tar");
        let mut builder = Builder::new(File::create(&archive).expect("it can be made"));
        builder.append_dir_all(".", &self.dir).and_then(|()| builder.finish()).expect("it can be written");
        archive
    }
}
