//! How long each part of a run took.

use std::{collections::BTreeMap, time::Duration};

use super::Event;
use crate::spec::TimedPhase;

/// The figures of one run, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Phases {
    took: BTreeMap<TimedPhase, Duration>,
    /// What runs it, for people.
    pub(super) backend: String,
}

impl Phases {
    /// This happens so long after the start of the attempt.
    pub(super) fn note(&mut self, event: &Event, at: Duration) {
        match event {
            // Machines that join later wait too, and that is part of the body.
            Event::Granted { waited } | Event::VolumeTaken { waited, .. } if self.backend.is_empty() => {
                let before = self.took.get(&TimedPhase::Lease).copied().unwrap_or_default();
                self.set(TimedPhase::Lease, before + *waited);
            }
            Event::Planned { backend, .. } => {
                self.backend.clone_from(backend);
                let waited = self.took.get(&TimedPhase::Lease).copied().unwrap_or_default();
                self.set(TimedPhase::Lease, waited);
                self.set(TimedPhase::Plan, at.saturating_sub(waited));
            }
            Event::NetworkUp { after } => self.set(TimedPhase::Network, *after),
            Event::Ready { after } => {
                let network = self.took.get(&TimedPhase::Network).copied().unwrap_or_default();
                self.set(TimedPhase::Boot, after.saturating_sub(network));
            }
            Event::TornDown { took, .. } => self.set(TimedPhase::Teardown, *took),
            _ => {}
        }
    }

    /// The body has ended when so much of the run's time was used.
    pub(super) fn body_ended(&mut self, used: Duration) {
        let of = |phase| self.took.get(&phase).copied();
        if let (Some(network), Some(boot)) = (of(TimedPhase::Network), of(TimedPhase::Boot)) {
            self.set(TimedPhase::Body, used.saturating_sub(network + boot));
        }
    }

    fn set(&mut self, phase: TimedPhase, took: Duration) {
        self.took.insert(phase, took);
    }

    /// Every figure that there is.
    pub(super) fn took(&self) -> &BTreeMap<TimedPhase, Duration> {
        &self.took
    }

    /// What took longer than it may, a sentence each; every limit is multiplied by the scale.
    pub(super) fn over(&self, limits: &BTreeMap<TimedPhase, Duration>, scale: f64) -> Vec<String> {
        let scaled = if scale == 1.0 { String::new() } else { format!(", which is {scale} times what it says") };
        let over = limits.iter().filter_map(|(phase, limit)| {
            // For ever stays that.
            let allowed = Duration::try_from_secs_f64(limit.as_secs_f64() * scale);
            let (took, limit) = (self.took.get(phase)?, allowed.unwrap_or(Duration::MAX));
            let (spent, allowed) = (took.as_secs_f64(), limit.as_secs_f64());
            let said = || format!("`{phase}` took {spent:.3} s, and its budget is {allowed:.3} s{scaled}");
            (*took > limit).then(said)
        });
        over.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn some() -> Phases {
        let mut phases = Phases::default();
        let planned = Event::Planned { run: "r".into(), nodes: vec![], backend: "fake".into() };
        phases.note(&Event::VolumeTaken { volume: "v".into(), waited: ms(2000) }, ms(2005));
        phases.note(&Event::Granted { waited: ms(3000) }, ms(5010));
        phases.note(&planned, ms(5020));
        phases.note(&Event::NetworkUp { after: ms(3) }, ms(5023));
        phases.note(&Event::Ready { after: ms(2003) }, ms(7023));
        // A machine that joins waits.
        phases.note(&Event::Granted { waited: ms(70) }, ms(7100));
        phases.body_ended(ms(3003));
        phases.note(&Event::TornDown { took: ms(50), left: vec![] }, ms(9000));
        phases
    }

    #[test]
    fn each_phase_has_its_own_time() {
        let took: Vec<_> = some().took().iter().map(|(phase, took)| (phase.to_string(), took.as_millis())).collect();
        let expected =
            [("plan", 20), ("lease", 5000), ("network", 3), ("boot", 2000), ("body", 1000), ("teardown", 50)];
        assert_eq!(took, expected.map(|(phase, took)| (phase.to_owned(), took)));
    }

    #[test]
    fn what_is_over_its_budget_is_named_with_the_figures() {
        let limits = BTreeMap::from([(TimedPhase::Boot, ms(1500)), (TimedPhase::Body, ms(1000))]);
        assert_eq!(some().over(&limits, 1.0), ["`boot` took 2.000 s, and its budget is 1.500 s"]);
        assert_eq!(some().over(&limits, 4.0), Vec::<String>::new());
        let limits = BTreeMap::from([(TimedPhase::Teardown, ms(10))]);
        let over = some().over(&limits, 4.0);
        assert_eq!(over, ["`teardown` took 0.050 s, and its budget is 0.040 s, which is 4 times what it says"]);
    }

    #[test]
    fn what_has_not_happened_is_not_over() {
        let limits = TimedPhase::ALL.map(|phase| (phase, Duration::ZERO));
        assert_eq!(Phases::default().over(&BTreeMap::from(limits), 1.0), Vec::<String>::new());
    }
}
