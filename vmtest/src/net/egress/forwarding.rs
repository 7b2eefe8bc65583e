//! Whether the network of whoever started a test forwards: turned on for ways out that lead by a pair of interfaces, and
//! what it was once the last of them has ended.
//!
//! What has to be remembered is remembered in that network itself, by a table of nftables: it is there if and only if one
//! of us has turned forwarding on, and lets nothing pass but what is of our interfaces. A run needs it for as long as its own table is there. So whoever takes
//! the last of these away restores it, whichever run had turned it on, in whatever order they end and are cleaned up after,
//! and for all users and all places of run directories alike.

use std::{
    fs::{self, File, OpenOptions},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use super::{
    TABLE, host_table,
    rules::{FORWARD, set},
};
use crate::{
    error::{Error, Kind},
    host::HOST_LINKS,
    net::{
        hold_namespace,
        nft::{Condition, Hook, Rule, Table, Verdict, remove_table, tables},
    },
};

/// The kernel turns it on when it stops to forward, whatever it was before.
const REDIRECTS: &str = "/proc/sys/net/ipv4/conf/all/accept_redirects";
const OF_INTERFACES: &str = "/proc/sys/net/ipv4/conf";
/// By which table it is remembered that forwarding was off, and what [`REDIRECTS`] was then.
const WAS_OFF: [(&str, bool); 2] = [("forwarding", true), ("forwarding-without-redirects", false)];
/// Whether bridges hand the filters what passes between their ports, which cannot be told from what is forwarded.
const BRIDGES_ASK: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
/// What the rules say whose they are: of no run.
const MARK: &str = "vmtest";
/// Tables of the older packet filter, which `nft` does not list.
const OLD_FILTERS: &str = "/proc/thread-self/net/ip_tables_names";

/// Why the network of the calling thread cannot be made to forward, or could not be restored, if that is so.
pub(super) fn why_not() -> Option<String> {
    if let Err(e) = OpenOptions::new().write(true).open(FORWARD) {
        return Some(format!("{FORWARD} cannot be written: {e}"));
    }
    // Not there where that filter never was.
    if fs::read_to_string(OLD_FILTERS).unwrap_or_default().lines().any(|table| table == "filter") {
        return Some("the table `filter` of iptables there may drop what passes".into());
    }
    if is_on(FORWARD.as_ref()) {
        return None;
    }
    if is_on(BRIDGES_ASK.as_ref()) {
        return Some(format!("bridges there may need what would have to be dropped: {BRIDGES_ASK} is on"));
    }
    let interfaces = || fs::read_dir(OF_INTERFACES).into_iter().flatten().flatten().map(|entry| entry.path());
    // To turn forwarding on and off sets all of them.
    let odd =
        interfaces().find(|interface| is_on(&interface.join("forwarding"))).filter(|_| !is_on(FORWARD.as_ref()))?;
    Some(format!("only some interfaces there forward: {}", odd.display()))
}

/// Has the network of the calling thread forward IPv4, for a run whose table is there already.
///
/// # Errors
/// [`Kind::Host`] where it cannot be turned on.
pub(crate) fn turn_forwarding_on() -> Result<(), Error> {
    let _alone = alone()?;
    if is_on(FORWARD.as_ref()) {
        return Ok(());
    }
    let there = tables()?;
    // One that is there is of a run that was killed before it could turn it on.
    if !WAS_OFF.iter().any(|(name, _)| there.iter().any(|found| found == name)) {
        let redirects = is_on(REDIRECTS.as_ref());
        let (name, _) = WAS_OFF.iter().find(|(_, on)| *on == redirects).expect("there is one for each");
        // Before it forwards: nobody else has asked for that.
        only_ours(name).make()?;
    }
    set(FORWARD, true)
}

/// Restores it if one of us has turned it on and no run needs it any more: not this one, whose table must be gone, and no
/// other.
///
/// # Errors
/// [`Kind::Host`] where it cannot be restored.
pub(crate) fn restore_forwarding(run: &str) -> Result<(), Error> {
    let _alone = alone()?;
    let there = tables()?;
    if there.contains(&host_table(run)) {
        let message = "the host's network forwards for as long as the packet filters of the run are there";
        return Err(Error::new(Kind::Host, message));
    }
    if there.iter().any(|table| table.ends_with(TABLE)) {
        return Ok(());
    }
    for (name, redirects) in WAS_OFF.iter().filter(|(name, _)| there.iter().any(|found| found == name)) {
        set(FORWARD, false)?;
        set(REDIRECTS, *redirects)?;
        // Last, so that whoever is killed before does all of it again.
        remove_table(name, MARK)?;
    }
    Ok(())
}

/// The table of this name, which drops what passes and is not of an interface of ours.
fn only_ours(name: &str) -> Table {
    let ours = || format!("{HOST_LINKS}*");
    let passing = [
        Rule::new([Condition::From(ours())], Verdict::Accept),
        Rule::new([Condition::To(ours())], Verdict::Accept),
        Rule::new([Condition::Ipv4], Verdict::Drop),
    ];
    Table::new(name, MARK).chain(Hook::Forward, Verdict::Accept, passing)
}

/// For as long as this lives nobody else turns forwarding on or off in the network of the calling thread. It is a lock of
/// the network itself, which is the same file for whoever is in it; the kernel frees it with its owner.
fn alone() -> Result<File, Error> {
    let network = hold_namespace()?;
    let failed = |e: rustix::io::Errno| Error::new(Kind::Host, "cannot lock the host's network").caused_by(e);
    flock(&network, FlockOperation::LockExclusive).map_err(failed)?;
    Ok(network)
}

fn is_on(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|value| value.trim() == "1")
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;
    use crate::net::{enter_new_namespace, mark, within};

    /// Does this in a network namespace of its own, given its inode, that does not forward.
    fn apart(work: impl FnOnce(u64) + Send) {
        let inside = || {
            let namespace = enter_new_namespace().unwrap();
            fs::write(FORWARD, "0").unwrap();
            work(namespace);
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|e| std::panic::resume_unwind(e));
    }

    fn begin(run: &str) {
        let rules = [Rule::new([], Verdict::Accept)];
        Table::new(&host_table(run), &mark(run)).chain(Hook::Forward, Verdict::Accept, rules).make().unwrap();
        turn_forwarding_on().unwrap();
    }

    fn end(run: &str) {
        remove_table(&host_table(run), &mark(run)).unwrap();
        restore_forwarding(run).unwrap();
    }

    fn now() -> (bool, bool) {
        (is_on(FORWARD.as_ref()), is_on(REDIRECTS.as_ref()))
    }

    #[test]
    fn the_last_run_restores_what_the_first_has_found() {
        for redirects in [true, false] {
            apart(|_| {
                set(REDIRECTS, redirects).unwrap();
                for (first, second) in [("a", "b"), ("b", "a")] {
                    begin("a");
                    begin("b");
                    assert_eq!(now(), (true, false));
                    end(first);
                    assert_eq!(now(), (true, false), "the other still needs it");
                    end(second);
                    assert_eq!((now(), tables().unwrap()), ((false, redirects), Vec::new()));
                    // A second time changes nothing.
                    end(first);
                    assert_eq!(now(), (false, redirects));
                }
            });
        }
    }

    #[test]
    fn a_network_that_forwards_does_so_afterwards() {
        apart(|_| {
            set(FORWARD, true).unwrap();
            begin("a");
            end("a");
            assert_eq!((now().0, tables().unwrap()), (true, Vec::new()));
        });
    }

    #[test]
    fn a_run_with_filters_still_needs_it() {
        apart(|_| {
            begin("a");
            let error = restore_forwarding("a").unwrap_err().to_string();
            assert!(error.contains("for as long as the packet filters of the run are there"), "{error}");
            assert!(now().0);
        });
    }

    #[test]
    fn who_is_killed_in_between_leaves_what_the_next_needs() {
        apart(|_| {
            // Before it could turn it on.
            begin("a");
            set(FORWARD, false).unwrap();
            set(REDIRECTS, true).unwrap();
            begin("b");
            assert!(now().0);
            end("a");
            end("b");
            assert_eq!((now(), tables().unwrap()), ((false, true), Vec::new()));
        });
    }

    #[test]
    fn runs_that_begin_and_end_at_once_agree() {
        apart(|namespace| {
            let barrier = Barrier::new(4);
            let barrier = &barrier;
            thread::scope(|scope| {
                for run in ["a", "b", "c", "d"] {
                    scope.spawn(move || {
                        for _ in 0..10 {
                            barrier.wait();
                            let work = async || {
                                begin(run);
                                assert!(now().0, "this run needs it");
                                end(run);
                                Ok(())
                            };
                            within(namespace, work).unwrap();
                        }
                    });
                }
            });
            assert_eq!((now(), tables().unwrap()), ((false, true), Vec::new()));
        });
    }

    #[test]
    fn what_could_not_be_restored_is_not_begun() {
        apart(|_| {
            if Path::new(BRIDGES_ASK).exists() {
                set(BRIDGES_ASK, true).unwrap();
                assert!(why_not().unwrap().contains("bridges there may need what would have to be dropped"));
                set(BRIDGES_ASK, false).unwrap();
            }
            assert_eq!(why_not(), None);
            fs::write("/proc/sys/net/ipv4/conf/lo/forwarding", "1").unwrap();
            let why = why_not().unwrap();
            assert!(why.contains("only some interfaces there forward: /proc/sys/net/ipv4/conf/lo"), "{why}");
            set(FORWARD, true).unwrap();
            assert_eq!(why_not(), None);
        });
    }
}
