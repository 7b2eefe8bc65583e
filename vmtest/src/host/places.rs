//! Where run directories are.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

use super::{Place, caller, storage::storage_error};
use crate::error::{Error, Kind};

/// Where the run directories of this user are.
///
/// `VMTEST_RUN`, else `$XDG_RUNTIME_DIR/vmtest`, else `/tmp/vmtest-<uid>`.
///
/// # Errors
/// [`Kind::Host`] when the directory cannot be made, or belongs to somebody else.
pub(crate) fn runs_root(setting: Option<&Path>) -> Result<PathBuf, Error> {
    let root = match (setting, std::env::var_os("XDG_RUNTIME_DIR")) {
        (Some(path), _) => path.to_owned(),
        (None, Some(runtime)) if Path::new(&runtime).is_dir() => Path::new(&runtime).join("vmtest"),
        _ => PathBuf::from(format!("/tmp/vmtest-{}", caller())),
    };
    let failed =
        |e: io::Error| storage_error(format!("cannot use {} for run directories", root.display()), Place::Run, e);
    DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(failed)?;
    let owner = fs::metadata(&root).map_err(failed)?.uid();
    if owner != geteuid().as_raw() {
        let message = format!(
            "{} belongs to user {owner}: remove it, or set VMTEST_RUN to a directory of your own",
            root.display()
        );
        return Err(Error::new(Kind::Host, message));
    }
    Ok(root)
}
