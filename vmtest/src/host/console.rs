//! Follows a guest's serial console as the VMM writes it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{io::unix::AsyncFd, sync::watch, time::sleep};

use crate::sys::watch_readable;

/// How many lines are kept in memory; a panic with its stack is about 40 lines.
const KEPT_LINES: usize = 200;
/// What the kernel was about to do stands in the few lines before its panic. A failure shows the first 13 of all, which shall
/// have the panic itself, the machine's name and where it happened.
const LINES_BEFORE_PANIC: usize = 6;
/// A line is cut here, so that a guest that prints no newline cannot fill the memory.
const MAX_LINE: usize = 4096;
/// A VMM writes a serial line byte by byte. On a machine whose one CPU runs the guest too, to look at each of them took as long as
/// the guest's own boot; whoever waits for a line can wait for this.
const GATHERED_FOR: Duration = Duration::from_millis(10);
/// Room for a few dozen events of a watched file, which carry no names, and for one with the longest name.
const EVENT_BUFFER: usize = 1024;
/// What our initramfs prints when a step of it failed.
const GUEST_FAILED: &str = "vmtest: failed: ";
/// What the kernel prints when it panics, in all versions since 2.6.
const KERNEL_PANIC: &str = "Kernel panic - not syncing";

/// Something, mostly on the console, after which the machine will not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Anomaly {
    /// The kernel panicked; the line says why.
    Panic(String),
    /// The kernel told by a device that it panicked, and the console shows nothing of it.
    SilentPanic,
    /// A step of the guest's start-up failed; the text says which.
    GuestFailed(String),
}

/// Is told of every line of a console, in order.
pub(crate) type OnLine = Box<dyn Fn(&str) + Send + Sync>;

/// The console of one machine.
pub(crate) struct Console {
    state: watch::Sender<State>,
    lines: Mutex<VecDeque<String>>,
    reader: Mutex<Reader>,
    on_line: OnLine,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Default)]
struct State {
    lines: u64,
    anomaly: Option<Anomaly>,
}

impl Console {
    pub(crate) fn new(on_line: OnLine) -> Self {
        let state = watch::Sender::new(State::default());
        Self { state, lines: Mutex::default(), reader: Mutex::default(), on_line }
    }

    /// Follows the file, which must exist, until dropped; begins where the last look ended. Cancel-safe.
    ///
    /// # Errors
    /// When the file cannot be read or watched.
    pub(crate) async fn follow(&self, path: &Path) -> io::Result<()> {
        let look = |file: &File| self.read(file).map(|()| None::<Infallible>);
        match follow(path, look, || !lock(&self.reader).partial.is_empty()).await? {}
    }

    /// Reads what has come since the last look, for who wants to know what there is now. A file that is gone has nothing new.
    pub(crate) fn look(&self, path: &Path) {
        drop(self.read_once(path));
    }

    /// Reads what has come since the last look, once: for a machine that has ended.
    pub(crate) fn catch_up(&self, path: &Path) {
        if let Err(e) = self.read_once(path) {
            tracing::warn!("cannot read {}: {e}", path.display());
        }
        // A last line without an end.
        let partial = std::mem::take(&mut lock(&self.reader).partial);
        if !partial.is_empty() {
            self.add(&partial);
        }
    }

    /// A new boot begins: what the console has shown says nothing about it.
    pub(crate) fn begin(&self) {
        self.state.send_modify(|state| *state = State::default());
    }

    fn read_once(&self, path: &Path) -> io::Result<()> {
        self.read(&File::open(path)?)
    }

    /// Reads what has come since the last look, to where the file ends now and a little beyond it: for the end of what a guest
    /// prints without end nobody waits, and others want to look too.
    fn read(&self, file: &File) -> io::Result<()> {
        let until = file.metadata()?.len();
        let mut reader = lock(&self.reader);
        let Reader { position, partial } = &mut *reader;
        let mut buffer = [0; 16 << 10];
        while *position < until {
            let n = file.read_at(&mut buffer, *position)?;
            if n == 0 {
                break;
            }
            *position += n as u64;
            for &byte in &buffer[..n] {
                if byte == b'\n' || partial.len() == MAX_LINE {
                    self.add(partial);
                    partial.clear();
                }
                if byte != b'\n' {
                    partial.push(byte);
                }
            }
        }
        Ok(())
    }

    /// Waits until the guest's kernel has printed something. Cancel-safe.
    pub(crate) async fn spoke(&self) {
        // The sender is a field of `self`, so the wait cannot fail.
        drop(self.state.subscribe().wait_for(|state| state.lines > 0).await);
    }

