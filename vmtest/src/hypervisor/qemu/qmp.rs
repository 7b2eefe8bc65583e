//! A typed client of QEMU's machine protocol: one JSON object a line, in both directions.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as AsyncMutex, oneshot, watch},
    task::AbortHandle,
    time::timeout,
};

use super::commands::{Capabilities, Command, Migrate, QueryMigrate};
use crate::error::{Error, Kind};

/// How far a migration is, as QEMU's event `MIGRATION` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Migration {
    Completed,
    Failed,
    Cancelled,
    /// It goes on.
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct MigrationEvent {
    status: Migration,
}

/// Why QEMU ends, as its event `SHUTDOWN` says.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Shutdown {
    pub(super) reason: String,
}

/// A device that the guest has let go, as QEMU's event says.
#[derive(Debug, Deserialize)]
struct DeviceDeleted {
    device: Option<String>,
}

/// A line from QEMU that answers nothing.
#[derive(Debug, Deserialize)]
struct Event {
    event: String,
    #[serde(default)]
    data: Value,
}

/// A line from QEMU that is no event.
#[derive(Debug, Deserialize)]
struct Response {
    id: Option<u64>,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

/// What QEMU has said without being asked.
#[derive(Debug, Clone)]
struct Said {
    /// Why it ends, once it has said so.
    shutdown: Arc<Mutex<Option<Shutdown>>>,
    /// How far the latest migration is.
    migration: watch::Sender<Migration>,
    /// Whether the guest's kernel has told that it panics.
    panicked: watch::Sender<bool>,
    /// The devices that are gone, one after the other.
    removed: watch::Sender<Vec<String>>,
}

type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Response>>>>>;

/// QEMU's last words come with the end of its connection, a moment before or after the process is seen to end.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);

/// A connection to one QEMU, with all capabilities negotiated. Dropped, it closes.
#[derive(Debug)]
pub(super) struct Qmp {
    writer: AsyncMutex<OwnedWriteHalf>,
    /// Who waits for which answer; `None` once QEMU has closed the connection.
    waiting: Waiting,
    next: AtomicU64,
    said: Said,
    /// Closed when the connection is.
    closed: watch::Receiver<()>,
    reader: AbortHandle,
}

impl Qmp {
    /// Reads the greeting and leaves the negotiation mode.
    ///
    /// # Errors
    /// [`Kind::Host`] when the other side speaks no QMP or closes.
    pub(super) async fn connect(stream: UnixStream) -> Result<Self, Error> {
        let (reader, writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        let greeting = lines.next_line().await.map_err(|e| closed().caused_by(e))?.ok_or_else(closed)?;
        if serde_json::from_str::<Value>(&greeting).ok().and_then(|g| g.get("QMP").cloned()).is_none() {
            return Err(Error::new(Kind::Host, format!("this is no QMP greeting: {greeting}")));
        }
        let waiting = Waiting::new(Mutex::new(Some(HashMap::new())));
        let said = Said {
            shutdown: Arc::default(),
            migration: watch::Sender::new(Migration::Other),
            panicked: watch::Sender::default(),
            removed: watch::Sender::default(),
        };
        let (open, closed) = watch::channel(());
        let reader = tokio::spawn(read(lines, waiting.clone(), said.clone(), open)).abort_handle();
        let next = AtomicU64::new(1);
        let qmp = Self { writer: AsyncMutex::new(writer), waiting, next, said, closed, reader };
        qmp.execute(Capabilities {}).await?;
        Ok(qmp)
    }

    /// Executes a command. Cancel-safe: a dropped future's answer is thrown away.
    ///
    /// # Errors
    /// [`Kind::Host`] with what QEMU said, or when it closed the connection.
    pub(super) async fn execute<C: Command>(&self, command: C) -> Result<C::Reply, Error> {
        let arguments = serde_json::to_value(command).expect("commands are plain data");
        let value = self.call(C::NAME, &arguments).await?;
        serde_json::from_value(value).map_err(|e| refused(C::NAME, &e.to_string()))
    }

    /// Executes the command of this name. Cancel-safe: a dropped future's answer is thrown away.
    ///
    /// # Errors
    /// [`Kind::Host`] with what QEMU said, or when it closed the connection.
    pub(super) async fn call(&self, name: &str, arguments: &Value) -> Result<Value, Error> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let request = json!({ "execute": name, "arguments": arguments, "id": id }).to_string() + "\n";
        let (answer, response) = oneshot::channel();
        lock(&self.waiting).as_mut().ok_or_else(closed)?.insert(id, answer);
        self.writer.lock().await.write_all(request.as_bytes()).await.map_err(|e| closed().caused_by(e))?;
        let response = response.await.map_err(|_| closed())?;
        if let Some(Refusal { class, desc }) = response.error {
            return Err(refused(name, &format!("{desc} ({class})")));
        }
        Ok(response.value.unwrap_or_default())
    }

