//! Files between host and guest, as streams over commands: one way that works in every guest.
//!
//! What arrives is put beside its place and moved there when it is whole, at both ends. That it is whole is told by the
//! sender, not by the end of the stream: a connection that breaks ends a stream too.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    Command, Leash,
    command::{Mark, quoted},
    ssh::{Exec, Ssh},
};
use crate::error::{Error, Kind};

/// The size of the pieces in which streams travel; a few packets of SSH.
const PIECE: usize = 128 << 10;
/// How many pieces may wait between a disk and a connection.
const PIECES: usize = 8;
/// The name of what is copied, in an archive that we make.
const CONTENT: &str = "content";
/// An entry behind everything else, which says that the archive is whole.
const WHOLE: &str = "whole";

/// Is told how many more bytes have travelled.
pub(crate) type Moved = Box<dyn Fn(u64) + Send>;

/// Reads a file of the guest.
pub(crate) async fn read(ssh: &Ssh, path: &OsStr) -> Result<Vec<u8>, Error> {
    let script = "[ ! -d \"$p\" ] || { echo \"$p is a directory: download it\" >&2; exit 1; }; cat \"$p\"";
    let what = || format!("cannot read `{}`", path.to_string_lossy());
    let (exec, mut leash) = start(ssh, path, script).await?;
    exec.input().close().await.map_err(|e| Error::new(Kind::Connection, what()).caused_by(e))?;
    let output = ended(&exec, &mut leash, what).await?;
    Ok(output.stdout_raw().into_owned())
}

/// Writes a file of the guest, with parents as needed; an existing one keeps its mode.
pub(crate) async fn write(ssh: &Ssh, path: &OsStr, bytes: Vec<u8>) -> Result<(), Error> {
    let script = format!(
        "{PLACE}\n\
         {NO_DIRECTORY}\n\
         cat >\"$t/{CONTENT}\"\n\
         [ \"$(stat -c %s \"$t/{CONTENT}\")\" = {} ]\n\
         [ ! -e \"$p\" ] || chmod \"$(stat -c %a \"$p\")\" \"$t/{CONTENT}\"\n\
         mv -f \"$t/{CONTENT}\" \"$p\"",
        bytes.len()
    );
    let what = || format!("cannot write `{}`", path.to_string_lossy());
    let (exec, mut leash) = start(ssh, path, &script).await?;
    // A command that fails early does not read its input; why it failed is in what it prints.
    if exec.input().write(bytes).await.is_ok() {
        drop(exec.input().close().await);
    }
    ended(&exec, &mut leash, what).await.map(drop)
}

/// Copies a file or a tree into the guest. A directory that is there already keeps what else is in it.
pub(crate) async fn upload(ssh: &Ssh, from: PathBuf, to: &OsStr, moved: Moved) -> Result<(), Error> {
    let (shown, target) = (from.display().to_string(), to.to_string_lossy().into_owned());
    let what = || format!("cannot upload {shown} to `{target}`");
    let meta = fs::symlink_metadata(&from).map_err(|e| Error::new(Kind::Spec, what()).caused_by(e))?;
    if meta.is_file() {
        // Without an archive, because the guest's `tar` is slower than the connection.
        let script = format!(
            "{PLACE}\n{NO_DIRECTORY}\n\
             cat >\"$t/{CONTENT}\"\n\
             [ \"$(stat -c %s \"$t/{CONTENT}\")\" = {} ]\n\
             chmod {:o} \"$t/{CONTENT}\"\n\
             touch -d @{} \"$t/{CONTENT}\"\n\
             mv -f \"$t/{CONTENT}\" \"$p\"",
            meta.len(),
            meta.mode() & 0o7777,
            meta.mtime()
        );
        let (exec, leash) = start(ssh, to, &script).await?;
        return send(exec, leash, move |out| copy_file(&from, meta.len(), out), moved, what).await;
    }
    let script = format!(
        "{PLACE}\n\
         tar -xf - -C \"$t\"\n\
         [ -e \"$t/{WHOLE}\" ]\n\
         if [ -d \"$p\" ] && [ -d \"$t/{CONTENT}\" ]; then\n\
         cd \"$t/{CONTENT}\"\n\
         find . -type d -exec mkdir -p \"$p/{{}}\" \\;\n\
         find . ! -type d -exec mv -f {{}} \"$p/{{}}\" \\;\n\
         else\n{NO_DIRECTORY}\nmv -f \"$t/{CONTENT}\" \"$p\"; fi"
    );
    let (exec, leash) = start(ssh, to, &script).await?;
    send(exec, leash, move |out| pack(&from, out), moved, what).await
}

