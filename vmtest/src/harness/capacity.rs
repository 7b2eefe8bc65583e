//! What a runner must know of this host to plan tests.

use super::{prune::places, settings::Settings};
use crate::{
    error::Error,
    host::{HostBudget, Ledger},
    hypervisor,
    plan::EMULATION_SCALE,
    spec::Resources,
};

/// The names of all backends that there are, here or not.
pub const BACKENDS: &[&str] = hypervisor::NAMES;

/// How much tests may take here, and how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// What the machines of all tests may take together, by the settings and by what was measured.
    pub whole: Resources,
    /// The factor of every timeout, by the settings.
    pub timeout_scale: f64,
    /// How many times longer than that the slowest backend may take.
    pub slowest: f64,
}

/// Looks at this host, and makes the place of run directories. Takes some milliseconds.
///
/// # Errors
/// [`Kind::Spec`](crate::Kind::Spec) for a wrong setting, [`Kind::Host`](crate::Kind::Host) when the host cannot be measured.
pub fn capacity() -> Result<Capacity, Error> {
    let settings = Settings::get()?;
    let ledger = Ledger::open(&places(settings)?.runs)?;
    let budget = HostBudget::measure(&ledger, settings.budget, settings.cache_dir())?;
    Ok(Capacity { whole: budget.whole(), timeout_scale: settings.timeout_scale, slowest: EMULATION_SCALE })
}
