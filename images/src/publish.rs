//! Puts what a build has made where it stays: whole, also after a power cut, or not at all.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    Cache, Error, Image, ImageSpec, Result,
    image::{Built, CloudDisk, INITRAMFS, KERNEL, NESTED, ROOT, Root, current_path, place},
    kept::{Held, lock_alone, take_away},
};

/// In the directory of an image: how long each of its files is.
const LENGTHS: &str = "lengths.json";

/// How long the files of an image were when it was made.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Lengths(BTreeMap<String, u64>);

impl Lengths {
    /// Those of the image in this directory; none of one that was made before they were written down.
    pub(crate) fn read(dir: &Path) -> Self {
        let text = fs::read(dir.join(LENGTHS)).ok();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn of(dir: &Path) -> io::Result<Self> {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            Ok((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()))
        };
        fs::read_dir(dir)?.map(entry).collect::<io::Result<_>>().map(Self)
    }

    /// Whether this file is there, and as long as it was.
    pub(crate) fn fit(&self, file: &Path) -> bool {
        let known = file.file_name().and_then(OsStr::to_str).and_then(|name| self.0.get(name));
        fs::metadata(file).is_ok_and(|meta| meta.is_file() && known.is_none_or(|known| *known == meta.len()))
    }
}

/// Puts what a build has made where it stays. Nobody removes it as long as it is held: until a record names it, it is to others
/// one that was replaced.
pub(crate) fn put(cache: &Cache, spec: &ImageSpec, built: Built) -> Result<(Image, Held)> {
    let (from, dir) = (built.dir.clone(), place(cache, spec, &built.key));
    let image = image_at(&dir, spec, built);
    finish(&from).map_err(Error::file("write", &dir))?;
    let held = Held::of_new(&from)?;
    let rename = || fs::rename(&from, &dir);
    match rename() {
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        renamed => return renamed.map(|()| (image, held)).map_err(Error::file("rename", &from)),
    }
    // Another name may have come to the same.
    if let Some(held) = image.hold()? {
        return Ok((image, held));
    }
    let Some(_lock) = lock_alone(&dir)? else {
        let why = format!(
            "some of its files in {} are gone, and somebody uses the others: `cargo vmtest image ls` says who; try again \
             when that has ended",
            dir.display()
        );
        return Err(Error::refused(spec, &why));
    };
    take_away(cache, &dir)?;
    rename().map(|()| (image, held)).map_err(Error::file("rename", &from))
}

/// What a build has made, as it will be in this directory.
fn image_at(dir: &Path, spec: &ImageSpec, built: Built) -> Image {
    let initramfs = dir.join(INITRAMFS);
    let nested = if built.dir.join(NESTED).exists() { dir.join(NESTED) } else { initramfs.clone() };
    Image {
        name: spec.whole_name(),
        key: built.key,
        kernel: dir.join(KERNEL),
        nested,
        initramfs,
        kernel_version: built.kernel_version,
        root: built.root.map(|label| Root { disk: dir.join(ROOT), label }),
        memory: built.memory,
        entrypoint: built.entrypoint,
        cloud: built.cloud.map(|cloud| CloudDisk { disk: dir.join(&cloud.disk), ..cloud }),
        digest: built.digest,
        arguments: built.arguments,
        login: built.login,
        ready: built.ready,
        asks_firmware: built.asks_firmware,
    }
}

/// Adds the lengths of its files, and waits until all of it is on the disk: else a power cut after the rename leaves files that
/// have their names and nothing in them.
fn finish(dir: &Path) -> io::Result<()> {
    fs::write(dir.join(LENGTHS), serde_json::to_vec(&Lengths::of(dir)?)?)?;
    for entry in fs::read_dir(dir)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(dir)?.sync_all()
}

