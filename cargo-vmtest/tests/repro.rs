//! `cargo vmtest repro`, on attempts of fake machines.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;
use vmtest::evidence::{Ending, Kept};
use vmtest_tests::{Ended, Victim, private_cache};

/// Tests that fail, each run by a test below in a process of its own.
mod victims {
    use std::env;

    use vmtest::prelude::*;

    /// Set when they are run again: what a test fails by has changed.
    pub(super) const NOW: &str = "REPRO_NOW";

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by many"]
    async fn fails(web: Node) -> Result {
        match env::var(NOW).as_deref() {
            Ok("healed") => {}
            Ok("otherwise") => return Err(Failure::msg("the moon is full")),
            _ => drop(web.sh("echo why >&2; exit 7").await?),
        }
        Ok(())
    }

    #[test]
    #[ignore = "run by a_cluster_in_code_is_found_by_its_test"]
    fn in_code() -> Result {
        let cluster = Cluster::builder().name("a cluster").backend("fake").node(NodeSpec::new("web"));
        cluster.run(async |_| Err::<(), _>(Failure::msg("in code")))
    }
}

/// An attempt that has failed.
struct Failed {
    artifacts: TempDir,
    runs: TempDir,
    dir: PathBuf,
    ended: Ended,
}

impl Failed {
    fn new(victim: &str) -> Self {
        Self::of(Victim::new(victim))
    }

    fn of(victim: Victim) -> Self {
        let artifacts = TempDir::new().expect("a temporary directory");
        let victim = victim.env("VMTEST_ARTIFACTS", artifacts.path()).env("VMTEST_BACKEND", "fake");
        let ended = victim.env("VMTEST_TIMEOUT_SCALE", "1.5").run().assert_failed_with(&[]);
        let dir = Kept::all(artifacts.path())[0].dir.clone();
        Self { artifacts, runs: TempDir::new().expect("a temporary directory"), dir, ended }
    }

    /// As somebody else would run it, with this very binary.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vmtest"));
        command.arg("repro").arg(&self.dir).args(args).env("VMTEST_RUN", self.runs.path()).stdin(Stdio::null());
        command.env("VMTEST_ARTIFACTS", self.artifacts.path()).env("VMTEST_BACKEND", "auto");
        command
    }

    fn here(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.arg("--binary").arg(env::current_exe().expect("a running test knows its binary"));
        command
    }

    /// Where the initramfs of its first machine's image was in the cache.
    fn initramfs(dir: &Path) -> PathBuf {
        let plan = fs::read(dir.join("plan.json")).expect("it is there");
        let plan: Value = serde_json::from_slice(&plan).expect("it is JSON");
        plan["base_initramfs"][0].as_str().expect("it has one").into()
    }

    /// Changes one of its files.
    fn edit(&self, file: &str, change: impl FnOnce(String) -> String) {
        let path = self.dir.join(file);
        let text = fs::read_to_string(&path).expect("it is there");
        fs::write(path, change(text)).expect("it can be written");
    }

    fn edit_json(&self, file: &str, change: impl FnOnce(&mut Value)) {
        self.edit(file, |text| {
            let mut value: Value = serde_json::from_str(&text).expect("it is JSON");
            change(&mut value);
            value.to_string()
        });
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn assert_says(output: &Output, code: i32, parts: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "it does not say `{part}`:\n{said}");
    }
}

#[test]
fn a_failure_comes_again_as_it_was() {
    let failed = Failed::new("fails");
    let line = format!("  again: cargo vmtest repro {}\n", failed.dir.display());
    assert!(failed.ended.text().contains(&line), "no `{line}` in {}", failed.ended.text());

    let again = failed.here(&[]).output().expect("the command runs");
    let same = [
        "`victims::fails` again, as in ",
        "this host and its settings are like those",
        "what is planned: the same: machines, images, disks and backend",
        "`echo why >&2; exit 7` ended with exit code 7",
        "it fails as it did then",
    ];
    assert_says(&again, 101, &same);
    let all = Kept::all(failed.artifacts.path());
    assert_eq!((all.len(), all[0].ending, all[0].dir == failed.dir), (2, Ending::Failed, false));
    let started = fs::read(all[0].dir.join("started.json")).expect("it is there");
    let settings = serde_json::from_slice::<Value>(&started).expect("it is JSON")["settings"].clone();
    assert_eq!((&settings["VMTEST_TIMEOUT_SCALE"], &settings["VMTEST_BACKEND"]), (&"1.5".into(), &"fake".into()));
}

