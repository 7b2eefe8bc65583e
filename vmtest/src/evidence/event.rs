//! The events of a run.

use std::{sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

use super::{Outcome, Sign, Work};
use crate::{host::Waiting, spec::Rung};

/// Something that happened in a run. Times count from the start of provisioning; serialized, they are seconds.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A part of an image is being made, because the cache does not have it.
    Image {
        /// What is being done.
        what: String,
        /// How much of the whole is done; the same step is reported as it goes on.
        percent: u64,
    },
    /// A fixture disk is being made, and it takes long.
    Fixture {
        /// Its directory.
        fixture: String,
        /// What is being done.
        what: String,
        /// How much of the whole is done.
        percent: u64,
    },
    /// A volume is waited for, because another test has it. This time counts against no timeout.
    Volume {
        /// Its name.
        volume: String,
        /// Who has it.
        whom: String,
    },
    /// The test has it, after it had to wait.
    VolumeTaken {
        /// Its name.
        volume: String,
        /// How long it waited.
        #[serde(serialize_with = "seconds")]
        waited: Duration,
    },
    /// The cluster, or machines that join it, waits for its share of the host; again whenever that changes. This time
    /// counts against no timeout.
    Waiting(Waiting),
    /// It has its share, after it had to wait.
    Granted {
        /// How long it waited.
        #[serde(serialize_with = "seconds")]
        waited: Duration,
    },
    /// Everything is decided; provisioning begins.
    Planned {
        /// The run's id, the name of its directory.
        run: String,
        /// The nodes' names.
        nodes: Vec<String>,
        /// Backend, version and accelerator.
        backend: String,
    },
    /// The bridge and all taps are there.
    NetworkUp {
        /// When.
        #[serde(serialize_with = "seconds")]
        after: Duration,
    },
    /// A node has reached a rung.
    Reached {
        /// The node.
        node: String,
        /// The rung.
        rung: Rung,
        /// When.
        #[serde(serialize_with = "seconds")]
        after: Duration,
    },
    /// All nodes answer; the body begins.
    Ready {
        /// When.
        #[serde(serialize_with = "seconds")]
        after: Duration,
    },
    /// A guest was asked for its clock, which counts from its boot: the kernel's log and the journal use it.
    GuestClock {
        /// The node.
        node: String,
        /// What its clock said.
        #[serde(serialize_with = "seconds")]
        guest: Duration,
        /// What is added to a time of its clock to have it on the clock of the timeline, in seconds.
        offset: f64,
        /// By how much that can be wrong, in seconds.
        within: f64,
    },
    /// A machine does something else from now on.
    State {
        /// The node.
        node: String,
        /// What it does: `booting`, `running`, `paused`, `off` or `removed`.
        state: String,
        /// How it came to its end, for one that is off.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// The body has begun something that takes its time.
    Began {
        /// The number of this piece of work in the run; its end has the same.
        id: u64,
        /// The node on which it is done, if it is done on one.
        #[serde(skip_serializing_if = "Option::is_none")]
        node: Option<String>,
        /// What kind of work it is.
        kind: Work,
        /// The command, the condition, the path.
        what: String,
    },
    /// It has ended.
    Ended {
        /// The number of the piece of work that has ended.
        id: u64,
        /// How long it took.
        #[serde(serialize_with = "seconds")]
        took: Duration,
        /// How it ended.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// The console of a node has shown that something is wrong with it, or its machine has ended by itself.
    Anomaly {
        /// The node.
        node: String,
        /// What it is a sign of.
        sign: Sign,
        /// The line of the console, or how the machine ended.
        line: String,
        /// Whether the test allows it.
        allowed: bool,
    },
    /// The body has called [`step`](crate::step()).
    Step {
        /// What it said.
        what: String,
    },
    /// The body is over.
    BodyEnded {
        /// Why the test fails, if it is known by now that it does.
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
    },
    /// A machine that runs was asked why the test fails, and has not said it.
    Unanswered {
        /// The node.
        node: String,
        /// Why not.
        why: String,
    },
    /// Everything is removed.
    TornDown {
        /// How long the teardown took.
        #[serde(serialize_with = "seconds")]
        took: Duration,
        /// What could not be removed; empty when nothing was left.
        left: Vec<String>,
    },
}

impl Event {
    /// Whether a phase of the run is over by it.
    pub(super) fn ends_a_phase(&self) -> bool {
        matches!(
            self,
            Self::Granted { .. }
                | Self::VolumeTaken { .. }
                | Self::Planned { .. }
                | Self::NetworkUp { .. }
                | Self::Ready { .. }
                | Self::TornDown { .. }
        )
    }
}

/// Is told of every event as it happens, on whichever thread it happens.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;

pub(super) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
