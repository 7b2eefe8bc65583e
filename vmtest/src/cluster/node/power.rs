//! Switching a machine off and on.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{Node, sh::Running};
use crate::{
    cluster::{
        boot::boot_in_time,
        member::Member,
        power::{Action, Liveness, State, after},
        run::Run,
    },
    error::{Error, Kind, Phase},
    evidence::Work,
    host::DEATH_WITHIN,
};

/// A guest that shuts down stops its services first; a systemd Debian takes 3 s. Scaled.
const GUEST_SHUTS_DOWN_WITHIN: Duration = Duration::from_secs(15);
/// The same again, for a guest that heard its power button and not its own command. Scaled.
const BUTTON_WITHIN: Duration = Duration::from_secs(5);
/// A command begins in 20 ms under emulation, and in seconds on a host with much else to do.
const COMMAND_BEGINS_WITHIN: Duration = Duration::from_secs(5);
/// A VMM ends in milliseconds when it is told to.
const VMM_ENDS_WITHIN: Duration = Duration::from_secs(2);
/// A VMM answers its API in milliseconds; one that does not in this time has stopped doing so.
const VMM_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Power. What is done to one machine is done one after the other, but for `kill`, which waits for nobody. What cannot
/// be done to a machine as it is, is refused with [`Kind::Spec`].
impl Node {
    /// What the machine is doing.
    pub fn state(&self) -> State {
        self.member.state()
    }

    /// Whether the machine is alive, as its VMM says: a VMM that is there and answers nothing in two seconds may be at anything.
    /// What the guest does, [`wait_until`](Self::wait_until) can say. Ends in any case, and is cancel-safe.
    ///
    /// A call that such a VMM does not answer ends after ten seconds, with [`Kind::Timeout`]; [`kill`](Self::kill) needs no
    /// answer.
    pub async fn liveness(&self) -> Liveness {
        let (boot, machine) = (self.member.boot(), self.member.machine());
        if matches!(self.state(), State::Off | State::Removed) {
            return Liveness::Dead;
        }
        let Some(machine) = machine else { return Liveness::Unknown };
        tokio::select! {
            biased;
            _ = self.member.lost(boot) => Liveness::Dead,
            answer = timeout(VMM_ANSWERS_WITHIN, machine.running()) => match answer {
                Ok(Ok(_)) => Liveness::Alive,
                Ok(Err(_)) | Err(_) => Liveness::Unknown,
            },
        }
    }

    /// Cuts the power: the VMM is killed. Returns when it is gone. Cancel-safe: the machine dies in any case.
    ///
    /// What the guest had not yet written to its disks is lost, as it is with power. Linux writes by itself what has waited for half a
    /// minute; what a test needs after [`start`](Self::start), `sync` writes before.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a machine that is off.
    pub async fn kill(&self) -> Result<(), Error> {
        self.change(Action::Kill, false, |_, member| async move {
            member.intend(Some(Action::Kill));
            kill(&member).await
        })
        .await
    }

