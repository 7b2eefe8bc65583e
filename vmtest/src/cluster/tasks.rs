//! What is done for a run, until it is over.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Mutex, PoisonError},
};

use tokio::{
    runtime::Handle,
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use crate::error::{Error, Kind};

/// The work of a run on its engine. The one place that knows whether the run is over: from then on nothing is begun, and
/// everything that waits ends.
#[derive(Debug)]
pub(crate) struct Tasks {
    engine: Handle,
    /// `None` once the run is over.
    set: Mutex<Option<JoinSet<()>>>,
    over: watch::Sender<bool>,
    #[cfg(test)]
    pub(crate) brake: std::sync::Arc<super::brake::Brake>,
}

impl Tasks {
    pub(crate) fn new(engine: Handle) -> Self {
        Self {
            engine,
            set: Mutex::new(Some(JoinSet::new())),
            over: watch::Sender::new(false),
            #[cfg(test)]
            brake: std::sync::Arc::default(),
        }
    }

    /// Does this on the engine; a teardown stops it. Once the run is over it is dropped, and the result is `None`.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let set = set.as_mut()?;
        while set.try_join_next().is_some() {}
        #[cfg(test)]
        let work = self.brake.clone().applied_to(work);
        Some(set.spawn_on(work, &self.engine))
    }

    /// Does this on any executor, with the timers of the engine, and ends with an error when the run is over. Cancel-safe
    /// as far as the work is.
    ///
    /// # Errors
    /// What the work said, or [`Kind::TornDown`].
    pub(crate) async fn unless_over<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut over = self.over.subscribe();
        let mut work = pin!(async {
            tokio::select! {
                biased;
                _ = over.wait_for(|over| *over) => Err(Error::torn_down()),
                result = work => result,
            }
        });
        poll_fn(|cx| {
            let _inside = self.engine.enter();
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Whether a teardown has begun.
    pub(crate) fn are_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Why a task has ended without an answer.
    pub(crate) fn unanswered(&self) -> Error {
        if self.are_over() {
            return Error::torn_down();
        }
        Error::new(Kind::Host, "the framework has panicked while it did this; the panic's own words were printed")
    }

    /// The run is over: stops all tasks, and waits until they are stopped.
    pub(crate) async fn end(&self) {
        self.over.send_replace(true);
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut set) = set {
            set.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn once_a_run_is_over_everything_has_ended_and_nothing_begins() {
        let tasks = Tasks::new(Handle::current());
        let before = tasks.spawn(pending()).unwrap();
        assert!(!before.is_finished());
        tasks.end().await;
        assert!(before.is_finished());
        assert!(tasks.spawn(async { unreachable!("the run is over") }).is_none());
        let error = tasks.unless_over(async { Ok(()) }).await.unwrap_err();
        assert_eq!(error.kind(), Kind::TornDown);
    }
}
