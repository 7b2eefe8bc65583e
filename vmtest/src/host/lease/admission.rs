//! The rules by which claims are granted. Pure.

use super::ledger::Live;
use crate::spec::Resources;

/// What there is to share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share<'a> {
    /// All that machines may take.
    pub(super) whole: Resources,
    /// The claims of the others.
    pub(super) others: &'a [Live],
    /// What is free on the host now, beyond what is claimed and not yet used.
    pub(super) free_now: Resources,
}

/// What becomes of a cluster that wants more than it holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Extension {
    Granted,
    /// It waits, in this order among those who do.
    Waits(u64),
    /// All who hold something wait, and it is the last of them: only its end lets the others go on.
    Deadlock,
}

impl Share<'_> {
    /// Whether a cluster that holds nothing may begin: whole or not at all.
    pub(super) fn admits(&self, wants: Resources) -> bool {
        // Alone, it waits for nobody: planning has seen that the host is large enough, and who else uses it does not
        // say when he stops.
        if self.others.is_empty() {
            return true;
        }
        // Those who hold something and wait go first: what they hold comes back only then.
        let nobody_waits = self.others.iter().all(|other| other.record.waits.is_none());
        nobody_waits && (wants + self.claimed()).fits_in(self.whole) && wants.fits_in(self.free_now)
    }

    /// Whether a cluster that holds this may take more; with its order if it has waited already.
    pub(super) fn extends(&self, holds: Resources, more: Resources, order: Option<u64>) -> Extension {
        let orders = || self.others.iter().filter_map(|other| other.record.waits).map(|waits| waits.order);
        let somebody_ends = orders().count() < self.others.len();
        // What is free now can only grow when somebody ends.
        let fits_now = !somebody_ends || more.fits_in(self.free_now);
        if (self.claimed() + holds + more).fits_in(self.whole) && fits_now {
            return Extension::Granted;
        }
        let last = orders().max();
        let order = order.unwrap_or_else(|| last.map_or(0, |last| last + 1));
        if somebody_ends || last.is_some_and(|last| last > order) {
            return Extension::Waits(order);
        }
        Extension::Deadlock
    }

    fn claimed(&self) -> Resources {
        self.others.iter().map(|other| other.record.holder.holds).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::record::{Holder, Record, VERSION, Waits},
        *,
    };

    fn memory(memory: u64) -> Resources {
        Resources { memory, ..Resources::NONE }
    }

    /// One that holds so much, and waits in this order.
    fn live(holds: u64, waits: Option<u64>) -> Live {
        let holder = Holder { test: "t".into(), pid: 1, holds: memory(holds) };
        let waits = waits.map(|order| Waits { order, more: memory(1) });
        Live { run: "r".into(), record: Record { version: VERSION, holder, waits } }
    }

    fn with<T>(whole: u64, others: &[Live], free: u64, look: impl FnOnce(Share<'_>) -> T) -> T {
        look(Share { whole: memory(whole), others, free_now: memory(free) })
    }

    #[test]
    fn a_cluster_begins_whole_or_not_at_all() {
        let others = [live(4, None), live(2, None)];
        assert!(with(10, &others, 100, |share| share.admits(memory(4))));
        assert!(!with(10, &others, 100, |share| share.admits(memory(5))));
        assert!(!with(10, &others, 3, |share| share.admits(memory(4))), "others use the memory of this host");
    }

    #[test]
    fn whoever_is_alone_waits_for_nobody() {
        assert!(with(10, &[], 0, |share| share.admits(memory(10))));
        let extended = with(10, &[], 0, |share| share.extends(memory(5), memory(5), None));
        assert_eq!(extended, Extension::Granted);
    }

    #[test]
    fn whoever_holds_something_and_waits_goes_before_the_queue() {
        assert!(!with(10, &[live(2, Some(0))], 100, |share| share.admits(memory(1))));
    }

    #[test]
    fn of_clusters_that_wait_for_each_other_the_last_gives_up() {
        let wants = |others: &[Live], order| with(10, others, 100, |share| share.extends(memory(5), memory(3), order));
        assert_eq!(wants(&[live(5, None)], None), Extension::Waits(0), "the other one ends some time");
        assert_eq!(wants(&[live(5, Some(7))], None), Extension::Deadlock, "it would close the circle");
        assert_eq!(wants(&[live(5, Some(7))], Some(6)), Extension::Waits(6), "the other one gives up");
        assert_eq!(wants(&[live(5, Some(7))], Some(8)), Extension::Deadlock);
        assert_eq!(wants(&[live(2, Some(7)), live(3, None)], None), Extension::Waits(8));
        assert_eq!(wants(&[live(2, Some(7))], Some(6)), Extension::Granted);
    }

    #[test]
    fn what_others_use_holds_nobody_up_for_whom_nobody_ends() {
        let wants = |others: &[Live]| with(10, others, 0, |share| share.extends(memory(1), memory(1), None));
        assert_eq!(wants(&[live(1, None)]), Extension::Waits(0));
        assert_eq!(wants(&[live(1, Some(0))]), Extension::Granted);
    }
}
