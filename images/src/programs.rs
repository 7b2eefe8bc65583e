//! Programs that were fetched, by name.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{Cache, Error, Result};

/// Gives a fetched program this name, in place of what had it before. Whoever runs that goes on with it.
///
/// # Errors
/// When the cache cannot be written.
pub fn install(cache: &Cache, name: &str, program: &Path) -> Result<PathBuf> {
    let dir = cache.programs();
    fs::create_dir_all(&dir).map_err(Error::file("make", &dir))?;
    // A link is made under another name and renamed, since there is no way to replace one.
    let made = tempfile::Builder::new().prefix(".install-").tempdir_in(&dir).map_err(Error::file("write in", &dir))?;
    let link = made.path().join(name);
    let target = std::path::absolute(program).map_err(Error::file("find", program))?;
    symlink(target, &link).map_err(Error::file("make", &link))?;
    let place = dir.join(name);
    fs::rename(&link, &place).map_err(Error::file("make", &place))?;
    Ok(place)
}

/// Where the program of this name would be, in the cache whose root this is.
pub fn installed(cache: &Path, name: &str) -> PathBuf {
    cache.join("programs").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_takes_the_place_of_another() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::open(dir.path()).expect("a cache");
        for content in ["one", "two"] {
            let program = dir.path().join(content);
            fs::write(&program, content).expect("it can be written");
            let place = install(&cache, "vmm", &program).expect("it can be made");
            assert_eq!(place, installed(dir.path(), "vmm"));
            assert_eq!(fs::read_to_string(place).expect("it is there"), content);
        }
        assert_eq!(fs::read_dir(cache.programs()).expect("it is there").count(), 1);
    }
}
