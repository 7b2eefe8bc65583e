//! Where the machine's own apt has Debian from.

use std::process::Command;

use super::entry;
use crate::{Error, Result, packages};

/// What apt is asked for of each list of packages that it knows.
const FORMAT: &str = "$(ORIGIN)|$(CODENAME)|$(COMPONENT)|$(SITE)|$(SOURCESENTRY)";
/// What the origin of a list says that is Debian's own.
const DEBIAN: &str = "Debian";

/// What apt is told about a release in a file `.sources`, from where the machine has its own: what it has of that release, else
/// what it has of another one, under the other name.
///
/// # Errors
/// [`Error::Release`] where the machine has no Debian, and [`Error::NoTool`] without apt.
pub(super) fn of_release(release: &str) -> Result<String> {
    let targets =
        packages::run(Command::new("apt-get").args(["indextargets", "--format", FORMAT, "Created-By: Packages"]))?;
    let sources = from_targets(&targets, release).ok_or_else(|| Error::Release {
        release: release.to_owned(),
        why: "they have no Debian, or were never read: run `apt-get update` as root".to_owned(),
    })?;
    let stanzas = sources.iter().map(|source| Ok(source.stanza(&entry::options(&source.entry)?)));
    Ok(stanzas.collect::<Result<Vec<_>>>()?.join("\n"))
}

/// A suite of a mirror.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    site: String,
    suite: String,
    components: Vec<String>,
    /// The first entry that has it. All of them have the same options that are taken over: apt wants that.
    entry: String,
}

impl Source {
    fn stanza(&self, options: &str) -> String {
        let Self { site, suite, components, .. } = self;
        format!("Types: deb\nURIs: {site}\nSuites: {suite}\nComponents: {}\n{options}", components.join(" "))
    }
}

fn from_targets(targets: &str, release: &str) -> Option<Vec<Source>> {
    let parse = |line: &str| {
        let mut parts = line.split('|').map(str::to_owned);
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let (origin, codename, component, site, entry) = (next()?, next()?, next()?, next()?, next()?);
        // `bookworm-security` is a part of `bookworm`.
        let base = codename.split('-').next().unwrap_or_default().to_owned();
        (origin == DEBIAN).then_some((base, codename, component, site, entry))
    };
    let all: Vec<_> = targets.lines().filter_map(parse).collect();
    let from = if all.iter().any(|(base, ..)| base == release) { release } else { &all.first()?.0 };
    let mut sources: Vec<Source> = Vec::new();
    for (_, codename, component, site, entry) in all.iter().filter(|(base, ..)| base == from) {
        // Backports are for who asks for them.
        if codename.ends_with("-backports") {
            continue;
        }
        let suite = codename.replacen(from, release, 1);
        match sources.iter_mut().find(|source| (&source.site, &source.suite) == (site, &suite)) {
            Some(source) if source.components.contains(component) => {}
            Some(source) => source.components.push(component.clone()),
            None => {
                let (site, components) = (site.clone(), vec![component.clone()]);
                sources.push(Source { site, suite, components, entry: entry.clone() });
            }
        }
    }
    (!sources.is_empty()).then_some(sources)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const MACHINE: &str = "Debian|bookworm|main|http://mirror/debian|/a.list:1\n\
        Debian|bookworm|main|http://mirror/debian|/b.list:1\n\
        Debian|bookworm|contrib|http://mirror/debian|/a.list:1\n\
        Debian|bookworm-security|main|http://mirror/security|/a.list:2\n\
        Debian Backports|bookworm-backports|main|http://mirror/debian|/a.list:3\n\
        Elsewhere|stable|main|http://elsewhere|/a.list:4\n";

    fn of(targets: &str, release: &str) -> String {
        let sources = from_targets(targets, release).expect("it is there");
        sources.iter().map(|source| source.stanza(&format!("Of: {}\n", source.entry))).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn another_release_comes_from_where_the_machines_own_does() {
        expect![[r#"
            Types: deb
            URIs: http://mirror/debian
            Suites: bookworm
            Components: main contrib
            Of: /a.list:1

            Types: deb
            URIs: http://mirror/security
            Suites: bookworm-security
            Components: main
            Of: /a.list:2
        "#]]
        .assert_eq(&of(MACHINE, "bookworm"));
        assert_eq!(of(MACHINE, "trixie"), of(MACHINE, "bookworm").replace("bookworm", "trixie"));
        let both = format!("{MACHINE}Debian|trixie|main|http://other/debian|/b.list:2\n");
        expect![[r#"
            Types: deb
            URIs: http://other/debian
            Suites: trixie
            Components: main
            Of: /b.list:2
        "#]]
        .assert_eq(&of(&both, "trixie"));
    }

    #[test]
    fn a_machine_without_debian_has_none() {
        assert_eq!(from_targets("Ubuntu|noble|main|http://mirror/ubuntu|/a.list:1\n", "bookworm"), None);
        assert_eq!(from_targets("", "bookworm"), None);
    }
}
