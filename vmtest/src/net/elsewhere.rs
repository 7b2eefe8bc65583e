//! Work in the network of somebody else: that of whoever started a test, long after the test.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    panic::resume_unwind,
    path::PathBuf,
    thread,
};

use nix::sched::{CloneFlags, setns};
use tokio::runtime;

use crate::error::{Error, Kind};

/// The network namespace of the calling thread, as `/proc` shows it.
const OF_THREAD: &str = "/proc/thread-self/ns/net";

/// The inode that names the network namespace of the calling thread.
///
/// # Errors
/// [`Kind::Host`] without `/proc`.
pub(crate) fn own_namespace() -> Result<u64, Error> {
    let failed = |e| Error::new(Kind::Host, "cannot tell in which network this is").caused_by(e);
    fs::metadata(OF_THREAD).map(|meta| meta.ino()).map_err(failed)
}

/// The network namespace of the calling thread, to come back to it.
///
/// # Errors
/// [`Kind::Host`] without `/proc`.
pub(crate) fn hold_namespace() -> Result<File, Error> {
    File::open(OF_THREAD).map_err(|e| Error::new(Kind::Host, "cannot hold the network of this thread").caused_by(e))
}

/// Moves the calling thread into this network namespace.
///
/// # Errors
/// What the kernel says: `EPERM` without `CAP_SYS_ADMIN` in the user namespaces of the thread and of the network.
pub(crate) fn enter_namespace(namespace: &File) -> io::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

/// Does this in the network namespace of this inode, on a thread of its own with a runtime. `None` where nobody holds the
/// namespace: then the kernel has destroyed it with all in it.
///
/// Blocks for as long as it takes, some milliseconds: what is done on another thread a teardown could not stop.
///
/// # Errors
/// [`Kind::Host`] when the namespace is there and may not be entered, and what the work says.
pub(crate) fn within<T: Send>(
    namespace: u64,
    work: impl AsyncFnOnce() -> Result<T, Error> + Send,
) -> Result<Option<T>, Error> {
    let failed = |e| Error::new(Kind::Host, format!("cannot work in the network net:[{namespace}]")).caused_by(e);
    let on_its_thread = || {
        if own_namespace()? != namespace {
            let Some(found) = find(namespace) else { return Ok(None) };
            enter_namespace(&found).map_err(|e| may_not_enter(namespace, e))?;
        }
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(work()).map(Some)
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("vmtest-elsewhere".into()).spawn_scoped(scope, on_its_thread);
        thread.map_err(failed)?.join().unwrap_or_else(|payload| resume_unwind(payload))
    })
}

fn may_not_enter(namespace: u64, why: io::Error) -> Error {
    let remedy = "run `cargo vmtest prune` with the rights that the test had";
    Error::new(Kind::Host, format!("the network net:[{namespace}] may not be entered: {remedy}")).caused_by(why)
}

/// This network namespace, from whoever is in it, has it mounted, or holds it open; the threads of this process first.
fn find(namespace: u64) -> Option<File> {
    let below = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let processes = || {
        let all = below("/proc".into());
        let is_pid = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok()).is_some();
        ["/proc/self".into()].into_iter().chain(all.filter(is_pid))
    };
    let threads = processes().flat_map(|process| below(process.join("task"))).map(|thread| thread.join("ns/net"));
    let descriptors = || processes().flat_map(|process| below(process.join("fd")));
    let mut places = threads.chain(mounted(namespace)).chain(descriptors());
    let name = format!("net:[{namespace}]");
    places.find_map(|place| {
        let is_it = fs::read_link(&place).map_or(true, |link| link.as_os_str() == name.as_str());
        // Opened first: what is looked at then stays what it is.
        let file = is_it.then(|| File::open(&place).ok()).flatten()?;
        let meta = file.metadata().ok()?;
        let own = fs::metadata(OF_THREAD).ok()?;
        (meta.ino() == namespace && meta.dev() == own.dev()).then_some(file)
    })
}

/// Where this namespace is mounted, as `ip netns` does it.
fn mounted(namespace: u64) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = format!("net:[{namespace}]");
    let at = |line: &str| {
        // Fields 4 and 5 of proc(5): the root of the mount in its file system, and where it is.
        let mut fields = line.split(' ').skip(3);
        (fields.next()? == root).then(|| fields.next().map(PathBuf::from)).flatten()
    };
    mounts.lines().filter_map(at).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::net::enter_new_namespace;

    fn seen_in(namespace: u64) -> Option<u64> {
        within(namespace, async || own_namespace()).unwrap()
    }

    #[test]
    fn work_is_done_in_the_network_that_is_named_for_as_long_as_somebody_has_it() {
        let own = own_namespace().unwrap();
        assert_eq!(seen_in(own), Some(own));

        let (tell, inode) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let inside = thread::spawn(move || {
            tell.send((enter_new_namespace().unwrap(), hold_namespace().unwrap())).unwrap();
            stopped.recv().unwrap_err();
        });
        let (inode, held) = inode.recv().unwrap();
        assert_eq!(seen_in(inode), Some(inode), "a thread is in it");
        drop(stop);
        inside.join().unwrap();
        assert_eq!(seen_in(inode), Some(inode), "a descriptor of it is open");
        drop(held);
        // A process that another test starts has a copy until it becomes its program.
        while seen_in(inode).is_some() {}
        assert_eq!(own_namespace().unwrap(), own, "this thread has stayed where it was");
    }
}
