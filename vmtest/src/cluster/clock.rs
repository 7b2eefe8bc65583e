//! How much of its time a run has used: waiting for a share of the host does not count, and Ctrl-Z does not.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use crate::host::stopped;

/// Counts the time of a run, and stands still while machines of it wait for their share of the host, and while the
/// process is stopped by its terminal.
#[derive(Debug)]
pub(crate) struct Clock {
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// What was counted up to `since`.
    before: Duration,
    since: Instant,
    /// How long the process had been stopped until `since`.
    stopped: Duration,
    /// How many wait; it stands still while there is one.
    waiting: usize,
}

impl State {
    fn at(before: Duration, waiting: usize) -> Self {
        Self { before, since: Instant::now(), stopped: stopped(), waiting }
    }

    fn elapsed(&self) -> Duration {
        if self.waiting > 0 {
            return self.before;
        }
        // In this order: a stop that ends in between must not be missing from what is taken away.
        let since = self.since.elapsed();
        self.before + since.saturating_sub(stopped().saturating_sub(self.stopped))
    }
}

/// Somebody who waits; dropped, the clock goes on.
#[derive(Debug)]
pub(crate) struct Stopped<'a>(&'a Clock);

impl Clock {
    /// Counts from now on.
    pub(crate) fn start() -> Self {
        Self { state: watch::Sender::new(State::at(Duration::ZERO, 0)) }
    }

    /// Stands still until the result is dropped.
    pub(crate) fn stop(&self) -> Stopped<'_> {
        self.change(|waiting| waiting + 1);
        Stopped(self)
    }

    /// How much has counted.
    pub(crate) fn elapsed(&self) -> Duration {
        self.state.borrow().elapsed()
    }

    /// Resolves when so much has counted. Must be awaited on a tokio runtime; cancel-safe.
    pub(crate) async fn reached(&self, limit: Duration) {
        let mut states = self.state.subscribe();
        loop {
            let state = *states.borrow_and_update();
            let left = limit.saturating_sub(state.elapsed());
            if left.is_zero() {
                return;
            }
            let over = async { if state.waiting == 0 { sleep(left).await } else { pending().await } };
            tokio::select! {
                () = over => {}
                // The sender is a field of `self`, so it is there.
                _ = states.changed() => {}
            }
        }
    }

    fn change(&self, waiting: impl FnOnce(usize) -> usize) {
        self.state.send_modify(|state| {
            *state = State::at(state.elapsed(), waiting(state.waiting));
        });
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.change(|waiting| waiting - 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn elapsed(clock: &Clock) -> Duration {
        clock.state.borrow().elapsed()
    }

    const SOME_TIME: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn time_that_is_waited_does_not_count() {
        let clock = Clock::start();
        clock.reached(SOME_TIME).await;
        assert!(elapsed(&clock) >= SOME_TIME);
        let (first, second) = (clock.stop(), clock.stop());
        let at = elapsed(&clock);
        timeout(SOME_TIME, clock.reached(at + Duration::from_nanos(1))).await.unwrap_err();
        drop(first);
        sleep(SOME_TIME).await;
        assert_eq!(elapsed(&clock), at, "one still waits");
        drop(second);
        clock.reached(at + SOME_TIME).await;
    }

    #[tokio::test]
    async fn whoever_watches_it_learns_that_it_goes_on() {
        let clock = Clock::start();
        let stopped = clock.stop();
        let limit = elapsed(&clock) + SOME_TIME;
        let go_on = async {
            sleep(SOME_TIME).await;
            drop(stopped);
        };
        tokio::join!(clock.reached(limit), go_on);
    }
}
