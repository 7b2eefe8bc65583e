//! Which backend runs a test.

use std::{collections::BTreeSet, fmt, sync::Arc};

use super::settings::Settings;
use crate::{
    error::{Error, Kind},
    hypervisor::{self, Hypervisor},
    plan::KnownBackend,
    spec::{Capability, ClusterSpec},
};

/// What came of looking for a backend.
pub(super) struct Chosen {
    pub(super) hypervisor: Result<Arc<dyn Hypervisor>, Error>,
    /// Those that come before it, with why they were not taken.
    pub(super) passed_over: Vec<(String, PassedOver)>,
    /// The names of all on which the test may run.
    asked: Vec<String>,
    /// Whether there is none because of what `VMTEST_REQUIRE` names.
    pub(super) required: bool,
}

/// Why a backend is not taken.
#[derive(Debug)]
pub(super) enum PassedOver {
    /// It cannot run here.
    Absent(Error),
    /// It runs here, and lacks what the test requires, for this reason.
    Unable(Capability, Option<String>),
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(why) => write!(f, "{why}"),
            Self::Unable(capability, None) => write!(f, "`requires({capability})`, which it cannot do"),
            Self::Unable(capability, Some(why)) => {
                write!(f, "`requires({capability})`, which it cannot do here: {why}")
            }
        }
    }
}

impl Chosen {
    /// None, because of what is required of this host.
    fn none(error: Error, asked: Vec<String>) -> Self {
        Self { hypervisor: Err(error), passed_over: vec![], asked, required: true }
    }

    /// Every backend that there is, and what became of it.
    pub(super) fn known(&self) -> Vec<KnownBackend> {
        let known = |&name: &&'static str| KnownBackend {
            name: name.to_owned(),
            can: hypervisor::potential(name).iter().copied().collect(),
            asked: self.asked.iter().any(|asked| asked == name),
            passed_over: self.passed_over.iter().find(|(other, _)| other == name).map(|(_, why)| why.to_string()),
        };
        hypervisor::NAMES.iter().map(known).collect()
    }
}

/// Looks for the backend that the test and the settings ask for.
pub(super) fn choose(spec: &ClusterSpec, settings: &Settings) -> Chosen {
    match asked_backends(&spec.backends, &settings.backends) {
        Ok(asked) => {
            if let Some(error) = asked.iter().find_map(|name| lacks_required_kvm(name, settings)) {
                return Chosen::none(error, asked);
            }
            choose_of(asked, &spec.requires, &settings.require, |name| hypervisor::find(name, &settings.search))
        }
        Err(e) => Chosen { required: false, ..Chosen::none(e, vec![]) },
    }
}

/// That this backend shall run guests by KVM, as all but the fake shall where the settings say so, and KVM runs none here.
pub(super) fn lacks_required_kvm(name: &str, settings: &Settings) -> Option<Error> {
    let needs_kvm = settings.require_kvm && name != hypervisor::FAKE;
    let why = needs_kvm.then(|| settings.search.why_no_kvm()).flatten()?;
    Some(Error::new(Kind::Missing, format!("VMTEST_REQUIRE names `kvm`, which runs no guests here: {why}")))
}

/// What keeps this cluster from running here so that its test is skipped, as far as that is seen without making or planning
/// anything: never if the settings do not skip, or require it. Enters the user namespace, as tests do.
#[cfg(feature = "mimic")]
pub(crate) fn lacks(spec: &ClusterSpec) -> Option<String> {
    let settings = Settings::get().ok().filter(|settings| settings.skip_missing)?;
    // What forbids it is what is missing.
    drop(super::enter_rootless());
    if let Some(missing) = crate::net::missing().into_iter().next() {
        return Some(missing);
    }
    let Chosen { hypervisor, required, .. } = choose(spec, settings);
    match hypervisor {
        _ if required => None,
        Ok(found) => {
            let lacking = spec.requires.iter().find(|&&required| !found.capabilities().has(required))?;
            Some(format!("`requires({lacking})`, which no backend can do here"))
        }
        Err(e) => (e.kind() == Kind::Missing).then(|| e.to_string()),
    }
}

