//! What is true of the reader whatever a file holds; for the fuzzer and for the tests.

use std::path::Path;

use super::{
    reader::{Contents, read},
    record::{Effect, Record},
};

/// Checks that reading these bytes ends without a panic, and that what is read can be believed.
///
/// # Panics
/// When it cannot.
pub(crate) fn check(journal: &[u8]) {
    let Ok(contents) = read(journal) else { return };
    let whole = journal.get(..contents.whole).expect("no more is read than there is");
    assert!(!journal[contents.whole..].contains(&b'\n'), "a whole line was passed over");
    assert_eq!(read(whole).as_ref(), Ok(&contents), "what a death has cut off says nothing");
    assert_eq!(contents.begin.is_some(), contents.whole > 0, "without a first line there is no journal");
    assert!(contents.entries.is_sorted_by(|a, b| a.id < b.id), "an effect has one number");
    assert!(contents.entries.iter().all(|entry| entry.id < contents.next), "a new effect gets a new number");
    let run = Path::new("/runs/0000000a");
    for entry in &contents.entries {
        match &entry.effect {
            Effect::NodeDir { name } => {
                let leads_out = |path: &Path| path.parent() != Some(run) || path.ends_with("..");
                assert!(!Effect::node_dir(run, name).is_some_and(|path| leads_out(&path)), "`{name}` leads elsewhere");
            }
            Effect::Scratch { path } => {
                let of_run = Effect::scratch_of_run(path, run, "scratch");
                assert!(of_run.is_none_or(|of_run| of_run.ends_with("scratch/0000000a")), "{}", path.display());
            }
            Effect::HostLink { name, .. } => {
                let foreign = !name.starts_with("vt0000000a");
                assert!(!(foreign && Effect::is_host_link(run, name)), "`{name}` is of another run");
            }
            Effect::HostTable { name, .. } => {
                let foreign = !name.starts_with("0000000a");
                assert!(!(foreign && Effect::is_host_table(run, name)), "`{name}` is of another run");
            }
            Effect::Link { .. } | Effect::HostForwarding { .. } | Effect::Process { .. } | Effect::Helper { .. } => {}
        }
    }
    assert_eq!(read(&rewritten(&contents)).map(|again| again.entries.len()), Ok(contents.entries.len()));
}

/// A journal that says the same.
fn rewritten(contents: &Contents) -> Vec<u8> {
    let begin = contents.begin.iter().map(|begin| Record::Begin(begin.clone()));
    let entries = contents.entries.iter().zip(0..);
    let records = begin.chain(entries.flat_map(|(entry, id)| {
        [Record::Intent { id, effect: entry.effect.clone() }, Record::Done { id, process: entry.process.clone() }]
    }));
    records.flat_map(|record| record.line()).collect()
}
