//! What happens to live clusters when the process is told to end.

use std::{
    io,
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP},
    iterator::Signals,
    low_level::{emulate_default_handler, signal_name},
};

use crate::{evidence::say, host::while_stopped};

/// The signals that end a process and leave it the time to clean up, and the one of Ctrl-Z.
const SIGNALS: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGTSTP];
/// Test runners send SIGKILL 10 s after SIGTERM; a teardown takes well under one.
const WIND_DOWN_WITHIN: Duration = Duration::from_secs(8);

static LIVE: Mutex<Live> = Mutex::new(Live { next: 0, sessions: Vec::new(), ending: None });
static GONE: Condvar = Condvar::new();

/// Is told by which signal.
type Cancel = Box<dyn Fn(&'static str) + Send>;

struct Live {
    next: u64,
    sessions: Vec<(u64, Cancel)>,
    /// The signal that ends the process.
    ending: Option<&'static str>,
}

/// A live cluster. While one exists, a signal calls `cancel` of each with its name and waits until all are dropped; a
/// second SIGINT ends the process at once, and leaves what the kernel does not remove to the next run. Without a live
/// cluster the process behaves as if nobody had ever looked at its signals.
pub(super) struct Guard(u64);

impl Guard {
    pub(super) fn new(cancel: impl Fn(&'static str) + Send + 'static) -> Self {
        static HANDLER: OnceLock<()> = OnceLock::new();
        HANDLER.get_or_init(|| {
            if let Err(e) = watch() {
                tracing::warn!("signals will not wind clusters down: {e}");
            }
        });
        let mut live = lock();
        if let Some(signal) = live.ending {
            cancel(signal);
        }
        live.next += 1;
        let id = live.next;
        live.sessions.push((id, Box::new(cancel)));
        Self(id)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        lock().sessions.retain(|(id, _)| *id != self.0);
        GONE.notify_all();
    }
}

fn watch() -> io::Result<()> {
    let mut signals = Signals::new(SIGNALS)?;
    let work = move || signals.forever().for_each(arrived);
    thread::Builder::new().name("vmtest-signals".into()).spawn(work).map(drop)
}

fn arrived(signal: i32) {
    if signal == SIGTSTP {
        return while_stopped(|| end_as(signal));
    }
    let mut live = lock();
    match live.ending {
        // Whoever asks twice does not want to wait. A runner or a terminal sends the others as well as the first.
        Some(_) if signal == SIGINT => end_as(signal),
        Some(_) => {}
        None if live.sessions.is_empty() => end_as(signal),
        None => {
            let name = signal_name(signal).unwrap_or("a signal");
            live.ending = Some(name);
            let clusters = match live.sessions.len() {
                1 => "1 cluster".to_owned(),
                many => format!("{many} clusters"),
            };
            live.sessions.iter().for_each(|(_, cancel)| cancel(name));
            drop(live);
            say(format_args!("vmtest: {name}: removing {clusters}; another SIGINT ends at once"));
            let wind_down = move || {
                let done = GONE.wait_timeout_while(lock(), WIND_DOWN_WITHIN, |live| !live.sessions.is_empty());
                drop(done.unwrap_or_else(PoisonError::into_inner));
                end_as(signal);
            };
            if thread::Builder::new().name("vmtest-wind-down".into()).spawn(wind_down).is_err() {
                end_as(signal);
            }
        }
    }
}

/// Does what the signal does by default: ends the process, or stops it until it is continued.
fn end_as(signal: i32) {
    // It fails for signals that cannot be caught, which these are not.
    drop(emulate_default_handler(signal));
}

fn lock() -> MutexGuard<'static, Live> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}
