//! The serial console, as it comes.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
};

use super::Node;
use crate::{
    error::{Error, Kind},
    hypervisor::CONSOLE,
};

/// A line is cut here, so that a guest that prints no newline cannot fill the memory.
const MAX_LINE: usize = 4096;

impl Node {
    /// The last lines of the serial console, at most 200.
    pub fn console(&self) -> Vec<String> {
        self.member.console.look(&self.member.dir.join(CONSOLE));
        self.member.console.tail(usize::MAX)
    }

    /// All lines of the serial console, from the first, and new ones as they come.
    ///
    /// # Errors
    /// [`Kind::Host`] when the console's file cannot be read, [`Kind::TornDown`] when it is gone with the cluster.
    pub fn console_lines(&self) -> Result<ConsoleLines, Error> {
        ConsoleLines::open(self)
    }
}

/// The lines of a serial console. What is not UTF-8 is replaced; lines above 4 KiB are cut.
pub struct ConsoleLines {
    node: Node,
    file: File,
    partial: Vec<u8>,
}

impl fmt::Debug for ConsoleLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleLines").field("node", &self.node.name()).finish_non_exhaustive()
    }
}

impl ConsoleLines {
    pub(super) fn open(node: &Node) -> Result<Self, Error> {
        let path = node.member.dir.join(CONSOLE);
        let file = File::open(&path).map_err(|e| node.member.or_torn_down(failed(node, e)))?;
        Ok(Self { node: node.clone(), file, partial: Vec::new() })
    }

    /// The next line; waits for one that has not come yet. Cancel-safe.
    ///
    /// # Errors
    /// [`Kind::GuestPanic`], [`Kind::MachineDied`] or [`Kind::TornDown`] when all lines of a machine that has ended were
    /// read.
    pub async fn next(&mut self) -> Result<String, Error> {
        loop {
            // Asked before the look, so that nothing that comes in between is missed.
            let more = self.node.member.console.more();
            if let Some(line) = self.line().map_err(|e| failed(&self.node, e))? {
                return Ok(line);
            }
            let member = &self.node.member;
            let more = async {
                tokio::select! {
                    () = more => Ok(()),
                    error = member.died() => Err(error),
                }
            };
            if let Err(error) = member.tasks.unless_over(more).await {
                let last = self.line().map_err(|e| failed(&self.node, e))?;
                return last.ok_or_else(|| error.on_node(self.node.name()));
            }
        }
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut buffer = [0; MAX_LINE];
        loop {
            let end = self.partial.iter().position(|&byte| byte == b'\n');
            if let Some(end) = end.map(|end| end + 1).or((self.partial.len() >= MAX_LINE).then_some(MAX_LINE)) {
                let rest = self.partial.split_off(end);
                let line = std::mem::replace(&mut self.partial, rest);
                return Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()));
            }
            let read = self.file.read(&mut buffer)?;
            if read == 0 {
                return Ok(None);
            }
            self.partial.extend(&buffer[..read]);
        }
    }
}

fn failed(node: &Node, why: io::Error) -> Error {
    Error::new(Kind::Host, "cannot read the console").caused_by(why).on_node(node.name())
}