    /// Waits for a line that comes after this call. Cancel-safe.
    pub(crate) fn more(&self) -> impl Future<Output = ()> + use<> {
        let mut states = self.state.subscribe();
        async move {
            // The sender is gone when the machine is forgotten; then nothing more will come.
            if states.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Waits until the console shows that the machine will not answer. Cancel-safe.
    pub(crate) async fn anomaly(&self) -> Anomaly {
        let mut states = self.state.subscribe();
        loop {
            if let Ok(state) = states.wait_for(|state| state.anomaly.is_some()).await
                && let Some(anomaly) = &state.anomaly
            {
                return anomaly.clone();
            }
        }
    }

    /// This has been seen elsewhere; what the console has shown before counts more.
    pub(crate) fn find(&self, anomaly: Anomaly) {
        self.state.send_if_modified(|state| {
            let new = state.anomaly.is_none();
            if new {
                state.anomaly = Some(anomaly);
            }
            new
        });
    }

    /// What the console has shown so far that means that the machine is lost.
    pub(crate) fn seen_anomaly(&self) -> Option<Anomaly> {
        self.state.borrow().anomaly.clone()
    }

    /// The last lines, at most this many.
    pub(crate) fn tail(&self, count: usize) -> Vec<String> {
        let lines = lock(&self.lines);
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }

    /// The panic with the lines that lead to it and all that follow it, oldest first; at most this many.
    pub(crate) fn panic(&self, count: usize) -> Vec<String> {
        let lines = lock(&self.lines);
        let first = lines.iter().position(|line| line.contains(KERNEL_PANIC)).unwrap_or_default();
        lines.iter().skip(first.saturating_sub(LINES_BEFORE_PANIC)).take(count).cloned().collect()
    }

    fn add(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
        let anomaly = if line.contains(KERNEL_PANIC) {
            Some(Anomaly::Panic(line.clone()))
        } else {
            line.split_once(GUEST_FAILED).map(|(_, why)| Anomaly::GuestFailed(why.to_owned()))
        };
        // Before anybody is told of what the line means.
        (self.on_line)(&line);
        let mut lines = lock(&self.lines);
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
        drop(lines);
        self.state.send_modify(|state| {
            state.lines += 1;
            if state.anomaly.is_none() {
                state.anomaly = anomaly;
            }
        });
    }
}

/// Calls this with the file, which must exist, now and soon after each write to it, until it has found something. Cancel-safe.
///
/// # Errors
/// When the file cannot be read or watched.
pub(crate) async fn follow_file<T>(path: &Path, look: impl FnMut(&File) -> io::Result<Option<T>>) -> io::Result<T> {
    follow(path, look, || true).await
}

/// The same, which looks at once after a write unless it is in the middle of something that goes on.
async fn follow<T>(
    path: &Path,
    mut look: impl FnMut(&File) -> io::Result<Option<T>>,
    in_the_middle: impl Fn() -> bool,
) -> io::Result<T> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&inotify, path, WatchFlags::MODIFY)?;
    let inotify = watch_readable(inotify)?;
    let file = File::open(path)?;
    loop {
        if let Some(found) = look(&file)? {
            return Ok(found);
        }
        let goes_on = in_the_middle();
        next_event(&inotify).await?;
        if goes_on {
            sleep(GATHERED_FOR).await;
        }
    }
}

/// Resolves when there is something of this name in the directory. Cancel-safe.
///
/// # Errors
/// When the directory cannot be watched.
pub(crate) async fn appears(dir: &Path, name: &str) -> io::Result<()> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&inotify, dir, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
    let (inotify, path) = (watch_readable(inotify)?, dir.join(name));
    while path.symlink_metadata().is_err() {
        next_event(&inotify).await?;
    }
    Ok(())
}

async fn next_event(inotify: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut events = [0; EVENT_BUFFER];
    let mut ready = inotify.readable().await?;
    // What the events say does not matter, only that there were some.
    while rustix::io::read(inotify.get_ref(), &mut events).is_ok_and(|read| read > 0) {}
    ready.clear_ready();
    Ok(())
}

/// How far the file has been read.
#[derive(Debug, Default)]
struct Reader {
    position: u64,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_seen_as_it_is_written() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let console = Console::new(Box::new(|_| {}));
        let path = file.path().to_owned();
        let write = async {
            console_ready().await;
            file.write_all(b"booting\r\n[ 1.0] Kernel panic - not syn").unwrap();
            console.spoke().await;
            file.write_all(b"cing: VFS\nend\n").unwrap();
            console.anomaly().await
        };
        let anomaly = tokio::select! { a = write => a, e = console.follow(&path) => panic!("{e:?}") };
        assert_eq!(anomaly, Anomaly::Panic("[ 1.0] Kernel panic - not syncing: VFS".into()));
        console.catch_up(&path);
        assert_eq!(console.tail(2), ["[ 1.0] Kernel panic - not syncing: VFS", "end"]);
        assert_eq!(console.panic(2), ["booting", "[ 1.0] Kernel panic - not syncing: VFS"]);
    }

    async fn console_ready() {
        tokio::task::yield_now().await;
    }
}
