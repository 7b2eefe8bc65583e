//! Guests that switch themselves off, which Firecracker does not see.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::host::{Process, follow_file};

/// What the kernel prints when it has no more to do: where it knows of a way to switch the machine off, where it does not,
/// and the same from Linux 6.9 on.
const LAST_WORDS: &[&str] = &["reboot: Power down", "reboot: System halted", "System halted instead"];
const LONGEST: usize = 21;
const BUFFER: usize = 16 << 10;

/// The console of one boot, as far as it has been read.
#[derive(Debug)]
struct Reader {
    position: u64,
    /// What was read last, as much as the beginning of last words may be.
    kept: Vec<u8>,
}

impl Reader {
    /// Whether the guest has said its last words.
    fn read(&mut self, console: &File) -> io::Result<bool> {
        let mut buffer = [0; BUFFER];
        loop {
            let read = console.read_at(&mut buffer, self.position)?;
            if read == 0 {
                return Ok(false);
            }
            self.position += read as u64;
            self.kept.extend_from_slice(&buffer[..read]);
            let said = |words: &&str| self.kept.windows(words.len()).any(|window| window == words.as_bytes());
            if LAST_WORDS.iter().any(said) {
                return Ok(true);
            }
            self.kept.drain(..self.kept.len().saturating_sub(LONGEST));
        }
    }
}

/// Ends the VMM when its guest has switched itself off, and notes it: the virtual CPUs stand still then, and the VMM goes on,
/// which has nothing by which a guest could tell it. From this position of the console's file on, which must exist.
/// Cancel-safe.
///
/// # Errors
/// When the file cannot be followed, or the VMM not be killed.
pub(super) async fn end_at_halt(console: &Path, position: u64, vmm: &Process, off: &Arc<AtomicBool>) -> io::Result<()> {
    let mut reader = Reader { position, kept: Vec::new() };
    follow_file(console, |file| Ok(reader.read(file)?.then_some(()))).await?;
    off.store(true, Ordering::Release);
    vmm.kill()
}

#[cfg(test)]
mod tests {
    use std::{io::Write, process::Command};

    use super::*;
    use crate::host::ProcessId;

    #[test]
    fn the_longest_of_the_last_words_fits() {
        assert!(LAST_WORDS.iter().all(|words| words.len() <= LONGEST));
    }

    #[tokio::test]
    async fn the_vmm_is_ended_when_the_guest_is_off() {
        for words in LAST_WORDS {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            // An earlier boot.
            file.write_all(b"[    9.1] reboot: System halted\r\n").unwrap();
            let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
            let vmm = Process::find(&ProcessId::of(child.id().cast_signed()).unwrap()).unwrap().unwrap();
            let (path, position) = (file.path().to_owned(), file.as_file().metadata().unwrap().len());
            let (begin, end) = words.split_at(words.len() / 2);
            let off = Arc::new(AtomicBool::new(false));
            let write = async {
                for part in ["booting\r\n", &"x".repeat(3 * BUFFER), begin] {
                    file.write_all(part.as_bytes()).unwrap();
                    tokio::task::yield_now().await;
                }
                assert!(!off.load(Ordering::Acquire));
                file.write_all(end.as_bytes()).unwrap();
            };
            let (ended, ()) = tokio::join!(end_at_halt(&path, position, &vmm, &off), write);
            ended.unwrap();
            assert!(off.load(Ordering::Acquire));
            assert!(!child.wait().unwrap().success());
        }
    }
}
