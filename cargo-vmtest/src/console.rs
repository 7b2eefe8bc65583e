//! `cargo vmtest console` and `logs`.

use std::{fs, io, path::Path, process::ExitCode};

use vmtest::harness::control::{Answer, Request};

use super::{
    output::{Colour, bytes, line},
    target::{Target, find_run},
};

/// Prints what a machine's serial console has shown, and what it shows from then on.
pub(crate) fn run(name: &str, follow: bool) -> Result<ExitCode, String> {
    let target = Target::find(name)?;
    if !follow {
        bytes(&read(&target.node.console)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut client = target.client()?;
    let mut answer = client.ask(&Request::Console { node: target.node.name.clone() });
    loop {
        match answer {
            Ok(Answer::Line { line: text }) => line(text),
            Ok(other) => return Err(format!("the owner of run {} answers {other:?}", target.run.run)),
            // Nothing more will come; that the machine has ended is no failure of this command.
            Err(e) => {
                eprintln!("{}", e.to_string().lines().next().unwrap_or_default());
                return Ok(ExitCode::SUCCESS);
            }
        }
        answer = client.answer();
    }
}

/// Prints what VMMs and consoles of a machine, or of all of a run, have said.
pub(crate) fn logs(name: Option<&str>) -> Result<ExitCode, String> {
    let machine = name.map(Target::find);
    let (run, nodes) = match (name, machine) {
        (_, Some(Ok(target))) => (target.run, vec![target.node]),
        // A run may be named, too.
        (Some(name), Some(Err(why))) => {
            let run = find_run(Some(name)).map_err(|_| why)?;
            (run.clone(), run.nodes)
        }
        (None, _) | (_, None) => {
            let run = find_run(None)?;
            (run.clone(), run.nodes)
        }
    };
    for node in nodes {
        for (what, path) in [("VMM", &node.log), ("console", &node.console)] {
            line(Colour::Bold.of(format_args!("==> {}/{}: {what}", run.run, node.name)));
            bytes(&read(path)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The content of a file that a machine has from its first boot on.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|e| format!("cannot read {}: {e}", path.display())),
    }
}
