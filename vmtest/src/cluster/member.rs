//! One machine of a run, as the framework sees it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};

use super::{
    power::{Action, State},
    tasks::Tasks,
};
use crate::{
    error::{Error, Kind},
    evidence::{Event, Recorder, Rung, Sign},
    guest::ssh::Ssh,
    host::{Anomaly, Console, Ended, Process, ProcessId},
    hypervisor::{self, Answering, Machine},
    plan::{DiskPlan, HOTPLUG_PLACES, NodePlan},
};

/// An init gives its processes two seconds between its signals and the end of the machine; a connection that breaks is
/// explained by that end if it comes within this.
const GOES_DOWN_WITHIN: Duration = Duration::from_secs(3);
/// How many of the last console lines an error shows.
const SHOWN_LINES: usize = 40;
/// How many lines an error shows of a panic: a call trace with its registers has about 45.
const SHOWN_PANIC_LINES: usize = 80;
/// After a panic the VMM ends within 0.15 s; where the kernel was told not to reboot, waiting longer brings nothing.
pub(super) const PANIC_LINES_WITHIN: Duration = Duration::from_millis(500);
/// What is known of a panic of which the console shows nothing.
const SILENT_PANIC: &str = "its pvpanic device told so, and the console shows nothing of it";

/// A machine's state that outlives every handle to it, and every boot of it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) plan: NodePlan,
    /// The initramfs of its image, to which its own facts are appended.
    pub(crate) base_initramfs: PathBuf,
    /// The node's folder, the VMM's working directory.
    pub(crate) dir: PathBuf,
    pub(crate) console: Console,
    pub(crate) ssh: Ssh,
    /// Held by whoever changes the machine's power; what is done to it is done one after the other.
    pub(crate) power: tokio::sync::Mutex<()>,
    /// Those of its run.
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) recorder: Arc<Recorder>,
    started: Instant,
    life: watch::Sender<Life>,
    /// What the end of the VMM shall mean, when it is asked for by us.
    intent: Mutex<Option<Action>>,
    /// By what a shutdown is being tried.
    means: Mutex<&'static str>,
    vmm: Mutex<Vmm>,
    rungs: Mutex<Vec<(Rung, Duration)>>,
    /// Why its own probe has not succeeded yet.
    refused: Mutex<Option<String>>,
    /// What has been plugged into its VMM, by place.
    attached: Mutex<[Option<DiskPlan>; HOTPLUG_PLACES]>,
}

/// The VMM of the current boot.
#[derive(Debug, Default)]
struct Vmm {
    process: Option<(Arc<Process>, ProcessId)>,
    /// Its API, held open from the moment it answers.
    machine: Option<Arc<dyn Machine>>,
}

/// One boot of a machine.
#[derive(Debug, Clone)]
struct Life {
    number: u32,
    state: State,
    fate: Option<Fate>,
}

/// How a machine ended.
#[derive(Debug, Clone)]
pub(crate) struct Fate {
    pub(crate) how: String,
    /// How its VMM ended, where that was seen.
    pub(crate) ended: Option<Ended>,
    pub(crate) anomaly: Option<Anomaly>,
    pub(crate) at: Duration,
}

