//! The spans of a body, in the timeline of its run.

use std::{
    collections::HashMap,
    fmt::{self, Debug, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber, dispatcher,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::{Interest, NoSubscriber},
};
use tracing_core::span::Current;

use super::{Outcome, Recorder, Span, Work};

/// Spans of more detail than this are not for people.
const MOST_DETAILED: Level = Level::INFO;
/// Spans of the framework itself are in the timeline in other words.
const OWN: &str = "vmtest::";
/// Where the numbers of our spans begin. Those of another subscriber, which may be set while they are open, are elsewhere.
const FIRST_ID: u64 = 0xffff_0000_0000_0000;

/// Writes spans into a timeline for as long as the process has no subscriber of its own. A body may set one at any time, and
/// cannot know that its threads have this; so whatever comes then goes there.
pub(crate) struct Spans {
    recorder: Weak<Recorder>,
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
    /// Somebody has made a subscriber since we have looked for that of the process.
    look: AtomicBool,
    /// That of the process, once it is set: this is never undone.
    global: Mutex<Option<Dispatch>>,
}

/// A span that is open, and how many handles of it there are.
struct Open {
    span: Span,
    handles: usize,
}

impl Spans {
    /// For a thread of a body, and of those that it starts.
    pub(crate) fn of(recorder: &Arc<Recorder>) -> Dispatch {
        Dispatch::new(Self {
            recorder: Arc::downgrade(recorder),
            open: Mutex::default(),
            next: AtomicU64::new(FIRST_ID),
            look: AtomicBool::new(true),
            global: Mutex::new(None),
        })
    }

    /// The subscriber of the process.
    fn global(&self) -> Option<Dispatch> {
        let mut global = self.global.lock().unwrap_or_else(PoisonError::into_inner);
        if global.is_none() && self.look.swap(false, Ordering::SeqCst) {
            // Only a thread that has none of its own sees it.
            let look = || dispatcher::get_default(|set| (!set.is::<NoSubscriber>()).then(|| set.clone()));
            *global = thread::Builder::new().spawn(look).ok().and_then(|thread| thread.join().ok()).flatten();
        }
        global.clone()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The subscriber of the process, for a span that is not ours.
    fn elsewhere(&self, id: &Id) -> Option<Dispatch> {
        if id.into_u64() >= FIRST_ID { None } else { self.global() }
    }
}

impl Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans").finish_non_exhaustive()
    }
}

impl Subscriber for Spans {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // What another subscriber will want is not known yet.
        Interest::sometimes()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // This is asked whenever a subscriber is made, which may become that of the process.
        self.look.store(true, Ordering::SeqCst);
        Some(LevelFilter::from_level(MOST_DETAILED))
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match self.global() {
            Some(global) => global.enabled(metadata),
            None => metadata.is_span() && *metadata.level() <= MOST_DETAILED && !metadata.target().starts_with(OWN),
        }
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        if let Some(global) = self.global() {
            return global.new_span(span);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(recorder) = self.recorder.upgrade() {
            let mut what = Fields(span.metadata().name().to_owned());
            span.record(&mut what);
            let span = recorder.work(None, Work::Span, what.0);
            self.open().insert(id, Open { span, handles: 1 });
        }
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        if let Some(global) = self.elsewhere(span) {
            global.record(span, values);
        }
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        if let (Some(global), true) = (self.elsewhere(span), follows.into_u64() < FIRST_ID) {
            global.record_follows_from(span, follows);
        }
    }

    fn event(&self, event: &Event<'_>) {
        if let Some(global) = self.global() {
            global.event(event);
        }
    }

    fn enter(&self, span: &Id) {
        if let Some(global) = self.elsewhere(span) {
            global.enter(span);
        }
    }

    fn exit(&self, span: &Id) {
        if let Some(global) = self.elsewhere(span) {
            global.exit(span);
        }
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(global) = self.elsewhere(id) {
            return global.clone_span(id);
        }
        if let Some(open) = self.open().get_mut(&id.into_u64()) {
            open.handles += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        if let Some(global) = self.elsewhere(&id) {
            return global.try_close(id);
        }
        let mut all = self.open();
        let Some(open) = all.get_mut(&id.into_u64()) else { return false };
        open.handles -= 1;
        if open.handles > 0 {
            return false;
        }
        let closed = all.remove(&id.into_u64());
        // What follows writes, which may take its time.
        drop(all);
        if let Some(Open { span, .. }) = closed {
            span.end(Outcome::default());
        }
        true
    }

    fn current_span(&self) -> Current {
        self.global().map_or_else(Current::none, |global| global.current_span())
    }
}

/// The name of a span, with its fields behind it.
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        _ = write!(self.0, " {field}={value:?}");
    }
}
