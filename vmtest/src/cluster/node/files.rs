//! Files between the test and a machine.

use std::{
    ffi::{OsStr, OsString},
    io::IsTerminal,
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Node, sh::Running};
use crate::{
    error::{Error, Phase},
    evidence::Work,
    guest::files::{self, Moved},
};

/// A copy larger than this shows how it goes on a terminal; it takes a second or more under emulation.
const LARGE: u64 = 8 << 20;

/// Files. What fails leaves no half file at either end. Cancel-safe in the same way.
impl Node {
    /// The content of a file.
    ///
    /// # Errors
    /// [`Kind::Command`](crate::Kind::Command) with what the guest says: no such file, a directory.
    pub async fn read(&self, path: impl AsRef<OsStr>) -> Result<Vec<u8>, Error> {
        let path = path.as_ref().to_owned();
        let what = format!("read {}", path.to_string_lossy());
        self.copy(what, |node| async move { files::read(&node.member.ssh, &path).await }).await
    }

    /// Writes a file, and makes the directories above it. One that is there is replaced and keeps its mode; a new one
    /// has the mode 0644.
    ///
    /// # Errors
    /// [`Kind::Command`](crate::Kind::Command) with what the guest says: a directory, no space.
    pub async fn write(&self, path: impl AsRef<OsStr>, content: impl Into<Vec<u8>>) -> Result<(), Error> {
        let (path, content) = (path.as_ref().to_owned(), content.into());
        let what = format!("write {}, {} bytes", path.to_string_lossy(), content.len());
        self.copy(what, |node| async move { files::write(&node.member.ssh, &path, content).await }).await
    }

    /// Copies a file or a whole directory to this place, with modes and symbolic links, owned by root. A directory that
    /// is there already keeps what else is in it.
    ///
    /// # Errors
    /// [`Kind::Spec`](crate::Kind::Spec) or [`Kind::Host`](crate::Kind::Host) when it cannot be read here,
    /// [`Kind::Command`](crate::Kind::Command) with what the guest says.
    pub async fn upload(&self, from: impl AsRef<Path>, to: impl AsRef<OsStr>) -> Result<(), Error> {
        let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
        let moved = progress(format!("{} to {}", from.display(), self.name()), files::size_of(&from));
        let what = format!("upload {} to {}", from.display(), to.to_string_lossy());
        self.copy(what, |node| async move { files::upload(&node.member.ssh, from, &to, moved).await }).await
    }

    /// Copies a file or a whole directory from the machine to this place, with modes and symbolic links. A directory
    /// that is there already keeps what else is in it. A symbolic link itself is followed.
    ///
    /// # Errors
    /// [`Kind::Host`](crate::Kind::Host) when it cannot be written here, [`Kind::Command`](crate::Kind::Command) with
    /// what the guest says.
    pub async fn download(&self, from: impl AsRef<OsStr>, to: impl AsRef<Path>) -> Result<(), Error> {
        let (from, to): (OsString, PathBuf) = (from.as_ref().to_owned(), to.as_ref().to_owned());
        let moved = progress(format!("{} from {}", from.to_string_lossy(), self.name()), 0);
        let what = format!("download {} to {}", from.to_string_lossy(), to.display());
        self.copy(what, |node| async move { files::download(&node.member.ssh, &from, to, moved).await }).await
    }

    fn copy<T, F>(&self, what: String, work: impl FnOnce(Self) -> F) -> Running<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (member, work) = (self.member.clone(), work(self.clone()));
        Running::on(self, async move {
            let span = member.recorder.work(Some(&member.plan.name), Work::Copy, what);
            span.result(member.while_alive(work).await).map_err(|e| e.in_phase(Phase::Body))
        })
    }
}

/// A bar on the terminal once much has moved; `total` is 0 where it is not known.
fn progress(what: String, total: u64) -> Moved {
    if !std::io::stderr().is_terminal() {
        return Box::new(|_| {});
    }
    let bar = ProgressBar::hidden();
    let shape = if total > 0 { "[{bar:30}]" } else { "{spinner}" };
    let template = format!("vmtest: {{msg}} {shape} {{bytes}} ({{bytes_per_sec}})");
    bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what);
    if total > 0 {
        bar.set_length(total);
    }
    let bar = ClearedBar(bar);
    Box::new(move |bytes| {
        let before = bar.0.position();
        bar.0.inc(bytes);
        if before <= LARGE && before + bytes > LARGE {
            bar.0.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
    })
}

/// Removes the bar when the copy has ended, in whichever way.
struct ClearedBar(ProgressBar);

impl Drop for ClearedBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
