//! Starting a VMM from its launch plan; the same for all of them.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{fd::AsRawFd, fd::OwnedFd, unix::fs::OpenOptionsExt, unix::net::UnixListener},
    path::Path,
    time::Duration,
};

use tokio::{net::UnixStream, time::sleep};

use super::{LaunchPlan, Site};
use crate::{
    error::{Error, Kind},
    host::{ProcessId, SpawnRequest, appears, if_there, spawn_program},
};

/// Between the two calls that make a socket and listen on it a program does nothing else, and nobody is told of the second.
const LISTENS_WITHIN: Duration = Duration::from_millis(1);

/// The descriptors under which a VMM has the locks of its volumes: above all others.
const FIRST_LOCK_FD: i32 = 20;

/// Carries out a launch plan in the node's folder.
///
/// # Errors
/// [`Kind::Host`] when a file or socket cannot be made or the program cannot be started.
pub(crate) async fn start(plan: &LaunchPlan, site: &Site<'_>) -> Result<(OwnedFd, ProcessId), Error> {
    let (dir, locks) = (site.dir, site.locks()?);
    let failed = |e: io::Error| Error::new(Kind::Host, format!("cannot start {}", plan.program)).caused_by(e);
    let (console, log) = make_files(plan, dir).map_err(failed)?;
    for socket in &plan.own_sockets {
        if_there(fs::remove_file(dir.join(socket))).map_err(failed)?;
    }
    for file in &plan.own_files {
        let emptied = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(dir.join(file));
        emptied.map_err(failed)?;
    }
    let sockets = plan.sockets.iter().map(|socket| Ok((listen(dir, &socket.path)?.into(), socket.fd)));
    let files = plan.files.iter().map(|file| Ok((File::open(dir.join(&file.path))?.into(), file.fd)));
    let locks = (FIRST_LOCK_FD..).zip(locks).map(|(fd, lock)| Ok((lock, fd)));
    let request = SpawnRequest {
        program: plan.program.clone(),
        args: plan.args.clone(),
        dir: dir.to_owned(),
        stdout: plan.console_is_stdout.then_some(console),
        log,
        fds: sockets.chain(files).chain(locks).collect::<io::Result<_>>().map_err(failed)?,
        one_cpu: plan.one_cpu,
    };
    site.keeper.spawn(move || spawn_program(request)).await.map_err(failed)
}

/// Makes the files of console and log, before the machine runs, so that they can be followed from their first byte.
pub(super) fn make_files(plan: &LaunchPlan, dir: &Path) -> io::Result<(File, File)> {
    let make = |name: &str| OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join(name));
    Ok((make(&plan.console)?, make(&plan.log)?))
}

/// Connects to a socket in the node's folder, however long the folder's path is.
///
/// # Errors
/// When nobody listens there.
pub(crate) async fn connect_socket(dir: &Path, name: &str) -> io::Result<UnixStream> {
    let dir = File::open(dir)?;
    UnixStream::connect(short_path(&dir, name)).await
}

/// Waits until a VMM listens on a socket that it makes in the node's folder. Cancel-safe.
///
/// # Errors
/// When the folder cannot be watched, or the socket cannot be connected to.
pub(super) async fn await_socket(dir: &Path, name: &str) -> io::Result<()> {
    appears(dir, name).await?;
    loop {
        match connect_socket(dir, name).await {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => sleep(LISTENS_WITHIN).await,
            connected => return connected.map(drop),
        }
    }
}

/// Listens on a socket in the node's folder, in place of one that a VMM has left behind.
///
/// # Errors
/// When it cannot be made.
pub(super) fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let dir = File::open(dir)?;
    let path = short_path(&dir, name);
    if_there(fs::remove_file(&path))?;
    UnixListener::bind(path)
}

/// A path under 108 bytes, the limit of unix sockets, for a file in an open directory.
fn short_path(dir: &File, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_waited_for_until_somebody_listens() {
        let dir = tempfile::tempdir().unwrap();
        let listener = async {
            tokio::task::yield_now().await;
            fs::write(dir.path().join("other"), "").unwrap();
            // Made, and nobody listens: what a VMM has left behind.
            drop(listen(dir.path(), "api.sock").unwrap());
            tokio::task::yield_now().await;
            listen(dir.path(), "api.sock").unwrap()
        };
        let (listens, listener) = tokio::join!(await_socket(dir.path(), "api.sock"), listener);
        listens.unwrap();
        await_socket(dir.path(), "api.sock").await.unwrap();
        drop(listener);
    }
}
