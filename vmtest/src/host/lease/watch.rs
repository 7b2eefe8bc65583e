//! Being told that a claim is given up.

use std::{
    fs::File,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::{io::unix::AsyncFd, task::spawn_blocking};

use crate::sys::watch_readable;

/// Room for a dozen events with names of runs.
const EVENT_BUFFER: usize = 512;

/// Watches a directory of files that their owners hold open for writing.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: AsyncFd<OwnedFd>,
    dir: PathBuf,
}

impl Watch {
    /// Watches from now on. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// When the user has no more inotify instances, which are 128 unless `fs.inotify.max_user_instances` says
    /// otherwise.
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&inotify, dir, WatchFlags::CLOSE_WRITE | WatchFlags::DELETE)?;
        Ok(Self { inotify: watch_readable(inotify)?, dir: dir.to_owned() })
    }

    /// Resolves when owners have closed or removed files since the last look; their locks are free then.
    /// Dropped, it may have swallowed a change: look again after that.
    ///
    /// # Errors
    /// When the directory cannot be watched any more.
    pub(super) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let closed = self.events()?;
            ready.clear_ready();
            if let Some(closed) = closed {
                return free(closed).await;
            }
        }
    }

    /// The files that were closed; `None` when nothing has happened.
    fn events(&self) -> io::Result<Option<Vec<PathBuf>>> {
        let mut buffer = [MaybeUninit::uninit(); EVENT_BUFFER];
        let mut reader = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
        let mut closed = None;
        loop {
            match reader.next() {
                Ok(event) => {
                    let closed = closed.get_or_insert_with(Vec::new);
                    if let (true, Some(name)) = (event.events().contains(ReadFlags::CLOSE_WRITE), event.file_name()) {
                        closed.push(self.dir.join(&*name.to_string_lossy()));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(closed),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Waits until the locks of files that are being closed are free: the kernel tells of a close a moment before it frees
/// the lock. Whoever has the file open for writing is its owner, so there is no other close.
async fn free(closed: Vec<PathBuf>) -> io::Result<()> {
    let wait = move || {
        for path in closed {
            match File::open(path) {
                Ok(file) => file.lock_shared()?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    };
    spawn_blocking(wait).await.map_err(io::Error::other)?
}
