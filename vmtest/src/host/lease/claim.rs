//! The share of one cluster, from before its first effect to after its last.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::task::spawn_blocking;

use super::{
    HostBudget, Ledger,
    admission::{Extension, Share},
    ledger::{Live, Locked},
    record::{Holder, Record, VERSION, Waiting, Waits},
    ticket::{self, Ticket},
    watch::Watch,
};
use crate::{
    error::{Error, Kind},
    host::if_there,
    spec::Resources,
};

/// What a cluster asks for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The id of the run.
    pub(crate) run: String,
    /// The test's path.
    pub(crate) test: String,
    /// Everything.
    pub(crate) wants: Resources,
    /// What of that is for machines that join later.
    pub(crate) spare: Resources,
}

/// A share of the host, until it is released or dropped. When its process is killed the kernel frees it.
#[derive(Debug)]
pub(crate) struct Claim {
    held: Arc<Held>,
    /// Held by whoever wants more: one waits at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Held {
    ledger: Ledger,
    budget: HostBudget,
    run: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Its lock is the claim; `None` once it is released.
    file: Option<File>,
    record: Record,
    /// What of it no machine has.
    spare: Resources,
}

/// What a look at the ledger has brought.
enum Look {
    Granted(Claim),
    /// To wait until this ticket is served or gone.
    Behind(PathBuf, Ticket, Waiting),
    /// The first of the queue: to wait until a claim is released.
    First(Ticket, Waiting),
}

impl Claim {
    /// Waits until the whole share is free, in the order of arrival; tells at every step for whom it waits. When
    /// `give_up` resolves it leaves the queue. Must be called on a tokio runtime. Dropped, its ticket may stay until the
    /// next one looks.
    ///
    /// # Errors
    /// [`Kind::Host`] when the files of the lease cannot be read, written or watched, [`Kind::Cancelled`] after
    /// `give_up`.
    pub(crate) async fn take(
        ledger: &Ledger,
        budget: &HostBudget,
        request: Request,
        tell: impl Fn(&Waiting),
        give_up: impl Future<Output = ()>,
    ) -> Result<Self, Error> {
        let mut give_up = pin!(give_up);
        let mut ticket = None;
        let mut watch = None;
        loop {
            let (of_look, budget, request) = (ledger.clone(), budget.clone(), request.clone());
            // Not to be given up in the middle: the ticket is in there.
            let look = blocking(move || look(&of_look, budget, request, ticket)).await?;
            let (ahead, waiting) = match look {
                Look::Granted(claim) => return Ok(claim),
                Look::Behind(ahead, own, waiting) => {
                    ticket = Some(own);
                    (Some(ahead), waiting)
                }
                Look::First(own, waiting) => {
                    ticket = Some(own);
                    (None, waiting)
                }
            };
            tell(&waiting);
            let served = async {
                match ahead {
                    Some(ahead) => blocking(move || Ok(ticket::wait_for(&ahead))).await?,
                    None => changed(&mut watch, &ledger.claims()).await,
                }
                .map_err(|e| cannot_wait(ledger, e))
            };
            tokio::select! {
                biased;
                () = &mut give_up => return Err(Error::new(Kind::Cancelled, "cancelled by a signal")),
                served = served => served?,
            }
        }
    }

    /// Takes so much for a machine that joins: from what was kept for such, else from what is free on the host, else it
    /// waits. Of clusters that wait for each other the last gives up, so that the others go on.
    ///
    /// Dropped while it waits, it goes on to be counted as waiting until the claim is released.
    ///
    /// # Errors
    /// [`Kind::Missing`] when only the end of this cluster would make room, [`Kind::TornDown`] after its end, else
    /// those of [`take`](Self::take).
    pub(crate) async fn extend(&self, more: Resources, tell: impl Fn(&Waiting)) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let mut watch = None;
        loop {
            let held = self.held.clone();
            let Some(waiting) = blocking(move || held.extend(more)).await? else { return Ok(()) };
            tell(&waiting);
            let ledger = &self.held.ledger;
            changed(&mut watch, &ledger.claims()).await.map_err(|e| cannot_wait(ledger, e))?;
        }
    }

    /// What a machine had that is gone; kept for the next one.
    pub(crate) fn give_back(&self, gone: Resources) {
        self.held.lock().spare += gone;
    }

    /// Gives everything back. Idempotent.
    pub(crate) fn release(&self) {
        self.held.release();
    }
}

