//! The side of whoever wants to know something of a run.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use super::protocol::{Answer, Description, Greeting, MAX_LINE, Request, VERSION};
use crate::{
    cluster::CONTROL,
    error::{Error, Kind},
    harness::{prune::places, settings::Settings},
    host::{Journal, ProcessId},
};

/// The owner answers in well under a millisecond, on a thread that no body can block; one that has not after this is
/// stopped.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// A connection to the owner of a run. Calls block.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    run: String,
}

impl Client {
    /// Connects to the owner of the run with this directory.
    ///
    /// # Errors
    /// [`Kind::Connection`] when nobody answers there, [`Kind::Missing`] when it speaks another version.
    pub fn connect(dir: &Path) -> Result<Self, Error> {
        let run = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let failed =
            |e: io::Error| Error::new(Kind::Connection, format!("the owner of run {run} does not answer")).caused_by(e);
        let connect = || {
            // By its descriptor, because the address of a socket has room for 107 bytes, and a directory may be deep.
            let dir = File::open(dir)?;
            let stream = UnixStream::connect(format!("/proc/self/fd/{}/{CONTROL}", dir.as_raw_fd()))?;
            stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
            Ok(stream)
        };
        let mut client = Self { stream: BufReader::new(connect().map_err(failed)?), run: run.clone() };
        let greeting: Greeting = client.hear().map_err(failed)?;
        if greeting.control != VERSION {
            let message = format!(
                "the owner of run {run} speaks version {} of the control protocol, and this command {VERSION}: use the \
                 `cargo vmtest` of the vmtest that its tests were built with",
                greeting.control
            );
            return Err(Error::new(Kind::Missing, message));
        }
        Ok(client)
    }

    /// Asks for something and waits for the answer, without a limit for what takes its time.
    ///
    /// # Errors
    /// [`Kind::Connection`] when the owner goes away, [`Kind::Host`] with the reason why it was not done.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, Error> {
        let takes_time = !matches!(request, Request::Describe | Request::Hold | Request::Resume | Request::Down);
        let asked = (|| {
            self.stream.get_ref().set_read_timeout((!takes_time).then_some(ANSWERS_WITHIN))?;
            self.tell(request)
        })();
        asked.map_err(|e| self.lost(e))?;
        self.answer()
    }

    /// The next answer to the same request, for those that have many.
    ///
    /// # Errors
    /// Those of [`ask`](Self::ask).
    pub fn answer(&mut self) -> Result<Answer, Error> {
        match self.hear().map_err(|e| self.lost(e))? {
            Answer::Failed { why } => Err(Error::new(Kind::Host, why)),
            answer => Ok(answer),
        }
    }

    /// What the run is.
    ///
    /// # Errors
    /// Those of [`ask`](Self::ask).
    pub fn describe(&mut self) -> Result<Description, Error> {
        match self.ask(&Request::Describe)? {
            Answer::Run(description) => Ok(*description),
            other => Err(self.lost(io::Error::other(format!("it answers {other:?}")))),
        }
    }

    /// The socket, once it is a connection to a port, and what has been read of that already.
    pub fn into_stream(self) -> (UnixStream, Vec<u8>) {
        let read = self.stream.buffer().to_vec();
        (self.stream.into_inner(), read)
    }

    fn tell(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)
    }

    fn hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut line = Vec::new();
        (&mut self.stream).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }

    fn lost(&self, why: io::Error) -> Error {
        Error::new(Kind::Connection, format!("the owner of run {} has gone", self.run)).caused_by(why)
    }
}

/// The runs of this user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Runs {
    /// Those that answer, the oldest first.
    pub runs: Vec<Description>,
    /// Those that do not.
    pub silent: Vec<Silent>,
}

/// A run that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Silent {
    /// Its id.
    pub run: String,
    /// The test's path, where its journal says so.
    pub test: Option<String>,
    /// Why, for people.
    pub why: String,
}

/// All runs that there are. Changes nothing, and takes no lock.
///
/// # Errors
/// [`Kind::Spec`] for a wrong setting, [`Kind::Host`] when the place cannot be read.
pub fn runs() -> Result<Runs, Error> {
    let root = places(Settings::get()?)?.runs;
    let failed = |e| Error::new(Kind::Host, format!("cannot look for runs in {}", root.display())).caused_by(e);
    let mut all = Runs::default();
    for entry in fs::read_dir(&root).map_err(failed)?.flatten() {
        let (id, dir) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if id.len() != 8 || !id.bytes().all(|c| c.is_ascii_hexdigit()) || !dir.is_dir() {
            continue;
        }
        match Client::connect(&dir).and_then(|mut client| client.describe()) {
            Ok(run) => all.runs.push(run),
            // It has ended meanwhile.
            Err(_) if !dir.exists() => {}
            Err(e) => all.silent.push(silent(id, &dir, &e)),
        }
    }
    all.runs.sort_by(|a, b| (a.since, &a.run).cmp(&(b.since, &b.run)));
    all.silent.sort_by(|a, b| a.run.cmp(&b.run));
    Ok(all)
}

fn silent(run: String, dir: &Path, error: &Error) -> Silent {
    let begin = Journal::open(dir, None).ok().flatten().and_then(|journal| journal.begin());
    let owner_is_gone = |owner: &ProcessId| !ProcessId::of(owner.pid).is_ok_and(|now| now == *owner);
    let why = match &begin {
        Some(begin) if owner_is_gone(&begin.owner) => {
            format!("its owner, process {}, has died: `cargo vmtest prune` removes what it left", begin.owner.pid)
        }
        _ => error.to_string(),
    };
    Silent { run, test: begin.map(|begin| begin.test), why }
}
