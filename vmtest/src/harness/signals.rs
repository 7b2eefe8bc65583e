//! What happens to live clusters when the process is told to end.

use std::{
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};

/// The signals that end a process and leave it the time to clean up.
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];
/// Test runners send SIGKILL 10 s after SIGTERM; a teardown takes well under one.
const WIND_DOWN_WITHIN: Duration = Duration::from_secs(8);

static LIVE: Mutex<Live> = Mutex::new(Live { next: 0, sessions: Vec::new(), ending: false });
static GONE: Condvar = Condvar::new();

struct Live {
    next: u64,
    sessions: Vec<(u64, Box<dyn Fn() + Send>)>,
    ending: bool,
}

/// A live cluster. While one exists, a signal calls `cancel` of each and waits until all are dropped; without one the
/// process behaves as if nobody had ever looked at its signals.
pub(super) struct Guard(u64);

impl Guard {
    pub(super) fn new(cancel: impl Fn() + Send + 'static) -> Self {
        static HANDLER: OnceLock<()> = OnceLock::new();
        HANDLER.get_or_init(|| {
            if let Err(e) = watch() {
                tracing::warn!("signals will not wind clusters down: {e}");
            }
        });
        let mut live = lock();
        if live.ending {
            cancel();
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

fn watch() -> std::io::Result<()> {
    let mut signals = Signals::new(SIGNALS)?;
    let work = move || {
        for signal in signals.forever() {
            let mut live = lock();
            live.ending = !live.sessions.is_empty();
            live.sessions.iter().for_each(|(_, cancel)| cancel());
            let done = GONE.wait_timeout_while(live, WIND_DOWN_WITHIN, |live| !live.sessions.is_empty());
            drop(done.unwrap_or_else(PoisonError::into_inner));
            // Ends the process as the signal would have; it returns only for signals that are ignored by default.
            drop(emulate_default_handler(signal));
        }
    };
    thread::Builder::new().name("vmtest-signals".into()).spawn(work).map(drop)
}

fn lock() -> MutexGuard<'static, Live> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}
