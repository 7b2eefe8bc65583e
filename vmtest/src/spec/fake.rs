//! What a fake machine shall do wrong, and what it shall answer.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::Rung;

/// A machine of the backend `fake`, beyond what every machine is: what it does wrong, and what it answers.
///
/// ```
/// use vmtest::spec::{Fake, Fault, NodeSpec, Reply, Rung};
///
/// // A machine that prints on its console and then never answers.
/// let mute = NodeSpec::new("mute").fake(Fake::new().fault(Fault::Stops(Rung::NetworkAnswers)));
/// // A machine that runs nothing and knows two answers.
/// let scripted = NodeSpec::new("db").fake(
///     Fake::new().on("pg_isready", Reply::stdout("accepting connections\n")).on("pg_ctl stop", Reply::code(1)),
/// );
/// # drop((mute, scripted));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fake {
    /// What it does wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// What it answers to which command. A machine with replies runs nothing and knows nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replies: Vec<(String, Reply)>,
}

impl Fake {
    /// A fake machine that does everything right.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it only answers, and runs nothing.
    pub fn is_scripted(&self) -> bool {
        !self.replies.is_empty()
    }

    /// It does this wrong.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// It answers this command line, written exactly so, with this. From the first reply on the machine runs nothing:
    /// other commands are refused by name. Of two replies to one command the later counts.
    #[must_use]
    pub fn on(mut self, command: impl Into<String>, reply: Reply) -> Self {
        self.replies.push((command.into(), reply));
        self
    }
}

/// Something that a fake machine does wrong, so that a test can see what comes of it. Those of the boot hold for every
/// boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// A boot never gets to this rung.
    Stops(Rung),
    /// The VMM ends when a boot should get to this rung.
    Dies(Rung),
    /// The kernel panics when a boot should get to this rung: from [`Rung::NetworkAnswers`] on, because a kernel speaks
    /// before it panics.
    Panics(Rung),
    /// The SSH server refuses the key of the run.
    RefusesKey,
    /// A boot takes this much longer.
    BootsSlowly(Duration),
    /// The VMM ends this long after a boot.
    Crashes(Duration),
    /// The guest ignores its own `poweroff` and its power button.
    IgnoresShutdown,
    /// The VMM ignores SIGTERM, and with it the guest its own `reboot`.
    IgnoresSigterm,
    /// The VMM refuses this call.
    Refuses(Call),
    /// The VMM never answers this call.
    Hangs(Call),
}

/// A call of the framework to a VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Call {
    /// Starting it.
    Launch,
    /// Reaching its API.
    Connect,
    /// Asking whether the virtual CPUs run.
    Status,
    /// Stopping the virtual CPUs.
    Pause,
    /// Letting them run again.
    Resume,
    /// Pressing the power button.
    PowerButton,
    /// Ending it without asking the guest.
    Quit,
}

impl Call {
    /// All calls.
    pub const ALL: [Self; 7] =
        [Self::Launch, Self::Connect, Self::Status, Self::Pause, Self::Resume, Self::PowerButton, Self::Quit];
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Launch => "launch",
            Self::Connect => "connect",
            Self::Status => "status",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::PowerButton => "power button",
            Self::Quit => "quit",
        })
    }
}

/// What a scripted machine answers to a command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What it prints on standard output.
    pub stdout: String,
    /// What it prints on standard error.
    pub stderr: String,
    /// Its exit code.
    pub code: u8,
    /// How long it takes.
    pub after: Duration,
}

impl Reply {
    /// Success with this output.
    pub fn stdout(text: impl Into<String>) -> Self {
        Self { stdout: text.into(), ..Self::default() }
    }

    /// No output and this exit code.
    pub fn code(code: u8) -> Self {
        Self { code, ..Self::default() }
    }

    /// The same, with this on standard error.
    #[must_use]
    pub fn with_stderr(mut self, text: impl Into<String>) -> Self {
        self.stderr = text.into();
        self
    }

    /// The same, after this time.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }
}