impl Member {
    pub(crate) fn new(
        plan: NodePlan,
        base_initramfs: PathBuf,
        dir: PathBuf,
        ssh: Ssh,
        started: Instant,
        tasks: Arc<Tasks>,
        recorder: Arc<Recorder>,
    ) -> Self {
        let console = Console::new(recorder.console_of(&plan.name));
        Self {
            plan,
            base_initramfs,
            dir,
            console,
            ssh,
            power: tokio::sync::Mutex::default(),
            tasks,
            recorder,
            started,
            life: watch::Sender::new(Life { number: 0, state: State::Booting, fate: None }),
            intent: Mutex::default(),
            means: Mutex::default(),
            vmm: Mutex::default(),
            rungs: Mutex::default(),
            refused: Mutex::default(),
            attached: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> State {
        if self.tasks.are_over() { State::Off } else { self.life.borrow().state }
    }

    /// This error, or that the cluster is gone, where that explains it.
    pub(crate) fn or_torn_down(&self, error: Error) -> Error {
        if self.tasks.are_over() { Error::torn_down().on_node(&self.plan.name) } else { error }
    }

    pub(crate) fn set_state(&self, state: State) {
        self.life.send_modify(|life| life.state = state);
        self.tell(state, None);
    }

    /// A VMM is about to be started for it.
    pub(crate) fn begin_life(&self) {
        lock(&self.rungs).clear();
        *lock(&self.attached) = Default::default();
        *lock(&self.vmm) = Vmm::default();
        *lock(&self.intent) = None;
        self.console.begin();
        self.ssh.close();
        self.life.send_modify(|life| *life = Life { number: life.number + 1, state: State::Booting, fate: None });
        self.tell(State::Booting, None);
    }

    fn tell(&self, state: State, why: Option<String>) {
        self.recorder.emit(&Event::State { node: self.plan.name.clone(), state: state.to_string(), why });
    }

    /// Its VMM has ended and will not be started again by itself. What is known of its end first, stays.
    pub(crate) fn end(&self, fate: Fate) {
        self.ssh.close();
        let how = fate.how.clone();
        // A panic is a sign of its own.
        let unasked = self.intent().is_none() && fate.anomaly.is_none();
        let silent = fate.anomaly == Some(Anomaly::SilentPanic);
        let ended = self.life.send_if_modified(|life| {
            let on = life.state != State::Off;
            if on {
                (life.state, life.fate) = (State::Off, Some(fate));
            }
            on
        });
        if ended {
            if unasked {
                self.recorder.find(&self.plan.name, Sign::Ended, &format!("the machine {how}"));
            }
            if silent {
                self.recorder.find(&self.plan.name, Sign::Panic, SILENT_PANIC);
            }
            self.tell(State::Off, Some(how));
        }
    }

    /// A boot that failed for another reason than the machine's own end.
    pub(crate) fn fail(&self, why: &Error) {
        let fate =
            Fate { how: format!("could not be booted: {why}"), ended: None, anomaly: None, at: self.started.elapsed() };
        self.end(fate);
    }

    pub(crate) fn intend(&self, action: Option<Action>) {
        *lock(&self.intent) = action;
    }

    /// A shutdown is tried by this now.
    pub(crate) fn ends_by(&self, means: &'static str) {
        *lock(&self.means) = means;
    }

    pub(crate) fn means(&self) -> &'static str {
        *lock(&self.means)
    }

    /// What has been plugged into its VMM, by place.
    pub(crate) fn attached(&self) -> MutexGuard<'_, [Option<DiskPlan>; HOTPLUG_PLACES]> {
        lock(&self.attached)
    }

    pub(crate) fn intent(&self) -> Option<Action> {
        *lock(&self.intent)
    }

    pub(crate) fn set_process(&self, process: Arc<Process>, id: ProcessId) {
        lock(&self.vmm).process = Some((process, id));
    }

    pub(crate) fn process(&self) -> Option<Arc<Process>> {
        lock(&self.vmm).process.as_ref().map(|(process, _)| process.clone())
    }

    pub(crate) fn process_id(&self) -> Option<ProcessId> {
        lock(&self.vmm).process.as_ref().map(|(_, id)| id.clone())
    }

    pub(crate) fn set_machine(&self, machine: Arc<dyn Machine>) {
        lock(&self.vmm).machine = Some(Arc::new(Answering::new(machine)));
    }

    pub(crate) fn machine(&self) -> Option<Arc<dyn Machine>> {
        lock(&self.vmm).machine.clone()
    }

