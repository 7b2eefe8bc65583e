//! Removing what killed runs left: at the start of a process, and by `cargo vmtest prune`.

use std::io;

use once_cell::sync::OnceCell;
use tokio::runtime;

use super::settings::Settings;
use crate::{
    cluster::{Abandoned, Mode, Places, reconcile},
    error::{Error, Kind, Phase},
    host::runs_root,
    plan,
};

/// Removes what killed runs left, in the run directories and among the scratch disks; live ones are never touched. The
/// result says what there was and what could not be removed. Blocks, for milliseconds a run.
///
/// # Errors
/// [`Kind::Spec`] for a wrong setting, [`Kind::Host`] when a place cannot be read.
pub fn prune() -> Result<Abandoned, Error> {
    abandoned_runs(&places(Settings::get()?)?, Mode::Remove)
}

/// What [`prune`] would remove. Changes nothing; the locks of what is looked at are held for that moment.
///
/// # Errors
/// Those of [`prune`].
pub fn abandoned() -> Result<Abandoned, Error> {
    abandoned_runs(&places(Settings::get()?)?, Mode::Look)
}

/// Where the runs of this process have their files.
pub(super) fn places(settings: &Settings) -> Result<Places, Error> {
    Ok(Places {
        runs: runs_root(settings.run.as_deref())?,
        scratch: settings.cache_dir().join(plan::SCRATCH),
        crash: settings.crash_at.clone(),
    })
}

/// Removes what killed runs left, before the first cluster of this process.
///
/// # Errors
/// [`Kind::Leak`] with what stays; then the next cluster tries again.
pub(super) fn reconcile_once(places: &Places) -> Result<(), Error> {
    static DONE: OnceCell<()> = OnceCell::new();
    DONE.get_or_try_init(|| {
        let left = abandoned_runs(places, Mode::Remove)?.left();
        if left.is_empty() {
            return Ok(());
        }
        let message = format!(
            "what killed runs left cannot be removed, and this run would be beside it:\n  - {}\n  when the reason is \
             gone, the next run removes it, or `cargo vmtest prune`",
            left.join("\n  - ")
        );
        Err(Error::new(Kind::Leak, message).in_phase(Phase::Plan))
    })
    .map(drop)
}

fn abandoned_runs(places: &Places, mode: Mode) -> Result<Abandoned, Error> {
    let failed = |e: io::Error| Error::new(Kind::Host, "cannot clean up after killed runs").caused_by(e);
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(reconcile(places, mode))
}
