//! Finding VMMs.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock, PoisonError},
};

use vmtest_images::installed;

use super::kvm::{KvmProbe, probe_kvm};
use crate::{
    error::{Error, Kind},
    host::find_program,
};

const KVM: &str = "/dev/kvm";

/// What the settings say about VMMs, and what has been found out about this host.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Search {
    /// Paths of VMMs, by backend; others are looked for on PATH.
    binaries: BTreeMap<&'static str, PathBuf>,
    /// The cache, which has those that were fetched.
    cache: Option<PathBuf>,
    kvm: OnceLock<KvmProbe>,
}

impl Search {
    /// This backend's VMM is there.
    pub(crate) fn set_binary(&mut self, backend: &'static str, path: impl Into<PathBuf>) {
        self.binaries.insert(backend, path.into());
    }

    /// Programs that were fetched are in this cache.
    pub(crate) fn set_cache(&mut self, cache: PathBuf) {
        self.cache = Some(cache);
    }

    /// The VMM of this backend: at the path that is set, else the program of this name on PATH, else the one that was fetched.
    pub(super) fn program(&self, backend: &str, name: &str) -> Option<PathBuf> {
        let fetched = || self.cache.as_deref().map(|cache| installed(cache, name)).filter(|program| program.is_file());
        self.binaries.get(backend).cloned().or_else(|| find_program(name)).or_else(fetched)
    }

    /// Whether KVM runs guest code here; tried once.
    pub(super) fn kvm(&self) -> &KvmProbe {
        self.kvm.get_or_init(|| probe_kvm(Path::new(KVM)))
    }

    /// Why KVM runs no guests here, if it does not.
    pub(crate) fn why_no_kvm(&self) -> Option<String> {
        (!self.kvm().works()).then(|| self.kvm().to_string())
    }

    /// Takes KVM to work, for tests of our own whose VMM runs no guests.
    pub(crate) fn assume_kvm(&mut self) {
        self.kvm = OnceLock::from(KvmProbe::Works);
    }
}

/// What a program says of its version: the word behind `before` in its answer to `--version`.
///
/// # Errors
/// [`Kind::Missing`] for a program that does not run, or is another than `what`.
pub(super) fn version(program: &Path, what: &str, before: &str) -> Result<String, Error> {
    let failed =
        |why: String| Error::new(Kind::Missing, format!("{} is no {what} that runs: {why}", program.display()));
    let text = said(program).map_err(|e| failed(e.to_string()))?;
    let version = text.split_once(before).and_then(|(_, rest)| rest.split_whitespace().next());
    version.map(str::to_owned).ok_or_else(|| failed(format!("it says `{}`", text.trim())))
}

/// What a program answers to `--version`. It is asked once in this process, as long as it is the same file: QEMU takes 25 ms to
/// answer, in which it loads what it needs to run machines.
fn said(program: &Path) -> io::Result<String> {
    type Stamp = [i64; 6];
    static SAID: Mutex<BTreeMap<(PathBuf, Stamp), String>> = Mutex::new(BTreeMap::new());
    let known = || SAID.lock().unwrap_or_else(PoisonError::into_inner);
    // A name without a directory is looked for on PATH when it is started.
    let key = fs::metadata(program).ok().map(|meta| {
        let [device, inode] = [meta.dev(), meta.ino()].map(u64::cast_signed);
        let stamp = [device, inode, meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        (program.to_owned(), stamp)
    });
    if let Some(text) = key.as_ref().and_then(|key| known().get(key).cloned()) {
        return Ok(text);
    }
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if let Some(key) = key.filter(|_| output.status.success()) {
        known().insert(key, text.clone());
    }
    Ok(text)
}

/// The first two numbers of a version.
pub(super) fn number(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// A program that says this of its version, where a search finds it for this backend, which has all of KVM that it wants
/// with `kvm`. It is there as long as the directory.
#[cfg(test)]
pub(super) fn saying(backend: &'static str, says: &str, kvm: bool) -> (tempfile::TempDir, Search) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    // Written by another process: what this one has open for writing may be inherited by another thread's fork, and cannot be
    // run until that is over.
    let script = "printf '#!/bin/sh\\ncat <<END\\n%s\\nEND\\n' \"$1\" >\"$0\" && chmod +x \"$0\"";
    assert!(Command::new("sh").args(["-c", script]).arg(&program).arg(says).status().unwrap().success());
    let mut search = Search::default();
    search.set_binary(backend, program);
    if kvm {
        search.assume_kvm();
    }
    (dir, search)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_asked_again_when_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        let install = |says: &str| {
            let script = "printf '#!/bin/sh\\necho >>%s.asked\\necho version %s\\n' \"$0\" \"$1\" >\"$0.new\" \
                          && chmod +x \"$0.new\" && mv \"$0.new\" \"$0\"";
            assert!(Command::new("sh").args(["-c", script]).arg(&program).arg(says).status().unwrap().success());
        };
        let asked = || fs::read(dir.path().join("program.asked")).unwrap().len();
        install("1.2");
        for _ in 0..2 {
            assert_eq!(version(&program, "VMM", "version ").unwrap(), "1.2");
        }
        assert_eq!(asked(), 1);
        install("1.3");
        assert_eq!(version(&program, "VMM", "version ").unwrap(), "1.3");
        assert_eq!(asked(), 2);
    }

    #[test]
    fn what_was_fetched_comes_after_what_is_set_and_what_is_on_path() {
        let cache = tempfile::tempdir().unwrap();
        let mut search = Search::default();
        search.set_cache(cache.path().to_owned());
        assert_eq!(search.program("backend", "no-such-vmm"), None);
        for name in ["no-such-vmm", "sh"] {
            let program = cache.path().join(name);
            fs::write(&program, "").unwrap();
            vmtest_images::install(&vmtest_images::Cache::open(cache.path()).unwrap(), name, &program).unwrap();
        }
        assert_eq!(search.program("backend", "no-such-vmm"), Some(installed(cache.path(), "no-such-vmm")));
        assert_eq!(search.program("backend", "sh"), find_program("sh"));
        search.set_binary("backend", "/set");
        assert_eq!(search.program("backend", "sh"), Some("/set".into()));
    }
}
