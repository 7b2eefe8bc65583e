//! The one error of the calls of this crate.

use std::{error::Error as StdError, fmt, path::PathBuf, time::Duration};

/// What kind of thing went wrong; for programs. People read the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The test asks for something that cannot be: a wrong value, two nodes of one name, a missing fixture.
    Spec,
    /// The host lacks something that the test needs: a device, a binary, a right.
    Missing,
    /// An image or a fixture disk could not be made.
    Image,
    /// The host refused an effect: a file, a link, a process.
    Host,
    /// A machine died while something waited for it.
    MachineDied,
    /// The guest's kernel panicked.
    GuestPanic,
    /// Something did not happen in its time.
    Timeout,
    /// A command in a guest ended with a non-zero exit code or a signal.
    Command,
    /// The connection to a guest failed.
    Connection,
    /// The cluster is being torn down, or is gone: a handle has outlived it.
    TornDown,
    /// The run was cancelled by a signal.
    Cancelled,
    /// Something was left behind after teardown.
    Leak,
}

/// The step of a test's life in which an error happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Deciding what will be done; nothing was touched.
    Plan,
    /// Waiting for a share of the host; nothing was touched.
    Lease,
    /// Making the network, the disks and the machines.
    Provision,
    /// Waiting for the machines to answer.
    Ready,
    /// The body of the test.
    Body,
    /// Removing what was made.
    Teardown,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plan => "plan",
            Self::Lease => "lease",
            Self::Provision => "provision",
            Self::Ready => "ready",
            Self::Body => "body",
            Self::Teardown => "teardown",
        })
    }
}

/// A failed call: what, where, why, and what to do next.
///
/// The whole chain is rendered by [`fmt::Display`]; [`Error::kind`], [`Error::node`] and the rest are for programs.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    message: String,
    node: Option<String>,
    phase: Option<Phase>,
    elapsed: Option<Duration>,
    evidence: Option<PathBuf>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind; the message says what failed, why, and what to do next.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            node: None,
            phase: None,
            elapsed: None,
            evidence: None,
            source: None,
        }))
    }

    /// A call on a cluster whose teardown has begun.
    pub(crate) fn torn_down() -> Self {
        Self::new(Kind::TornDown, "the cluster is gone: it was torn down, and a handle that outlives it can do nothing")
    }

    /// Names the node that it happened on; the first name given stays.
    #[must_use]
    pub fn on_node(mut self, node: &str) -> Self {
        self.0.node.get_or_insert_with(|| node.to_owned());
        self
    }

    /// Names the phase; the first one given stays.
    #[must_use]
    pub fn in_phase(mut self, phase: Phase) -> Self {
        self.0.phase.get_or_insert(phase);
        self
    }

    /// Says how long it took until this happened.
    #[must_use]
    pub fn after(mut self, elapsed: Duration) -> Self {
        self.0.elapsed = Some(elapsed);
        self
    }

    /// Says where the files are that show what happened.
    #[must_use]
    pub fn with_evidence(mut self, path: PathBuf) -> Self {
        self.0.evidence = Some(path);
        self
    }

    /// Keeps the cause; its text is part of the rendered message.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The node, where there is one.
    pub fn node(&self) -> Option<&str> {
        self.0.node.as_deref()
    }

    /// The phase of the test's life, where it is known.
    pub fn phase(&self) -> Option<Phase> {
        self.0.phase
    }

    /// How long it took, where that says something.
    pub fn elapsed(&self) -> Option<Duration> {
        self.0.elapsed
    }

    /// Where the evidence is, where there is any.
    pub fn evidence(&self) -> Option<&std::path::Path> {
        self.0.evidence.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(node) = &inner.node {
            write!(f, "node `{node}`: ")?;
        }
        f.write_str(&inner.message)?;
        let mut cause = inner.source.as_deref().map(|e| e as &dyn StdError);
        while let Some(e) = cause {
            write!(f, ": {e}")?;
            cause = e.source();
        }
        if let Some(path) = &inner.evidence {
            write!(f, "\n  evidence: {}", path.display())?;
        }
        Ok(())
    }
}

/// The same text as [`fmt::Display`], because `unwrap` and a failing test print this one.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// `Display` renders the chain, so `source` is not offered a second time.
impl StdError for Error {}
