//! What is said over a control socket: JSON objects, one a line.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// The version of the protocol; a change that a client of an older one would misunderstand raises it.
pub const VERSION: u32 = 1;
/// A line is no longer than this; a longer one ends the connection.
pub(super) const MAX_LINE: u64 = 1 << 20;

/// The first line of every connection, from the owner of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The protocol's [`VERSION`].
    pub control: u32,
    /// The run's id.
    pub run: String,
}

/// What a client asks for. Paths are absolute and those of the host, unless they are in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// What the run is: answered by [`Answer::Run`].
    Describe,
    /// Keep the cluster when its body has ended.
    Hold,
    /// Let a cluster go on that is kept.
    Resume,
    /// End the run: a cluster that is kept without a body goes on to its end, every other run fails.
    Down,
    /// What OpenSSH needs: answered by [`Answer::Ssh`].
    Ssh {
        /// The machine.
        node: String,
    },
    /// A connection to a TCP port of the machine: after [`Answer::Connected`] the socket is that connection.
    Connect {
        /// The machine.
        node: String,
        /// Its port.
        port: u16,
    },
    /// The lines of its serial console, from the first, and new ones as they come: an [`Answer::Line`] each, and
    /// [`Answer::Failed`] with what has ended the machine.
    Console {
        /// The machine.
        node: String,
    },
    /// Copies a file or a tree to the machine.
    Upload {
        /// The machine.
        node: String,
        /// On the host.
        from: PathBuf,
        /// In the guest.
        to: String,
    },
    /// Copies a file or a tree from the machine.
    Download {
        /// The machine.
        node: String,
        /// In the guest.
        from: String,
        /// On the host.
        to: PathBuf,
    },
}

/// What the owner of the run says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// It is done.
    Done,
    /// What the run is.
    Run(Box<Description>),
    /// How to log in.
    Ssh(SshAccess),
    /// The socket is the connection from here on.
    Connected,
    /// A line of the console.
    Line {
        /// Without its end.
        line: String,
    },
    /// It was not done.
    Failed {
        /// The reason, for people.
        why: String,
    },
}

/// A live run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The id, the name of its directory.
    pub run: String,
    /// The directory.
    pub dir: PathBuf,
    /// The test's path.
    pub test: String,
    /// The backend's name.
    pub backend: String,
    /// The process that owns it.
    pub pid: u32,
    /// When it began, in milliseconds since the epoch.
    pub since: u64,
    /// What it is doing.
    pub state: RunState,
    /// Why it is kept; only with [`RunState::Held`].
    pub held: Option<String>,
    /// Since when it is kept, in milliseconds since the epoch.
    pub held_since: Option<u64>,
    /// Whether somebody has asked that it be kept when its body has ended.
    pub hold_asked: bool,
    /// Its machines, in the order of their addresses.
    pub nodes: Vec<Machine>,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunState {
    /// A machine of it does not answer yet.
    Booting,
    /// Its body runs.
    Running,
    /// It is kept.
    Held,
    /// It is being ended.
    Ending,
}

/// A machine of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The host name.
    pub name: String,
    /// `booting`, `running`, `paused` or `off`.
    pub state: String,
    /// The rung of the readiness ladder that it waits for, of one that boots.
    pub waits_for: Option<String>,
    /// Its places on networks, at least one.
    pub interfaces: Vec<Interface>,
    /// The process of its VMM.
    pub vmm: Option<i32>,
    /// The serial console from its first byte.
    pub console: PathBuf,
    /// What the VMM itself printed.
    pub log: PathBuf,
}

/// A machine's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The network's name.
    pub network: String,
    /// Address there.
    pub ip: Ipv4Addr,
    /// IPv6 address there.
    pub ip6: Ipv6Addr,
    /// Hardware address.
    pub mac: String,
}

/// How OpenSSH logs in to a machine, through [`Request::Connect`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshAccess {
    /// Whom to log in as.
    pub user: String,
    /// The address under which `known_hosts` has the machine.
    pub address: Ipv4Addr,
    /// The port of its server.
    pub port: u16,
    /// The file with the private key.
    pub key: PathBuf,
    /// The file with the machine's public key.
    pub known_hosts: PathBuf,
}