    /// Shuts the machine down and returns when its VMM is gone: by the guest's own command, else by the power button,
    /// else by ending the VMM, each within its time.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a machine that does not run, [`Kind::Host`] for a VMM that cannot be ended.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.change(Action::Shutdown, true, |run, member| async move { shut_down(&run, &member).await }).await
    }

    /// Starts a machine that is off, with everything as it was planned. Returns when it answers.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a machine that is on, else why it does not come up.
    pub async fn start(&self) -> Result<(), Error> {
        self.change(Action::Start, true, |run, member| async move { boot_in_time(&run, &member, None).await }).await
    }

    /// Reboots the machine and returns when it answers again. The VMM ends and is started again: the boot id differs,
    /// and what was in memory is gone. A guest that does not reboot by itself within its time gets the power cut.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a machine that does not run, else why it does not come up.
    pub async fn reboot(&self) -> Result<(), Error> {
        self.change(Action::Reboot, true, |run, member| async move {
            let boot = member.boot();
            member.intend(Some(Action::Reboot));
            let limit = run.plan.scaled(GUEST_SHUTS_DOWN_WITHIN);
            if !ask(&member, "reboot").await || timeout(limit, member.lost(boot)).await.is_err() {
                kill(&member).await?;
            }
            member.running_after(boot).await
        })
        .await
    }

    /// Stops the virtual CPUs: to its peers, the machine is silent and still there.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a machine that does not run, [`Kind::Host`] when the VMM refuses.
    pub async fn pause(&self) -> Result<(), Error> {
        self.change(Action::Pause, true, |_, member| async move {
            api(&member)?.pause().await?;
            member.set_state(State::Paused);
            Ok(())
        })
        .await
    }

    /// Lets the virtual CPUs run again. The guest's clock has stood still.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a machine that is not paused, [`Kind::Host`] when the VMM refuses.
    pub async fn resume(&self) -> Result<(), Error> {
        self.change(Action::Resume, true, |_, member| async move {
            api(&member)?.resume().await?;
            member.set_state(State::Running);
            Ok(())
        })
        .await
    }

    /// Does this if the table allows it; in turn with other changes, or at once.
    pub(in crate::cluster) fn change<T: Send + 'static, F>(
        &self,
        action: Action,
        in_turn: bool,
        work: impl FnOnce(Arc<Run>, Arc<Member>) -> F + Send + 'static,
    ) -> Running<T>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (run, member) = (self.run.clone(), self.member.clone());
        Running::on(self, async move {
            let span = member.recorder.work(Some(&member.plan.name), Work::Power, action.to_string());
            let _turn = if in_turn { Some(member.power.lock().await) } else { None };
            let state = member.state();
            let allowed = after(state, action).map_err(|why| {
                let message = format!("cannot {action} a machine that is {state}: {why}");
                Error::new(Kind::Spec, message)
            });
            let done = match allowed {
                Ok(_) => work(run, member.clone()).await,
                Err(e) => Err(e),
            };
            span.result(done).map_err(|e| e.on_node(&member.plan.name).in_phase(Phase::Body))
        })
    }
}

pub(super) fn api(member: &Member) -> Result<Arc<dyn crate::hypervisor::Machine>, Error> {
    member.machine().ok_or_else(|| Error::new(Kind::Host, "the VMM's API does not answer yet"))
}

/// Gives the guest a command that ends its own machine, and does not wait for what comes of it. Whether it took it: a
/// guest without a server does not, and is ended in another way.
async fn ask(member: &Member, command: &str) -> bool {
    let boot = member.boot();
    // In the background of the guest, so that the command's own connection does not hold it up.
    let line = format!("(sleep 0; {command}) >/dev/null 2>&1 </dev/null &").into_bytes();
    let given = async { member.ssh.exec(line).await?.ended().await };
    tokio::select! {
        given = timeout(COMMAND_BEGINS_WITHIN, given) => given.is_ok_and(|given| given.is_ok()),
        // It was faster than its answer.
        _ = member.lost(boot) => true,
    }
}

async fn shut_down(run: &Run, member: &Member) -> Result<(), Error> {
    member.intend(Some(Action::Shutdown));
    let try_next = |means| member.ends_by(means);
    try_next("the guest itself");
    if ask(member, "poweroff").await && timeout(run.plan.scaled(GUEST_SHUTS_DOWN_WITHIN), member.died()).await.is_ok() {
        return Ok(());
    }
    if let Some(machine) = member.machine() {
        try_next("its power button");
        let pressed = timeout(VMM_ANSWERS_WITHIN, machine.power_button()).await;
        let pressed = matches!(pressed, Ok(Ok(())));
        if pressed && timeout(run.plan.scaled(BUTTON_WITHIN), member.died()).await.is_ok() {
            return Ok(());
        }
        try_next("its VMM");
        let quit = timeout(VMM_ANSWERS_WITHIN, machine.quit()).await;
        let quit = matches!(quit, Ok(Ok(())));
        if quit && timeout(VMM_ENDS_WITHIN, member.died()).await.is_ok() {
            return Ok(());
        }
    }
    if let Some(process) = member.process() {
        try_next("SIGTERM");
        let told = process.terminate();
        if told.is_ok() && timeout(VMM_ENDS_WITHIN, member.died()).await.is_ok() {
            return Ok(());
        }
    }
    try_next("SIGKILL");
    kill(member).await
}

pub(super) async fn kill(member: &Member) -> Result<(), Error> {
    let boot = member.boot();
    let failed = |e: std::io::Error| Error::new(Kind::Host, "cannot kill the VMM").caused_by(e);
    if let Some(process) = member.process() {
        process.kill().map_err(failed)?;
    }
    timeout(DEATH_WITHIN, member.lost(boot)).await.map(drop).map_err(|_| {
        Error::new(Kind::Host, format!("the VMM is still there {} s after SIGKILL", DEATH_WITHIN.as_secs()))
    })
}
