//! Points at which our own tests have a process killed: what is on the host at a record of a journal is what a crash
//! there leaves.

use std::{collections::BTreeMap, fs, io, str::FromStr};

use rustix::process::{Signal, getpid, kill_process};

/// When, at a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// Nothing of the record is written; for what it calls done, after the effect.
    Before,
    /// Half of its line is written.
    During,
    /// The record is on disk; for what it announces, before the effect.
    After,
}

impl Moment {
    const ALL: [(&str, Self); 3] = [("before", Self::Before), ("during", Self::During), ("after", Self::After)];
}

/// A moment at the n-th record of one type about one kind of effect: `<moment>:<type>[:<kind>][:<n>]`, for example
/// `after:intent:link:2`. Without a number the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CrashPoint {
    moment: Moment,
    names: Vec<String>,
    number: u32,
    /// How often each moment was reached at such records.
    seen: BTreeMap<Moment, u32>,
}

impl FromStr for CrashPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words: Vec<_> = text.split(':').map(str::to_owned).collect();
        let number = words.last().and_then(|word| word.parse().ok());
        if number.is_some() {
            words.pop();
        }
        let moment = words.first().and_then(|word| Moment::ALL.iter().find(|(name, _)| name == word));
        match (moment, words.len()) {
            (Some(&(_, moment)), 2..=3) => {
                let names = words.split_off(1);
                Ok(Self { moment, names, number: number.unwrap_or(1), seen: BTreeMap::new() })
            }
            _ => Err(format!("`{text}` is no crash point: give `before|during|after:<type>[:<kind>][:<n>]`")),
        }
    }
}

impl CrashPoint {
    /// This moment has come at a record of these names: the process does not survive it if it is the one.
    pub(super) fn reached(&mut self, moment: Moment, names: &[String]) {
        if self.is_it(moment, names) {
            self.strike();
        }
    }

    /// The same for the middle of a record, which is written by this.
    pub(super) fn reached_in_the_middle(
        &mut self,
        names: &[String],
        write_half: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        if self.is_it(Moment::During, names) {
            write_half()?;
            self.strike();
        }
        Ok(())
    }

    fn is_it(&mut self, moment: Moment, names: &[String]) -> bool {
        if (moment, names) != (self.moment, &self.names) {
            return false;
        }
        let seen = self.seen.entry(moment).or_default();
        *seen += 1;
        *seen == self.number
    }

    /// Says in which network namespace this is, for whoever looks whether somebody is left in it, and ends the process
    /// as a crash does.
    fn strike(&self) {
        let namespace = fs::read_link("/proc/thread-self/ns/net").unwrap_or_default();
        eprintln!("crash point {self:?} in {}", namespace.display());
        _ = kill_process(getpid(), Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_record_is_met_once() {
        let mut point: CrashPoint = "after:intent:link:2".parse().unwrap();
        let [intent, done] = ["intent", "done"].map(|kind| vec![kind.to_owned(), "link".to_owned()]);
        let met =
            [(Moment::After, &intent), (Moment::Before, &intent), (Moment::After, &done), (Moment::After, &intent)]
                .map(|(moment, names)| point.is_it(moment, names));
        assert_eq!(met, [false, false, false, true]);
        assert!(!point.is_it(Moment::After, &intent));
        assert!(
            "before:begin".parse::<CrashPoint>().is_ok_and(|mut point| point.is_it(Moment::Before, &["begin".into()]))
        );
    }

    #[test]
    fn what_is_none_is_refused() {
        for wrong in ["", "after", "later:begin", "after:intent:link:2:3", "2"] {
            assert!(wrong.parse::<CrashPoint>().unwrap_err().contains("is no crash point"), "{wrong}");
        }
    }
}
