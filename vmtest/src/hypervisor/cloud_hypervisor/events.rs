//! What cloud-hypervisor tells of its machine, in the file of its event monitor.

use std::{fs, io, path::Path};

use serde::Deserialize;

use crate::host::{Process, follow_file};

/// The file in the node's folder that the VMM makes anew and writes its events to.
pub(super) const EVENTS: &str = "events.json";

/// One event; they follow each other without a separator that would matter.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Event {
    source: String,
    event: String,
}

impl Event {
    fn is(&self, source: &str, event: &str) -> bool {
        self.source == source && self.event == event
    }
}

/// Whether the guest has reset itself, which a panic does too.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn has_reset(file: &Path) -> io::Result<bool> {
    let text = fs::read(file)?;
    Ok(events(&text).any(|event| event.is("vm", "rebooting")))
}

/// Whether the guest's kernel has told that it panics.
///
/// # Errors
/// When the file cannot be read.
fn has_panicked(file: &Path) -> io::Result<bool> {
    let text = fs::read(file)?;
    Ok(events(&text).any(|event| event.is("guest", "panic")))
}

/// Resolves when the guest's kernel has told that it panics. Cancel-safe.
///
/// # Errors
/// When the file cannot be followed.
pub(super) async fn panicked(file: &Path) -> io::Result<()> {
    follow_file(file, |_| Ok(has_panicked(file)?.then_some(()))).await
}

/// Ends the VMM when its guest resets itself. cloud-hypervisor has no option for that: it tells of the reset, stops the
/// machine, and makes the same again in its place. Cancel-safe.
///
/// # Errors
/// When the file cannot be followed, or the VMM not be killed.
pub(super) async fn end_at_reset(file: &Path, vmm: &Process) -> io::Result<()> {
    follow_file(file, |_| Ok(has_reset(file)?.then_some(()))).await?;
    vmm.kill()
}

/// The events up to one that is not written to its end.
fn events(text: &[u8]) -> impl Iterator<Item = Event> {
    serde_json::Deserializer::from_slice(text).into_iter().map_while(Result::ok)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What v54 has written of a guest that reset itself.
    const WRITTEN: &str = r#"{
  "timestamp": {
    "secs": 0,
    "nanos": 91472
  },
  "source": "vmm",
  "event": "starting",
  "properties": null
}

{
  "timestamp": {
    "secs": 4,
    "nanos": 4711
  },
  "source": "virtio-device",
  "event": "reset",
  "properties": {
    "id": "_disk0"
  }
}

{
  "timestamp": {
    "secs": 5,
    "nanos": 1
  },
  "source": "vm",
  "event": "rebooting",
  "properties": null
}

"#;

    #[test]
    fn a_reset_is_read_as_soon_as_it_is_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let (begin, end) = WRITTEN.split_at(WRITTEN.find("rebooting").unwrap());
        file.write_all(begin.as_bytes()).unwrap();
        assert!(!has_reset(file.path()).unwrap());
        file.write_all(end.as_bytes()).unwrap();
        assert!(has_reset(file.path()).unwrap());
        assert_eq!(events(WRITTEN.as_bytes()).count(), 3);
    }

    #[tokio::test]
    async fn the_vmm_is_ended_when_the_guest_resets_itself() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let id = crate::host::ProcessId::of(child.id().cast_signed()).unwrap();
        let vmm = Process::find(&id).unwrap().unwrap();
        let path = file.path().to_owned();
        let write = async {
            tokio::task::yield_now().await;
            file.write_all(WRITTEN.as_bytes()).unwrap();
        };
        let (ended, ()) = tokio::join!(end_at_reset(&path, &vmm), write);
        ended.unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