#[test]
fn it_is_built_as_it_was() {
    let failed = Failed::new("fails");
    let binary = env::current_exe().expect("a running test knows its binary");
    let cargo = failed.runs.path().join("cargo");
    let built = format!(
        r#"{{"package_id":"path+file:///w#cargo-vmtest@0.1.0","manifest_path":"{}","target":{{"name":"repro","kind":["test"]}},"profile":{{"test":true}},"executable":"{}"}}"#,
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        binary.display()
    );
    fs::write(&cargo, format!("#!/bin/sh\necho \"$@\" >\"$0.args\"\necho '{built}'\n")).expect("it can be written");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let again = failed.command(&["--", "--features", "x"]).env("CARGO", &cargo).output().expect("the command runs");
    assert_says(&again, 101, &["it fails as it did then"]);
    let args = fs::read_to_string(cargo.with_extension("args")).expect("it was called");
    let package = env::var("CARGO_PKG_NAME").map(|name| format!("--package {name} ")).unwrap_or_default();
    assert!(args.contains(&format!("{package}--test repro --features x")), "{args}");

    fs::write(&cargo, "#!/bin/sh\nexit 101\n").expect("it can be written");
    let again = failed.command(&[]).env("CARGO", &cargo).output().expect("the command runs");
    assert_says(&again, 1, &["error: the tests cannot be built"]);
    fs::write(&cargo, "#!/bin/sh\n").expect("it can be written");
    let again = failed.command(&[]).env("CARGO", &cargo).output().expect("the command runs");
    assert_says(&again, 1, &["there is no test binary `repro` any more", "--binary"]);
}

#[test]
fn what_is_otherwise_on_this_host_is_said() {
    let failed = Failed::new("fails");
    failed.edit_json("started.json", |started| {
        started["vmtest"] = "0.0.7".into();
        started["host"]["cpus"] = 4096.into();
        started["host"]["memory"] = 1.into();
        started["host"]["kernel"] = "2.6.32".into();
    });
    failed.edit("plan.json", |plan| plan.replace("/images/micro-", "/images/micro-of-then-"));
    failed.edit("timeline.jsonl", |timeline| timeline.replace("\"backend\":\"", "\"backend\":\"another "));
    let again = failed.here(&[]).env(victims::NOW, "otherwise").output().expect("the command runs");
    let differ = [
        "\n  host.cpus: 4096 → ",
        "\n  host.kernel: 2.6.32 → ",
        "\n  host.memory: 1 → ",
        "\n  vmtest: 0.0.7 → ",
        "$CACHE/images/micro-of-then-",
        "\n  another fake",
        "it fails in another way; then: node `web`: `echo why >&2; exit 7` ended with exit code 7",
    ];
    assert_says(&again, 101, &differ);

    failed.edit_json("spec.json", |spec| spec["nodes"][0]["settings"]["cpus"] = 7.into());
    let healed = failed.here(&[]).env(victims::NOW, "healed").output().expect("the command runs");
    assert_says(&healed, 0, &["\n  nodes.web.settings.cpus: 7 → nothing", "it passes now; then it failed: node `web`"]);
}

/// Has the images of a copied cache found in it, not in the one from which they were copied.
fn settle(images: &Path) {
    for path in records(images) {
        let mut record: Value = read_json(&path);
        for key in ["kernel", "initramfs", "nested"] {
            let file = Path::new(record[key].as_str().expect("a path"));
            let below: PathBuf = file.components().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect();
            record[key] = images.join(below).display().to_string().into();
        }
        // It is the same file as in the other cache.
        fs::remove_file(&path).expect("it is ours");
        fs::write(&path, record.to_string()).expect("it can be written");
    }
}

/// The files that say where an image is.
fn records(images: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(images).expect("it is there").flatten().map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("it is there")).expect("it is JSON")
}