    /// Sends the machine somewhere; resolves when it is there.
    ///
    /// # Errors
    /// Those of [`execute`](Self::execute), and why it did not get there.
    pub(super) async fn migrate(&self, to: Migrate) -> Result<(), Error> {
        let mut migration = self.said.migration.subscribe();
        migration.mark_unchanged();
        self.execute(to).await?;
        match self.outcome(&mut migration).await? {
            Migration::Completed => Ok(()),
            _ => {
                let why = self.execute(QueryMigrate {}).await?.error_desc.unwrap_or_default();
                Err(Error::new(Kind::Host, format!("QEMU has not saved the machine: {why}")))
            }
        }
    }

    /// Resolves when a machine that is sent here from now on is here. QEMU ends where it cannot be let in.
    ///
    /// # Errors
    /// [`Kind::Host`] when QEMU has ended.
    pub(super) fn arrival(&self) -> impl Future<Output = Result<(), Error>> {
        let mut migration = self.said.migration.subscribe();
        async move { self.outcome(&mut migration).await.map(drop) }
    }

    /// Resolves when the guest has let the device of this name go, from now on.
    ///
    /// # Errors
    /// [`Kind::Host`] when QEMU has ended.
    pub(super) fn removal(&self, device: String) -> impl Future<Output = Result<(), Error>> {
        let (mut removed, mut closed_now) = (self.said.removed.subscribe(), self.closed.clone());
        let before = removed.borrow().len();
        async move {
            tokio::select! {
                _ = removed.wait_for(|removed| removed.iter().skip(before).any(|other| *other == device)) => Ok(()),
                _ = closed_now.changed() => Err(closed()),
            }
        }
    }

    /// Resolves when the guest's kernel has told that it panics. Cancel-safe.
    pub(super) async fn panicked(&self) {
        // The sender is a field of `self`, so the wait cannot fail.
        drop(self.said.panicked.subscribe().wait_for(|panicked| *panicked).await);
    }

