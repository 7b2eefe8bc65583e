//! What QEMU is told over its machine protocol. What only one part of this backend says, is there.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::saving::Ability;

/// A command of the protocol.
pub(super) trait Command: Serialize {
    /// Its name on the wire.
    const NAME: &'static str;
    /// What it answers.
    type Reply: DeserializeOwned;
}

/// Asks whether the virtual CPUs run.
#[derive(Debug, Serialize)]
pub(super) struct QueryStatus {}

/// Sets what migrations do.
#[derive(Debug, Serialize)]
pub(super) struct SetCapabilities {
    pub(super) capabilities: [Ability; 2],
}

impl Command for SetCapabilities {
    const NAME: &'static str = "migrate-set-capabilities";
    type Reply = Value;
}

/// Sets how migrations are done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct SetParameters {
    /// In bytes a second.
    pub(super) max_bandwidth: u64,
}

impl Command for SetParameters {
    const NAME: &'static str = "migrate-set-parameters";
    type Reply = Value;
}

/// Writes what the screen shows to a file.
#[derive(Debug, Serialize)]
pub(super) struct Screendump {
    pub(super) filename: String,
    /// From QEMU 7.1 on; what it writes otherwise, few programs read.
    pub(super) format: &'static str,
}

impl Command for Screendump {
    const NAME: &'static str = "screendump";
    type Reply = Value;
}

/// Begins to send the machine somewhere.
#[derive(Debug, Serialize)]
pub(super) struct Migrate {
    pub(super) uri: String,
}

impl Command for Migrate {
    const NAME: &'static str = "migrate";
    type Reply = Value;
}

/// Asks how a migration goes.
#[derive(Debug, Serialize)]
pub(super) struct QueryMigrate {}

/// The answer to [`QueryMigrate`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct MigrationInfo {
    pub(super) error_desc: Option<String>,
}

impl Command for QueryMigrate {
    const NAME: &'static str = "query-migrate";
    type Reply = MigrationInfo;
}

/// The answer to [`QueryStatus`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Status {
    pub(super) running: bool,
    /// What only people read, as why they do not run.
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl Command for QueryStatus {
    const NAME: &'static str = "query-status";
    type Reply = Status;
}

/// A command without arguments whose answer says nothing.
macro_rules! plain_commands {
    ($($(#[$doc:meta])* $command:ident = $name:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize)]
        pub(super) struct $command {}

        impl Command for $command {
            const NAME: &'static str = $name;
            type Reply = Value;
        }
    )*};
}

plain_commands! {
    /// Stops the virtual CPUs.
    Stop = "stop";
    /// Lets the virtual CPUs run again.
    Cont = "cont";
    /// Presses the power button.
    SystemPowerdown = "system_powerdown";
    /// Ends QEMU.
    Quit = "quit";
    /// Leaves the negotiation mode.
    Capabilities = "qmp_capabilities";
}