/// Makes this the image that the name stands for. What is not complete is in `work`, which a later build removes.
pub(crate) fn record_as(cache: &Cache, stem: &str, image: &Image, work: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(image).expect("an image is plain data");
    let (path, unfinished) = (current_path(cache, stem), work.join("record.json"));
    let write = || {
        fs::write(&unfinished, text)?;
        File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(cache.images())?.sync_all()
    };
    write().map_err(Error::file("write", &path))
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use super::*;
    use crate::{OwnFiles, OwnImage, ensure};

    const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// A cache, and an image that is made of a disk without a kernel.
    fn place_and_spec() -> (tempfile::TempDir, Cache, ImageSpec) {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        fs::write(&disk, [7; 4096]).unwrap();
        let cache = Cache::open(dir.path().join("cache")).unwrap();
        let files = OwnFiles { disk: Some(disk), ..OwnFiles::default() };
        let own = OwnImage::new("appliance", Ok("1".to_owned()), move |_, _| Ok(files.clone()));
        (dir, cache, own.into())
    }

    /// What a build has made in this directory of the cache.
    fn built(cache: &Cache) -> Built {
        let dir = cache.images().join(".own-1-build-x/image");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("disk"), "content").unwrap();
        let cloud = CloudDisk { disk: "disk".into(), bytes: 7, no_kernel: Some("it has none".to_owned()) };
        Built { cloud: Some(cloud), ..Built::new("1".to_owned(), dir, String::new()) }
    }

    fn disk(image: &Image) -> &PathBuf {
        &image.cloud.as_ref().unwrap().disk
    }

    #[test]
    fn an_image_that_lost_a_file_or_its_end_is_made_again() {
        let (_dir, cache, spec) = place_and_spec();
        let image = ensure(&cache, &spec, &()).unwrap();
        for damaged in [None, Some("")] {
            fs::remove_file(disk(&image)).unwrap();
            if let Some(content) = damaged {
                fs::write(disk(&image), content).unwrap();
            }
            let in_use = Held::of_new(image.dir()).unwrap();
            let refused = ensure(&cache, &spec, &()).unwrap_err().to_string();
            assert!(
                refused.contains("some of its files in ") && refused.contains("somebody uses the others"),
                "{refused}"
            );
            drop(in_use);
            assert_eq!(ensure(&cache, &spec, &()).unwrap(), image);
            assert!(image.hold().unwrap().is_some(), "it is whole");
            assert_eq!(fs::read(disk(&image)).unwrap(), [7; 4096]);
            let hidden = fs::read_dir(cache.images()).unwrap().flatten();
            assert!(!hidden.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with('.')));
        }
        // One that was made before there were lengths.
        fs::remove_file(image.dir().join(LENGTHS)).unwrap();
        assert!(image.hold().unwrap().is_some());
    }

    #[test]
    fn an_image_is_kept_that_is_published_while_others_remove() {
        let (_dir, cache, spec) = place_and_spec();
        let (image, held) = put(&cache, &spec, built(&cache)).unwrap();
        let [before] = cache.kept().unwrap().try_into().unwrap();
        assert!(before.image.is_none() && before.in_use);
        assert!(!before.remove_unused(&cache, Duration::ZERO).unwrap(), "nothing has named it yet");
        record_as(&cache, "own-1", &image, &cache.images().join(".own-1-build-x")).unwrap();
        drop(held);
        assert!(!before.remove_unused(&cache, MONTH).unwrap(), "it is named by now");
        assert!(image.hold().unwrap().is_some());
        assert!(before.remove_unused(&cache, Duration::ZERO).unwrap());
        assert!(!current_path(&cache, "own-1").exists() && !image.dir().exists());
    }

    #[test]
    fn what_is_whole_and_has_no_record_is_kept_for_another_name() {
        let (_dir, cache, spec) = place_and_spec();
        drop(put(&cache, &spec, built(&cache)).unwrap());
        let (image, _held) = put(&cache, &spec, built(&cache)).unwrap();
        assert_eq!(fs::read(disk(&image)).unwrap(), b"content");
    }
}
