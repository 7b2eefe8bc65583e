//! Where the machine's own apt has Debian from.

use std::process::Command;

use crate::{Error, Result, packages};

/// What apt is asked for of each list of packages that it knows.
const FORMAT: &str = "$(ORIGIN)|$(CODENAME)|$(RELEASE)|$(COMPONENT)|$(SITE)";
/// What the origin of a list says that is Debian's own.
const DEBIAN: &str = "Debian";

/// The lines of a `sources.list` for this release, from where the machine has its own: what it has of that release, else
/// what it has of another one, under the other name.
///
/// # Errors
/// [`Error::Release`] where the machine has no Debian, and [`Error::NoTool`] without apt.
pub(super) fn of_release(release: &str) -> Result<String> {
    let targets =
        packages::run(Command::new("apt-get").args(["indextargets", "--format", FORMAT, "Created-By: Packages"]))?;
    from_targets(&targets, release).ok_or_else(|| Error::Release {
        release: release.to_owned(),
        why: "they have no Debian, or were never read: run `apt-get update` as root".to_owned(),
    })
}

fn from_targets(targets: &str, release: &str) -> Option<String> {
    let parse = |line: &str| {
        let mut parts = line.split('|').map(str::to_owned);
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let (origin, codename, suite, component, site) = (next()?, next()?, next()?, next()?, next()?);
        // `bookworm-security` is a part of `bookworm`.
        let base = codename.split('-').next().unwrap_or_default().to_owned();
        (origin == DEBIAN).then_some((base, codename, suite, component, site))
    };
    let all: Vec<_> = targets.lines().filter_map(parse).collect();
    let from = if all.iter().any(|(base, ..)| base == release) { release } else { &all.first()?.0 };
    let mut lines: Vec<String> = Vec::new();
    for (_, codename, _, component, site) in all.iter().filter(|(base, ..)| base == from) {
        // Backports are for who asks for them.
        if codename.ends_with("-backports") {
            continue;
        }
        let suite = codename.replacen(from, release, 1);
        let line = format!("deb {site} {suite} {component}\n");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    (!lines.is_empty()).then(|| lines.concat())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const MACHINE: &str = "Debian|bookworm|bookworm|main|http://mirror/debian\n\
        Debian|bookworm|bookworm|main|http://mirror/debian\n\
        Debian|bookworm-security|bookworm-security|main|http://mirror/security\n\
        Debian Backports|bookworm-backports|bookworm-backports|main|http://mirror/debian\n\
        Elsewhere|stable|stable|main|http://elsewhere\n";

    #[test]
    fn another_release_comes_from_where_the_machines_own_does() {
        expect![[r#"
            deb http://mirror/debian bookworm main
            deb http://mirror/security bookworm-security main
        "#]]
        .assert_eq(&from_targets(MACHINE, "bookworm").expect("it is there"));
        expect![[r#"
            deb http://mirror/debian trixie main
            deb http://mirror/security trixie-security main
        "#]]
        .assert_eq(&from_targets(MACHINE, "trixie").expect("it is where the other is"));
        let both = format!("{MACHINE}Debian|trixie|testing|main|http://other/debian\n");
        assert_eq!(from_targets(&both, "trixie").as_deref(), Some("deb http://other/debian trixie main\n"));
    }

    #[test]
    fn a_machine_without_debian_has_none() {
        assert_eq!(from_targets("Ubuntu|noble|noble|main|http://mirror/ubuntu\n", "bookworm"), None);
        assert_eq!(from_targets("", "bookworm"), None);
    }
}
