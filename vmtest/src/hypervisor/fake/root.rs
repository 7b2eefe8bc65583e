//! The root directory of a fake machine: what is mounted where, before its first process begins.

use std::{ffi::CString, io, os::fd::OwnedFd, path::Path, thread};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::{CWD, StatVfsMountFlags, fstatvfs},
    io::Errno,
    mount::{MountFlags, OpenTreeFlags, open_tree},
};

use crate::sys::Step;

/// A directory of every host, over which a machine's files are mounted where only the machine sees it.
const STAGE: &str = "/tmp";
/// What a program expects in `/dev`; shown from the host's, because only a real root may make devices.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: &[(&str, &str)] = &[
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
    ("dev/ptmx", "pts/ptmx"),
];
const SHARED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// What a machine sees of this host's files, each opened before it exists.
#[derive(Debug)]
pub(super) struct Sources {
    /// The directories that lie over each other as the machine's root; the topmost first.
    pub(super) layers: Vec<OwnedFd>,
    /// The content of its disks, where each is mounted, and whether it is read-only.
    pub(super) disks: Vec<(OwnedFd, String, bool)>,
    /// A file with the boot's own id.
    pub(super) boot_id: OwnedFd,
}

/// A mount of this directory or file that is nowhere yet. Made here, because the machine's root may not walk to it.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let opened = match open_tree(CWD, path, flags) {
        // The root of a user namespace has no right to the mounts of the host, but to copies of them. They are made for a
        // thread, which ends with this: the process keeps the host's.
        Err(Errno::PERM) => thread::scope(|scope| {
            let copied = || {
                unshare(CloneFlags::CLONE_NEWNS)?;
                Ok(open_tree(CWD, path, flags)?)
            };
            scope.spawn(copied).join().unwrap_or_else(|_| Err(io::Error::other("the thread that opens it panicked")))
        }),
        opened => opened.map_err(io::Error::from),
    };
    opened.map_err(|e| io::Error::other(format!("{}: {e}", path.display())))
}

/// The steps that make the root; its own changes are in memory and end with the machine. `label` names the mounts in
/// the lists of the host.
pub(super) fn steps(sources: Sources, hostname: &str, label: &str) -> io::Result<Vec<Step>> {
    let at = |path: &str| text(path.trim_start_matches('/'));
    let directory = |path: &str| Ok::<_, io::Error>(Step::Directory { at: at(path)?, mode: 0o755 });
    let attach = |tree: OwnedFd, path: &str, read_only: bool| {
        let access = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        let flags = access | SHARED | kept_flags(&tree)?;
        Ok::<_, io::Error>(Step::Attach { tree, at: at(path)?, flags })
    };
    let mount = |kind: &str, path: &str, flags, options: &str| {
        let (kind, source, options) = (text(kind)?, text(label)?, text(options)?);
        Ok::<_, io::Error>(Step::Mount { kind, source, at: text(path)?, flags, options })
    };
    let mut steps = vec![
        Step::KeepMountsPrivate,
        mount("tmpfs", STAGE, SHARED, "mode=755")?,
        Step::Enter(text(STAGE)?),
        directory("upper")?,
        directory("work")?,
        directory("root")?,
    ];
    let mut lower = Vec::new();
    for (number, layer) in sources.layers.into_iter().enumerate() {
        let name = format!("lower{number}");
        steps.extend([directory(&name)?, attach(layer, &name, true)?]);
        lower.push(format!("{STAGE}/{name}"));
    }
    // Shown by an overlay that has nothing to write to, which the machine's root cannot mount writable again; a mount it
    // could, and all machines share what is in it.
    steps.push(directory("empty")?);
    let mut overlays = Vec::new();
    let mut scratches = Vec::new();
    for (number, (disk, place, read_only)) in sources.disks.into_iter().enumerate() {
        if read_only {
            let name = format!("disk{number}");
            steps.extend([directory(&name)?, attach(disk, &name, true)?]);
            overlays.push((format!("lowerdir={STAGE}/{name}:{STAGE}/empty,userxattr"), place));
        } else {
            scratches.push((disk, place));
        }
    }
    let lower = lower.join(":");
    let options = format!("lowerdir={lower},upperdir={STAGE}/upper,workdir={STAGE}/work,userxattr");
    steps.extend([mount("overlay", "root", SHARED, &options)?, Step::Enter(text("root")?)]);
    for path in ["proc", "sys", "dev", "run", "tmp"] {
        steps.push(directory(path)?);
    }
    steps.extend([
        mount("proc", "proc", SHARED | MountFlags::NOEXEC, "")?,
        // The network interfaces of the machine are in it. Where a host hides parts of its own, it cannot be had.
        Step::IfAllowed(Box::new(mount("sysfs", "sys", SHARED | MountFlags::NOEXEC | MountFlags::RDONLY, "")?)),
        mount("tmpfs", "dev", MountFlags::NOSUID, "mode=755")?,
    ]);
    for device in DEVICES {
        let device_at = format!("dev/{device}");
        steps.push(Step::File { at: text(&device_at)? });
        steps.push(Step::Bind { from: text(&format!("/{device_at}"))?, at: text(&device_at)? });
    }
    for (link, to) in LINKS {
        steps.push(Step::Link { at: text(link)?, to: text(to)? });
    }
    steps.extend([
        directory("dev/pts")?,
        directory("dev/shm")?,
        mount("devpts", "dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, "newinstance,ptmxmode=666,mode=620")?,
        mount("tmpfs", "dev/shm", SHARED, "mode=1777")?,
        mount("tmpfs", "run", SHARED, "mode=755")?,
        mount("tmpfs", "tmp", SHARED, "mode=1777")?,
        // Not the console's own file, which whoever writes to `/dev/console` would begin anew.
        Step::Pipe { at: text("dev/console")?, mode: 0o600 },
        attach(sources.boot_id, "proc/sys/kernel/random/boot_id", true)?,
    ]);
    let parents = |place: &str| {
        let place = place.trim_matches('/');
        let ends = place.match_indices('/').map(|(end, _)| end).chain([place.len()]);
        ends.map(|end| directory(&place[..end])).collect::<io::Result<Vec<_>>>()
    };
    for (options, place) in overlays {
        steps.extend(parents(&place)?);
        steps.push(mount("overlay", place.trim_start_matches('/'), SHARED | MountFlags::RDONLY, &options)?);
    }
    for (disk, place) in scratches {
        steps.extend(parents(&place)?);
        steps.push(attach(disk, &place, false)?);
    }
    steps.extend([Step::HostName(text(hostname)?), Step::BecomeRoot]);
    Ok(steps)
}

/// What the owner of a mount has forbidden, which a machine cannot allow again.
fn kept_flags(fd: &OwnedFd) -> io::Result<MountFlags> {
    let has = fstatvfs(fd)?.f_flag;
    let table = [
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    Ok(table.into_iter().filter(|(flag, _)| has.contains(*flag)).map(|(_, kept)| kept).collect())
}

fn text(text: &str) -> io::Result<CString> {
    Ok(CString::new(text)?)
}
