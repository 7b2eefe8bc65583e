//! The files of this host that a program needs to make clusters: what becomes the root directory in the lab.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use goblin::elf::Elf;

/// What tests of machines call, and what is in their scripts. What the host does not have is left out.
const PROGRAMS: &[&str] = &[
    // A shell and what is expected beside it.
    "sh",
    "bash",
    "env",
    "cat",
    "ls",
    "cp",
    "mv",
    "rm",
    "mkdir",
    "rmdir",
    "ln",
    "chmod",
    "chown",
    "touch",
    "stat",
    "id",
    "echo",
    "printf",
    "head",
    "tail",
    "wc",
    "sort",
    "uniq",
    "tr",
    "cut",
    "tee",
    "dd",
    "df",
    "du",
    "sync",
    "sleep",
    "date",
    "true",
    "false",
    "test",
    "timeout",
    "kill",
    "pgrep",
    "ps",
    "grep",
    "sed",
    "awk",
    "find",
    "xargs",
    "tar",
    "gzip",
    "xz",
    "hostname",
    "uname",
    "mktemp",
    "readlink",
    "realpath",
    "basename",
    "dirname",
    "nproc",
    "seq",
    "truncate",
    "dmesg",
    // Namespaces, mounts and rights.
    "mount",
    "umount",
    "unshare",
    "nsenter",
    "setpriv",
    "chroot",
    "newuidmap",
    "newgidmap",
    "losetup",
    "mknod",
    "sysctl",
    // Networks.
    "ip",
    "tc",
    "bridge",
    "nft",
    "ping",
    "ss",
    "ssh",
    "ssh-keygen",
    "pasta",
    "passt",
    // Disks.
    "mkfs.ext4",
    "mke2fs",
    "dumpe2fs",
    "debugfs",
    "e2fsck",
    "resize2fs",
    "tune2fs",
    "blkid",
    // Machines.
    "qemu-system-x86_64",
    "qemu-img",
    "cloud-hypervisor",
    "firecracker",
];
/// Files and directories beside them.
const DATA: &[&str] = &[
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/etc/mke2fs.conf",
    "/etc/protocols",
    "/etc/services",
    "/etc/os-release",
];
/// Where administrators' programs are, which are not on the PATH of ordinary users.
pub(super) const SYSTEM_PATH: &[&str] = &["/usr/local/bin", "/usr/sbin", "/sbin"];
const LIBRARY_DIRS: &[&str] = &[
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/usr/lib",
];
/// The user who is not root, with ids for the machines of that user.
pub(super) const USER: &str = "lab";
const SHADOW: &str = "etc/shadow";
const ETC: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nlab:x:1000:1000:lab:/home/lab:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\ntty:x:5:\nkvm:x:104:lab\nlab:x:1000:\nnogroup:x:65534:\n"),
    ("etc/subuid", "root:200000:65536\nlab:300000:65536\n"),
    ("etc/subgid", "root:200000:65536\nlab:300000:65536\n"),
    // Nobody logs in; tests look whether it may be read.
    (SHADOW, "root:*:::::::\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
];
/// The links that hosts have whose programs and libraries are all below `/usr`.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib64"];

/// Makes the directory, or finds it, below `cache`: what programs of tests call, these `vmms`, what `program` is linked to,
/// and these other `files`, everything in its own place.
///
/// # Errors
/// What cannot be read or written.
pub(super) fn stage(cache: &Path, vmms: &[PathBuf], program: &Path, files: &[PathBuf]) -> Result<Staged, String> {
    let mut wanted = Wanted::default();
    for program in PROGRAMS.iter().filter_map(|name| super::find(name, SYSTEM_PATH)) {
        wanted.add_program(&program)?;
    }
    for vmm in vmms {
        wanted.add_program(vmm)?;
    }
    wanted.add_libraries(program)?;
    for path in DATA.iter().map(Path::new).filter(|path| path.exists()) {
        wanted.add_data(path)?;
    }
    files.iter().for_each(|file| wanted.add_file(file));
    wanted.stage(cache).map_err(|e| format!("cannot copy the files of the lab into {}: {e}", cache.display()))
}

/// Files of this host.
#[derive(Debug, Default)]
struct Wanted {
    /// Where each will be, without `/` at its beginning, and where its content is.
    files: BTreeMap<PathBuf, PathBuf>,
    seen: BTreeSet<PathBuf>,
}

