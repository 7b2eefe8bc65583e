//! What is kept of a run has no secret but its own throw-away keys.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use vmtest::evidence::Kept;
use vmtest_tests::Victim;

/// Stands for a token. It is in nothing that a guest prints.
const SECRET: &str = "marked-3f1c9a7be2";

/// Tests that are run by the tests below, each in a process of its own.
mod victims {
    use vmtest::prelude::*;

    use super::SECRET;

    #[vm_test(backend = "fake")]
    #[ignore = "run by no_file_has_what_only_the_environment_knows"]
    async fn has_secrets(web: Node) -> Result {
        // The command itself is kept, as its author wrote it.
        let is_set = format!("[ \"$TOKEN\" = {} ]", SECRET.replace('-', "''-"));
        web.sh(is_set).env("TOKEN", SECRET).await?;
        let mut serves = web.spawn("echo up; sleep 1001").env("TOKEN", SECRET).await?;
        let mut of_user = web.spawn("echo up; sleep 1002").env("TOKEN", SECRET).user("root").await?;
        for process in [&mut serves, &mut of_user] {
            assert_eq!(process.stdout.next().await?.as_deref(), Some("up"));
        }
        // Nobody ends them before the processes of the guest are listed.
        std::mem::forget((serves, of_user));
        step(format!("asks http://me:{SECRET}@proxy:3128"));
        Err(Failure::msg(format!("cannot reach https://{SECRET}@host/image: refused by http://me:{SECRET}@proxy:3128")))
    }
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").flatten();
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

fn has(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).expect("it can be read");
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn no_file_has_what_only_the_environment_knows() {
    let artifacts = TempDir::new().expect("a temporary directory");
    let victim = Victim::new("has_secrets").env("VMTEST_ARTIFACTS", artifacts.path());
    let victim = victim.env("A_TOKEN", SECRET).env("https_proxy", format!("http://me:{SECRET}@proxy:3128"));
    let ended = victim.run().assert_failed_with(&["cannot reach https://***@host/image"]);
    let kept = &Kept::all(artifacts.path())[0];
    let processes = fs::read_to_string(kept.dir.join("nodes/web/processes.txt")).expect("it is kept");
    assert!(processes.contains("sleep 1001") && processes.contains("sleep 1002"), "{processes}");
    assert!(has(&kept.dir.join("timeline.jsonl"), "asks http://***@proxy:3128"), "it was told");
    let files = files(artifacts.path());
    assert!(files.len() > 10, "{files:?}");
    let with: Vec<_> = files.into_iter().filter(|file| has(file, SECRET)).collect();
    assert_eq!(with, Vec::<PathBuf>::new(), "these have it");
    assert!(!ended.text().contains(SECRET), "{}", ended.text());
}