/// The first of these that runs here and can do what is required; where none can, the first that runs, for the plan to say
/// what it lacks.
fn choose_of(
    asked: Vec<String>,
    requires: &BTreeSet<Capability>,
    must_run: &[String],
    find: impl Fn(&str) -> Result<Arc<dyn Hypervisor>, Error>,
) -> Chosen {
    let (mut passed_over, mut unable) = (Vec::new(), None);
    for name in &asked {
        match find(name) {
            Err(e) if must_run.contains(name) => {
                let message = format!("VMTEST_REQUIRE names `{name}`, which cannot run here: {e}");
                return Chosen { passed_over, ..Chosen::none(Error::new(e.kind(), message), asked) };
            }
            Err(e) => passed_over.push((name.clone(), PassedOver::Absent(e))),
            Ok(found) => {
                let capabilities = found.capabilities();
                match requires.iter().find(|&&required| !capabilities.has(required)) {
                    None => return Chosen { hypervisor: Ok(found), passed_over, asked, required: false },
                    Some(&lacking) => {
                        let why = found.lacks().remove(&lacking);
                        passed_over.push((name.clone(), PassedOver::Unable(lacking, why)));
                        unable.get_or_insert(found);
                    }
                }
            }
        }
    }
    let hypervisor = unable.ok_or_else(|| none_runs(&passed_over));
    Chosen { hypervisor, passed_over, asked, required: false }
}

/// Why none of the backends runs here.
fn none_runs(passed_over: &[(String, PassedOver)]) -> Error {
    if let [(_, PassedOver::Absent(only))] = passed_over {
        return Error::new(only.kind(), only.to_string());
    }
    let why: Vec<_> = passed_over.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    Error::new(Kind::Missing, format!("no backend runs here: {}", why.join("; ")))
}

/// The backend for people, with why it is not one that comes before it. One that emulates says itself why there is no KVM,
/// and without that there is no other.
pub(super) fn describe(hypervisor: &dyn Hypervisor, passed_over: &[(String, PassedOver)]) -> String {
    let chosen = hypervisor.describe();
    let emulated = hypervisor.capabilities().emulated;
    let said = passed_over.iter().filter(|(_, why)| !emulated || matches!(why, PassedOver::Unable(..)));
    let said: Vec<_> = said.map(|(name, why)| format!("not on {name}: {why}")).collect();
    if said.is_empty() { chosen } else { format!("{chosen} ({})", said.join("; ")) }
}

