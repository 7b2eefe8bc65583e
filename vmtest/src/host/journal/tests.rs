//! What a journal says, however it ends.

use std::{fs, io::Write, path::Path};

use proptest::{collection::vec, prelude::*};

use super::{properties::check, record::*, *};
use crate::host::ProcessId;

const BEGIN: &str = r#"{"type":"begin","version":3,"test":"t","owner":{"pid":1,"start":1,"boot":"b"},"at":0}"#;

fn link(name: &str) -> Effect {
    Effect::Link { name: name.into() }
}

fn create(dir: &Path) -> Journal {
    Journal::create(dir, "t", None).unwrap()
}

fn open(dir: &Path) -> Result<Option<Journal>, crate::Error> {
    Journal::open(dir, None)
}

/// The message about a journal of these bytes.
fn refusal(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(JOURNAL), bytes).unwrap();
    open(dir.path()).unwrap_err().to_string()
}

#[test]
fn what_is_not_released_is_outstanding_latest_first() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    let bridge = journal.intent(link("br0")).unwrap();
    let tap = journal.intent(link("tap0")).unwrap();
    journal.intent(link("tap1")).unwrap();
    journal.done(bridge, None).unwrap();
    journal.released(tap);
    let reopened = open(dir.path()).unwrap().unwrap();
    assert_eq!(journal.outstanding(), reopened.outstanding());
    let effects: Vec<_> = reopened.outstanding().into_iter().map(|entry| entry.effect).collect();
    assert_eq!(effects, [link("tap1"), link("br0")]);
}

#[test]
fn a_line_cut_off_by_death_is_ignored_and_what_comes_after_is_not() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path()).intent(link("br0")).unwrap();
    let path = dir.path().join(JOURNAL);
    let whole = fs::read(&path).unwrap();
    let first = whole.iter().position(|&byte| byte == b'\n').unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let journal = open(dir.path()).unwrap();
        assert_eq!(journal.is_some(), cut > first, "the owner has announced nothing before its first line");
        let Some(journal) = journal else { continue };
        assert_eq!(journal.outstanding(), []);
        let id = journal.intent(link("br1")).unwrap();
        assert_eq!(open(dir.path()).unwrap().unwrap().outstanding().len(), 1);
        journal.released(id);
        assert_eq!(open(dir.path()).unwrap().unwrap().outstanding(), [], "cut after {cut} bytes");
    }
}

#[test]
fn a_journal_that_cannot_be_believed_is_refused_with_the_reason() {
    let newer = r#"{"type":"begin","version":99,"owner":"of another form"}"#;
    let intent = r#"{"type":"intent","id":0,"effect":{"kind":"link","name":"br0"}}"#;
    for (bytes, said) in [
        (format!("{newer}\n"), "is of version 99; this vmtest reads 3: prune it with a newer one"),
        (format!("{intent}\n"), "is damaged in line 1 (`begin` is the first line, and no other)"),
        (format!("{BEGIN}\n{BEGIN}\n"), "is damaged in line 2 (`begin` is the first line, and no other)"),
        (format!("{BEGIN}\n{{\"type\":\"inten\n{intent}\n"), "is damaged in line 2 (EOF while parsing a string"),
        (format!("{BEGIN}\n{intent}\n{intent}\n"), "is damaged in line 3 (effect 0 where 1 comes)"),
        (format!("{BEGIN}\n{{\"type\":\"later\"}}\n"), "is damaged in line 2 (unknown variant `later`"),
    ] {
        let message = refusal(bytes.as_bytes());
        assert!(message.contains(said), "{message}");
    }
    assert!(refusal(b"\xff\n").contains("is damaged in line 1"));
}

#[test]
fn a_journal_of_another_user_or_none_that_is_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(create(dir.path()));
    let path = dir.path().join(JOURNAL);
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("belongs to user 65534, not to"), "{message}");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("cannot read") && message.contains("Is a directory"), "{message}");
}

