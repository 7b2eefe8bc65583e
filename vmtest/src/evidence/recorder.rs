//! Takes down what happens in a run: for the observer, in the timeline, and for the digest of a failure.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    Ending, Event, Observer, Outcome, Printed, Started,
    attempt::{Attempt, DIGEST, FAILURE, PLAN, SPEC, shortened},
    before::Before,
    digest::{Digest, LastLines, Unanswered},
    health::{Finding, Sign, complaint},
    history::PastRun,
    passwords::without_passwords,
    phases::Phases,
    place,
    signature::signature,
    work::{Awaited, Span, Work},
};
use crate::{
    host::{OnLine, containing_panics},
    spec::{ClusterSpec, NodeSpec},
};

thread_local! {
    /// The run to which a thread of a body belongs.
    static CURRENT: RefCell<Weak<Recorder>> = const { RefCell::new(Weak::new()) };
}

/// The clock and the memory of one run.
pub(crate) struct Recorder {
    began: Instant,
    spec: ClusterSpec,
    /// The test's whole name.
    test: String,
    observer: Option<Observer>,
    /// `None` where nothing can be kept.
    attempt: Option<Attempt>,
    started: Started,
    /// The attempt that it repeats, if it does.
    before: Option<Before>,
    /// How many pieces of work there were.
    works: AtomicU64,
    seen: Mutex<Seen>,
}

/// What the digest of a failure is made from.
#[derive(Debug, Default)]
struct Seen {
    under_way: BTreeMap<u64, Awaited>,
    /// The last piece of work that failed, how, and when.
    failed: Option<(Awaited, String, Duration)>,
    /// What was under way when it became known that the test fails, and when that was.
    awaited: Option<(Vec<Awaited>, Duration)>,
    findings: Vec<Finding>,
    phases: Phases,
}

/// Findings beyond these say nothing new, and a guest in trouble may report without end.
const KEPT_FINDINGS: usize = 200;

