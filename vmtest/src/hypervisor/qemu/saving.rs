//! Saving a machine: a migration into a file.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tokio::task::spawn_blocking;
use vmtest_fixtures::copy_sparse;

use super::{
    commands::{Migrate, SetCapabilities, SetParameters},
    qmp::Qmp,
    sizes::has_more_cpus,
};
use crate::{
    error::{Error, Kind},
    host::{Place, ProcessId, storage_error},
    hypervisor::{Saved, listen},
};

/// The devices, and the memory where it is no file of its own.
pub(super) const STATE: &str = "state";
/// The memory.
pub(super) const MEMORY: &str = "memory";
/// By which QEMU hands out its state: it may start no program, and knows files only from version 8.2 on.
const SOCKET: &str = "state.sock";
/// What the descriptor of the guest's memory is called where it is shared.
const SHARED_MEMORY: &str = "/memfd:memory-backend-memfd";
/// More than any disk takes; by default QEMU leaves half a network to others.
const BYTES_PER_SECOND: u64 = 1 << 40;

/// An ability of migrations, and whether it is used.
#[derive(Debug, Serialize)]
pub(super) struct Ability {
    capability: &'static str,
    state: bool,
}

/// What QEMU must know on both sides of a migration: whether the memory is left out, being in a file of its own. With it,
/// it says when it has ended.
pub(super) fn capabilities(memory_apart: bool) -> [Ability; 2] {
    [Ability { capability: "events", state: true }, Ability { capability: "x-ignore-shared", state: memory_apart }]
}

/// Writes a machine that is paused into this directory of its folder.
///
/// # Errors
/// What QEMU refused, or [`Kind::Host`] when a file cannot be written.
pub(super) async fn save(qmp: &Qmp, vmm: &ProcessId, folder: &Path, dir: &str) -> Result<Saved, Error> {
    if has_more_cpus(qmp).await? {
        let remedy = "QEMU cannot save a machine that has been given CPUs since its boot: take the snapshot before";
        return Err(Error::new(Kind::Spec, remedy));
    }
    let failed = |e| storage_error("cannot save the machine", Place::Scratch, e);
    let memory = shared_memory(vmm).map_err(failed)?;
    qmp.execute(SetCapabilities { capabilities: capabilities(memory.is_some()) }).await?;
    qmp.execute(SetParameters { max_bandwidth: BYTES_PER_SECOND }).await?;
    let listener = listen(folder, SOCKET).and_then(|listener| {
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener)
    });
    let listener = listener.map_err(failed)?;
    let to = folder.join(dir);
    let receive = async {
        let (mut from, _) = listener.accept().await?;
        let mut state = tokio::fs::File::create(to.join(STATE)).await?;
        tokio::io::copy(&mut from, &mut state).await?;
        // What is still on its way to the file is lost with it.
        state.sync_all().await
    };
    let receive = async { receive.await.map_err(failed) };
    tokio::try_join!(qmp.migrate(Migrate { uri: format!("unix:{SOCKET}") }), receive)?;
    let mappable = memory.is_some();
    if let Some(memory) = memory {
        let copied = spawn_blocking(move || copy_sparse(&memory, &to.join(MEMORY))).await;
        copied.map_err(|e| Error::new(Kind::Host, "copying the memory was given up").caused_by(e))?.map_err(failed)?;
    }
    Ok(Saved { dir: dir.to_owned(), mappable })
}

/// The guest's memory, if it is shared. One that was mapped from a file is not.
fn shared_memory(vmm: &ProcessId) -> io::Result<Option<File>> {
    let is_memory =
        |path: &PathBuf| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with(SHARED_MEMORY));
    let mut descriptors = fs::read_dir(format!("/proc/{}/fd", vmm.pid))?.flatten().map(|entry| entry.path());
    descriptors.find(is_memory).map(File::open).transpose()
}
