//! The disk of one machine over that which all of its image share.

use std::{fs::File, io, path::Path};

use imago::{FormatCreateBuilder, qcow2::Qcow2};

use vmtest_fixtures::copy_sparse;

/// Makes a qcow2 of this size in bytes, which has nothing of its own yet and reads what it has not from the raw disk `below`.
/// It takes 200 KiB of the host's disk, and as much more as is written to it.
///
/// # Errors
/// When it is there already, or cannot be written.
pub fn layer_over(below: &Path, to: &Path, bytes: u64) -> io::Result<()> {
    let file = File::options().read(true).write(true).create_new(true).open(to)?;
    let below = below.to_str().ok_or_else(|| io::Error::other(format!("{} is not UTF-8", below.display())))?;
    let builder = Qcow2::<imago::file::File>::create_builder(imago::file::File::try_from(file)?);
    builder.size(bytes).backing(below.to_owned(), "raw".to_owned()).create()
}

/// Makes a raw disk of this size in bytes that has what `below` has: by a reference where the file system has such, else by a
/// copy without holes.
///
/// # Errors
/// When it is there already, or cannot be written.
pub fn copy_of(below: &Path, to: &Path, bytes: u64) -> io::Result<()> {
    copy_sparse(&File::open(below)?, to)?;
    File::options().write(true).open(to)?.set_len(bytes)
}
