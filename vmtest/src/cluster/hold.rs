//! Keeping a cluster, so that a person can look into it.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use tokio::sync::watch;

use super::run::Run;
use crate::{evidence::say, host::entered};

/// What the settings say about keeping clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldPolicy {
    /// None, not even where a body asks for it.
    Never,
    /// Those of tests that failed.
    Failed,
    /// Those of all tests.
    Always,
}

/// At which point of a test its cluster is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its body waits for it.
    InBody,
    /// There is no body any more, or none is wanted.
    WithoutBody,
}

/// A cluster that is kept.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) why: String,
    pub(crate) since: SystemTime,
    stage: Stage,
}

/// Whether a run is kept, and who lets it go. Shared by everybody who may ask.
#[derive(Debug)]
pub(crate) struct Hold {
    policy: Option<HoldPolicy>,
    /// How `cargo vmtest` finds the run, for the lines that say how it is called.
    command: String,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Default)]
struct State {
    asked: bool,
    held: Option<Held>,
    /// Somebody has ended the run.
    over: bool,
}

impl Hold {
    /// For a run in this place, if the settings name it.
    pub(crate) fn new(policy: Option<HoldPolicy>, place: Option<&Path>) -> Self {
        let place = place.map(|place| format!("VMTEST_RUN={} ", place.display())).unwrap_or_default();
        Self { policy, command: format!("{place}cargo vmtest"), state: watch::Sender::default() }
    }

    /// The run shall be kept when its body has ended, however it does.
    pub(crate) fn ask(&self) {
        self.state.send_modify(|state| state.asked = true);
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.state.borrow().asked
    }

    /// Whether the run is kept when its body has ended in this way.
    pub(crate) fn is_wanted(&self, failed: bool) -> bool {
        let wanted = match self.policy {
            None | Some(HoldPolicy::Never) => false,
            Some(HoldPolicy::Failed) => failed,
            Some(HoldPolicy::Always) => true,
        };
        wanted || self.is_asked()
    }

    pub(crate) fn is_forbidden(&self) -> bool {
        self.policy == Some(HoldPolicy::Never)
    }

    pub(crate) fn held(&self) -> Option<Held> {
        self.state.borrow().held.clone()
    }

    /// Lets a run that is kept go on; `false` where none is.
    pub(crate) fn release(&self) -> bool {
        self.state.send_if_modified(|state| state.held.take().is_some())
    }

    /// Ends the run: one that is kept without a body goes on to its end, every other one fails.
    pub(crate) fn end(&self) {
        self.state.send_modify(|state| {
            let without_body = state.held.take().is_some_and(|held| held.stage == Stage::WithoutBody);
            state.asked = false;
            state.over |= !without_body;
        });
    }

    /// Resolves when somebody has ended the run. Cancel-safe.
    pub(crate) async fn ended(&self) {
        self.until(|state| state.over).await;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.borrow().over
    }

    /// The run is kept from now on, until it is let go or the result is dropped.
    fn begin(&self, stage: Stage, why: &str) -> Keeping<'_> {
        let held = Held { why: why.to_owned(), since: SystemTime::now(), stage };
        // Where two tasks of a body ask for it, one letting go is enough for both.
        self.state.send_modify(|state| _ = state.held.get_or_insert(held));
        Keeping(self)
    }

    async fn until(&self, of: impl Fn(&State) -> bool) {
        // The sender is a field of `self`, so the wait cannot fail.
        drop(self.state.subscribe().wait_for(of).await);
    }
}

struct Keeping<'a>(&'a Hold);

impl Drop for Keeping<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Says how to get in and keeps the run until somebody lets it go: over its control socket, or with Enter on the terminal.
/// Its clock stands still meanwhile. Must be awaited on a tokio runtime; cancel-safe.
pub(crate) async fn hold(run: &Arc<Run>, stage: Stage, why: &str) {
    let _stopped = run.clock.stop();
    let keeping = run.hold.begin(stage, why);
    let entered = entered();
    say(Announcement { run, why, terminal: entered.is_some() });
    let key = async {
        match entered {
            Some(entered) => entered.await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = run.hold.until(|state| state.held.is_none()) => {}
        () = key => {}
    }
    drop(keeping);
    if !run.tasks.are_over() {
        say(format_args!("vmtest: run {} goes on", run.dir.id()));
    }
}

/// How to get into a cluster that is kept, and how to end it.
struct Announcement<'a> {
    run: &'a Run,
    why: &'a str,
    terminal: bool,
}

impl fmt::Display for Announcement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (command, id) = (&self.run.hold.command, self.run.dir.id());
        let members = self.run.members();
        let width = members.iter().map(|member| member.plan.name.len()).max().unwrap_or_default();
        writeln!(f, "vmtest: `{}` {}: its cluster is held as run {id}", self.run.plan.name, self.why)?;
        for member in &members {
            let (name, ip, state) = (&member.plan.name, member.plan.first_interface().ip, member.state());
            writeln!(f, "  {name:width$}  {ip:<11}  {state:<7}  {command} ssh {id}/{name}")?;
        }
        let key = if self.terminal { "Enter, " } else { "" };
        write!(f, "  {key}`{command} resume {id}` lets it go on, `{command} down {id}` or Ctrl-C ends it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_decide_which_runs_are_kept() {
        let kept = |policy| [false, true].map(|failed| Hold::new(policy, None).is_wanted(failed));
        assert_eq!(kept(None), [false, false]);
        assert_eq!(kept(Some(HoldPolicy::Never)), [false, false]);
        assert_eq!(kept(Some(HoldPolicy::Failed)), [false, true]);
        assert_eq!(kept(Some(HoldPolicy::Always)), [true, true]);
        let asked = Hold::new(None, None);
        asked.ask();
        assert!(asked.is_wanted(false));
    }

    #[test]
    fn ending_a_run_that_is_kept_without_a_body_fails_nothing() {
        let hold = Hold::new(None, None);
        let keeping = hold.begin(Stage::WithoutBody, "has passed");
        hold.end();
        assert!(hold.held().is_none() && !hold.has_ended());
        drop(keeping);
        let _keeping = hold.begin(Stage::InBody, "waits");
        assert!(hold.release() && !hold.release(), "only one that is kept can be let go");
        hold.end();
        assert!(hold.has_ended());
    }
}