/// This moment in milliseconds since the epoch.
pub fn since_epoch(at: SystemTime) -> u64 {
    let time = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_wire_format_is_as_specified() {
        let requests = [
            Request::Describe,
            Request::Hold,
            Request::Resume,
            Request::Down,
            Request::Ssh { node: "a".into() },
            Request::Connect { node: "a".into(), port: 22 },
            Request::Console { node: "a".into() },
            Request::Upload { node: "a".into(), from: "/x".into(), to: "/y".into() },
            Request::Download { node: "a".into(), from: "/y".into(), to: "/x".into() },
        ];
        let description = Description {
            run: "54f0f083".into(),
            dir: "/tmp/vmtest-0/54f0f083".into(),
            test: "elects".into(),
            backend: "qemu".into(),
            pid: 4711,
            since: 1_795_240_000_000,
            state: RunState::Held,
            held: Some("has failed (no leader)".into()),
            held_since: Some(1_795_240_009_000),
            hold_asked: false,
            nodes: vec![Machine {
                name: "a".into(),
                state: "running".into(),
                waits_for: None,
                interfaces: vec![Interface {
                    network: "default".into(),
                    ip: [10, 77, 0, 11].into(),
                    ip6: [0xfd77, 0, 0, 0, 0, 0, 0, 0xb].into(),
                    mac: "52:54:00:4d:00:0b".into(),
                }],
                vmm: Some(4720),
                console: "/tmp/vmtest-0/54f0f083/a/console.log".into(),
                log: "/tmp/vmtest-0/54f0f083/a/vmm.log".into(),
            }],
        };
        let ssh = SshAccess {
            user: "root".into(),
            address: [10, 77, 0, 11].into(),
            port: 22,
            key: "/k".into(),
            known_hosts: "/h".into(),
        };
        let answers = [
            Answer::Done,
            Answer::Run(Box::new(description)),
            Answer::Ssh(ssh),
            Answer::Connected,
            Answer::Line { line: "login:".into() },
            Answer::Failed { why: "no".into() },
        ];
        let greeting = serde_json::to_string(&Greeting { control: VERSION, run: "54f0f083".into() }).unwrap();
        let lines = requests.iter().map(|request| serde_json::to_string(request).unwrap());
        let lines = lines.chain(answers.iter().map(|answer| serde_json::to_string(answer).unwrap()));
        expect![[r#"
            {"control":1,"run":"54f0f083"}
            {"request":"describe"}
            {"request":"hold"}
            {"request":"resume"}
            {"request":"down"}
            {"request":"ssh","node":"a"}
            {"request":"connect","node":"a","port":22}
            {"request":"console","node":"a"}
            {"request":"upload","node":"a","from":"/x","to":"/y"}
            {"request":"download","node":"a","from":"/y","to":"/x"}
            {"answer":"done"}
            {"answer":"run","run":"54f0f083","dir":"/tmp/vmtest-0/54f0f083","test":"elects","backend":"qemu","pid":4711,"since":1795240000000,"state":"held","held":"has failed (no leader)","held_since":1795240009000,"hold_asked":false,"nodes":[{"name":"a","state":"running","waits_for":null,"interfaces":[{"network":"default","ip":"10.77.0.11","ip6":"fd77::b","mac":"52:54:00:4d:00:0b"}],"vmm":4720,"console":"/tmp/vmtest-0/54f0f083/a/console.log","log":"/tmp/vmtest-0/54f0f083/a/vmm.log"}]}
            {"answer":"ssh","user":"root","address":"10.77.0.11","port":22,"key":"/k","known_hosts":"/h"}
            {"answer":"connected"}
            {"answer":"line","line":"login:"}
            {"answer":"failed","why":"no"}
        "#]]
        .assert_eq(&[greeting].into_iter().chain(lines).map(|line| line + "\n").collect::<String>());
    }
}