    /// Follows console and process to the end of the VMM.
    pub(crate) async fn attend(&self, process: &Process, console: &Path) -> Fate {
        let ended = async {
            match process.ended().await {
                Ok(ended) => (format!("ended with {ended}"), Some(ended)),
                Err(e) => (format!("cannot be watched any more: {e}"), None),
            }
        };
        tokio::pin!(ended);
        let follow = async {
            if let Err(e) = self.console.follow(console).await {
                tracing::warn!("cannot follow {}: {e}", console.display());
            }
            std::future::pending::<()>().await;
        };
        let (how, ended) = tokio::select! {
            how = &mut ended => how,
            () = follow => unreachable!("following never ends by itself"),
            _ = self.console.anomaly() => {
                let after = timeout(PANIC_LINES_WITHIN, &mut ended).await;
                after.unwrap_or_else(|_| ("still runs".to_owned(), None))
            }
        };
        self.console.catch_up(console);
        Fate { how, ended, anomaly: self.console.seen_anomaly(), at: self.started.elapsed() }
    }

    pub(crate) fn reached(&self, rung: Rung, after: Duration) {
        lock(&self.rungs).push((rung, after));
    }

    /// The first rung that has not been reached, `None` for a machine that is ready.
    pub(crate) fn waits_for(&self) -> Option<Rung> {
        let probe = self.plan.ready.as_ref().map(|_| Rung::Probe);
        Rung::ALL.into_iter().chain(probe).nth(lock(&self.rungs).len())
    }

    /// The rungs reached so far with the time each took.
    pub(crate) fn climbed(&self) -> String {
        let rungs = lock(&self.rungs);
        let mut before = Duration::ZERO;
        let took = rungs.iter().map(|(rung, at)| {
            let took = at.saturating_sub(before);
            before = *at;
            format!("{rung} {:.2} s", took.as_secs_f64())
        });
        let took: Vec<_> = took.collect();
        if took.is_empty() { "nothing yet".to_owned() } else { took.join(", ") }
    }

    /// What it waits for and what it has reached, for an error; `None` for a machine that is ready.
    pub(crate) fn not_ready(&self) -> Option<String> {
        let (rung, name, climbed) = (self.waits_for()?, &self.plan.name, self.climbed());
        let of = match rung {
            Rung::KernelSpeaks => format!(" of {}", self.plan.firmware.as_ref().unwrap_or(&self.plan.kernel)),
            Rung::Probe => self.refused().map_or_else(String::new, |last| format!(", which says: {last},")),
            _ => String::new(),
        };
        Some(format!("node `{name}` waits for `{rung}`{of} after: {climbed}{}", self.console_tail()))
    }

    /// The last answer of the machine's own probe, until it succeeds.
    pub(crate) fn set_refused(&self, answer: Option<String>) {
        *lock(&self.refused) = answer;
    }

    fn refused(&self) -> Option<String> {
        lock(&self.refused).clone()
    }

    /// The last console lines, indented for an error.
    pub(crate) fn console_tail(&self) -> String {
        shown(&self.console.tail(SHOWN_LINES))
    }

