//! Which run or machine a name means.

use vmtest::harness::control::{Client, Description, Machine, Runs, runs};

/// A machine of a live run.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) run: Description,
    pub(crate) node: Machine,
}

impl Target {
    /// The machine of this name.
    ///
    /// # Errors
    /// That there is none, or the candidates where there are several.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        let all = runs().map_err(|e| e.to_string())?;
        node(&all, name)
    }

    /// A connection to the owner of its run.
    ///
    /// # Errors
    /// That it does not answer.
    pub(crate) fn client(&self) -> Result<Client, String> {
        Client::connect(&self.run.dir).map_err(|e| e.to_string())
    }
}

/// The live run of this name; without one, the only one.
///
/// # Errors
/// That there is none, or the candidates where there are several.
pub(crate) fn find_run(name: Option<&str>) -> Result<Description, String> {
    let all = runs().map_err(|e| e.to_string())?;
    run(&all, name).cloned()
}

/// By `run/node`, or `node` alone where one run has it. Both by their beginnings, too, where that is clear; the run by its
/// test, too.
fn node(all: &Runs, name: &str) -> Result<Target, String> {
    let (of, node) = match name.split_once('/') {
        Some((of, node)) => (vec![run(all, Some(of))?], node),
        None => (all.runs.iter().collect(), name),
    };
    if of.is_empty() {
        return Err(no_runs(all));
    }
    let every = || of.iter().flat_map(|run| run.nodes.iter().map(move |node| (*run, node)));
    let exact: Vec<_> = every().filter(|(_, of)| of.name == node).collect();
    let found = if exact.is_empty() { every().filter(|(_, of)| of.name.starts_with(node)).collect() } else { exact };
    let list = |nodes: &[(&Description, &Machine)]| {
        nodes.iter().map(|(run, node)| format!("\n  {}/{}  of `{}`", run.run, node.name, run.test)).collect::<String>()
    };
    match found.as_slice() {
        [(run, node)] => Ok(Target { run: (*run).clone(), node: (*node).clone() }),
        [] => Err(format!("there is no machine `{name}`; there are:{}", list(&every().collect::<Vec<_>>()))),
        several => Err(format!("`{name}` can be:{}", list(several))),
    }
}

fn run<'a>(all: &'a Runs, name: Option<&str>) -> Result<&'a Description, String> {
    let list = |runs: &[&Description]| {
        runs.iter().map(|run| format!("\n  {}  of `{}`", run.run, run.test)).collect::<String>()
    };
    let every: Vec<_> = all.runs.iter().collect();
    let Some(name) = name else {
        return match every.as_slice() {
            [only] => Ok(only),
            [] => Err(no_runs(all)),
            several => Err(format!("say which run:{}", list(several))),
        };
    };
    if let Some(silent) = all.silent.iter().find(|silent| silent.run == name) {
        return Err(format!("run {name}: {}", silent.why));
    }
    let ways: [&dyn Fn(&Description) -> bool; 4] = [
        &|run| run.run == name || run.test == name,
        &|run| run.test.ends_with(&format!("::{name}")),
        &|run| run.run.starts_with(name),
        &|run| run.test.contains(name),
    ];
    for way in ways {
        match every.iter().copied().filter(|run| way(run)).collect::<Vec<_>>().as_slice() {
            [] => {}
            [only] => return Ok(only),
            several => return Err(format!("`{name}` can be:{}", list(several))),
        }
    }
    Err(if every.is_empty() { no_runs(all) } else { format!("there is no run `{name}`; there are:{}", list(&every)) })
}

fn no_runs(all: &Runs) -> String {
    let silent: String = all.silent.iter().map(|silent| format!("\n  run {}: {}", silent.run, silent.why)).collect();
    format!("no test runs now: `VMTEST_HOLD=failed cargo test` keeps a cluster, `cargo vmtest up` makes one{silent}")
}

#[cfg(test)]
mod tests {
    use vmtest::harness::control::{Interface, RunState, Silent};

    use super::*;

    fn description(run: &str, test: &str, nodes: &[&str]) -> Description {
        let machine = |name: &&str| Machine {
            name: (*name).into(),
            state: "running".into(),
            waits_for: None,
            interfaces: vec![Interface {
                network: "default".into(),
                ip: [10, 77, 0, 11].into(),
                ip6: std::net::Ipv6Addr::LOCALHOST,
                mac: "52:54:00:00:00:01".into(),
            }],
            vmm: None,
            console: "/nowhere".into(),
            log: "/nowhere".into(),
        };
        Description {
            run: run.into(),
            dir: "/nowhere".into(),
            test: test.into(),
            backend: "fake".into(),
            pid: 1,
            since: 0,
            state: RunState::Running,
            held: None,
            held_since: None,
            hold_asked: false,
            nodes: nodes.iter().map(machine).collect(),
        }
    }

    fn some() -> Runs {
        Runs {
            runs: vec![
                description("54f0f083", "elections::elects", &["alice", "bob"]),
                description("54aa0001", "elections::elects", &["alice", "carol"]),
                description("77777777", "disks::fills", &["db", "db-standby"]),
            ],
            silent: vec![Silent { run: "0000000a".into(), test: None, why: "its owner has died".into() }],
        }
    }

    fn found(name: &str) -> Result<String, String> {
        node(&some(), name).map(|target| format!("{}/{}", target.run.run, target.node.name))
    }

    #[test]
    fn machines_are_found_by_whatever_is_clear() {
        assert_eq!(found("bob").unwrap(), "54f0f083/bob");
        assert_eq!(found("car").unwrap(), "54aa0001/carol");
        assert_eq!(found("54f/al").unwrap(), "54f0f083/alice");
        assert_eq!(found("fills/db").unwrap(), "77777777/db", "the whole name goes before its being a beginning");
        assert_eq!(found("db").unwrap(), "77777777/db");
    }

    #[test]
    fn unclear_names_list_what_they_can_be() {
        let two = "`alice` can be:\n  54f0f083/alice  of `elections::elects`\n  54aa0001/alice  of `elections::elects`";
        assert_eq!(found("alice").unwrap_err(), two);
        assert!(found("54/bob").unwrap_err().starts_with("`54` can be:\n  54f0f083  of"));
        assert!(found("elects/bob").unwrap_err().starts_with("`elects` can be:"), "two runs of one test");
        assert!(found("dave").unwrap_err().contains("there are:\n  54f0f083/alice"));
        assert_eq!(found("0000000a/x").unwrap_err(), "run 0000000a: its owner has died");
        assert!(run(&some(), None).unwrap_err().starts_with("say which run:"));
        assert!(node(&Runs::default(), "a").unwrap_err().starts_with("no test runs now"));
    }
}
