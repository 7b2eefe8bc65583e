//! What is undone, and what is left alone.

use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::MetadataExt},
    process::Command,
    thread,
};

use super::*;
use crate::{
    host::JOURNAL,
    net::{Pair, Table, enter_new_namespace, hold_namespace, tables},
};

const RUN: &str = "0000000a";

/// A network that stands for the host's, held by a descriptor, and its number.
fn host() -> (File, u64) {
    let inside = || {
        enter_new_namespace().unwrap();
        hold_namespace().unwrap()
    };
    let held = thread::spawn(inside).join().unwrap();
    let number = held.metadata().unwrap().ino();
    (held, number)
}

/// The names of the links that this network has beside its loopback.
fn links(network: u64) -> Vec<String> {
    let names = within(network, async || Links::open()?.names().await).unwrap().unwrap();
    names.into_iter().map(|(_, name)| name).filter(|name| name != "lo").collect()
}

fn ip(network: u64, command: &str) {
    let work = async || Ok(Command::new("ip").args(command.split(' ')).status().unwrap().success());
    assert_eq!(within(network, work).unwrap(), Some(true), "{command}");
}

/// A run with these effects, as an owner leaves it that was killed.
fn run(effects: impl IntoIterator<Item = Effect>) -> (tempfile::TempDir, std::path::PathBuf, Journal) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join(RUN);
    std::fs::create_dir(&dir).unwrap();
    let journal = Journal::create(&dir, "killed", None).unwrap();
    for effect in effects {
        journal.intent(effect).unwrap();
    }
    (root, dir, journal)
}

fn link(name: &str, namespace: u64) -> Effect {
    Effect::HostLink { name: name.into(), namespace }
}

/// Undoes all of it, and checks that nothing is outstanding.
async fn undone(journal: &Journal, dir: &Path) {
    assert_eq!(undo_all(journal, dir, None).await, Vec::<String>::new());
    assert_eq!(journal.outstanding(), []);
}

#[tokio::test]
async fn what_a_run_has_in_the_network_of_others_is_removed_from_elsewhere() {
    let ((_held, network), (other, _)) = (host(), host());
    let table = Effect::HostTable { name: RUN.into(), namespace: network };
    let (_root, dir, journal) = run([table, link("vt0000000a0", network)]);
    let made = async || {
        Table::new(RUN, &mark(RUN)).make()?;
        let pair = Pair { run: RUN, name: "vt0000000a0", mac: "52:54:00:4d:00:01", peer: "host0", mtu: 1400 };
        Links::open()?.add_pair(&pair, other.as_fd()).await
    };
    assert_eq!(within(network, made).unwrap(), Some(()));
    assert_eq!(links(network), ["vt0000000a0"]);
    let marked = async || Links::open()?.marked("vt0000000a", RUN).await;
    assert_eq!(within(network, marked).unwrap(), Some(vec!["vt0000000a0".to_owned()]));
    undone(&journal, &dir).await;
    assert_eq!(links(network), Vec::<String>::new());
    assert_eq!(within(network, async || tables()).unwrap(), Some(Vec::new()));
    undone(&journal, &dir).await;
}

#[tokio::test]
async fn a_link_that_has_our_name_and_not_our_mark_stays() {
    let ((_held, network), (other, _)) = (host(), host());
    ip(network, "link add vt0000000a0 type bridge");
    ip(network, "link add vt0000000a1 type bridge");
    ip(network, "link set vt0000000a1 group 30324 alias somebody");
    // As it is between its first moment and its alias.
    ip(network, "link add vt0000000a2 group 30324 type bridge");
    let names = ["vt0000000a0", "vt0000000a1", "vt0000000a2", "vt0000000a3"];
    let (_root, dir, journal) = run(names.map(|name| link(name, network)));
    undone(&journal, &dir).await;
    assert_eq!(links(network), ["vt0000000a0", "vt0000000a1"]);

    let pair = async move || {
        let pair = Pair { run: RUN, name: "vt0000000a0", mac: "52:54:00:4d:00:01", peer: "host0", mtu: 1500 };
        Links::open()?.add_pair(&pair, other.as_fd()).await
    };
    let error = within(network, pair).unwrap_err().to_string();
    let said = "it is not of this run: remove it with `ip link delete vt0000000a0`, and try again";
    assert!(error.contains(said), "{error}");
}

#[tokio::test]
async fn nothing_is_undone_in_a_network_that_is_gone_or_of_another_boot() {
    let (held, network) = host();
    ip(network, "link add vt0000000a0 group 30324 type bridge");
    let (_root, dir, journal) = run([link("vt0000000a0", network)]);
    drop(journal);
    let path = dir.join(JOURNAL);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&ProcessId::own().boot, "another")).unwrap();
    undone(&Journal::open(&dir, None).unwrap().unwrap(), &dir).await;
    assert_eq!(links(network), ["vt0000000a0"]);

    drop(held);
    std::fs::write(&path, text).unwrap();
    undone(&Journal::open(&dir, None).unwrap().unwrap(), &dir).await;
}

#[tokio::test]
async fn what_no_run_can_have_there_is_left_alone_and_said() {
    let (_held, network) = host();
    ip(network, "link add eth0 group 30324 type bridge");
    let filter = Effect::HostTable { name: "filter".into(), namespace: network };
    let (_root, dir, journal) = run([link("eth0", network), link("vt0000000b0", network), filter]);
    let left = undo_all(&journal, &dir, None).await;
    assert_eq!(left, ["filter", "vt0000000b0", "eth0"].map(|name| format!("`{name}`: not of this run")));
    assert_eq!(journal.outstanding().len(), 3);
    assert_eq!(links(network), ["eth0"]);
}

#[test]
fn only_what_is_named_after_the_run_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("1234");
    for other in ["scratch/5678/node", "1234/node", "scratch/1234/node/deeper"] {
        let path = root.path().join(other);
        std::fs::create_dir_all(&path).unwrap();
        assert!(remove_scratch(&path, &run).unwrap_err().contains("no scratch disk of this run"), "{other}");
        assert!(path.exists());
    }
    remove_scratch(&root.path().join("scratch/1234/node"), &run).unwrap();
    assert!(!root.path().join("scratch/1234").exists());
    remove_scratch(&root.path().join("scratch/1234/node"), &run).unwrap();
    assert!(remove_node_dir("../scratch", &run).unwrap_err().contains("no folder of this run"));
    assert!(root.path().join("scratch/5678/node").exists());
}
