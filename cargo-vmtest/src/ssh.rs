//! `cargo vmtest ssh`, `ssh-config` and `connect`.
//!
//! OpenSSH itself stays where it was called: its connection goes through the owner of the run (`connect`), which is in the
//! cluster's network. So it needs no right, and its forwardings have their ends where a person wants them.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode, exit},
    thread,
};

use vmtest::harness::control::{Answer, Client, Description, Request, SshAccess, runs};

use super::{
    output::print,
    target::{Target, find_run},
};

/// Logs in with the system's `ssh`, which replaces this process.
pub(crate) fn run(name: &str, terminal: bool, command: &[String]) -> Result<ExitCode, String> {
    let target = Target::find(name)?;
    reachable(&target)?;
    let access = access(&target.run, &target.node.name)?;
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none"]);
    for (option, value) in options(&target.run, &target.node.name, &access)? {
        ssh.arg("-o").arg(format!("{option}={value}"));
    }
    if terminal {
        ssh.arg("-t");
    }
    ssh.arg(format!("{}@{}", access.user, access.address)).args(command);
    let why = ssh.exec();
    Err(format!("cannot run `ssh` ({why}): install the package openssh-client"))
}

/// What OpenSSH would only see as a connection that nobody answers.
fn reachable(target: &Target) -> Result<(), String> {
    let (node, name) = (&target.node, format!("{}/{}", target.run.run, target.node.name));
    match node.state.as_str() {
        "booting" => {
            let waits = node.waits_for.as_ref().map(|rung| format!(", and waits for `{rung}`")).unwrap_or_default();
            Err(format!("{name} still boots{waits}: `cargo vmtest console --follow {name}` shows what it does"))
        }
        "paused" => Err(format!("{name} is paused, and answers nobody until its test resumes it")),
        "off" => Err(format!("{name} is off: `cargo vmtest logs {name}` shows what it said last")),
        _ => Ok(()),
    }
}

/// Prints a host entry for each machine of a run, or of all.
pub(crate) fn config(name: Option<&str>) -> Result<ExitCode, String> {
    let found = match name {
        Some(name) => vec![find_run(Some(name))?],
        None => runs().map_err(|e| e.to_string())?.runs,
    };
    for run in &found {
        for node in &run.nodes {
            let access = access(run, &node.name)?;
            // The short name, too, where it can mean one machine only.
            let alone = found.iter().flat_map(|run| &run.nodes).filter(|other| other.name == node.name).count() == 1;
            let short = if alone { format!(" {}", node.name) } else { String::new() };
            print(format_args!("# {}\nHost {}.{}{short}\n", run.test, run.run, node.name));
            print(format_args!("  HostName {}\n  User {}\n", access.address, access.user));
            for (option, value) in options(run, &node.name, &access)? {
                print(format_args!("  {option} {value}\n"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn access(run: &Description, node: &str) -> Result<SshAccess, String> {
    let mut client = Client::connect(&run.dir).map_err(|e| e.to_string())?;
    match client.ask(&Request::Ssh { node: node.to_owned() }).map_err(|e| e.to_string())? {
        Answer::Ssh(access) => Ok(access),
        other => Err(format!("the owner of run {} answers {other:?}", run.run)),
    }
}

/// What OpenSSH is told, whether on its command line or in its configuration.
fn options(run: &Description, node: &str, access: &SshAccess) -> Result<Vec<(&'static str, String)>, String> {
    let own = std::env::current_exe().map_err(|e| format!("cannot find this command itself: {e}"))?;
    let proxy = format!("{} connect --dir {} {node} {}", quoted(&own)?, quoted(&run.dir)?, access.port);
    Ok(vec![
        ("ProxyCommand", proxy),
        ("IdentityFile", quoted(&access.key)?),
        ("IdentitiesOnly", "yes".into()),
        ("UserKnownHostsFile", quoted(&access.known_hosts)?),
        ("GlobalKnownHostsFile", "none".into()),
        ("BatchMode", "yes".into()),
        ("LogLevel", "ERROR".into()),
    ])
}

/// In the form that OpenSSH and a shell read alike.
fn quoted(path: &Path) -> Result<String, String> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\\', '\n', '$', '`', '%']));
    match text {
        Some(plain) if !plain.contains([' ', '\'', '&', ';', '(', ')']) => Ok(plain.to_owned()),
        Some(other) => Ok(format!("\"{other}\"")),
        None => Err(format!("OpenSSH cannot be given the path {}: set VMTEST_RUN to a simpler one", path.display())),
    }
}

/// Makes standard input and output a connection to a port of a machine.
pub(crate) fn connect(dir: Option<&Path>, node: &str, port: u16) -> Result<ExitCode, String> {
    let (mut client, node) = match dir {
        Some(dir) => (Client::connect(dir).map_err(|e| e.to_string())?, node.to_owned()),
        None => {
            let target = Target::find(node)?;
            (target.client()?, target.node.name)
        }
    };
    client.ask(&Request::Connect { node, port }).map_err(|e| e.to_string())?;
    let (far, first) = client.into_stream();
    let mut to_far = far.try_clone().map_err(|e| e.to_string())?;
    thread::spawn(move || {
        // Either side may end it in any way.
        drop(copy(&mut std::io::stdin(), &mut to_far));
        drop(to_far.shutdown(Shutdown::Write));
    });
    // What came with the answer is a part of what comes.
    let copied = copy(&mut first.as_slice().chain(far), &mut std::io::stdout());
    // The other direction may wait for input that nobody reads any more.
    exit(i32::from(copied.is_err()));
}

/// Passes on each piece as it comes.
fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        to.write_all(&buffer[..length])?;
        to.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_arrives_before_the_next_one_is_waited_for() {
        use std::{cell::RefCell, rc::Rc};

        /// What has arrived, behind what keeps back the beginning of a line.
        struct Arrived(Rc<RefCell<Vec<u8>>>);
        impl Write for Arrived {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.borrow_mut().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        /// A server that says nothing more before its first words have arrived.
        struct Waits(Rc<RefCell<Vec<u8>>>);
        impl Read for Waits {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                assert_eq!(*self.0.borrow(), b"SSH-2.0\nkeys");
                Ok(0)
            }
        }
        let arrived = Rc::new(RefCell::new(Vec::new()));
        let mut out = std::io::LineWriter::new(Arrived(arrived.clone()));
        copy(&mut b"SSH-2.0\nkeys".chain(Waits(arrived)), &mut out).unwrap();
    }

    #[test]
    fn paths_reach_openssh_as_they_are() {
        assert_eq!(quoted(Path::new("/tmp/a/b")).unwrap(), "/tmp/a/b");
        assert_eq!(quoted(Path::new("/tmp/a b")).unwrap(), "\"/tmp/a b\"");
        assert!(quoted(Path::new("/tmp/$a")).unwrap_err().contains("VMTEST_RUN"));
    }
}
