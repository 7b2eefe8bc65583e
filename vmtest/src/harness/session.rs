//! The life of one cluster: the threads it needs, its body, its end.
//!
//! Three parties: the *caller* (libtest's thread) watches deadline and signals and removes everything in the end, even
//! when the body blocks its thread for ever. The *cluster thread* lives in the cluster's network namespace and runs the
//! body. The *engine*, a runtime of our own in the same namespace, carries all work of the framework, so that nothing
//! that a body does to its runtime can stop a teardown.

#[cfg(test)]
mod cancelled;
mod evidence;
#[cfg(test)]
mod leaks;
#[cfg(test)]
mod prepared;

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use once_cell::sync::OnceCell;
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::{oneshot, watch},
};

use super::{
    control,
    end::{End, Unprepared},
    facts::{Gathered, claim_host, gather, planner},
    hold::after_body,
    prune::{places, reconcile_once},
    settings::Settings,
    signals,
    traces::{Traces, stop_following},
    volumes::take_volumes,
};
use crate::{
    cluster::{Clock, Cluster, Hold, HostSide, Member, Run, ScratchDir, Tasks, provision, scale_timeouts, teardown},
    error::{Error, Kind, Phase},
    evidence::{Ending, Event, Observer, Recorder, ShownWait, say},
    failure::Failure,
    guest::ssh::Keys,
    host::{Claim, HostBudget, Journal, Keeper, Ledger, LockedDir, Panics, Place, Request},
    net::{enter_namespace, enter_new_namespace, hold_namespace},
    plan::{self, WayOut},
    spec::{Allow, ClusterSpec, NetworkPlace},
};

/// A body that has not ended this long after its deadline blocks its thread: a dropped future ends at once.
pub(super) const BLOCKED_AFTER: Duration = Duration::from_secs(1);
const BLOCKS: &str = "it blocks its thread, which was left behind: await instead of blocking";
/// From the last look at the cancel flag to the run's start: a namespace, two runtimes, a directory and its journal.
const PREPARED_WITHIN: Duration = Duration::from_secs(2);
/// The longest that a teardown may take. Every wait in it is bounded by 15 s, but for the kernel's own: it takes down one network
/// after the other, and with those of fifty clusters on a busy host a teardown took longer than that.
const TEARDOWN_WITHIN: Duration = Duration::from_secs(60);
/// After a signal the caller stays here until the process has ended, so that libtest does not start the next test.
const SIGNAL_ENDS_PROCESS_WITHIN: Duration = Duration::from_secs(10);

/// A cluster to make and a way to watch it.
pub(super) struct Session {
    spec: ClusterSpec,
    recorder: Arc<Recorder>,
    traces: Traces,
}

/// What the cluster's thread is told by the caller.
struct Caller {
    cancelled: watch::Receiver<bool>,
    /// A runtime in the caller's network.
    outside: Handle,
    panics: Arc<Panics>,
}

pub(super) enum Message {
    /// Machines may exist from now on.
    Started(Arc<Run>, Runtime),
    Ended(End),
    /// The body is over its limit and has not even ended as a dropped future does.
    Late,
    /// The body was ended over the control socket, and has not even ended as a dropped future does.
    Down,
    /// The cluster is not kept any more.
    LetGo,
    /// By the signal of this name.
    Cancelled(&'static str),
}

impl Session {
    /// To be called on the thread that asks for the cluster: the traces of the body go where those of this thread go.
    pub(super) fn new(spec: ClusterSpec, observer: Option<Observer>, keep: bool) -> Self {
        // A wrong setting is the failure of the run itself.
        let settings = Settings::get().ok();
        let crate_dir = Some(&*spec.base).filter(|base| base.is_absolute() && base.join("Cargo.toml").is_file());
        let root = settings.filter(|_| keep).and_then(|settings| settings.artifacts.root(crate_dir));
        let cache = settings.map(Settings::cache_dir).unwrap_or_default();
        let recorder = Recorder::begin(&spec, observer, root.as_deref(), &cache);
        Self::of(spec, recorder)
    }