/// Gives a command of the guest what is written here, on a thread of its own, and waits for its end.
async fn send(
    exec: Exec,
    mut leash: Leash,
    write: impl FnOnce(PieceWriter) -> io::Result<()> + Send + 'static,
    moved: Moved,
    what: impl Fn() -> String,
) -> Result<(), Error> {
    let (pieces, mut inbox) = mpsc::channel(PIECES);
    let writing = spawn_blocking(move || write(PieceWriter { pieces, piece: Vec::new() }));
    let mut reads = true;
    while let Some(piece) = inbox.recv().await {
        moved(piece.len() as u64);
        reads = exec.input().write(piece).await.is_ok();
        if !reads {
            break;
        }
    }
    drop(inbox);
    let written = writing.await.map_err(io::Error::other).flatten();
    match written {
        // What the guest has is not whole, and this host cannot read the rest.
        Err(e) if reads => {
            // That a guest cannot be told is not why it failed.
            drop(leash.kill(&exec).await);
            return Err(Error::new(Kind::Host, what()).caused_by(e));
        }
        // Else the guest wanted no more, and will say why.
        _ => drop(exec.input().close().await),
    }
    ended(&exec, &mut leash, what).await.map(drop)
}

fn copy_file(from: &Path, length: u64, mut out: PieceWriter) -> io::Result<()> {
    let with_path = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", from.display()));
    // A file that grows meanwhile is sent as long as it was; one that shrinks is refused by the guest.
    io::copy(&mut fs::File::open(from).map_err(with_path)?.take(length), &mut out)?;
    out.flush()
}

/// Copies a file or a tree out of the guest. A directory that is there already keeps what else is in it.
pub(crate) async fn download(ssh: &Ssh, from: &OsStr, to: PathBuf, moved: Moved) -> Result<(), Error> {
    let script = "[ -e \"$p\" ] || { echo \"$p: No such file or directory\" >&2; exit 1; }\n\
        p=$(readlink -f \"$p\") && cd \"$(dirname \"$p\")\" && tar -cf - \"./$(basename \"$p\")\"";
    let (shown, target) = (from.to_string_lossy().into_owned(), to.display().to_string());
    let what = || format!("cannot download `{shown}` to {target}");
    let (exec, mut leash) = start(ssh, from, script).await?;
    drop(exec.input().close().await);
    let (pieces, inbox) = mpsc::channel(PIECES);
    let unpacking = spawn_blocking(move || unpack(PieceReader { inbox, piece: Vec::new(), read: 0 }, &to));
    loop {
        let piece = exec.stdout.read().await.map_err(|e| Error::new(Kind::Host, what()).caused_by(e))?;
        let Some(piece) = piece else { break };
        moved(piece.len() as u64);
        if pieces.send(Piece::Bytes(piece)).await.is_err() {
            // The host cannot keep it; why is what unpacking says.
            drop(leash.kill(&exec).await);
            break;
        }
    }
    let output = ended(&exec, &mut leash, what).await;
    if output.is_ok() {
        // Only now is it certain that the archive is whole.
        drop(pieces.send(Piece::Whole).await);
    }
    drop(pieces);
    let unpacked = unpacking.await.map_err(io::Error::other).flatten();
    match (output, unpacked) {
        (Ok(_), unpacked) => unpacked.map_err(|e| Error::new(Kind::Host, what()).caused_by(e)),
        (Err(e), Err(why)) if why.kind() != io::ErrorKind::UnexpectedEof => {
            drop(e);
            Err(Error::new(Kind::Host, what()).caused_by(why))
        }
        (Err(e), _) => Err(e),
    }
}

/// Refuses a directory where a file is to be.
const NO_DIRECTORY: &str = "[ ! -d \"$p\" ] || { echo \"$p is a directory: name the file in it\" >&2; exit 1; }";

/// Where something is put until it is whole: a directory beside its place, removed in any case.
const PLACE: &str = "set -e\n\
    mkdir -p \"$(dirname \"$p\")\"\n\
    t=$(dirname \"$p\")/.vmtest-$VMTEST_COMMAND\n\
    trap 'rm -rf \"$t\"' EXIT\n\
    mkdir \"$t\"";

/// What the script would have done at its end, had it not been killed.
fn remove_place(path: &OsStr, mark: &Mark) -> Vec<u8> {
    on(path, &format!("rm -rf \"$(dirname \"$p\")/.vmtest-{}\"", mark.value()))
}

/// The script, with the path in `$p`.
fn on(path: &OsStr, script: &str) -> Vec<u8> {
    [b"p=", quoted(path).as_slice(), b"\n", script.as_bytes()].concat()
}