impl Held {
    /// The result says for whom it waits, if it must.
    fn extend(&self, more: Resources) -> Result<Option<Waiting>, Error> {
        let locked = self.ledger.lock()?;
        let claims = locked.claims()?;
        let free_now = self.budget.free_now(&self.ledger, &claims)?;
        let others: Vec<_> = claims.into_iter().filter(|claim| claim.run != self.run).collect();
        let whole = self.budget.whole();
        let mut state = self.lock();
        let State { file: Some(file), record, spare } = &mut *state else { return Err(Error::torn_down()) };
        let holds = record.holder.holds;
        let mut extra = more.without(*spare);
        // A cluster that has all CPUs goes slower with more machines.
        extra.cpus = extra.cpus.min(whole.cpus.saturating_sub(holds.cpus));
        let order = record.waits.map(|waits| waits.order);
        let share = Share { whole, others: &others, free_now };
        let decided = if extra == Resources::NONE { Extension::Granted } else { share.extends(holds, extra, order) };
        let mut changed = record.clone();
        changed.waits = match decided {
            Extension::Waits(order) => Some(Waits { order, more: extra }),
            Extension::Granted | Extension::Deadlock => None,
        };
        if decided == Extension::Granted {
            changed.holder.holds += extra;
        }
        if changed != *record {
            locked.rewrite(file, &changed)?;
            *record = changed;
        }
        match decided {
            Extension::Granted => {
                *spare = spare.without(more);
                Ok(None)
            }
            Extension::Waits(_) => Ok(Some(waiting(extra, whole, others, 0))),
            Extension::Deadlock => Err(no_room(&waiting(extra, whole, others, 0), holds)),
        }
    }

    fn release(&self) {
        let Some(file) = self.lock().file.take() else { return };
        // Out of sight first, then free: whoever is told of the one finds the other.
        if let Err(e) = if_there(fs::remove_file(self.ledger.claims().join(&self.run))) {
            // The next one who looks removes it: its lock is free from now on.
            tracing::warn!("the claim of run {}: {e}", self.run);
        }
        drop(file);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// Takes the share if it is this one's turn and everything is free, else a place in the queue.
fn look(ledger: &Ledger, budget: HostBudget, request: Request, ticket: Option<Ticket>) -> Result<Look, Error> {
    let locked = ledger.lock()?;
    let tickets = locked.tickets()?;
    let before = |number: &&u64| ticket.as_ref().is_none_or(|own| **number < own.number);
    let ahead: Vec<_> = tickets.iter().take_while(before).copied().collect();
    let others = locked.claims()?;
    let free_now = budget.free_now(ledger, &others)?;
    let whole = budget.whole();
    if ahead.is_empty() && (Share { whole, others: &others, free_now }).admits(request.wants) {
        return grant(&locked, ledger, budget, request).map(Look::Granted);
    }
    let waiting = waiting(request.wants, whole, others, ahead.len());
    let ticket = ticket.map_or_else(|| locked.new_ticket(), Ok)?;
    Ok(match ahead.last() {
        Some(last) => Look::Behind(ledger.queue().join(last.to_string()), ticket, waiting),
        None => Look::First(ticket, waiting),
    })
}

fn grant(locked: &Locked<'_>, ledger: &Ledger, budget: HostBudget, request: Request) -> Result<Claim, Error> {
    let Request { run, test, wants, spare } = request;
    let holder = Holder { test, pid: std::process::id(), holds: wants };
    let record = Record { version: VERSION, holder, waits: None };
    let file = Some(locked.new_claim(&run, &record)?);
    let state = Mutex::new(State { file, record, spare });
    let held = Held { ledger: ledger.clone(), budget, run, state };
    Ok(Claim { held: Arc::new(held), turn: tokio::sync::Mutex::default() })
}

/// Waits until a claim is released; at first only begins to watch, since one may have been before.
async fn changed(watch: &mut Option<Watch>, claims: &Path) -> io::Result<()> {
    match watch {
        Some(watch) => watch.changed().await,
        None => Watch::of(claims).map(|begun| *watch = Some(begun)),
    }
}

fn waiting(wants: Resources, budget: Resources, others: Vec<Live>, ahead: usize) -> Waiting {
    Waiting { wants, budget, holders: others.into_iter().map(|other| other.record.holder).collect(), ahead }
}

fn no_room(waiting: &Waiting, holds: Resources) -> Error {
    let Waiting { wants, budget, holders, .. } = waiting;
    let others: String = holders.iter().map(|holder| format!("\n  {holder}, and waits for more as well")).collect();
    let message = format!(
        "there is no room for the machines that join: they need {wants} beside the {holds} of this cluster, and all \
         tests together may take {budget}{others}\n  keep room for them from the start with `budget(nodes = ..)` on \
         the test, or raise VMTEST_BUDGET"
    );
    Error::new(Kind::Missing, message)
}

fn cannot_wait(ledger: &Ledger, why: io::Error) -> Error {
    let many = rustix::io::Errno::from_io_error(&why) == Some(rustix::io::Errno::MFILE);
    let hint = if many { " (raise fs.inotify.max_user_instances with sysctl, as root)" } else { "" };
    ledger.failed(io::Error::new(why.kind(), format!("cannot wait for them: {why}{hint}")))
}

/// Carries this out on a thread that may block. Dropped, it is carried out all the same.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let failed = |e| Error::new(Kind::Host, "cannot look at the claims").caused_by(io::Error::other(e));
    spawn_blocking(work).await.map_err(failed)?
}

#[cfg(test)]
mod tests;
