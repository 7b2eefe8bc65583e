//! Limits that do not count the time in which the process was stopped: Ctrl-Z, and later `fg`.

use std::{
    pin::pin,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::error::Elapsed;

static STOPPED: Mutex<Stopped> = Mutex::new(Stopped { total: Duration::ZERO, since: None });

struct Stopped {
    total: Duration,
    since: Option<Instant>,
}

/// How long this process has been stopped by its terminal so far.
pub(crate) fn stopped() -> Duration {
    let stopped = STOPPED.lock().unwrap_or_else(PoisonError::into_inner);
    // Whoever runs again first must see the time before it is added.
    stopped.total + stopped.since.map_or(Duration::ZERO, |since| since.elapsed())
}

/// Counts what happens in `stop`, which returns when the process goes on.
pub(crate) fn while_stopped(stop: impl FnOnce()) {
    let change = |change: fn(&mut Stopped)| change(&mut STOPPED.lock().unwrap_or_else(PoisonError::into_inner));
    change(|stopped| stopped.since = Some(Instant::now()));
    stop();
    change(|stopped| stopped.total += stopped.since.take().map_or(Duration::ZERO, |since| since.elapsed()));
}

/// [`tokio::time::timeout`], of the time in which the process was not stopped. Cancel-safe if `work` is.
pub(crate) async fn timeout<F: Future>(limit: Duration, work: F) -> Result<F::Output, Elapsed> {
    let mut work = pin!(work);
    let (mut limit, mut counted) = (limit, stopped());
    loop {
        match tokio::time::timeout(limit, work.as_mut()).await {
            Ok(output) => return Ok(output),
            Err(elapsed) => limit = more(&mut counted).ok_or(elapsed)?,
        }
    }
}

/// What was stopped since `counted`, if anything.
fn more(counted: &mut Duration) -> Option<Duration> {
    let now = stopped();
    let more = now.saturating_sub(*counted);
    *counted = now;
    (!more.is_zero()).then_some(more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_time_of_a_stop_does_not_count() {
        let limit = Duration::from_millis(200);
        let stop = tokio::task::spawn_blocking(move || while_stopped(|| std::thread::sleep(limit * 3)));
        // Ends after the limit and before the limit and the stop.
        let work = async {
            stop.await.expect("it ends");
            7
        };
        assert_eq!(timeout(limit, work).await.ok(), Some(7));
        assert!(stopped() >= limit * 3);
        assert!(timeout(Duration::from_millis(20), std::future::pending::<()>()).await.is_err());
    }
}
