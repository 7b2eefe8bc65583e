//! What a test keeps itself.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::recorder::{Recorder, saved_dir};
use crate::error::{Error, Kind, Phase};

/// Where a test keeps files beyond its end, beside everything that is kept of it anyway: a parameter of a test, or
/// [`Cluster::artifacts`](crate::Cluster::artifacts).
///
/// ```no_run
/// # use vmtest::prelude::*;
/// #[vm_test]
/// async fn a_trace_is_kept(node: Node, artifacts: Artifacts) -> Result {
///     artifacts.save("trace.bin", node.read("/var/lib/trace").await?)?;
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Artifacts {
    recorder: Arc<Recorder>,
}

impl Artifacts {
    pub(crate) fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder }
    }

    /// The directory; made by this call. What is written to it is kept as it is.
    ///
    /// # Errors
    /// [`Kind::Host`] where nothing is kept of this run, because `VMTEST_ARTIFACTS` says `none` or does not say where and there
    /// is no target directory that can be written, and when the directory cannot be made.
    pub fn dir(&self) -> Result<PathBuf, Error> {
        let none = || {
            let why = "nothing is kept of this run: set VMTEST_ARTIFACTS to a directory that can be written";
            Error::new(Kind::Host, why).in_phase(Phase::Body)
        };
        let dir = saved_dir(&self.recorder).ok_or_else(none)?;
        fs::create_dir_all(&dir).map_err(|e| cannot_keep(&dir, e))?;
        Ok(dir)
    }

    /// Keeps a file of this name, which may be a path below the directory, and says where it is. One of the same name is
    /// replaced.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a name that leads out of the directory, [`Kind::Host`] when it cannot be written.
    pub fn save(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<PathBuf, Error> {
        let name = name.as_ref();
        let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || name.as_os_str().is_empty() {
            let message = format!("`{}` is no name of an artifact: give a relative path without `..`", name.display());
            return Err(Error::new(Kind::Spec, message).in_phase(Phase::Body));
        }
        let path = self.dir()?.join(name);
        let write = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&path, content)
        };
        write().map_err(|e| cannot_keep(&path, e))?;
        Ok(path)
    }
}

fn cannot_keep(path: &Path, why: io::Error) -> Error {
    Error::new(Kind::Host, format!("cannot keep {}", path.display())).caused_by(why).in_phase(Phase::Body)
}
