//! The real nextest: what it is told of tests, what it tells them, and what becomes of an archive on other machines.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use vmtest_tests::Nextest;

/// Tests that nextest runs.
mod victims {
    use std::{env, path::Path};

    use vmtest::prelude::*;

    #[vm_test(backend = "qemu, fake", nodes = 3, cpus = 2)]
    #[ignore = "run by weights_and_groups_are_those_of_the_tests"]
    async fn heavy(cluster: Cluster) {
        let said = |name| env::var(name).unwrap_or_default();
        println!("{} machines in {}", cluster.nodes().len(), said("NEXTEST_TEST_GROUP"));
    }

    #[vm_test(backend = "fake", timeout = "10m")]
    #[ignore = "run by weights_and_groups_are_those_of_the_tests"]
    async fn light(_node: Node) {}

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_failure_is_attached_and_a_retry_has_its_own_directory"]
    async fn flaky(web: Node) -> Result {
        web.sh("seq 2000").await?;
        if env::var("NEXTEST_ATTEMPT").as_deref() == Ok("1") {
            return Err(Failure::msg("the first attempt fails"));
        }
        Ok(())
    }

    /// What an archive takes elsewhere: five tests, one of them with a fixture of its crate, and cases.
    mod sharded {
        use super::*;

        async fn is_elsewhere(node: &Node) -> Result {
            assert!(
                !Path::new(env!("CARGO_MANIFEST_DIR")).starts_with(env::current_dir()?),
                "it is where it was built"
            );
            node.sh("true").await?;
            Ok(())
        }

        #[vm_test(backend = "fake")]
        #[ignore = "run by the_shards_of_an_archive_are_all_tests_once"]
        async fn one(node: Node) -> Result {
            is_elsewhere(&node).await
        }

        #[vm_test(backend = "fake")]
        #[ignore = "run by the_shards_of_an_archive_are_all_tests_once"]
        async fn two(node: Node) -> Result {
            is_elsewhere(&node).await
        }

        #[vm_test(backend = "fake", fixture("tests/data/page", at = "/srv"))]
        #[ignore = "run by the_shards_of_an_archive_are_all_tests_once"]
        async fn three(node: Node) -> Result {
            assert_eq!(node.sh("cat /srv/index.html").await?.stdout(), "from the other machine");
            is_elsewhere(&node).await
        }

        #[vm_test(backend = "fake")]
        #[ignore = "run by the_shards_of_an_archive_are_all_tests_once"]
        async fn four(_node: Node) -> Result {
            Err(Failure::msg("this one fails everywhere"))
        }

        #[vm_test(backend = "fake")]
        #[ignore = "run by the_shards_of_an_archive_are_all_tests_once"]
        async fn five(node: Node) -> Result {
            is_elsewhere(&node).await
        }
    }
}

fn vmtest(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cargo-vmtest")).args(args).output().expect("the command runs")
}