    async fn outcome(&self, migration: &mut watch::Receiver<Migration>) -> Result<Migration, Error> {
        let mut closed_now = self.closed.clone();
        let over = async {
            // The first look is at what was said after the command.
            while migration.changed().await.is_ok() {
                let now = *migration.borrow_and_update();
                if now != Migration::Other {
                    return now;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            over = over => Ok(over),
            _ = closed_now.changed() => Err(closed()),
        }
    }
}

impl Qmp {
    /// Why QEMU has ended, if it said so. Cancel-safe.
    pub(super) async fn last_words(&self) -> Option<Shutdown> {
        let mut closed = self.closed.clone();
        // Nothing is ever sent; what is waited for is that the sender goes.
        drop(timeout(LAST_WORDS_WITHIN, closed.changed()).await);
        self.said.shutdown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(mut lines: Lines<BufReader<OwnedReadHalf>>, waiting: Waiting, said: Said, _open: watch::Sender<()>) {
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str::<Response>(&line) {
            Ok(Response { id: None, .. }) => {
                tracing::debug!("QEMU: {line}");
                said.take(&line);
            }
            Ok(response) => {
                let asked = response.id.and_then(|id| lock(&waiting).as_mut()?.remove(&id));
                // Whoever asked may have been dropped.
                drop(asked.map(|asked| asked.send(response)));
            }
            Err(e) => tracing::warn!("cannot read QEMU's `{line}`: {e}"),
        }
    }
    // Drops the senders, so that everybody who waits is told.
    lock(&waiting).take();
}

impl Said {
    fn take(&self, line: &str) {
        let Ok(Event { event, data }) = serde_json::from_str(line) else { return };
        match event.as_str() {
            "SHUTDOWN" => {
                let shutdown = serde_json::from_value(data).ok();
                *self.shutdown.lock().unwrap_or_else(PoisonError::into_inner) = shutdown;
            }
            "MIGRATION" => {
                if let Ok(MigrationEvent { status }) = serde_json::from_value(data) {
                    self.migration.send_replace(status);
                }
            }
            "GUEST_PANICKED" => {
                self.panicked.send_replace(true);
            }
            "DEVICE_DELETED" => {
                // Parts of a device have none of their own.
                if let Ok(DeviceDeleted { device: Some(device) }) = serde_json::from_value(data) {
                    self.removed.send_modify(|removed| removed.push(device));
                }
            }
            _ => {}
        }
    }
}

fn refused(name: &str, why: &str) -> Error {
    Error::new(Kind::Host, format!("QEMU refused `{name}`: {why}"))
}

fn closed() -> Error {
    Error::new(Kind::Host, "QEMU closed its control connection")
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Response>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::{
        super::commands::{QueryStatus, Stop},
        *,
    };

    /// Answers the given lines, one for each line that it reads, after the greeting.
    async fn serve(stream: UnixStream, answers: &[&str]) {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        writer.write_all(b"{\"QMP\": {}}\n").await.unwrap();
        for answer in answers {
            lines.next_line().await.unwrap();
            writer.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn answers_find_their_commands_between_events() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let event = r#"{"event": "RESUME", "timestamp": {}}"#;
        let answers =
            [r#"{"return": {}, "id": 1}"#, &format!("{event}\n{{\"return\": {{\"running\": true}}, \"id\": 2}}")];
        let check = async {
            let qmp = Qmp::connect(ours).await.unwrap();
            assert!(qmp.execute(QueryStatus {}).await.unwrap().running);
            assert!(qmp.last_words().await.is_none());
        };
        tokio::join!(serve(theirs, &answers), check);
    }

    #[tokio::test]
    async fn why_it_ends_is_remembered() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let event = r#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
        let answers = [&format!("{event}\n{}", r#"{"return": {}, "id": 1}"#)[..]];
        let check = async {
            let qmp = Qmp::connect(ours).await.unwrap();
            assert_eq!(qmp.last_words().await.unwrap().reason, "guest-reset");
        };
        tokio::join!(serve(theirs, &answers), check);
    }

    #[tokio::test]
    async fn a_panic_is_remembered() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let event = r#"{"timestamp": {}, "event": "GUEST_PANICKED", "data": {"action": "run"}}"#;
        let answers = [r#"{"return": {}, "id": 1}"#, &format!("{event}\n{}", r#"{"return": {}, "id": 2}"#)];
        let check = async {
            let qmp = Qmp::connect(ours).await.unwrap();
            assert!(qmp.panicked().now_or_never().is_none());
            qmp.execute(Stop {}).await.unwrap();
            assert!(qmp.panicked().now_or_never().is_some());
        };
        tokio::join!(serve(theirs, &answers), check);
    }

    #[tokio::test]
    async fn a_refusal_and_a_closed_connection_are_errors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let answers = [r#"{"return": {}, "id": 1}"#, r#"{"error": {"class": "GenericError", "desc": "no"}, "id": 2}"#];
        let check = async {
            let qmp = Qmp::connect(ours).await.unwrap();
            let refused = qmp.execute(QueryStatus {}).await.unwrap_err().to_string();
            assert_eq!(refused, "QEMU refused `query-status`: no (GenericError)");
            assert!(qmp.execute(QueryStatus {}).await.unwrap_err().to_string().contains("closed"));
        };
        tokio::join!(serve(theirs, &answers), check);
    }
}
