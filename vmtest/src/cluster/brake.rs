//! Stops the work of a run at one of its await points, for tests of what is left then.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::Notify;

/// Counts how often anything of a run is polled. From the poll on at which it is told to stop nothing goes on: what a
/// teardown then drops is dropped at that await point.
#[derive(Debug)]
pub(crate) struct Brake {
    left: AtomicUsize,
    stopped: Notify,
}

impl Default for Brake {
    fn default() -> Self {
        Self { left: AtomicUsize::new(usize::MAX), stopped: Notify::new() }
    }
}

impl Brake {
    /// Lets everything together be polled as often as this.
    pub(crate) fn stop_after(&self, polls: usize) {
        self.left.store(polls, Ordering::SeqCst);
    }

    /// Resolves when something would have been polled once more. Cancel-safe.
    pub(crate) async fn stopped(&self) {
        self.stopped.notified().await;
    }

    pub(super) async fn applied_to(self: Arc<Self>, work: impl Future<Output = ()>) {
        let mut work = pin!(work);
        let poll = |cx: &mut Context<'_>| {
            if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
                self.stopped.notify_one();
                return Poll::Pending;
            }
            work.as_mut().poll(cx)
        };
        std::future::poll_fn(poll).await;
    }
}
