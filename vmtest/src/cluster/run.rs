//! What one run holds.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::select_all;
use once_cell::sync::OnceCell;
use tokio::runtime::Handle;

use super::member::Member;
use crate::{
    error::Error,
    evidence::{Event, Observer},
    host::{Journal, Keeper, RunDir},
    hypervisor::Hypervisor,
    net::Links,
    plan::Plan,
};

/// One cluster: what was planned and what holds it. Shared by all handles; nothing depends on when it is dropped.
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) dir: RunDir,
    pub(crate) journal: Journal,
    pub(crate) keeper: Keeper,
    /// The runtime, inside the cluster's network, on which all work of the framework happens.
    pub(crate) engine: Handle,
    /// A runtime in the network of the test's caller.
    pub(crate) outside: Handle,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) members: Vec<Arc<Member>>,
    pub(crate) links: OnceCell<Links>,
    pub(crate) started: Instant,
    pub(crate) observer: Option<Observer>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("id", &self.dir.id()).field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Run {
    pub(crate) fn emit(&self, event: &Event) {
        tracing::debug!(?event, "run {}", self.dir.id());
        let Some(observer) = &self.observer else { return };
        // Somebody else's code, called in the middle of a teardown too.
        if catch_unwind(AssertUnwindSafe(|| observer(event))).is_err() {
            tracing::warn!(?event, "an observer panicked");
        }
    }

    /// Time since provisioning began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Resolves when a guest's kernel has panicked, with the error that says so. Pending for ever otherwise.
    pub(crate) async fn panicked(&self) -> Error {
        if self.members.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.members.iter().map(|member| Box::pin(member.panicked()))).await.0
    }
}