    /// Does something that only a machine that answers can do: waits until it is booted, and ends at once, with the
    /// reason, when it dies or the run is over. May be awaited on any executor.
    ///
    /// # Errors
    /// What the work said, or how the machine ended, with the node's name.
    pub(crate) async fn while_alive<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let alive = async {
            let booted = self.wait_for(|life| life.state != State::Booting).await;
            tokio::select! {
                biased;
                error = self.lost(booted.number) => Err(error),
                result = work => self.explained(result, booted.number).await,
            }
        };
        self.tasks.unless_over(alive).await.map_err(|e| e.on_node(&self.plan.name))
    }

    /// The result, or the end of the machine where that is why a connection failed: a guest that goes down closes its
    /// connections first.
    async fn explained<T>(&self, result: Result<T, Error>, boot: u32) -> Result<T, Error> {
        match result {
            Err(e) if e.kind() == Kind::Connection => {
                Err(timeout(GOES_DOWN_WITHIN, self.lost(boot)).await.unwrap_or(e))
            }
            result => result,
        }
    }

    /// Does something while the VMM of the current boot runs.
    ///
    /// # Errors
    /// What the work said, or how the machine ended, with the node's name.
    pub(crate) async fn during_boot<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let number = self.life.borrow().number;
        let result = tokio::select! {
            biased;
            error = self.lost(number) => Err(error),
            result = work => self.explained(result, number).await,
        };
        result.map_err(|e| e.on_node(&self.plan.name))
    }

    /// Whether a script has ended there within this time, however it did.
    pub(crate) async fn has_run(&self, script: Vec<u8>, within: Duration) -> bool {
        let ran = async { self.ssh.exec(script).await?.ended().await };
        matches!(timeout(within, self.while_alive(ran)).await, Ok(Ok(_)))
    }

    /// Resolves when the machine is off. Cancel-safe.
    pub(crate) async fn died(&self) -> Error {
        let life = self.wait_for(|life| matches!(life.state, State::Off | State::Removed)).await;
        self.describe(&life)
    }

    /// Resolves when its kernel has panicked. Cancel-safe.
    pub(crate) async fn panicked(&self) -> Error {
        let panicked = |fate: &Fate| matches!(fate.anomaly, Some(Anomaly::Panic(_) | Anomaly::SilentPanic));
        let life = self.wait_for(|life| life.fate.as_ref().is_some_and(panicked)).await;
        self.describe(&life)
    }

    /// Resolves when the boot of this number is over. Cancel-safe.
    pub(crate) async fn lost(&self, number: u32) -> Error {
        let over = |life: &Life| life.number != number || matches!(life.state, State::Off | State::Removed);
        let life = self.wait_for(over).await;
        self.describe(&life)
    }

    /// The number of the current boot, from 1.
    pub(crate) fn boot(&self) -> u32 {
        self.life.borrow().number
    }

    /// Resolves when it runs in a later boot than this.
    ///
    /// # Errors
    /// How it ended instead.
    pub(crate) async fn running_after(&self, number: u32) -> Result<(), Error> {
        let over = |life: &Life| (life.number > number && life.state != State::Booting) || life.state == State::Off;
        let life = self.wait_for(over).await;
        if life.state == State::Running { Ok(()) } else { Err(self.describe(&life)) }
    }

    async fn wait_for(&self, of: impl Fn(&Life) -> bool) -> Life {
        let mut lives = self.life.subscribe();
        // The sender is a field of `self`, so the wait cannot fail.
        let life = lives.wait_for(of).await.ok().map(|life| life.clone());
        match life {
            Some(life) => life,
            None => std::future::pending().await,
        }
    }

    fn describe(&self, life: &Life) -> Error {
        let name = &self.plan.name;
        if life.state == State::Removed {
            return Error::new(Kind::MachineDied, "the machine was removed from the cluster").on_node(name);
        }
        let Some(fate) = &life.fate else {
            // No machine has died, so that `eventually` tries again.
            return Error::new(Kind::Connection, "the machine was rebooted meanwhile").on_node(name);
        };
        let at = fate.at.as_secs_f64();
        let (kind, what) = match &fate.anomaly {
            Some(Anomaly::Panic(line)) => {
                (Kind::GuestPanic, format!("the guest's kernel panicked {at:.1} s after the start: {line}"))
            }
            Some(Anomaly::SilentPanic) => {
                (Kind::GuestPanic, format!("the guest's kernel panicked {at:.1} s after the start: {SILENT_PANIC}"))
            }
            Some(Anomaly::GuestFailed(why)) => {
                (Kind::MachineDied, format!("the guest could not start, {at:.1} s after the start: {why}"))
            }
            None => (Kind::MachineDied, format!("the machine {} {at:.1} s after the start", fate.how)),
        };
        let log = std::fs::read_to_string(self.dir.join(hypervisor::VMM_LOG)).unwrap_or_default();
        let log = if log.is_empty() {
            log
        } else {
            format!("\n  the VMM said:\n    {}", log.trim_end().replace('\n', "\n    "))
        };
        let console = match &fate.anomaly {
            Some(Anomaly::Panic(_)) => shown(&self.console.panic(SHOWN_PANIC_LINES)),
            _ => self.console_tail(),
        };
        Error::new(kind, what + &log + &console).on_node(&self.plan.name).after(fate.at)
    }
}

fn shown(lines: &[String]) -> String {
    if lines.is_empty() {
        return "\n  the console is empty".to_owned();
    }
    format!("\n  last console lines:\n    {}", lines.join("\n    "))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
