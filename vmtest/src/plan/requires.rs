//! What a test requires and its backend lacks.

use super::{Facts, KnownBackend, problems::Problems};
use crate::spec::ClusterSpec;

/// Reports every requirement that is not met, with the backends that meet it. Where no backend runs here, those that none
/// on which the test may run could meet.
pub(super) fn check(spec: &ClusterSpec, facts: &Facts, problems: &mut Problems) {
    for &capability in &spec.requires {
        let able = |known: &&KnownBackend| known.can.contains(&capability);
        let asked = || facts.known.iter().filter(|known| known.asked);
        let (unable, why) = match &facts.backend {
            Ok(backend) if backend.capabilities.has(capability) => continue,
            Ok(backend) => (vec![backend.name.as_str()], backend.lacks.get(&capability)),
            // Whatever is wrong with what was asked has been said.
            Err(_) if asked().next().is_none() || asked().any(|known| able(&known)) => continue,
            Err(_) => (asked().map(|known| known.name.as_str()).collect(), None),
        };
        let others = facts.known.iter().filter(able).filter(|known| !unable.contains(&known.name.as_str()));
        let others: Vec<_> = others.map(other).collect();
        let others = if others.is_empty() { "no other can".to_owned() } else { others.join("; ") };
        let unable: Vec<_> = unable.into_iter().map(|name| format!("`{name}`")).collect();
        let problem = format!("`requires({capability})`: {} cannot do it", unable.join(" and "));
        match why {
            Some(why) => problems.missing(format!("{problem} here: {why}; {others}")),
            None => problems.spec(format!("{problem}; {others}")),
        }
    }
}

/// What is said of a backend that could.
fn other(known: &KnownBackend) -> String {
    let KnownBackend { name, asked, passed_over, .. } = known;
    match passed_over {
        Some(why) => format!("`{name}` can, and was passed over: {why}"),
        None if *asked => format!("`{name}` can"),
        None => format!("`{name}` can, if `backend` and VMTEST_BACKEND let it"),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::{
        error::Kind,
        plan::{
            BackendFacts,
            cluster::tests::{backend, facts},
            plan,
        },
        spec::{Capability, NodeSpec},
    };

    /// What is said of a test that requires this, with the kind of the error.
    fn said(requires: &[Capability], backend: Result<BackendFacts, &str>, known: Vec<KnownBackend>) -> (Kind, String) {
        let mut spec = ClusterSpec { nodes: vec![NodeSpec::new("node")], ..ClusterSpec::new("t") };
        spec = requires.iter().fold(spec, |spec, &capability| spec.requires(capability));
        let facts = Facts { backend: backend.map_err(str::to_owned), known, ..facts() };
        let error = plan(&spec, &facts).expect_err("it cannot run");
        (error.kind(), error.to_string())
    }

    fn check((kind, said): (Kind, String), expected: Kind, text: Expect) {
        assert_eq!(kind, expected);
        text.assert_eq(&said);
    }

    /// A backend on which the test may run, unless something else is said.
    fn known(name: &str, can: &[Capability]) -> KnownBackend {
        KnownBackend { name: name.into(), can: can.iter().copied().collect(), asked: true, passed_over: None }
    }

    const BOTH: &[Capability] = &[Capability::Nested, Capability::Vsock];

    #[test]
    fn what_is_there_is_no_problem() {
        let spec = ClusterSpec { nodes: vec![NodeSpec::new("node")], ..ClusterSpec::new("t") };
        assert!(plan(&spec.requires(Capability::Nested), &facts()).is_ok());
    }

    #[test]
    fn what_a_backend_never_can_is_said_with_those_that_can() {
        let fake = || Ok(backend("fake", false, &[Capability::Faults], 0));
        let elsewhere = KnownBackend { asked: false, ..known("qemu", &[Capability::Nested]) };
        check(
            said(BOTH, fake(), vec![known("cloud-hypervisor", BOTH), elsewhere, known("fake", &[Capability::Faults])]),
            Kind::Spec,
            expect![[r#"
                `t` cannot run, for 2 reasons:
                  - `requires(nested)`: `fake` cannot do it; `cloud-hypervisor` can; `qemu` can, if `backend` and VMTEST_BACKEND let it
                  - `requires(vsock)`: `fake` cannot do it; `cloud-hypervisor` can"#]],
        );
        check(
            said(&[Capability::Vsock], fake(), vec![known("fake", &[])]),
            Kind::Spec,
            expect!["`t` cannot run: `requires(vsock)`: `fake` cannot do it; no other can"],
        );
    }

    #[test]
    fn what_it_cannot_do_on_this_host_is_said_with_the_reason() {
        let mut chv = backend("cloud-hypervisor", false, &[Capability::Vsock], 0);
        chv.lacks.insert(Capability::Nested, "its module says no".into());
        let absent = Some("no qemu on PATH".to_owned());
        let qemu = KnownBackend { passed_over: absent, ..known("qemu", &[Capability::Nested]) };
        check(
            said(BOTH, Ok(chv), vec![known("cloud-hypervisor", BOTH), qemu]),
            Kind::Missing,
            expect![
                "`t` cannot run: `requires(nested)`: `cloud-hypervisor` cannot do it here: its module says no; `qemu` can, and was passed over: no qemu on PATH"
            ],
        );
    }

    #[test]
    fn without_a_backend_it_is_said_what_none_of_them_could() {
        let all = || vec![known("qemu", &[Capability::Nested]), KnownBackend { asked: false, ..known("fake", BOTH) }];
        check(
            said(BOTH, Err("no qemu on PATH"), all()),
            Kind::Spec,
            expect![[r#"
            `t` cannot run, for 2 reasons:
              - `requires(vsock)`: `qemu` cannot do it; `fake` can, if `backend` and VMTEST_BACKEND let it
              - no qemu on PATH"#]],
        );
        check(
            said(&[Capability::Nested], Err("no qemu on PATH"), all()),
            Kind::Missing,
            expect!["`t` cannot run: no qemu on PATH"],
        );
    }
}