#[test]
fn names_that_lead_out_of_a_run_mean_nothing() {
    let run = Path::new("/runs/1234");
    for name in ["..", ".", "", "/", "/etc", "a/b", "a/..", "../a", "a/", "lock", JOURNAL] {
        assert_eq!(Effect::node_dir(run, name), None, "{name}");
    }
    assert_eq!(Effect::node_dir(run, "alice"), Some(run.join("alice")));
    let scratch = |path| Effect::scratch_of_run(Path::new(path), run, "scratch").is_some();
    for path in [
        "/c/scratch/1234/..",
        "/c/scratch/1234",
        "/c/../scratch/1234/0",
        "c/scratch/1234/0",
        "/c/scratch/5678/0",
        "/c/other/1234/0",
        "/c/scratch/1234/0/deeper",
    ] {
        assert!(!scratch(path), "{path}");
    }
    assert!(scratch("/c/scratch/1234/0"));
}

#[test]
fn names_of_others_mean_nothing_in_the_hosts_network() {
    let run = Path::new("/runs/0000000a");
    for name in ["", "eth0", "vt", "vt0000000b0", "vt0000000a/0", "vt0000000a..", "vt0000000a123456", "xvt0000000a0"] {
        assert!(!Effect::is_host_link(run, name), "{name}");
    }
    assert!(Effect::is_host_link(run, "vt0000000a0") && Effect::is_host_link(run, "vt0000000a12345"));
    for name in ["", "filter", "0000000b", "0000000a1", "0000000a-", "0000000a-/", "x0000000a"] {
        assert!(!Effect::is_host_table(run, name), "{name}");
    }
    assert!(Effect::is_host_table(run, "0000000a") && Effect::is_host_table(run, "0000000a-egress"));
    assert!(!Effect::is_host_link(Path::new("/"), "vt0") && !Effect::is_host_table(Path::new("/"), ""));
}

/// What a journal consists of, in any order.
fn record() -> impl Strategy<Value = Record> {
    let name = || proptest::sample::select(vec!["br0", "..", "a/b", "", "alice", "\u{0}\n"]).prop_map(str::to_owned);
    let host_name = || {
        proptest::sample::select(vec!["0000000a", "vt0000000a0", "0000000b", "vt0000000b0", ""]).prop_map(str::to_owned)
    };
    let path = proptest::sample::select(vec!["/c/scratch/0000000a/0", "/c/scratch/0000000a/..", "scratch", "/"]);
    let effect = prop_oneof![
        name().prop_map(|name| Effect::Link { name }),
        (host_name(), any::<u64>()).prop_map(|(name, namespace)| Effect::HostLink { name, namespace }),
        (host_name(), any::<u64>()).prop_map(|(name, namespace)| Effect::HostTable { name, namespace }),
        any::<u64>().prop_map(|namespace| Effect::HostForwarding { namespace }),
        name().prop_map(|name| Effect::NodeDir { name }),
        path.prop_map(|path| Effect::Scratch { path: path.into() }),
        name().prop_map(|node| Effect::Process { node }),
    ];
    let id = prop_oneof![0..6u32, Just(u32::MAX)];
    let process = (any::<i32>(), any::<u64>()).prop_map(|(pid, start)| ProcessId { pid, start, boot: "b".into() });
    prop_oneof![
        1 => Just(serde_json::from_str(BEGIN).unwrap()),
        4 => (id.clone(), effect).prop_map(|(id, effect)| Record::Intent { id, effect }),
        2 => (id.clone(), proptest::option::of(process)).prop_map(|(id, process)| Record::Done { id, process }),
        2 => id.prop_map(|id| Record::Released { id }),
    ]
}

/// Records behind a first line, numbered as a writer would, cut anywhere, with some bytes changed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (vec(record(), 0..12), any::<bool>(), changes, any::<prop::sample::Index>()).prop_map(
        |(mut records, in_order, changes, cut)| {
            let intents =
                records.iter_mut().filter_map(|r| if let Record::Intent { id, .. } = r { Some(id) } else { None });
            intents.zip(0..).filter(|_| in_order).for_each(|(id, number)| *id = number);
            let mut bytes = format!("{BEGIN}\n").into_bytes();
            records.iter().for_each(|record| bytes.write_all(&record.line()).unwrap());
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            bytes
        },
    )
}

proptest! {
    #[test]
    fn whatever_a_file_holds_it_is_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn whatever_is_damaged_it_is_read_or_refused(bytes in damaged()) {
        check(&bytes);
    }
}
