//! The package of the program that runs in the lab: tests read their data below its directory.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// What marks a directory whose contents anybody can make again, as that of Cargo's artifacts is.
const CACHE_TAG: &str = "CACHEDIR.TAG";
/// What else no program looks at.
const HISTORY: &str = ".git";

/// A package as it is shipped.
pub(super) struct Copied {
    /// Where it is here, and will be in the lab.
    pub(super) dir: PathBuf,
    /// What is shipped; removed with this.
    pub(super) copy: tempfile::TempDir,
}

/// Copies a package without what was built from it.
///
/// # Errors
/// What cannot be read or written.
pub(super) fn copy(dir: PathBuf) -> Result<Copied, String> {
    let made = tempfile::tempdir().and_then(|copy| copy_tree(&dir, copy.path()).map(|()| copy));
    let copy = made.map_err(|e| format!("cannot copy the package {}: {e}", dir.display()))?;
    Ok(Copied { dir, copy })
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (here, there) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(here)?, there)?;
        } else if kind.is_file() {
            fs::copy(here, there)?;
        } else if kind.is_dir() && entry.file_name() != HISTORY && !here.join(CACHE_TAG).exists() {
            fs::create_dir(&there)?;
            copy_tree(&here, &there)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_stays_here() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for made in ["tests/data", "target/debug", ".git"] {
            fs::create_dir_all(at(made)).unwrap();
        }
        for file in ["Cargo.toml", "tests/data/a", "target/CACHEDIR.TAG", "target/debug/large", ".git/HEAD"] {
            fs::write(at(file), file).unwrap();
        }
        symlink("data/a", at("tests/b")).unwrap();
        let copied = copy(dir.path().to_owned()).unwrap();
        let there = copied.copy.path();
        assert_eq!(fs::read_to_string(there.join("tests/b")).unwrap(), "tests/data/a");
        assert!(there.join("Cargo.toml").exists());
        for gone in ["target", ".git"] {
            assert!(!there.join(gone).exists(), "{gone}");
        }
    }
}