/// An event with its time, as it stands in the timeline.
#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since the start of the attempt.
    at: f64,
    #[serde(flatten)]
    event: &'a Event,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Begins, on the thread that asks for the cluster, with artifacts below `root` if there is one. Images and fixture disks
    /// are in the cache.
    pub(crate) fn begin(
        spec: &ClusterSpec,
        observer: Option<Observer>,
        root: Option<&Path>,
        cache: &Path,
    ) -> Arc<Self> {
        let test = place::full_name(&spec.name);
        let started = Started::now(&test, &spec.base, cache);
        let before = Before::of(&started);
        let attempt = root.and_then(|root| {
            let begun = Attempt::begin(root, &started);
            begun.inspect_err(|e| tracing::warn!("no artifacts are kept in {}: {e}", root.display())).ok()
        });
        if let Some(attempt) = &attempt {
            attempt.write_json(SPEC, spec);
        }
        Arc::new(Self {
            began: Instant::now(),
            spec: spec.clone(),
            test,
            observer,
            attempt,
            started,
            before,
            works: AtomicU64::new(0),
            seen: Mutex::default(),
        })
    }

    /// Time since it began: the clock of the timeline.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// This was decided, and this runs it.
    pub(crate) fn planned(&self, plan: &impl Serialize, backend: &str) {
        if let Some(attempt) = &self.attempt {
            attempt.write_json(PLAN, plan);
        }
        if let Some(before) = &self.before {
            before.planned(&self.spec, plan, backend, &self.started);
        }
    }

    /// In a run that repeats an attempt, the image that this node had then, by the name of its directory in the cache, where
    /// the test asks for the same one now.
    pub(crate) fn image_then(&self, node: &NodeSpec) -> Option<String> {
        self.before.as_ref()?.image_of(node, &self.spec.defaults)
    }

    /// Where the artifacts of this attempt are, if they are kept.
    pub(crate) fn attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref()
    }

    /// Whether somebody else shows the events.
    pub(crate) fn is_observed(&self) -> bool {
        self.observer.is_some()
    }

    /// This happens now.
    pub(crate) fn emit(&self, event: &Event) {
        tracing::debug!(?event);
        let now = self.now();
        if event.ends_a_phase() {
            self.lock().phases.note(event, now);
        }
        if let Some(attempt) = &self.attempt {
            let line = Line { at: now.as_secs_f64(), event };
            if let Ok(mut line) = serde_json::to_string(&line) {
                line.push('\n');
                attempt.add(&line);
            }
        }
        let Some(observer) = &self.observer else { return };
        // Somebody else's code, called in the middle of a teardown too.
        if containing_panics(|| catch_unwind(AssertUnwindSafe(|| observer(event)))).is_err() {
            tracing::warn!(?event, "an observer panicked");
        }
    }

    /// Work of this kind begins now.
    pub(crate) fn work(self: &Arc<Self>, node: Option<&str>, kind: Work, what: impl Into<String>) -> Span {
        let id = self.works.fetch_add(1, Ordering::Relaxed) + 1;
        let (node, what) = (node.map(str::to_owned), what.into());
        let awaited = Awaited { node: node.clone(), kind, what: what.clone(), since: self.now() };
        self.lock().under_way.insert(id, awaited);
        self.emit(&Event::Began { id, node, kind, what });
        Span { recorder: self.clone(), id, began: Instant::now(), over: false }
    }

    pub(super) fn ended(&self, id: u64, outcome: &Outcome) {
        let now = self.now();
        let mut seen = self.lock();
        let Some(work) = seen.under_way.remove(&id) else { return };
        if outcome.is_bad() {
            let how = outcome.error.clone().unwrap_or_else(|| match (outcome.code, &outcome.signal) {
                (Some(code), _) => format!("exit code {code}"),
                (None, signal) => format!("signal {}", signal.as_deref().unwrap_or("unknown")),
            });
            seen.failed = Some((work, how, now));
        }
    }

    /// What a command has printed, of which this is the beginning.
    pub(crate) fn printed(&self, id: u64, stream: &str, head: &[u8], bytes: u64) -> Printed {
        match &self.attempt {
            Some(attempt) => attempt.printed(id, stream, head, bytes),
            None => Printed { text: shortened(head), file: None, bytes },
        }
    }

    /// It is known now that the test fails; what it waits for is about to be dropped. The first call counts.
    pub(crate) fn note_awaited(&self) {
        let now = self.now();
        let mut seen = self.lock();
        if seen.awaited.is_none() {
            seen.awaited = Some((seen.under_way.values().cloned().collect(), now));
        }
    }

    /// Waits for something that fails the test. Cancel-safe as far as that is.
    pub(crate) async fn at_failure<T>(&self, failure: impl Future<Output = T>) -> T {
        let failed = failure.await;
        self.note_awaited();
        failed
    }

    /// Takes down a sign that something is wrong with a machine.
    pub(crate) fn find(&self, node: &str, sign: Sign, line: &str) {
        let allowed = sign.allowed_by().is_some_and(|allow| self.spec.allow.contains(&allow));
        let finding = Finding { at: self.now(), node: node.to_owned(), sign, line: line.to_owned(), allowed };
        let mut seen = self.lock();
        if seen.findings.len() == KEPT_FINDINGS {
            return;
        }
        seen.findings.push(finding);
        drop(seen);
        self.emit(&Event::Anomaly { node: node.to_owned(), sign, line: line.to_owned(), allowed });
    }

    /// Keeps the console of this machine, with times, and looks at every line.
    pub(crate) fn console_of(self: &Arc<Self>, node: &str) -> OnLine {
        let (recorder, node) = (Arc::downgrade(self), node.to_owned());
        let log = self.attempt.as_ref().and_then(|attempt| attempt.console(&node));
        Box::new(move |line| {
            let Some(recorder) = recorder.upgrade() else { return };
            if let Some(log) = &log {
                log.add(format!("{:12.6} {line}\n", recorder.now().as_secs_f64()).as_bytes());
            }
            if let Some(sign) = Sign::of(line) {
                recorder.find(&node, sign, line);
            }
        })
    }

    /// Whether a sign of trouble of this machine is known.
    pub(crate) fn has_found(&self, node: &str) -> bool {
        self.lock().findings.iter().any(|finding| finding.node == node)
    }

    /// Why a test fails that has seen nothing wrong itself: what the kernels of its guests have reported.
    pub(crate) fn complaint(&self) -> Option<String> {
        complaint(&self.lock().findings)
    }

    /// What is printed of a failure, whose own words these are, printed already or not, with the last lines of each console
    /// and the machines that were asked in vain.
    pub(crate) fn failed(
        &self,
        message: &str,
        printed: bool,
        consoles: &[LastLines],
        unanswered: &[Unanswered],
    ) -> String {
        self.note_awaited();
        let message = &*without_passwords(message);
        let seen = self.lock();
        let (awaited, at) = seen.awaited.clone().unwrap_or_default();
        let digest = Digest {
            message,
            printed,
            awaited: &awaited,
            failed: seen.failed.as_ref(),
            at,
            findings: &seen.findings,
            consoles,
            unanswered,
            artifacts: self.attempt.as_ref().map(Attempt::dir),
            again: &super::again::by_cargo(&self.spec, &self.test),
        };
        let text = digest.to_string();
        let first = digest.first();
        drop(seen);
        if let Some(attempt) = &self.attempt {
            attempt.write(FAILURE, message.as_bytes());
            attempt.write(DIGEST, text.as_bytes());
            attempt.write_json("first-cause.json", &first);
        }
        text
    }

    /// The body has ended when so much of the run's time was used.
    pub(crate) fn body_ended(&self, used: Duration) {
        self.lock().phases.body_ended(used);
    }

    /// Why a test fails that has seen nothing wrong: what took longer than it may, where limits are so many times what the test
    /// says.
    pub(crate) fn over_budget(&self, scale: f64) -> Option<String> {
        let over = self.lock().phases.over(&self.spec.phase_budgets, scale);
        let one = |phase: &String| format!("over budget: {phase}");
        (!over.is_empty()).then(|| over.iter().map(one).collect::<Vec<_>>().join("\n"))
    }

    /// Everything is over, in this way, and a failure has these words.
    pub(crate) fn end(&self, ending: Ending, failure: Option<&str>) {
        if let Some(before) = &self.before {
            before.ended(failure);
        }
        let Some(attempt) = &self.attempt else { return };
        let took = self.now().as_secs_f64();
        let seen = self.lock();
        attempt.remember(&PastRun {
            id: attempt.id(),
            test: self.test.clone(),
            binary: self.started.binary.clone(),
            backend: seen.phases.backend.clone(),
            began: self.started.unix_time,
            verdict: ending.word().to_owned(),
            took,
            phases: seen.phases.took().iter().map(|(phase, took)| (*phase, took.as_secs_f64())).collect(),
            signature: failure.map(signature).unwrap_or_default(),
        });
        drop(seen);
        attempt.end(ending, failure, took);
    }

    /// The calling thread belongs to this run.
    pub(crate) fn mark_thread(self: &Arc<Self>) {
        CURRENT.set(Arc::downgrade(self));
    }

    /// The run to which the calling thread belongs.
    pub(crate) fn current() -> Option<Arc<Self>> {
        // A thread that ends may have lost its own values already.
        CURRENT.try_with(|current| current.borrow().upgrade()).ok().flatten()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says in the timeline of the calling test's run what its body does from now on. Elsewhere than on a thread of a body,
/// its tasks and its blocking tasks included, it says nothing.
///
/// ```no_run
/// # use vmtest::prelude::*;
/// # async fn body(primary: Node) -> Result {
/// step("the primary loses its power");
/// primary.kill().await?;
/// # Ok(())
/// # }
/// ```
pub fn step(what: impl Into<String>) {
    if let Some(recorder) = Recorder::current() {
        recorder.emit(&Event::Step { what: what.into() });
    }
}

/// Where the artifacts of a test can be put: the directory of its attempt.
pub(crate) fn saved_dir(recorder: &Recorder) -> Option<PathBuf> {
    Some(recorder.attempt()?.dir().join(super::attempt::SAVED))
}