/// What it prints when it succeeds.
fn said(args: &[&str]) -> String {
    let output = vmtest(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The list of what this binary declares, as if nextest's name of it were this, in a file.
fn list(dir: &Path, binary_id: &str, of: &str) -> PathBuf {
    let binary = std::env::current_exe().expect("it has a path");
    let listed = Command::new(&binary).arg("--list").env("VMTEST_INTERNAL_LIST", "1").output().expect("it runs");
    let listed = text(&listed.stdout);
    let declared =
        listed.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("vmtest: test ")?).ok());
    let tests = declared.filter(|test| test["path"].as_str().is_some_and(|path| path.starts_with(of))).map(|mut test| {
        let (package, target) = binary_id.split_once("::").expect("the id of an integration test");
        let more = json!({
            "package": package, "target": target, "binary_id": binary_id, "binary": binary, "dir": "/", "ignored": false,
        });
        let fields = test.as_object_mut().expect("a declaration is an object");
        fields.extend(more.as_object().expect("it is one").clone());
        test
    });
    let file = dir.join("tests.json");
    let list = json!({ "version": 1, "tests": tests.collect::<Vec<_>>() });
    fs::write(&file, list.to_string()).expect("it can be written");
    file
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn weights_and_groups_are_those_of_the_tests() {
    let Some(nextest) = Nextest::named("success-output = \"immediate\"", "cargo-vmtest", "nextest") else {
        eprintln!("not run: cargo-nextest is not installed");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let tests = path(&list(dir.path(), "cargo-vmtest::nextest", "victims::"));
    let config = dir.path().join("vmtest.toml");
    let write = ["nextest-config", "--tests", &tests, "--threads", "8", "--output", &path(&config)];
    let option = format!("vmtest:{}", path(&config));
    assert_eq!(said(&write), format!("cargo nextest run --tool-config-file {option}\n"));
    let written = fs::read_to_string(&config).expect("it was written");
    assert_eq!(said(&write[..5]), written, "it is printed as it is written");

    let shown = nextest.show_groups().args(["--tool-config-file", &option]).output().expect("it runs");
    let shown = text(&shown.stdout) + &text(&shown.stderr);
    assert!(shown.contains("@tool:vmtest:machines (max threads = 8)"), "{shown}");
    let group = shown.split("group: ").find(|group| group.starts_with("@tool:vmtest:machines")).unwrap_or_default();
    assert!(group.contains("victims::heavy") && !group.contains("victims::light"), "{shown}");

    let runs = tempfile::tempdir().expect("a directory");
    let mut run = nextest.command("victims::heavy");
    run.args(["--tool-config-file", &option]).env("VMTEST_RUN", runs.path()).env("VMTEST_BACKEND", "fake");
    let run = run.env("VMTEST_ARTIFACTS", dir.path().join("kept")).output().expect("it runs");
    let printed = text(&run.stdout) + &text(&run.stderr);
    assert!(run.status.success() && printed.contains("3 machines in @tool:vmtest:machines"), "{printed}");
    assert!(!printed.contains("unknown"), "nextest knows every key: {printed}");
}

#[test]
fn a_failure_is_attached_and_a_retry_has_its_own_directory() {
    let Some(nextest) =
        Nextest::new("retries = 2\n[profile.default.junit]\npath = \"junit.xml\"\nstore-failure-output = true")
    else {
        eprintln!("not run: cargo-nextest is not installed");
        return;
    };
    let (dir, runs) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (kept, store) = (dir.path().join("kept"), dir.path().join("store"));
    let mut run = nextest.command("victims::flaky");
    run.env("VMTEST_RUN", runs.path()).env("VMTEST_ARTIFACTS", &kept);
    let run = nextest.stored_in(run, &store).output().expect("it runs");
    assert!(run.status.success(), "the second attempt passes: {}{}", text(&run.stdout), text(&run.stderr));

    let attempts: Vec<Value> =
        serde_json::from_str(&said(&["report", "--format", "json", &path(&kept)])).expect("JSON");
    let verdicts: Vec<_> = attempts.iter().map(|attempt| attempt["verdict"].as_str().unwrap_or_default()).collect();
    assert_eq!(verdicts, ["passed", "failed"]);
    let dirs: Vec<_> = attempts.iter().map(|attempt| attempt["dir"].as_str().unwrap_or_default()).collect();
    assert!(dirs[0].ends_with("-try2of3") && dirs[1].ends_with("-try1of3"), "{dirs:?}");

    let junit = walk(&store).into_iter().find(|file| file.ends_with("junit.xml")).expect("nextest has written it");
    let junit = fs::read_to_string(junit).expect("it can be read");
    for file in ["failure.txt", "digest.txt", "timeline.jsonl", "verdict.json", "nodes/web/console.log"] {
        assert!(junit.contains(&format!("[[ATTACHMENT|{}/{file}]]", dirs[1])), "{file}: {junit}");
    }
    assert!(!junit.contains(dirs[0]), "nothing is attached to an attempt that passed");
    assert!(fs::metadata(Path::new(dirs[1]).join("verdict.json")).is_ok(), "what is attached is there");
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("it can be read").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Build once, run on three machines, of which none has Cargo or the sources, and put together what they have kept.
#[test]
fn the_shards_of_an_archive_are_all_tests_once() {
    const SHARDS: usize = 3;
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let archive = at("suite.tar.zst");
    let mut build = Command::new("cargo-nextest");
    // Of the whole workspace, as it was built already: to choose a target here would build it with other features.
    build.args(["nextest", "archive", "--workspace", "-E", "binary_id(=cargo-vmtest::nextest)", "--archive-file"]);
    build.arg(&archive);
    // Nor again for what Cargo says of this package, at which some build scripts look.
    let of_this = ["OUT_DIR", "NEXTEST", "CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    for (name, _) in std::env::vars_os() {
        if of_this.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            build.env_remove(name);
        }
    }
    let built = match build.output() {
        Err(_) => return eprintln!("not run: cargo-nextest is not installed"),
        Ok(built) => built,
    };
    assert!(built.status.success(), "{}", text(&built.stderr));
    let tests = path(&list(dir.path(), "cargo-vmtest::nextest", "victims::sharded::"));
    let shards = SHARDS.to_string();
    let matrix: Value =
        serde_json::from_str(&said(&["matrix", "--json", "--shards", &shards, "--tests", &tests])).expect("it is JSON");
    let jobs = matrix["include"].as_array().expect("a list");
    assert_eq!(jobs.len(), SHARDS);

    let mut ended = BTreeMap::new();
    for job in jobs {
        let machine = at(&format!("machine-{}", job["shard"]));
        let (sources, bin) = (machine.join("sources"), machine.join("bin"));
        fs::create_dir_all(sources.join("cargo-vmtest/tests/data/page")).expect("it can be made");
        fs::write(sources.join("cargo-vmtest/tests/data/page/index.html"), "from the other machine").expect("written");
        // By which nextest knows the place; it does not read it.
        fs::write(sources.join("Cargo.toml"), "").expect("written");
        fs::create_dir(&bin).expect("it can be made");
        std::os::unix::fs::symlink(vmtest_tests::on_path("cargo-nextest"), bin.join("cargo-nextest")).expect("made");
        fs::copy(&archive, machine.join("suite.tar.zst")).expect("it can be copied");
        let job = |key: &str| job[key].as_str().expect("a text");
        let mut run = Command::new(env!("CARGO_BIN_EXE_cargo-vmtest"));
        run.args(["shard", "--archive", "suite.tar.zst", "--sources", "sources", "--tests", &tests, "--kept"]);
        run.arg(at("all")).args(["--", "--run-ignored", "all", "-E", job("filter")]);
        // The programs that make fixtures are there, and Cargo is not.
        run.current_dir(&machine).env_clear().env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", path(&bin)));
        run.env("HOME", &machine).env("TMPDIR", &machine).env("VMTEST_CACHE", vmtest_tests::cache_dir());
        run.env("VMTEST_BACKEND", job("backend")).env("VMTEST_RUN", machine.join("run"));
        // As GitLab numbers them.
        let (index, of) = job("partition").trim_start_matches("slice:").split_once('/').expect("a part of a whole");
        run.env("CI_NODE_INDEX", index).env("CI_NODE_TOTAL", of);
        let output = run.output().expect("it runs");
        ended.insert(job("partition").to_owned(), (output.status.code(), text(&output.stderr)));
        let left: Vec<_> = fs::read_dir(machine.join("run")).expect("it was made").flatten().collect();
        let left = left
            .iter()
            .filter(|entry| entry.path().join("control").exists() || entry.path().join("journal.jsonl").exists());
        assert_eq!(left.count(), 0);
    }
    // A test has failed in one of them, which nextest says by 100.
    let mut codes: Vec<_> = ended.values().map(|(code, _)| code.unwrap_or(-1)).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 0, 100], "{ended:#?}");

    let all = path(&at("all"));
    let merged = said(&["report", &all, "--expect", &tests, "--format", "json"]);
    let merged: Vec<Value> = serde_json::from_str(&merged).expect("it is JSON");
    let mut results: Vec<_> = merged
        .iter()
        .map(|one| (one["test"].as_str().unwrap_or("?"), one["verdict"].as_str().unwrap_or("?")))
        .collect();
    results.sort_unstable();
    let name = |test: &str| format!("victims::sharded::{test}");
    let expected = [("five", "passed"), ("four", "failed"), ("one", "passed"), ("three", "passed"), ("two", "passed")];
    let expected = expected.map(|(test, verdict)| (name(test), verdict));
    assert_eq!(results, expected.each_ref().map(|(test, verdict)| (test.as_str(), *verdict)));
    let markdown = said(&["report", &all, "--format", "markdown"]);
    assert!(markdown.starts_with("### vmtest: 4 passed, 1 failed\n"), "{markdown}");
    said(&["report", &all]);
    assert!(fs::read_to_string(at("all").join("index.html")).expect("it was made").contains("four"));

    // A machine whose results never come, and one that runs what another has run.
    let of_shard = fs::read_dir(at("all")).expect("it is there").flatten().map(|entry| entry.path());
    let of_shard = of_shard.filter(|path| path.is_dir()).max().expect("there are three");
    let hidden = at("hidden");
    fs::rename(&of_shard, &hidden).expect("it can be renamed");
    let lost = vmtest(&["report", &all, "--expect", &tests, "--format", "junit"]);
    assert_eq!(lost.status.code(), Some(1));
    assert!(text(&lost.stderr).contains("has not run anywhere"), "{}", text(&lost.stderr));
    fs::rename(&hidden, &of_shard).expect("it can be renamed");
    let copied = Command::new("cp").arg("-r").arg(&of_shard).arg(at("all").join("again")).status().expect("cp runs");
    assert!(copied.success());
    let doubled = vmtest(&["report", &all, "--expect", &tests, "--format", "junit"]);
    assert_eq!(doubled.status.code(), Some(1));
    assert!(text(&doubled.stderr).contains("has run more than once"), "{}", text(&doubled.stderr));
}