async fn start(ssh: &Ssh, path: &OsStr, script: &str) -> Result<(Exec, Leash), Error> {
    let (line, mark) = Command::new(OsStr::from_bytes(&on(path, script))).line()?;
    let cleanup = remove_place(path, &mark);
    let mut leash = Leash::new(ssh, mark);
    leash.clean_up_with(cleanup);
    let exec = ssh.exec(line).await.inspect_err(|_| leash.release())?;
    Ok((exec, leash))
}

async fn ended(exec: &Exec, leash: &mut Leash, what: impl Fn() -> String) -> Result<super::ssh::Output, Error> {
    let status = exec.ended().await.map_err(|e| Error::new(Kind::Connection, what()).caused_by(e))?;
    leash.release();
    let output = exec.output(status);
    if output.success() {
        return Ok(output);
    }
    let said = output.stderr();
    let hint =
        if said.contains("No space left") { " (the guest's memory is its disk: give the node more)" } else { "" };
    Err(Error::new(Kind::Command, format!("{}{hint}: {said}", what())))
}

/// Writes the archive of a file or a tree.
fn pack(from: &Path, out: PieceWriter) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    add(&mut archive, from, Path::new(CONTENT))?;
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o600);
    archive.append_data(&mut header, WHOLE, io::empty())?;
    archive.into_inner()?.flush()
}

fn add(archive: &mut tar::Builder<PieceWriter>, from: &Path, name: &Path) -> io::Result<()> {
    let with_path = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", from.display()));
    let meta = fs::symlink_metadata(from).map_err(with_path)?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&meta);
    // Owners of this host mean nothing there.
    header.set_uid(0);
    header.set_gid(0);
    if meta.is_symlink() {
        header.set_size(0);
        return archive.append_link(&mut header, name, fs::read_link(from).map_err(with_path)?);
    }
    if meta.is_dir() {
        header.set_size(0);
        archive.append_data(&mut header, name, io::empty())?;
        let mut entries: Vec<_> =
            fs::read_dir(from).map_err(with_path)?.collect::<io::Result<_>>().map_err(with_path)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        return entries.iter().try_for_each(|entry| add(archive, &entry.path(), &name.join(entry.file_name())));
    }
    if !meta.is_file() {
        return Err(with_path(io::Error::other("it is neither a file, nor a directory, nor a link")));
    }
    let file = fs::File::open(from).map_err(with_path)?;
    // A file that grows meanwhile is sent as long as it was.
    let mut content = file.take(meta.len());
    archive.append_data(&mut header, name, &mut content)?;
    if content.limit() > 0 { Err(with_path(io::Error::other("it became shorter while it was read"))) } else { Ok(()) }
}

/// Unpacks an archive beside its place and moves what is in it there.
fn unpack(mut inbox: PieceReader, to: &Path) -> io::Result<()> {
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let place = tempfile::Builder::new().prefix(".vmtest-").tempdir_in(parent)?;
    let mut archive = tar::Archive::new(&mut inbox);
    archive.set_preserve_permissions(true);
    archive.unpack(place.path())?;
    // The padding behind the archive, and the word that it is whole.
    io::copy(&mut inbox, &mut io::sink())?;
    let entries: Vec<_> = fs::read_dir(place.path())?.collect::<io::Result<_>>()?;
    let [content] = entries.as_slice() else { return Err(io::ErrorKind::InvalidData.into()) };
    if to.is_dir() && !content.file_type()?.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            format!("{} is a directory: name the file in it", to.display()),
        ));
    }
    place_at(&content.path(), to)
}

fn place_at(from: &Path, to: &Path) -> io::Result<()> {
    if !(to.is_dir() && fs::symlink_metadata(from)?.is_dir()) {
        return fs::rename(from, to);
    }
    let entries = fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
    entries.iter().try_for_each(|entry| place_at(&entry.path(), &to.join(entry.file_name())))
}

enum Piece {
    Bytes(Vec<u8>),
    Whole,
}

struct PieceWriter {
    pieces: mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

struct PieceReader {
    inbox: mpsc::Receiver<Piece>,
    piece: Vec<u8>,
    read: usize,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.piece.len() {
            match self.inbox.blocking_recv() {
                Some(Piece::Bytes(piece)) => (self.piece, self.read) = (piece, 0),
                Some(Piece::Whole) => return Ok(0),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let n = buffer.len().min(self.piece.len() - self.read);
        buffer[..n].copy_from_slice(&self.piece[self.read..self.read + n]);
        self.read += n;
        Ok(n)
    }
}

/// The size of a file, or of all files of a tree.
pub(crate) fn size_of(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size_of(&entry.path())).sum()
}
