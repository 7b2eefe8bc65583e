//! One machine of a run, as the framework sees it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    error::{Error, Kind},
    evidence::Rung,
    guest::ssh::Ssh,
    host::{Anomaly, Console, Process},
    hypervisor::Machine,
    plan::NodePlan,
};

/// How many of the last console lines an error shows.
const SHOWN_LINES: usize = 40;
/// How many lines an error shows of a panic: a call trace with its registers has about 45.
const SHOWN_PANIC_LINES: usize = 80;
/// After a panic the VMM ends within 0.15 s; where the kernel was told not to reboot, waiting longer brings nothing.
const PANIC_LINES_WITHIN: Duration = Duration::from_millis(500);

/// A machine's state that outlives every handle to it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) plan: NodePlan,
    /// The node's folder, the VMM's working directory.
    pub(crate) dir: PathBuf,
    pub(crate) console: Console,
    pub(crate) ssh: Ssh,
    /// The VMM's API, held open from the moment it answers.
    pub(crate) machine: OnceLock<Box<dyn Machine>>,
    started: Instant,
    rungs: Mutex<Vec<(Rung, Duration)>>,
    fate: watch::Sender<Option<Fate>>,
}

/// How a machine ended.
#[derive(Debug, Clone)]
struct Fate {
    how: String,
    anomaly: Option<Anomaly>,
    at: Duration,
}

impl Member {
    pub(crate) fn new(plan: NodePlan, dir: PathBuf, ssh: Ssh, started: Instant) -> Self {
        Self {
            plan,
            dir,
            console: Console::new(),
            ssh,
            machine: OnceLock::new(),
            started,
            rungs: Mutex::default(),
            fate: watch::Sender::new(None),
        }
    }

    /// Follows console and process to the machine's end, and tells everybody who waits for it.
    pub(crate) async fn attend(self: Arc<Self>, process: Process, console: PathBuf) {
        let ended = async {
            match process.ended().await {
                Ok(ended) => format!("ended with {ended}"),
                Err(e) => format!("cannot be watched any more: {e}"),
            }
        };
        tokio::pin!(ended);
        let follow = async {
            if let Err(e) = self.console.follow(&console).await {
                tracing::warn!("cannot follow {}: {e}", console.display());
            }
            std::future::pending::<()>().await;
        };
        let how = tokio::select! {
            how = &mut ended => how,
            () = follow => unreachable!("following never ends by itself"),
            _ = self.console.anomaly() => {
                let after = tokio::time::timeout(PANIC_LINES_WITHIN, &mut ended).await;
                after.unwrap_or_else(|_| "still runs".to_owned())
            }
        };
        self.console.read_rest(&console);
        let fate = Fate { how, anomaly: self.console.seen_anomaly(), at: self.started.elapsed() };
        self.fate.send_replace(Some(fate));
    }

    pub(crate) fn reached(&self, rung: Rung, after: Duration) {
        self.rungs.lock().unwrap_or_else(PoisonError::into_inner).push((rung, after));
    }

    /// The first rung that has not been reached, `None` for a machine that is ready.
    pub(crate) fn waits_for(&self) -> Option<Rung> {
        let reached = self.rungs.lock().unwrap_or_else(PoisonError::into_inner).len();
        Rung::ALL.get(reached).copied()
    }

    /// The rungs reached so far with the time each took.
    pub(crate) fn climbed(&self) -> String {
        let rungs = self.rungs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = Duration::ZERO;
        let took = rungs.iter().map(|(rung, at)| {
            let took = at.saturating_sub(before);
            before = *at;
            format!("{rung} {:.2} s", took.as_secs_f64())
        });
        let took: Vec<_> = took.collect();
        if took.is_empty() { "nothing yet".to_owned() } else { took.join(", ") }
    }

    /// The last console lines, indented for an error.
    pub(crate) fn console_tail(&self) -> String {
        shown(&self.console.tail(SHOWN_LINES))
    }

    /// Does something that only a living machine can do; its end ends the wait at once, with the reason.
    ///
    /// # Errors
    /// What the work said, or how the machine ended, with the node's name.
    pub(crate) async fn while_alive<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            error = self.died() => Err(error),
            result = work => result.map_err(|e| e.on_node(&self.plan.name)),
        }
    }

    /// Resolves when the machine has ended or can no longer answer. Cancel-safe.
    pub(crate) async fn died(&self) -> Error {
        self.fate_error(|_| true).await
    }

    /// Resolves when the machine's kernel has panicked. Cancel-safe.
    pub(crate) async fn panicked(&self) -> Error {
        self.fate_error(|fate| matches!(fate.anomaly, Some(Anomaly::Panic(_)))).await
    }

    async fn fate_error(&self, of: impl Fn(&Fate) -> bool) -> Error {
        let mut fates = self.fate.subscribe();
        // The sender is a field of `self`, so the wait cannot fail.
        let fate = fates.wait_for(|fate| fate.as_ref().is_some_and(&of)).await.ok().and_then(|fate| fate.clone());
        match fate {
            Some(fate) => self.describe(&fate),
            None => std::future::pending().await,
        }
    }

    fn describe(&self, fate: &Fate) -> Error {
        let at = fate.at.as_secs_f64();
        let (kind, what) = match &fate.anomaly {
            Some(Anomaly::Panic(line)) => {
                (Kind::GuestPanic, format!("the guest's kernel panicked {at:.1} s after the start: {line}"))
            }
            Some(Anomaly::GuestFailed(why)) => {
                (Kind::MachineDied, format!("the guest could not start, {at:.1} s after the start: {why}"))
            }
            None => (Kind::MachineDied, format!("the machine {} {at:.1} s after the start", fate.how)),
        };
        let log = std::fs::read_to_string(self.dir.join("vmm.log")).unwrap_or_default();
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
