use std::{
    io::{Read, Write},
    os::unix::fs::MetadataExt,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use ruzstd::{
    decoding::StreamingDecoder,
    encoding::{CompressionLevel, compress_to_vec},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

/// An entry of a layer: its path, what it is, what is in it or where it leads to, its mode.
pub(super) type Part<'a> = (&'a str, EntryType, &'a str, u32);

pub(super) const FILE: EntryType = EntryType::Regular;
const DIR: EntryType = EntryType::Directory;
const LINK: EntryType = EntryType::Symlink;

pub(super) fn layer(parts: &[Part<'_>]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (path, kind, content, mode) in parts {
        let mut header = Header::new_gnu();
        // As it is, which the safe way does not allow.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1_000_000_000);
        let data = if *kind == FILE { content.as_bytes() } else { b"" };
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        archive.append(&header, data).unwrap();
    }
    archive.into_inner().unwrap()
}

/// What comes of these layers.
fn unpacked(layers: &[&[Part<'_>]]) -> (TempDir, std::result::Result<(), layer::Failure>) {
    let root = TempDir::new().unwrap();
    let all = layers.iter().try_for_each(|parts| layer::unpack(layer(parts).as_slice(), root.path(), 0));
    (root, all)
}

fn said(root: &TempDir, path: &str) -> String {
    fs::read_to_string(root.path().join(path)).unwrap()
}

#[test]
fn a_layer_is_what_its_archive_says() {
    let (root, all) = unpacked(&[&[
        ("./", DIR, "", 0o755),
        ("./bin/", DIR, "", 0o751),
        ("./bin/tool", FILE, "#!", 0o4755),
        ("./bin/same", EntryType::Link, "bin/tool", 0),
        ("bin/away", LINK, "/bin/tool", 0o777),
        ("not/said/before", FILE, "x", 0o600),
        ("pipe", EntryType::Fifo, "", 0o640),
    ]]);
    all.unwrap();
    let meta = |path: &str| fs::symlink_metadata(root.path().join(path)).unwrap();
    assert_eq!([meta("bin").mode() & 0o7777, meta("bin/tool").mode() & 0o7777], [0o751, 0o4755]);
    assert_eq!(meta("bin/same").ino(), meta("bin/tool").ino());
    assert_eq!(fs::read_link(root.path().join("bin/away")).unwrap(), Path::new("/bin/tool"));
    assert_eq!(said(&root, "not/said/before"), "x");
    assert_eq!(meta("not/said").mode() & 0o7777, 0o755);
    assert_eq!([meta("bin").mtime(), meta("bin/tool").mtime(), meta("bin/away").mtime()], [1_000_000_000; 3]);
}

#[test]
fn an_upper_layer_replaces_and_removes() {
    let lower: &[Part<'_>] = &[
        ("etc/", DIR, "", 0o755),
        ("etc/a", FILE, "lower", 0o644),
        ("etc/b", FILE, "lower", 0o644),
        ("gone/x/y", FILE, "lower", 0o644),
        ("hidden/old", FILE, "lower", 0o644),
        ("hidden/sub/old", FILE, "lower", 0o644),
        ("was_dir/x", FILE, "lower", 0o644),
        ("was_file", FILE, "lower", 0o644),
    ];
    let upper: &[Part<'_>] = &[
        ("etc/a", FILE, "upper", 0o600),
        ("etc/.wh.b", FILE, "", 0),
        (".wh.gone", FILE, "", 0),
        ("hidden/sub/new", FILE, "upper", 0o644),
        ("hidden/.wh..wh..opq", FILE, "", 0),
        ("hidden/new", FILE, "upper", 0o644),
        ("was_dir", FILE, "upper", 0o644),
        ("was_file/", DIR, "", 0o755),
        ("was_file/x", FILE, "upper", 0o644),
        (".wh.never", FILE, "", 0),
    ];
    let (root, all) = unpacked(&[lower, upper]);
    all.unwrap();
    for (path, expected) in [
        ("etc/a", "upper"),
        ("hidden/new", "upper"),
        ("hidden/sub/new", "upper"),
        ("was_dir", "upper"),
        ("was_file/x", "upper"),
    ] {
        assert_eq!(said(&root, path), expected, "{path}");
    }
    for path in ["etc/b", "gone", "hidden/old", "hidden/sub/old", "etc/.wh.b", "hidden/.wh..wh..opq", ".wh.never"] {
        assert!(!root.path().join(path).exists(), "{path}");
    }
}

#[test]
fn what_a_layer_writes_its_own_whiteout_does_not_remove() {
    let (root, all) = unpacked(&[
        &[("d/old", FILE, "lower", 0o644), ("f", FILE, "lower", 0o644)],
        &[("d/new", FILE, "upper", 0o644), (".wh.d", FILE, "", 0), ("f", FILE, "upper", 0o644), (".wh.f", FILE, "", 0)],
    ]);
    all.unwrap();
    assert_eq!([said(&root, "d/new"), said(&root, "f")], ["upper", "upper"]);
    assert!(!root.path().join("d/old").exists());
}

#[test]
fn links_lead_to_where_they_do_in_the_image() {
    let (root, all) = unpacked(&[
        &[("usr/lib/a", FILE, "a", 0o644), ("lib", LINK, "/usr/lib", 0o777), ("up", LINK, "../../../usr", 0o777)],
        &[("lib/b", FILE, "b", 0o644), ("up/c", FILE, "c", 0o644), ("h", EntryType::Link, "lib/a", 0)],
    ]);
    all.unwrap();
    assert_eq!([said(&root, "usr/lib/b"), said(&root, "usr/c"), said(&root, "h")], ["b", "c", "a"]);
}

#[test]
fn nothing_is_written_outside() {
    let outside = TempDir::new().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "whole").unwrap();
    let (at, dir) = (victim.to_str().unwrap(), outside.path().to_str().unwrap());
    for parts in [
        &[("../x", FILE, "x", 0o644)][..],
        &[("a/../../x", FILE, "x", 0o644)],
        &[("a/.wh...", FILE, "", 0)],
        &[("x", EntryType::Link, "../victim", 0)],
    ] {
        let (_root, all) = unpacked(&[parts]);
        assert!(matches!(all, Err(layer::Failure::Escape(_))), "{parts:?}: {all:?}");
    }
    // What leads out by a link stays inside, or is not there.
    for parts in [
        &[("x", LINK, at, 0o777), ("x", FILE, "x", 0o644)][..],
        &[("d", LINK, dir, 0o777), ("d/victim", FILE, "x", 0o644)],
        &[("d", LINK, dir, 0o777), ("d/.wh.victim", FILE, "", 0)],
        &[("d", LINK, dir, 0o777), ("d/.wh..wh..opq", FILE, "", 0)],
        &[("d", LINK, dir, 0o777), ("x", EntryType::Link, "d/victim", 0), ("x", FILE, "x", 0o644)],
        &[("x", LINK, at, 0o777), ("x", DIR, "", 0o700)],
    ] {
        let (_root, all) = unpacked(&[parts]);
        drop(all);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "whole", "{parts:?}");
    }
}

/// An image in the OCI layout, of these layers, each of this kind.
pub(super) struct Layout {
    dir: TempDir,
}

impl Layout {
    pub(super) fn new(layers: &[(&[u8], &str)]) -> Self {
        Self::which_says(layers, &layers.iter().map(|(bytes, _)| digest(&plain(bytes))).collect::<Vec<_>>())
    }

    /// One whose configuration says that its layers hold this.
    fn which_says(layers: &[(&[u8], &str)], diff_ids: &[String]) -> Self {
        let layout = Self { dir: TempDir::new().unwrap() };
        fs::create_dir_all(layout.dir.path().join("blobs/sha256")).unwrap();
        let config = json!({
            "architecture": ARCHITECTURE, "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "config": { "Entrypoint": ["/bin/tool"], "Env": ["A=b"] },
        });
        let config = layout.add(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let layers: Vec<_> = layers.iter().map(|(bytes, kind)| layout.add(bytes, kind)).collect();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let manifest = layout.add(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
        layout.index(&[manifest]);
        layout
    }

    pub(super) fn add(&self, bytes: &[u8], kind: &str) -> Value {
        let digest = digest(bytes);
        fs::write(self.dir.path().join("blobs").join(digest.replace(':', "/")), bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    }

    pub(super) fn index(&self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
    }

    pub(super) fn manifest(&self) -> Value {
        let text = fs::read(self.dir.path().join("index.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["manifests"][0].clone()
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn name(&self) -> String {
        format!("oci:{}", self.dir.path().display())
    }

    /// What is said of it when it is unpacked.
    fn complaint(&self) -> String {
        let root = TempDir::new().unwrap();
        let unpacked = Request::read(&self.name()).and_then(|request| request.unpack(root.path(), 0, &()));
        unpacked.unwrap_err().to_string()
    }
}

pub(super) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// What is in a layer that is compressed in one part.
fn plain(layer: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match layer {
        [0x1f, 0x8b, ..] => GzDecoder::new(layer).read_to_end(&mut plain).unwrap(),
        [0x28, 0xb5, ..] => StreamingDecoder::new(layer).unwrap().read_to_end(&mut plain).unwrap(),
        _ => return layer.to_owned(),
    };
    plain
}

fn digest(bytes: &[u8]) -> String {
    store::named(Sha256::new_with_prefix(bytes))
}

fn layers() -> [Vec<u8>; 3] {
    let plain = layer(&[("plain", FILE, "1", 0o644)]);
    let zipped = gzip(&layer(&[("zipped", FILE, "2", 0o644)]));
    let packed = layer(&[("packed", FILE, "3", 0o644)]);
    [plain, zipped, zstd(&packed)]
}

/// A frame that holds nothing, as some tools write them for themselves.
fn nothing(number: u8) -> Vec<u8> {
    [&[0x50 + number, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"hello"].concat()
}

#[test]
fn a_layer_may_be_compressed_in_many_parts() {
    let whole = layer(&[("one", FILE, "1", 0o644), ("two", FILE, "2", 0o644)]);
    // The first entry ends here: what reads no further takes that for the end of the archive.
    let (one, two) = whole.split_at(1024);
    let (middle, rest) = two.split_at(700);
    for layer in [
        [zstd(one), zstd(two)].concat(),
        [zstd(one), zstd(b""), zstd(middle), zstd(rest)].concat(),
        [nothing(0), zstd(one), nothing(15), nothing(3), zstd(two), nothing(1)].concat(),
        [gzip(one), gzip(b""), gzip(two)].concat(),
    ] {
        let root = TempDir::new().unwrap();
        let layout = Layout::which_says(&[(&layer, TAR)], &[digest(&whole)]);
        Request::read(&layout.name()).unwrap().unpack(root.path(), 0, &()).unwrap();
        assert_eq!([said(&root, "one"), said(&root, "two")], ["1", "2"]);
    }
    for layer in [
        [zstd(&whole), nothing(0)[..9].to_vec()].concat(),
        [zstd(&whole), zstd(b"more")[..5].to_vec()].concat(),
        [zstd(&whole), b"no frame".to_vec()].concat(),
        [gzip(&whole), gzip(b"more")[..9].to_vec()].concat(),
    ] {
        let said = Layout::which_says(&[(&layer, TAR)], &[digest(&whole)]).complaint();
        assert!(said.contains(&format!("the layer {} cannot be decompressed: ", digest(&layer))), "{said}");
    }
}

#[test]
fn a_layer_holds_what_the_configuration_says() {
    let (plain, other) = (layer(&[("plain", FILE, "1", 0o644)]), digest(b"other"));
    let zeros = [&plain[..], &[0; 512]].concat();
    for (bytes, holds) in
        [(plain.clone(), &plain), (gzip(&plain), &plain), (zstd(&plain), &plain), (gzip(&zeros), &zeros)]
    {
        let said = Layout::which_says(&[(&bytes, TAR)], std::slice::from_ref(&other)).complaint();
        let (name, holds) = (digest(&bytes), digest(holds));
        let expected =
            format!("the layer {name} holds {holds}, and the image's configuration says that it holds {other}");
        assert!(said.ends_with(&expected), "{said}");
    }
    let layout = Layout::which_says(&[(&plain, TAR)], &[]);
    let said = Request::read(&layout.name()).map(drop).unwrap_err().to_string();
    assert!(said.ends_with("its manifest has 1 layers, and its configuration says of 0 what they hold"), "{said}");
}

#[test]
fn an_image_is_read_from_a_directory_and_from_an_archive() {
    let [plain, zipped, packed] = layers();
    let layout = Layout::new(&[(&plain, TAR), (&zipped, "x+gzip"), (&packed, "x+zstd")]);
    let archive = layout.dir.path().join("image.tar");
    let mut builder = Builder::new(fs::File::create(&archive).unwrap());
    builder.append_path_with_name(layout.dir.path().join("index.json"), "index.json").unwrap();
    builder.append_dir_all("./blobs", layout.dir.path().join("blobs")).unwrap();
    builder.finish().unwrap();
    let mut keys = Vec::new();
    for name in [layout.name(), format!("oci:{}", archive.display())] {
        let root = TempDir::new().unwrap();
        let request = Request::read(&name).unwrap();
        request.unpack(root.path(), 0, &()).unwrap();
        assert_eq!([said(&root, "plain"), said(&root, "zipped"), said(&root, "packed")], ["1", "2", "3"]);
        keys.push(request.key());
    }
    assert_eq!(keys[0], keys[1], "the same image");
    let other = Layout::new(&[(&plain, TAR)]);
    assert_ne!(Request::read(&other.name()).unwrap().key(), keys[0]);
}

#[test]
fn one_of_several_is_named_or_the_machine_can_run_it() {
    let [plain, ..] = layers();
    let layout = Layout::new(&[(&plain, TAR)]);
    let mut one = layout.manifest();
    one["annotations"] = json!({ "org.opencontainers.image.ref.name": "one" });
    let mut two = one.clone();
    two["annotations"] = json!({ "org.opencontainers.image.ref.name": "two" });
    layout.index(&[one.clone(), two]);
    let error = |name: &str| Request::read(name).map(drop).unwrap_err().to_string();
    let said = error(&layout.name());
    assert!(said.contains("it has several images") && said.ends_with("They are: one, two"), "{said}");
    assert!(Request::read(&format!("{}:two", layout.name())).is_ok());
    let said = error(&format!("{}:three", layout.name()));
    assert!(said.ends_with("it has no image `three`; those with a name are: one, two"), "{said}");

    let platform = |architecture: &str| json!({ "os": "linux", "architecture": architecture });
    let mut other = one.clone();
    (one["platform"], other["platform"]) = (platform(ARCHITECTURE), platform("s390x"));
    let inner = json!({ "schemaVersion": 2, "manifests": [&other, &one] });
    let inner = layout.add(inner.to_string().as_bytes(), "application/vnd.oci.image.index.v1+json");
    layout.index(&[inner]);
    assert!(Request::read(&layout.name()).is_ok());
    layout.index(&[other]);
    let said = error(&layout.name());
    assert!(
        said.ends_with(&format!("none of its images is for linux/{ARCHITECTURE}; there are: linux/s390x")),
        "{said}"
    );
}

#[test]
fn a_broken_image_is_not_taken() {
    let [plain, zipped, _] = layers();
    let broken = |change: &dyn Fn(&Path)| {
        let layout = Layout::new(&[(&zipped, TAR)]);
        let digest = digest(&zipped);
        change(&layout.dir.path().join("blobs").join(digest.replace(':', "/")));
        (layout.complaint(), digest)
    };
    let (said, digest) = broken(&|blob| fs::write(blob, &zipped[..zipped.len() / 2]).unwrap());
    assert!(said.contains(&format!("{digest} is cut off: ")), "{said}");
    let (said, digest) = broken(&|blob| fs::write(blob, gzip(&plain)).unwrap());
    assert!(said.contains(&format!("what should be {digest} is sha256:")), "{said}");
    let (said, digest) = broken(&|blob| fs::remove_file(blob).unwrap());
    assert!(said.ends_with(&format!("it is not complete: there is no blobs/{}", digest.replace(':', "/"))), "{said}");

    let said = Layout::new(&[(&gzip(b"no archive"), TAR)]).complaint();
    assert!(said.contains("cannot be unpacked"), "{said}");
    let escapes = Layout::new(&[(&layer(&[("../x", FILE, "", 0)]), TAR)]).complaint();
    assert!(escapes.ends_with("the entry `../x` leads out of the image"), "{escapes}");

    let nothing = TempDir::new().unwrap();
    let error = |path: &Path| Request::read(&format!("oci:{}", path.display())).map(drop).unwrap_err().to_string();
    assert!(error(nothing.path()).contains("there is no `index.json` in "));
    assert!(error(&nothing.path().join("x")).contains("No such file"));
    let text = nothing.path().join("text");
    fs::write(&text, "no archive of any kind".repeat(100)).unwrap();
    assert!(error(&text).contains("is no archive"), "{}", error(&text));
}
