//! Where the traces of the caller go, carried over to the threads of its cluster.
//!
//! Subscribers can belong to a thread, and spans always do, while a body has threads of its own. What gathers the traces
//! of a test by its span, as `traced_test` does, would see none of them.

use std::{cell::RefCell, sync::Arc};

use tracing::{
    Dispatch, Span,
    dispatcher::{self, DefaultGuard},
    span::EnteredSpan,
    subscriber::NoSubscriber,
};

use crate::evidence::{Recorder, Spans};

/// The subscriber and the span of a thread.
#[derive(Debug, Clone)]
pub(super) struct Traces {
    /// `None` where none is set: a body that sets one for the whole process has to find its threads without.
    subscriber: Option<Dispatch>,
    span: Span,
}

/// While this lives, the traces of its thread go where those of another one go.
#[derive(Debug)]
pub(super) struct Followed {
    // In this order: the span is left before its subscriber.
    _span: EnteredSpan,
    _subscriber: Option<DefaultGuard>,
}

impl Traces {
    /// Those of the calling thread.
    pub(super) fn of_this_thread() -> Self {
        let subscriber = dispatcher::get_default(|set| (!set.is::<NoSubscriber>()).then(|| set.clone()));
        Self { subscriber, span: Span::current() }
    }

    /// For the threads of a body: where there is no subscriber, its spans go into the timeline of its run.
    pub(super) fn or_into(self, recorder: &Arc<Recorder>) -> Self {
        let subscriber = self.subscriber.unwrap_or_else(|| Spans::of(recorder));
        Self { subscriber: Some(subscriber), ..self }
    }

    /// Sends the traces of the calling thread there.
    pub(super) fn follow(&self) -> Followed {
        let subscriber = self.subscriber.as_ref().map(dispatcher::set_default);
        Followed { _span: self.span.clone().entered(), _subscriber: subscriber }
    }

    /// The same for a thread of a runtime, until [`stop_following`].
    pub(super) fn follow_on_this_thread(&self) {
        FOLLOWED.set(Some(self.follow()));
    }
}

/// To be called before a thread ends: a subscriber may have values of its own in the thread, which go first otherwise.
pub(super) fn stop_following() {
    drop(FOLLOWED.take());
}

thread_local! {
    static FOLLOWED: RefCell<Option<Followed>> = const { RefCell::new(None) };
}
