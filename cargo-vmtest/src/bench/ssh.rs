//! Commands and copies, beside OpenSSH over a shared control connection to the same machine.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use vmtest::{Cluster, Failure, Node, Result, spec::NodeSpec};

use super::{Figure, Pairs};

/// What a command prints in the measurement of output.
const OUTPUT: &str = "head -c 20971520 /dev/zero";
/// Commands for each of the other pairs: they take milliseconds, and spread as much.
const COMMANDS: u32 = 10;
/// The size of the file that is copied.
const COPIED: usize = 64 << 20;

pub(super) fn measure(pairs: u32) -> std::result::Result<Vec<Figure>, String> {
    let figures = Arc::new(Mutex::new(Vec::new()));
    let tell = figures.clone();
    let node = NodeSpec::new("alice").memory(512 << 20);
    let cluster = Cluster::builder().name("bench").node(node).timeout(Duration::from_secs(3600));
    let measured = cluster.run(async move |cluster| -> Result {
        let measured = on_a_machine(&cluster.node("alice")?, pairs).await?;
        *tell.lock().unwrap_or_else(PoisonError::into_inner) = measured;
        Ok(())
    });
    measured.map_err(|e| e.to_string())?;
    Ok(std::mem::take(&mut *figures.lock().unwrap_or_else(PoisonError::into_inner)))
}

async fn on_a_machine(node: &Node, pairs: u32) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir()?;
    let openssh = OpenSsh::connect(node, dir.path())?;
    let (there, back) = (dir.path().join("there"), dir.path().join("back"));
    fs::write(&there, vec![b'x'; COPIED])?;
    let [mut command, mut output, mut up, mut down]: [Pairs; 4] = Default::default();
    for _ in 0..pairs {
        for _ in 0..COMMANDS {
            command.push(timed(async { node.sh("true").await.map(drop) }).await?, openssh.run("true", None, None)?);
        }
        output.push(timed(async { node.sh(OUTPUT).await.map(drop) }).await?, openssh.run(OUTPUT, None, None)?);
        let ours = timed(node.upload(&there, "/tmp/ours")).await?;
        up.push(ours, openssh.run("cat >/tmp/theirs", Some(&there), None)?);
        let ours = timed(node.download("/tmp/ours", &back)).await?;
        down.push(ours, openssh.run("cat /tmp/theirs", None, Some(&dir.path().join("theirs")))?);
    }
    Ok(vec![
        command.beside("sh(\"true\")", "OpenSSH, shared connection"),
        output.beside("20 MB of output", "OpenSSH, shared connection"),
        up.beside("upload of 64 MB", "OpenSSH, `cat` both ways"),
        down.beside("download of 64 MB", "OpenSSH, `cat` both ways"),
    ])
}

async fn timed(work: impl Future<Output = std::result::Result<(), vmtest::Error>>) -> Result<Duration> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed())
}

/// OpenSSH's client with a control connection. `scp` needs a program in the guest that the image does not have; what it
/// does with a file is this.
struct OpenSsh {
    arguments: Vec<std::ffi::OsString>,
}

impl OpenSsh {
    fn connect(node: &Node, dir: &Path) -> Result<Self> {
        let mut arguments: Vec<_> = node.ssh_command()?.get_args().map(ToOwned::to_owned).collect();
        let socket = format!("ControlPath={}", dir.join("control").display());
        let shared = ["-o", &socket, "-o", "ControlMaster=auto", "-o", "ControlPersist=yes"].map(Into::into);
        arguments.splice(0..0, shared);
        let openssh = Self { arguments };
        openssh.run("true", None, None)?;
        Ok(openssh)
    }

    fn run(&self, command: &str, input: Option<&Path>, output: Option<&Path>) -> Result<Duration> {
        let began = Instant::now();
        let input = input.map_or(Ok(Stdio::null()), |path| File::open(path).map(Stdio::from))?;
        let output = output.map_or(Ok(Stdio::piped()), |path| File::create(path).map(Stdio::from))?;
        let mut ssh = Command::new("ssh").args(&self.arguments).arg(command).stdin(input).stdout(output).spawn()?;
        if let Some(mut printed) = ssh.stdout.take() {
            io::copy(&mut printed, &mut io::sink())?;
        }
        let status = ssh.wait()?;
        if !status.success() {
            return Err(Failure::msg(format!("ssh `{command}` failed with {status}")));
        }
        Ok(began.elapsed())
    }
}

impl Drop for OpenSsh {
    fn drop(&mut self) {
        // The control connection would live on until the machine is gone.
        drop(Command::new("ssh").args(["-O", "exit"]).args(&self.arguments).stderr(Stdio::null()).status());
    }
}