/// The backends to try, in this order: those that the settings prefer among those on which the test may run.
fn asked_backends(spec: &[String], settings: &[String]) -> Result<Vec<String>, Error> {
    let auto: Vec<_> = hypervisor::AUTO.iter().map(|&name| name.to_owned()).collect();
    match (spec, settings) {
        ([], []) => Ok(auto),
        ([], settings) => {
            let asked: Vec<_> = settings.iter().filter(|name| *name != hypervisor::FAKE).cloned().collect();
            if asked.is_empty() {
                let message = "the settings ask for fake machines, and this test does not say that it may run on them: \
                               give it `backend = \"fake\"`, or leave it out";
                return Err(Error::new(Kind::Spec, message));
            }
            Ok(asked)
        }
        (spec, settings) => {
            let preferred: Vec<_> = settings.iter().filter(|name| spec.contains(name)).cloned().collect();
            Ok(if preferred.is_empty() { spec.to_vec() } else { preferred })
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::{
        host::ProcessId,
        hypervisor::{LaunchPlan, Machine, Saved, Site},
        plan::{Capabilities, NodePlan},
    };

    #[test]
    fn a_test_says_where_it_may_run_and_the_settings_choose() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        for (spec, settings, asked) in [
            (&[] as &[&str], &[] as &[&str], &["cloud-hypervisor", "qemu"] as &[&str]),
            (&[], &["fake", "qemu"], &["qemu"]),
            (&["fake"], &[], &["fake"]),
            (&["qemu", "fake"], &["fake"], &["fake"]),
            (&["fake"], &["qemu"], &["fake"]),
        ] {
            assert_eq!(asked_backends(&names(spec), &names(settings)).unwrap(), names(asked), "{spec:?} {settings:?}");
        }
        let error = asked_backends(&[], &names(&["fake"])).unwrap_err();
        assert!(error.to_string().contains("does not say that it may run on them"), "{error}");
    }

    #[test]
    fn what_was_passed_over_is_said_with_the_choice() {
        let fake = fake();
        assert_eq!(describe(&*fake, &[]), fake.describe());
        let absent = PassedOver::Absent(Error::new(Kind::Missing, "it is not there"));
        let passed_over = vec![("qemu".to_owned(), absent)];
        let said = format!("{} (not on qemu: it is not there)", fake.describe());
        assert_eq!(describe(&*fake, &passed_over), said);
        assert_eq!(none_runs(&passed_over).to_string(), "it is not there");
    }

    fn fake() -> Arc<dyn Hypervisor> {
        hypervisor::find("fake", &hypervisor::Search::default()).unwrap()
    }

    /// What is chosen of these, of which all but `gone` are fakes.
    fn chosen(asked: &[&str], requires: Capability) -> Chosen {
        let asked = asked.iter().map(|&name| name.to_owned()).collect();
        choose_of(asked, &[requires].into(), &[], |name| match name {
            "gone" => Err(Error::new(Kind::Missing, "it is not there")),
            "emulates" => Ok(Arc::new(Emulates(fake()))),
            _ => Ok(fake()),
        })
    }

    /// A backend with no more than this: it emulates and runs machines that run machines.
    #[derive(Debug)]
    struct Emulates(Arc<dyn Hypervisor>);

    impl Hypervisor for Emulates {
        fn name(&self) -> &'static str {
            "emulates"
        }

        fn describe(&self) -> String {
            "under emulation".to_owned()
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities { emulated: true, can: [Capability::Nested].into(), ..Capabilities::default() }
        }

        fn render(&self, node: &NodePlan, from: Option<&Saved>) -> LaunchPlan {
            self.0.render(node, from)
        }

        fn connect<'a>(
            &'a self,
            plan: &'a LaunchPlan,
            site: &'a Site<'a>,
            vmm: &'a ProcessId,
        ) -> BoxFuture<'a, Result<Arc<dyn Machine>, Error>> {
            self.0.connect(plan, site, vmm)
        }
    }

    #[test]
    fn what_is_required_decides_between_those_that_run_here() {
        let Chosen { hypervisor, passed_over, .. } = chosen(&["gone", "fake", "emulates"], Capability::Nested);
        let said = describe(&*hypervisor.unwrap(), &passed_over);
        assert_eq!(said, "under emulation (not on fake: `requires(nested)`, which it cannot do)");

        let Chosen { hypervisor, passed_over, .. } = chosen(&["emulates", "fake"], Capability::Faults);
        let said = describe(&*hypervisor.unwrap(), &passed_over);
        assert!(said.ends_with(" (not on emulates: `requires(faults)`, which it cannot do)"), "{said}");
        assert!(chosen(&["fake", "emulates"], Capability::Faults).passed_over.is_empty());
    }

    #[test]
    fn where_none_can_the_first_that_runs_is_for_the_plan_to_complain_of() {
        let chosen = chosen(&["gone", "emulates", "fake"], Capability::Vsock);
        assert_eq!(chosen.hypervisor.as_ref().unwrap().name(), "emulates");
        let fake = chosen.known().into_iter().find(|known| known.name == "fake").unwrap();
        let why = "`requires(vsock)`, which it cannot do";
        assert_eq!((fake.asked, fake.passed_over.as_deref()), (true, Some(why)));
    }
}
