//! Trying again until it works.

use std::{
    cell::Cell,
    future::Future,
    panic::Location,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use crate::{
    error::{Error, Kind},
    evidence::{Recorder, Work},
    failure::Failure,
};

/// An attempt that failed at once is repeated after this; most attempts are commands, which take about as long.
const TRY_EVERY: Duration = Duration::from_millis(100);

thread_local! {
    /// What limits are multiplied by on this thread: all threads of a cluster's body know it.
    static SCALE: Cell<f64> = const { Cell::new(1.0) };
}

/// Limits on this thread are multiplied by this from now on.
pub(crate) fn scale_timeouts(factor: f64) {
    SCALE.set(factor);
}

/// Repeats this until it succeeds, and gives what it then gave. Cancel-safe as far as the closure is.
///
/// The limit is scaled like all timeouts when this is called in a test's body: four times as long under emulation.
///
/// ```no_run
/// # use std::time::Duration;
/// # use vmtest::prelude::*;
/// # async fn body(standby: Node) -> Result {
/// let role = eventually("the standby promotes itself", Duration::from_secs(30), async || {
///     let role = standby.sh("cat /run/role").await?.stdout();
///     if role == "primary" { Ok(role) } else { Err(Failure::msg(role)) }
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// After the limit, with what was waited for, how often it was tried and the last error. At once, with that error, when
/// a machine has died or the cluster is gone.
///
/// # Panics
/// Outside a tokio runtime; the body of a test is inside one.
#[track_caller]
pub fn eventually<T, E: Into<Failure>>(
    what: &str,
    within: Duration,
    attempt: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = Result<T, Failure>> {
    let (within, at) = (within.mul_f64(SCALE.get()), Location::caller());
    let recorder = Recorder::current();
    async move {
        let span = recorder.map(|recorder| recorder.work(None, Work::Wait, what));
        let tried = tried(what, within, attempt, at).await;
        match span {
            Some(span) => span.result(tried),
            None => tried,
        }
    }
}

async fn tried<T, E: Into<Failure>>(
    what: &str,
    within: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
    at: &'static Location<'static>,
) -> Result<T, Failure> {
    let began = Instant::now();
    let (mut attempts, mut last) = (0_u32, None);
    while let Some(left) = within.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        attempts += 1;
        match timeout(left, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(e)) => {
                let failure = e.into();
                let over = |e: &Error| matches!(e.kind(), Kind::MachineDied | Kind::GuestPanic | Kind::TornDown);
                if failure.cause().is_some_and(over) {
                    return Err(failure);
                }
                last = Some(failure.to_string());
            }
            Err(_) => {
                last = last.or_else(|| Some("an attempt that did not end".to_owned()));
                break;
            }
        }
        sleep(TRY_EVERY.min(left)).await;
    }
    let (seconds, last) = (within.as_secs_f64(), last.unwrap_or_else(|| "none".to_owned()));
    Err(Failure::at(format!("waited {seconds:.1} s in vain until {what}: {attempts} attempts, last: {last}"), at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_gives_what_the_first_success_gave() {
        let mut tries = 0;
        let attempt = async || {
            tries += 1;
            if tries < 3 { Err(Failure::msg("not yet")) } else { Ok(tries) }
        };
        assert_eq!(eventually("it works", Duration::from_secs(60), attempt).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn it_says_what_it_waited_for_and_the_last_error() {
        let broken = async || Err::<(), _>("broken");
        let (line, waiting) = (line!(), eventually("it works", Duration::from_millis(50), broken));
        let failure = waiting.await.unwrap_err();
        let text = format!("{failure:?}");
        assert!(text.starts_with("waited 0.1 s in vain until it works: 1 attempts, last: broken"), "{text}");
        assert!(text.ends_with(&format!("eventually.rs:{line}:41")), "{text}");
    }

    #[tokio::test]
    async fn an_attempt_that_never_ends_is_ended() {
        let never = async || std::future::pending::<Result<(), Failure>>().await;
        let failure = eventually("it works", Duration::from_millis(50), never).await.unwrap_err();
        assert!(failure.to_string().contains("an attempt that did not end"), "{failure}");
    }

    #[tokio::test]
    async fn a_dead_machine_ends_it_at_once() {
        let dead = async || Err::<(), _>(Error::new(Kind::MachineDied, "the machine ended"));
        let failure = eventually("it works", Duration::from_secs(600), dead).await.unwrap_err();
        assert_eq!(failure.to_string(), "the machine ended");
    }
}