    fn of(spec: ClusterSpec, recorder: Arc<Recorder>) -> Self {
        Self { spec, recorder, traces: Traces::of_this_thread() }
    }

    /// Makes the cluster, runs the body, removes everything. Blocks the calling thread.
    pub(super) fn run<F>(self, body: F) -> End
    where
        F: AsyncFnOnce(Cluster) -> Result<(), String> + Send + 'static,
    {
        let panics = Arc::new(Panics::default());
        let of_cluster = panics.clone();
        // Made here, because its threads are in the network of whoever makes it.
        let outside = match runtime("vmtest-outside", &self.traces, move || of_cluster.mark_thread()) {
            Ok(outside) => outside,
            Err(e) => return End::Failed(e.to_string()),
        };
        let recorder = self.recorder.clone();
        let end = self.run_beside(body, outside.handle().clone(), panics);
        outside.shutdown_background();
        recorder.end(end.verdict(), end.words());
        end
    }

    fn run_beside<F>(self, body: F, outside: Handle, panics: Arc<Panics>) -> End
    where
        F: AsyncFnOnce(Cluster) -> Result<(), String> + Send + 'static,
    {
        let (tell, inbox) = mpsc::channel();
        let (cancel, late, let_go) = (tell.clone(), tell.clone(), tell.clone());
        let (cancelling, cancelled) = watch::channel(false);
        let caller = Caller { cancelled, outside, panics: panics.clone() };
        let guard = signals::Guard::new(move |signal| {
            cancelling.send_replace(true);
            // The caller is the only receiver; when it has gone there is nothing left to cancel.
            drop(cancel.send(Message::Cancelled(signal)));
        });
        // libtest names its threads after the tests, and a panic's message begins with the thread's name.
        let name = thread::current().name().map_or_else(|| self.spec.name.clone(), str::to_owned);
        let spawned = thread::Builder::new().name(name).spawn(move || cluster_thread(self, body, caller, &tell));
        if let Err(e) = spawned {
            return End::Failed(format!("cannot start the cluster's thread: {e}"));
        }
        let (run, engine) = match inbox.recv() {
            Ok(Message::Started(run, engine)) => (run, engine),
            Ok(Message::Ended(end)) => return end,
            Ok(Message::Late | Message::Down | Message::LetGo) => unreachable!("nothing is late before it has started"),
            Ok(Message::Cancelled(_)) => {
                // Nothing is made any more by a thread that sees the flag; one that is past it says so in a moment.
                if let Ok(Message::Started(run, engine)) = inbox.recv_timeout(PREPARED_WITHIN) {
                    tear_down(run, &engine);
                }
                return wait_for_signal(guard);
            }
            Err(mpsc::RecvError) => return thread_died(),
        };
        let (clock, hold, limit) = (run.clock.clone(), run.hold.clone(), run.plan.timeout + BLOCKED_AFTER);
        engine.spawn(async move {
            let message = tokio::select! {
                () = clock.reached(limit) => Message::Late,
                () = control::down_and_blocked(&hold) => Message::Down,
            };
            // Whoever listens has gone when the test has ended in time.
            drop(late.send(message));
        });
        let end = wait_for_end(&inbox, &run);
        let panics = panics.stop();
        let end = evidence::take(&run, &engine, end.map(|end| end.beside(&panics)));
        let recorder = run.recorder.clone();
        let end = end.and_then(|end| after_body(end, &run, &inbox, let_go));
        let left = tear_down(run.clone(), &engine);
        engine.shutdown_background();
        match end {
            Ok(end) => evidence::over_budget(&run, end.and_left(left)),
            Err(verdict) => {
                // The process ends by the signal, so nobody else will print it.
                say(&verdict);
                left.iter().for_each(|left| say(format_args!("  left behind on this host: {left}")));
                recorder.end(Ending::Failed, Some(&verdict));
                wait_for_signal(guard)
            }
        }
    }
}

/// Waits for the end of the body or of its time. After a signal there is none; the error is the verdict then.
fn wait_for_end(inbox: &mpsc::Receiver<Message>, run: &Run) -> Result<End, String> {
    match inbox.recv() {
        Ok(Message::Ended(end)) => Ok(end),
        Ok(Message::Cancelled(signal)) => Err(ended_by(run, signal)),
        Ok(Message::Late) => Ok(End::Failed(format!("{}\n  {BLOCKS}", timed_out(run)))),
        Ok(Message::Down) => Ok(End::Failed(format!("{}\n  {BLOCKS}", ended_by(run, control::DOWN)))),
        Ok(Message::Started(..) | Message::LetGo) | Err(mpsc::RecvError) => Ok(thread_died()),
    }
}

fn thread_died() -> End {
    End::Failed("the cluster's thread died".to_owned())
}

fn tear_down(run: Arc<Run>, engine: &Runtime) -> Vec<String> {
    let (tell, done) = mpsc::channel();
    let dir = run.dir.path().to_owned();
    // On the engine, whose threads are in the cluster's network and are never blocked by a body.
    engine.spawn(async move { drop(tell.send(teardown(&run).await)) });
    let why = match done.recv_timeout(TEARDOWN_WITHIN) {
        Ok(left) => return left,
        Err(mpsc::RecvTimeoutError::Timeout) => format!("has not ended within {} s", TEARDOWN_WITHIN.as_secs()),
        Err(mpsc::RecvTimeoutError::Disconnected) => "panicked".to_owned(),
    };
    vec![format!("teardown {why}; see {}", dir.display())]
}

/// Lets the signal handler go on, and waits for the process to end.
fn wait_for_signal(guard: signals::Guard) -> End {
    drop(guard);
    thread::sleep(SIGNAL_ENDS_PROCESS_WITHIN);
    End::Failed("cancelled by a signal".to_owned())
}

fn cluster_thread<F>(session: Session, body: F, caller: Caller, tell: &mpsc::Sender<Message>)
where
    F: AsyncFnOnce(Cluster) -> Result<(), String>,
{
    let panics = caller.panics.clone();
    let of_body = session.traces.clone().or_into(&session.recorder);
    let _followed = of_body.follow();
    let (run, bodies) = match prepare(session, &of_body, caller) {
        Ok((run, engine, bodies)) => {
            if tell.send(Message::Started(run.clone(), engine)).is_err() {
                return;
            }
            control::serve(&run);
            (run, bodies)
        }
        Err(unprepared) => return drop(tell.send(Message::Ended(unprepared.into()))),
    };
    let end = bodies.block_on(async {
        tokio::select! {
            biased;
            error = run.recorder.at_failure(run.panicked()) => End::Failed(error.to_string()),
            () = run.hold.ended() => End::Failed(ended_by(&run, control::DOWN)),
            // At once, not at the end of the body: one that waits for what the task should have done would wait for its
            // deadline. The panic is added to every end; by itself this one is none.
            () = run.recorder.at_failure(panics.elsewhere()) => End::Passed,
            end = live(&run, body) => end,
        }
    });
    // Before anything is taken away from tasks that may still run: that they panic then says nothing.
    panics.stop();
    // Tasks that the body spawned are dropped; those that block are left to the end of the process.
    bodies.shutdown_background();
    drop(tell.send(Message::Ended(end)));
}

async fn live<F>(run: &Arc<Run>, body: F) -> End
where
    F: AsyncFnOnce(Cluster) -> Result<(), String>,
{
    if let Err(e) = provisioned(run).await {
        return End::Failed(e.to_string());
    }
    let body = AssertUnwindSafe(body(Cluster::new(run.clone()))).catch_unwind();
    let ended = tokio::select! {
        biased;
        ended = body => ended,
        // Provisioning has a limit of its own, no later than this one, and says which machine was not ready.
        () = run.recorder.at_failure(run.clock.reached(run.plan.timeout)) => return End::Failed(timed_out(run)),
    };
    match ended {
        Ok(Ok(())) => End::Passed,
        Ok(Err(message)) => End::Failed(message),
        Err(payload) => match payload.downcast::<Failure>() {
            Ok(failure) => End::Failed(format!("{failure:?}")),
            Err(payload) => End::Panicked(payload),
        },
    }
}

/// Provisions as a task, which a teardown stops.
async fn provisioned(run: &Arc<Run>) -> Result<(), Error> {
    let (tell, done) = oneshot::channel();
    let made = run.clone();
    // Whoever waits has gone when the test is over before its body began.
    run.spawn(async move { drop(tell.send(provision(&made).await)) });
    done.await.unwrap_or_else(|_| Err(run.tasks.unanswered()))
}

type Prepared = (Arc<Run>, Runtime, Runtime);

/// Plans, enters a network namespace and makes everything that a run consists of before its first effect.
fn prepare(session: Session, of_body: &Traces, caller: Caller) -> Result<Prepared, Unprepared> {
    let Session { spec, recorder, traces } = session;
    let settings = Settings::get()?;
    let places = places(settings)?;
    reconcile_once(&places)?;
    let ledger = Ledger::open(&places.runs)?;
    let budget = HostBudget::measure(&ledger, settings.budget, settings.cache_dir())?;
    let id = LockedDir::new_id()?;
    let (host, claimed) = claim_host(&spec, &id, &caller.outside);
    let Gathered { facts, hypervisor, backend, may_skip, held } =
        gather(&spec, settings, budget.facts(), &host, &recorder);
    let plan = plan::plan(&spec, &facts).map_err(|error| Unprepared::without_plan(error, may_skip))?;
    let hypervisor = hypervisor.expect("a plan has a backend");
    recorder.planned(&plan, &backend);
    // Before the share, which others could use meanwhile.
    let volumes = take_volumes(&spec, settings, &*hypervisor, &recorder)?;

    let request = Request { run: id.clone(), test: plan.name.clone(), wants: plan.claim, spare: plan.spare };
    let mut cancelled = caller.cancelled;
    let take = lease(&ledger, &budget, request, &recorder, &mut cancelled);
    let claim = caller.outside.block_on(take).map_err(|e| e.in_phase(Phase::Lease))?;

    // Looking for what the plan needs and waiting for the share may have taken minutes; from here on it is milliseconds.
    if *cancelled.borrow() {
        return Err(Error::new(Kind::Cancelled, "cancelled by a signal").into());
    }
    let through_pasta = plan.egress.as_ref().is_some_and(|egress| egress.way == WayOut::Pasta);
    // A keeper's children are in the network of its thread.
    let outer_keeper = through_pasta.then(Keeper::start).transpose()?;
    let scale = plan.timeout_scale;
    scale_timeouts(scale);
    recorder.mark_thread();
    let host_side = (!claimed.is_empty()).then(|| HostSide::here(claimed)).transpose()?;
    let (bodies, namespace, way_back) = match spec.place {
        NetworkPlace::Own => {
            let namespace = enter_new_namespace()?;
            let of_run = recorder.clone();
            let begin = move || {
                scale_timeouts(scale);
                of_run.mark_thread();
            };
            (runtime("vmtest-body", of_body, begin)?, namespace, None)
        }
        // Its network says of a thread only that it is somebody's there.
        NetworkPlace::Host => {
            caller.panics.mark_thread();
            let (panics, of_run) = (caller.panics.clone(), recorder.clone());
            let begin = move || {
                scale_timeouts(scale);
                of_run.mark_thread();
                panics.mark_thread();
            };
            let way_back = hold_namespace()?;
            (runtime("vmtest-body", of_body, begin)?, enter_new_namespace()?, Some(way_back))
        }
    };
    if !spec.allow.contains(&Allow::TaskPanic) {
        caller.panics.watch(namespace);
    }
    let engine = runtime("vmtest-engine", &traces, || {})?;
    let keys = Arc::new(Keys::generate()?);
    let keeper = Keeper::start()?;
    let dir = LockedDir::create(&places.runs, &id, Place::Run)?;
    // A directory without a journal is nobody's; what keeps it from being removed is why there is no journal.
    let journal = Journal::create(dir.path(), &plan.name, places.crash).inspect_err(|_| drop(dir.remove()))?;
    let scratch = ScratchDir::new(places.scratch, dir.id());
    let started = Instant::now();
    let run = Run {
        members: watch::Sender::default(),
        keys,
        planner: planner(spec, plan.networks.clone(), settings, budget.facts(), recorder.clone(), held),
        claim,
        volumes,
        tasks: Arc::new(Tasks::new(engine.handle().clone())),
        joining: tokio::sync::Mutex::default(),
        dir,
        journal,
        keeper,
        outer_keeper,
        engine: engine.handle().clone(),
        outside: caller.outside,
        hypervisor,
        links: OnceCell::new(),
        links_before: OnceCell::new(),
        packets: settings.packets,
        capture: OnceCell::new(),
        host: host_side,
        scratch,
        started,
        clock: Arc::new(Clock::start()),
        recorder,
        hold: Arc::new(Hold::new(settings.hold, settings.run.as_deref())),
        plan,
    };
    let nodes = run.plan.nodes.iter().zip(&run.plan.base_initramfs);
    run.join(nodes.map(|(node, base)| run.new_member(node.clone(), base.into())).collect());
    run.emit(&Event::Planned {
        run: run.dir.id().to_owned(),
        nodes: run.plan.nodes.iter().map(|node| node.name.clone()).collect(),
        backend,
    });
    if let Some(network) = way_back {
        // Made before a thread was ever elsewhere, so nothing but this run is lost.
        let failed = |e| Error::new(Kind::Host, "cannot go back to the network of the test's caller").caused_by(e);
        enter_namespace(&network).map_err(failed).inspect_err(|_| drop(run.dir.remove()))?;
    }
    Ok((Arc::new(run), engine, bodies))
}

/// Takes the cluster's share of the host, and shows that it waits for it.
async fn lease(
    ledger: &Ledger,
    budget: &HostBudget,
    request: Request,
    recorder: &Recorder,
    cancelled: &mut watch::Receiver<bool>,
) -> Result<Claim, Error> {
    let emit = |event: &Event| recorder.emit(event);
    let test = request.test.clone();
    let wait = ShownWait::of(&test, &emit);
    // Its sender is held for as long as a signal can cancel.
    let give_up = cancelled.wait_for(|cancelled| *cancelled).map(drop);
    wait.during(Claim::take(ledger, budget, request, |waiting| wait.step(waiting), give_up)).await
}

/// A runtime whose threads are in the network namespace of the calling one, begin with this, and trace to there.
fn runtime(name: &str, traces: &Traces, begin: impl Fn() + Send + Sync + 'static) -> Result<Runtime, Error> {
    let traces = traces.clone();
    let begin = move || {
        traces.follow_on_this_thread();
        begin();
    };
    let mut builder = runtime::Builder::new_multi_thread();
    builder.worker_threads(2).thread_name(name).on_thread_start(begin).on_thread_stop(stop_following).enable_all();
    builder.build().map_err(|e| Error::new(Kind::Host, "cannot start a runtime").caused_by(e))
}

fn timed_out(run: &Run) -> String {
    let seconds = run.plan.timeout.as_secs_f64();
    format!("the test has not ended within its timeout of {seconds:.1} s{}", waiting(run))
}

pub(super) fn ended_by(run: &Run, signal: &str) -> String {
    let seconds = run.elapsed().as_secs_f64();
    format!("vmtest: `{}` was ended by {signal} after {seconds:.1} s{}", run.plan.name, waiting(run))
}

/// A line for each machine that does not answer yet.
fn waiting(run: &Run) -> String {
    let waiting =
        |member: &Arc<Member>| Some(format!("\n  node `{}` waits for `{}`", member.plan.name, member.waits_for()?));
    run.members().iter().filter_map(waiting).collect()
}