#[test]
fn the_image_of_then_is_taken_where_the_cache_has_it() {
    let victim = || Victim::new("fails").env("VMTEST_BACKEND", "fake");
    let cache = private_cache(|common| drop(victim().env("VMTEST_CACHE", common).run()));
    let images = cache.path().join("images");
    settle(&images);
    let failed = Failed::of(victim().with_cache(cache.path()));
    let initramfs = Failed::initramfs(&failed.dir);
    let then = initramfs.parent().and_then(Path::file_name).expect("it has a directory").to_str().expect("text");
    assert_eq!(initramfs.parent().and_then(Path::parent), Some(&*images));

    // Its packages have newer versions meanwhile.
    let (record, copied) =
        (records(&images), Command::new("cp").arg("-al").args([&images.join(then), &images.join("micro-0")]).status());
    assert!(copied.expect("there is a cp").success());
    let of_then = |path: &&PathBuf| read_json(path)["initramfs"] == *initramfs.display().to_string();
    let record = record.iter().find(of_then).expect("it was found by one");
    let newer = fs::read_to_string(record).expect("it is there").replace(then, "micro-0");
    fs::rename(record, images.join("micro-of-then.json")).expect("it is ours");
    fs::write(record, newer).expect("it is ours");

    let again = || failed.here(&[]).env("VMTEST_CACHE", cache.path()).output().expect("the command runs");
    let taken = format!("the image `micro` is that of then, {then}: now it would be micro-0\n");
    assert_says(&again(), 101, &[&taken, "what is planned: the same", "it fails as it did then"]);
    assert_eq!(Failed::initramfs(&Kept::all(failed.artifacts.path())[0].dir), initramfs);

    fs::remove_dir_all(images.join(then)).expect("it is ours");
    let gone = format!("the image `micro` of then, {then}, is not in the cache any more: micro-0 is taken\n");
    let differs = format!("$CACHE/images/{then}/initramfs.cpio → $CACHE/images/micro-0/initramfs.cpio");
    assert_says(&again(), 101, &[&gone, &differs, "it fails as it did then"]);
}

#[test]
fn a_backend_that_is_not_here_is_said() {
    let failed = Failed::new("fails");
    failed.edit_json("plan.json", |plan| plan["backend"] = "qemu".into());
    let again = failed.here(&[]).env("VMTEST_QEMU", "/nonexistent/qemu").output().expect("the command runs");
    assert_says(&again, 101, &["/nonexistent/qemu"]);
}

#[test]
fn the_cluster_is_kept_where_the_test_fails() {
    let failed = Failed::new("fails");
    let mut held = failed.here(&["--hold"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(held.stderr.take().expect("it was asked for")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("cargo vmtest down")), "it was not held");
    let vmtest = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vmtest"));
        command.args(args).env("VMTEST_RUN", failed.runs.path()).output().expect("the command runs")
    };
    assert_says(&vmtest(&["ssh", "web", "--", "hostname"]), 0, &["web"]);
    assert_says(&vmtest(&["resume"]), 0, &["goes on"]);
    let rest: Vec<_> = lines.collect();
    assert!(rest.iter().any(|line| line.contains("it fails as it did then")), "{rest:?}");
    assert_eq!(held.wait().expect("it can be waited for").code(), Some(101));
}

#[test]
fn a_cluster_in_code_is_found_by_its_test() {
    let failed = Failed::new("in_code");
    assert_eq!(Kept::all(failed.artifacts.path())[0].test, "a cluster");
    assert_says(&failed.here(&[]).output().expect("the command runs"), 101, &["it fails as it did then"]);
}

#[test]
fn what_cannot_be_repeated_is_refused() {
    let failed = Failed::new("fails");
    let repro = |dir: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vmtest"));
        command.arg("repro").arg(dir).output().expect("the command runs")
    };
    assert_says(&repro(Path::new("/nonexistent")), 1, &["error: there is no directory /nonexistent"]);
    let many = format!("the newest is {}", failed.dir.display());
    assert_says(&repro(failed.artifacts.path()), 1, &["has many attempts: give the directory of one", &many]);

    failed.edit_json("started.json", |started| started["runner_name"] = "victims::gone::fails".into());
    let gone = failed.here(&[]).output().expect("the command runs");
    assert_says(&gone, 1, &["has no test `victims::gone::fails` any more", "\n  victims::fails"]);
    failed.edit_json("started.json", |started| started["format"] = 2.into());
    assert_says(&failed.here(&[]).output().expect("the command runs"), 1, &["in a form number 2, and this one reads"]);
    let nothing = failed.command(&["--binary", "/nonexistent/test"]).output().expect("the command runs");
    assert_says(&nothing, 1, &["in a form number 2"]);
}
