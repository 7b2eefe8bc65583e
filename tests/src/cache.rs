//! A cache that only one test uses, so that whatever appears in it is that test's.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use vmtest_images::Cache;

/// Where the cache of this user is, which tests share: that of the settings, else the default.
pub fn cache_dir() -> PathBuf {
    Cache::default_dir(rustix::process::geteuid().as_raw())
}

/// That cache.
///
/// # Panics
/// When its directory cannot be made.
pub fn cache() -> Cache {
    Cache::open(cache_dir()).expect("a cache can be made")
}

/// A cache with the images of the common one, in which `build` has had the missing ones made.
///
/// # Panics
/// When it cannot be made.
pub fn private_cache(build: impl FnOnce(&Path)) -> TempDir {
    cache_with(&["images", "fixtures"], build)
}

/// The same without fixture disks, of which there may be many.
///
/// # Panics
/// When it cannot be made.
pub fn image_cache(build: impl FnOnce(&Path)) -> TempDir {
    cache_with(&["images"], build)
}

fn cache_with(parts: &[&str], build: impl FnOnce(&Path)) -> TempDir {
    let common = cache_dir();
    build(&common);
    let cache = TempDir::new().expect("a temporary directory");
    for part in parts {
        match fs::metadata(common.join(part)) {
            Ok(_) => copy(&common.join(part), cache.path()),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::NotFound, "{}: {e}", common.display()),
        }
    }
    fs::create_dir(cache.path().join("scratch")).expect("the cache is new");
    cache
}

/// With hard links where the file system allows them: a copy takes a tenth of a second, and some space.
fn copy(from: &Path, to: &Path) {
    let copied = ["-al", "-a"].iter().any(|how| {
        let copied = Command::new("cp").arg(how).args([from, to]).output().expect("there is a cp");
        copied.status.success()
    });
    assert!(copied, "{} cannot be copied to {}", from.display(), to.display());
}
