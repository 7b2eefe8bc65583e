//! Panics on the tasks and threads of a cluster.
//!
//! One hook a process, which calls the one before it, finds the cluster of the panicking thread: by a mark, or by the
//! network namespace, in which every thread is that a thread of the cluster has started.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt, fs,
    os::unix::fs::MetadataExt,
    panic::{PanicHookInfo, set_hook, take_hook},
    sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError, Weak},
    thread::{self, ThreadId},
    time::Duration,
};

use tokio::sync::Notify;

/// Printing a panic with its backtrace takes a second in a large debug build.
const PRINTED_WITHIN: Duration = Duration::from_secs(5);
/// A task that panics again and again would fill the memory, and the first panic is the one that matters.
const KEPT: usize = 16;

/// Clusters by their network namespace.
static LIVE: Mutex<Vec<(u64, Weak<Panics>)>> = Mutex::new(Vec::new());

thread_local! {
    /// The cluster of a thread that is not in its network.
    static CLUSTER: RefCell<Weak<Panics>> = const { RefCell::new(Weak::new()) };
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// The panics of one cluster while its body runs.
#[derive(Debug, Default)]
pub(crate) struct Panics {
    state: Mutex<State>,
    printed: Condvar,
    elsewhere: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The thread of the body, while panics are noted.
    body: Option<ThreadId>,
    seen: Vec<Panic>,
    /// How many of them are still being printed.
    printing: usize,
}

/// Where and why something panicked.
#[derive(Debug, Clone)]
pub(crate) struct Panic {
    /// Whether it is the body's own, which may have caught it.
    pub(crate) of_body: bool,
    thread: String,
    place: String,
    message: String,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread `{}` panicked at {}: {}", self.thread, self.place, self.message)
    }
}

impl Panics {
    /// Notes panics from now on: those of the calling thread, which is the body's, and of all threads in this namespace.
    pub(crate) fn watch(self: &Arc<Self>, namespace: u64) {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = take_hook();
            set_hook(Box::new(move |info| {
                let noted = note(info);
                previous(info);
                drop(noted);
            }));
        });
        lock(&self.state).body = Some(thread::current().id());
        let mut live = lock(&LIVE);
        // The kernel gives the number of a namespace that is gone to the next one.
        live.retain(|(other, panics)| *other != namespace && panics.strong_count() > 0);
        live.push((namespace, Arc::downgrade(self)));
    }

    /// The calling thread belongs to the cluster, wherever its network is.
    pub(crate) fn mark_thread(self: &Arc<Self>) {
        CLUSTER.set(Arc::downgrade(self));
    }

    /// Resolves when something other than the body has panicked and has been printed. Cancel-safe; for one caller.
    pub(crate) async fn elsewhere(&self) {
        self.elsewhere.notified().await;
    }

    /// Notes nothing any more, and gives what was noted, the first one first. Blocks until all of it has been printed.
    pub(crate) fn stop(&self) -> Vec<Panic> {
        let mut state = lock(&self.state);
        state.body = None;
        let printed = self.printed.wait_timeout_while(state, PRINTED_WITHIN, |state| state.printing > 0);
        printed.unwrap_or_else(PoisonError::into_inner).0.seen.clone()
    }

    fn note(self: Arc<Self>, info: &PanicHookInfo<'_>) -> Option<Noted> {
        let thread = thread::current();
        let mut state = lock(&self.state);
        // A task of a `LocalSet` is on the body's thread and no less a task.
        let of_body = state.body? == thread.id() && tokio::task::try_id().is_none();
        if of_body {
            // It has caught the one before.
            state.seen.retain(|panic| !panic.of_body);
        }
        if state.seen.len() < KEPT || of_body {
            state.seen.push(Panic {
                of_body,
                thread: thread.name().unwrap_or("<unnamed>").to_owned(),
                place: info.location().map(ToString::to_string).unwrap_or_default(),
                message: panic_message(info.payload()).to_owned(),
            });
        }
        state.printing += 1;
        drop(state);
        Some(Noted { panics: self, of_body })
    }
}

/// A panic that is being printed.
struct Noted {
    panics: Arc<Panics>,
    of_body: bool,
}

impl Drop for Noted {
    fn drop(&mut self) {
        lock(&self.panics.state).printing -= 1;
        self.panics.printed.notify_all();
        if !self.of_body {
            self.panics.elsewhere.notify_one();
        }
    }
}

/// Does something whose panic the caller deals with: it is not noted.
pub(crate) fn containing_panics<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            CONTAINED.set(self.0);
        }
    }
    let _restore = Restore(CONTAINED.replace(true));
    work()
}

/// Called by every panic of the process; a panic in here would end it.
fn note(info: &PanicHookInfo<'_>) -> Option<Noted> {
    // A thread that ends may have lost its own values already.
    if CONTAINED.try_with(Cell::get).unwrap_or(false) {
        return None;
    }
    let marked = CLUSTER.try_with(|cluster| cluster.try_borrow().ok()?.upgrade()).ok().flatten();
    marked.or_else(by_namespace)?.note(info)
}

fn by_namespace() -> Option<Arc<Panics>> {
    let live = lock(&LIVE);
    if live.is_empty() {
        return None;
    }
    let namespace = fs::metadata("/proc/thread-self/ns/net").ok()?.ino();
    live.iter().find(|(of, _)| *of == namespace)?.1.upgrade()
}

/// The words of a panic.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("Box<dyn Any>")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
