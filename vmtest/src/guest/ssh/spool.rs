//! A queue of bytes between a connection, which must never wait, and a reader, who may.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::output::Captured;

/// What is kept in memory; the rest goes to a file, so that a gigabyte that nobody reads costs no memory.
const IN_MEMORY: usize = 1 << 20;
/// How much is read back from the file at a time.
const CHUNK: usize = 64 << 10;

/// One stream of a command. Writing never blocks on the reader.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    memory: VecDeque<u8>,
    /// What came after the memory was full, as long as not all of it has been read.
    overflow: Option<Overflow>,
    closed: bool,
    /// Nobody will read any more; what comes is thrown away.
    discarded: bool,
}

#[derive(Debug)]
struct Overflow {
    file: File,
    read: u64,
    written: u64,
}

impl Spool {
    /// Adds what came.
    ///
    /// # Errors
    /// When the file for what does not fit into memory cannot be written.
    pub(crate) fn push(&self, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        if state.discarded {
            return Ok(());
        }
        let room = if state.overflow.is_some() { 0 } else { IN_MEMORY.saturating_sub(state.memory.len()) };
        let (first, rest) = data.split_at(room.min(data.len()));
        state.memory.extend(first);
        if !rest.is_empty() {
            let overflow = match &mut state.overflow {
                Some(overflow) => overflow,
                none => none.insert(Overflow { file: tempfile::tempfile()?, read: 0, written: 0 }),
            };
            overflow.file.write_all_at(rest, overflow.written)?;
            overflow.written += rest.len() as u64;
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }

    /// Nobody will read any more.
    pub(crate) fn discard(&self) {
        let mut state = self.lock();
        *state = State { closed: state.closed, discarded: true, ..State::default() };
    }

    /// Takes what is there, at least a byte; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) async fn read(&self) -> io::Result<Option<Vec<u8>>> {
        loop {
            // Armed before the look, so that nothing that comes in between is missed.
            let changed = self.changed.notified();
            if let Some(taken) = self.lock().take()? {
                return Ok(taken);
            }
            changed.await;
        }
    }

    /// All that came and was not read, once nothing more will come.
    pub(super) fn take_captured(&self) -> Captured {
        let mut state = self.lock();
        let closed = state.closed;
        let state = std::mem::replace(&mut *state, State { closed, ..State::default() });
        let file = state.overflow.map(|overflow| (Arc::new(overflow.file), overflow.read, overflow.written));
        Captured::new(state.memory.into(), file)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// `None` where the reader must wait, `Some(None)` at the end.
    fn take(&mut self) -> io::Result<Option<Option<Vec<u8>>>> {
        if !self.memory.is_empty() {
            return Ok(Some(Some(std::mem::take(&mut self.memory).into())));
        }
        if let Some(overflow) = &mut self.overflow {
            let rest = overflow.written - overflow.read;
            let mut chunk = vec![0; usize::try_from(rest).map_or(CHUNK, |rest| rest.min(CHUNK))];
            overflow.file.read_exact_at(&mut chunk, overflow.read)?;
            overflow.read += chunk.len() as u64;
            if overflow.read == overflow.written {
                self.overflow = None;
            }
            return Ok(Some(Some(chunk)));
        }
        Ok(self.closed.then_some(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(range: std::ops::Range<u32>) -> Vec<u8> {
        range.map(|i| (i % 251) as u8).collect()
    }

    #[tokio::test]
    async fn what_was_pushed_is_read_in_order_wherever_it_was_kept() {
        let spool = Spool::default();
        let all = bytes(0..5 << 20);
        let (first, second) = all.split_at(3 << 20);
        first.chunks(32 << 10).for_each(|chunk| spool.push(chunk).unwrap());
        assert_eq!(spool.lock().memory.len(), IN_MEMORY);
        let mut read = Vec::new();
        while read.len() < 2 << 20 {
            read.extend(spool.read().await.unwrap().unwrap());
        }
        second.chunks(1000).for_each(|chunk| spool.push(chunk).unwrap());
        spool.close();
        while let Some(chunk) = spool.read().await.unwrap() {
            read.extend(chunk);
        }
        assert!(read == all);
    }

    #[tokio::test]
    async fn a_reader_waits_for_what_comes_and_for_the_end() {
        let spool = Arc::new(Spool::default());
        let reader = spool.clone();
        let reading = tokio::spawn(async move { (reader.read().await.unwrap(), reader.read().await.unwrap()) });
        tokio::task::yield_now().await;
        spool.push(b"x").unwrap();
        tokio::task::yield_now().await;
        spool.close();
        assert_eq!(reading.await.unwrap(), (Some(b"x".to_vec()), None));
    }

    #[test]
    fn what_nobody_read_is_captured() {
        let spool = Spool::default();
        let all = bytes(0..3 << 20);
        all.chunks(32 << 10).for_each(|chunk| spool.push(chunk).unwrap());
        spool.close();
        assert!(*spool.take_captured().bytes() == *all);
    }

    #[test]
    fn what_nobody_will_read_is_thrown_away() {
        let spool = Spool::default();
        spool.push(&bytes(0..3 << 20)).unwrap();
        spool.discard();
        spool.push(&bytes(0..3 << 20)).unwrap();
        assert!(spool.lock().memory.is_empty() && spool.lock().overflow.is_none());
    }
}