impl Wanted {
    fn add_file(&mut self, path: &Path) {
        // Links on the way, such as /bin, are links in the lab too.
        let place = match (path.parent().map(fs::canonicalize), path.file_name()) {
            (Some(Ok(dir)), Some(name)) => dir.join(name),
            _ => path.to_owned(),
        };
        let place = place.strip_prefix("/").unwrap_or(&place).to_owned();
        self.files.insert(place, path.to_owned());
    }

    fn add_data(&mut self, path: &Path) -> Result<(), String> {
        if !path.is_dir() {
            self.add_file(path);
            return Ok(());
        }
        let entries = fs::read_dir(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.exists())
            .try_for_each(|path| self.add_data(&path))
    }

    /// A program, or a library, with all that it is linked to.
    fn add_program(&mut self, path: &Path) -> Result<(), String> {
        if !self.seen.insert(path.to_owned()) {
            return Ok(());
        }
        self.add_file(path);
        self.add_libraries(path)
    }

    fn add_libraries(&mut self, path: &Path) -> Result<(), String> {
        let bytes = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        if !bytes.starts_with(b"\x7fELF") {
            return Ok(());
        }
        let elf = Elf::parse(&bytes).map_err(|e| format!("{} is no program: {e}", path.display()))?;
        let loader = elf.interpreter.map(PathBuf::from);
        for library in elf.libraries.iter().map(|name| library(name).ok_or((name, path))) {
            let missing = |(name, of): (&&str, &Path)| format!("there is no {name}, which {} needs", of.display());
            self.add_program(&library.map_err(missing)?)?;
        }
        loader.map_or(Ok(()), |loader| self.add_program(&loader))
    }

    /// What tells this set of files from every other.
    fn key(&self) -> io::Result<String> {
        let mut hasher = blake3::Hasher::new();
        for (place, from) in &self.files {
            let meta = fs::metadata(from)?;
            let facts = [meta.len().cast_signed(), meta.mtime(), meta.mtime_nsec(), meta.mode().into()];
            hasher.update(place.as_os_str().as_encoded_bytes()).update(b"\0");
            for fact in facts {
                hasher.update(&fact.to_le_bytes());
            }
        }
        for (_, content) in ETC {
            hasher.update(content.as_bytes());
        }
        Ok(hasher.finalize().to_hex()[..16].to_owned())
    }

    /// The directory, which stays as long as the lock is held.
    fn stage(&self, cache: &Path) -> io::Result<Staged> {
        fs::create_dir_all(cache)?;
        let dir = cache.join(format!("root-{}", self.key()?));
        let lock = lock_of(&dir)?;
        loop {
            lock.lock_shared()?;
            if dir.exists() {
                return Ok(Staged { dir, _lock: lock });
            }
            lock.unlock()?;
            lock.lock()?;
            if !dir.exists() {
                remove_others(cache, &dir)?;
                self.copy(&dir)?;
            }
            lock.unlock()?;
        }
    }

    /// Under the lock of the directory, alone.
    fn copy(&self, dir: &Path) -> io::Result<()> {
        let work = dir.with_extension(UNFINISHED);
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir(&work)?;
        for link in MERGED {
            if let Ok(target) = fs::read_link(Path::new("/").join(link)) {
                symlink(target, work.join(link))?;
            }
        }
        let place = |at: &Path| {
            let to = work.join(at);
            fs::create_dir_all(to.parent().unwrap_or(&work)).map(|()| to)
        };
        for (at, from) in &self.files {
            fs::copy(from, place(at)?)?;
        }
        for (at, content) in ETC {
            let to = place(Path::new(at))?;
            fs::write(&to, content)?;
            if *at == SHADOW {
                fs::set_permissions(&to, Permissions::from_mode(0o600))?;
            }
        }
        fs::rename(work, dir)
    }
}

/// A directory of files for the lab, which nobody removes as long as this is there.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) dir: PathBuf,
    _lock: File,
}

/// What the name of a directory ends with that is being filled.
const UNFINISHED: &str = "unfinished";

fn lock_of(dir: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(dir.with_extension("lock"))
}

/// Removes what other programs of this host, or of another day, had, and what was killed while it was filled. What somebody
/// uses or fills now stays.
fn remove_others(cache: &Path, but: &Path) -> io::Result<()> {
    for other in fs::read_dir(cache)?.flatten().map(|entry| entry.path()) {
        if other.is_dir() && other != but && lock_of(&other)?.try_lock().is_ok() {
            fs::remove_dir_all(&other)?;
        }
    }
    Ok(())
}

fn library(name: &str) -> Option<PathBuf> {
    LIBRARY_DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists())
}
