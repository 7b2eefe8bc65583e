//! `cargo vmtest image`, on caches as tests leave them.

use std::{
    fs,
    future::pending,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use vmtest::prelude::*;
use vmtest_tests::{Layout, Registry, Victim, cache_dir, image_cache, layer, private_cache};

/// Tests that are run by others.
mod victims {
    use super::*;

    #[vm_test(backend = "fake")]
    #[ignore = "run by an_image_that_a_test_uses_stays_until_nobody_has_for_long"]
    async fn waits(_node: Node) {
        println!("the body begins");
        pending::<()>().await;
    }
}

fn image(args: &[&str], environment: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vmtest"));
    command.arg("image").args(args).envs(environment.iter().copied()).output().expect("the command runs")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A cache that has the micro image alone, and shares no lock with another.
fn own_cache() -> TempDir {
    let (common, cache) = (image_cache(build_micro), tempfile::tempdir().expect("a directory"));
    // Links in the copy are those of the cache of all tests.
    let script = "mkdir $2/images $2/scratch; cp -a $1/images/micro-* $2/images; rm -f $2/images/micro-*/used; \
                  sed -i \"s|$3/|$2/|\" $2/images/*.json";
    let mut copy = Command::new("sh");
    copy.args(["-ec", script, "sh"]).args([common.path(), cache.path(), &cache_dir()]);
    assert!(copy.status().expect("there is a shell").success());
    cache
}

#[test]
fn an_image_that_a_test_uses_stays_until_nobody_has_for_long() {
    let cache = own_cache();
    let of_cache = |args: &[&str], runs: &Path| image(args, &[("VMTEST_CACHE", cache.path()), ("VMTEST_RUN", runs)]);
    let mut running = Victim::new("waits").env("VMTEST_CACHE", cache.path()).start();
    running.wait_for("the body begins");
    let of_run = |args: &[&str]| of_cache(args, running.runs());
    let listed: Value = serde_json::from_str(&said(&of_run(&["ls", "--json"]))).expect("it is JSON");
    assert_eq!(listed["version"], 1);
    let all = listed["images"].as_array().expect("images are a list");
    let used = all.iter().find(|image| image["in_use"] == true).expect("one is in use");
    let id = used["id"].as_str().expect("it has a name");
    assert!(id.starts_with("micro-") && used["bytes"].as_u64() > Some(1 << 20), "{used}");
    assert_eq!(used["used_by"], json!([running.pid()]));

    let refused = of_run(&["rm", id]);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(complaint.contains(&format!("error: {id} is in use by `victims::waits` (run ")), "{complaint}");
    assert!(!said(&of_run(&["prune", "--all", "--dry-run"])).contains(id));
    assert!(!said(&of_run(&["prune", "--all"])).contains(id));
    assert!(said(&of_run(&["ls"])).contains("  in use by `victims::waits` (run "));
    let inspected: Value = serde_json::from_str(&said(&of_run(&["inspect", id]))).expect("it is JSON");
    assert_eq!(inspected["image"]["name"], "micro");

    running.signal(Signal::SIGTERM);
    let ended = running.finish();
    let of_cache = |args: &[&str]| said(&of_cache(args, ended.runs()));
    assert!(of_cache(&["ls"]).contains("used 0 min ago"));
    assert_eq!(of_cache(&["prune", "--older-than", "1h"]), "0 images, 0 B\n");
    let images = cache.path().join("images");
    let long_ago = SystemTime::now() - Duration::from_secs(40 * 24 * 60 * 60);
    let file = fs::File::options().write(true).open(images.join(id).join("used")).expect("it was used");
    file.set_modified(long_ago).expect("it can be changed");
    assert!(of_cache(&["ls"]).contains("used 40 days ago"));
    assert_eq!(of_cache(&["prune", "--older-than", "41days"]), "0 images, 0 B\n");
    assert!(of_cache(&["prune", "--dry-run"]).starts_with(&format!("would remove {id}, ")));
    assert!(images.join(id).exists());
    assert!(of_cache(&["prune"]).starts_with(&format!("removed {id}, ")));
    assert_only_locks(&images);
    ended.assert_nothing_left();
}

/// Checks that nothing is in this directory of a cache but what is locked by whoever makes something there.
fn assert_only_locks(dir: &Path) {
    let left: Vec<_> = fs::read_dir(dir).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    let is_lock = |name: &str| name.ends_with(".lock") || name == "used";
    assert!(left.iter().all(|name| is_lock(&name.to_string_lossy())), "{left:?}");
}

#[test]
fn what_nobody_uses_is_removed() {
    let cache = tempfile::tempdir().expect("a directory");
    let of_cache = [("VMTEST_CACHE", cache.path())];
    assert_eq!(said(&image(&["ls"], &of_cache)), "0 images, 0 B\n");
    let images = cache.path().join("images");
    for name in ["micro-replaced", ".micro-1-build-killed"] {
        fs::create_dir(images.join(name)).expect("it can be made");
        fs::write(images.join(name).join("vmlinuz"), [1; 9000]).expect("it can be written");
    }
    assert!(said(&image(&["ls"], &of_cache)).contains("used 0 min ago, replaced by another"));
    assert!(said(&image(&["prune", "--dry-run"], &of_cache)).contains("would remove micro-replaced"));
    assert!(images.join("micro-replaced").exists());
    assert!(said(&image(&["prune"], &of_cache)).contains("removed micro-replaced"));
    assert_only_locks(&images);
    let missing = image(&["rm", "debian"], &of_cache);
    let complaint = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(complaint.contains("there is no image `debian` in the cache, and no other"), "{complaint}");
}

#[test]
fn what_is_there_beside_images_is_listed_and_removed() {
    let cache = tempfile::tempdir().expect("a directory");
    let of_cache = |args: &[&str]| said(&image(args, &[("VMTEST_CACHE", cache.path())]));
    let left = [
        "images/vmlinux-1",
        "images/.vmlinux-2",
        "downloads/ab.part",
        "downloads/cd-disk",
        "registries/blobs/sha256/ef",
    ];
    for path in left.map(|path| cache.path().join(path)) {
        fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        fs::write(path, [1; 4096]).expect("it can be written");
    }
    let lines = |before: &str| {
        format!(
            "{before}layers as they came from registries, 4.00 KiB\n{before}kernels that were unpacked, 4.00 KiB\n\
             {before}downloads, 8.00 KiB\n{before}what builds are at or have left, 4.00 KiB\n"
        )
    };
    assert_eq!(of_cache(&["ls"]), format!("0 images, 0 B\n{}", lines("")));
    let listed: Value = serde_json::from_str(&of_cache(&["ls", "--json"])).expect("it is JSON");
    assert_eq!((&listed["layer_bytes"], &listed["download_bytes"]), (&json!(4096), &json!(8192)));
    assert_eq!((&listed["kernel_bytes"], &listed["unfinished_bytes"]), (&json!(4096), &json!(4096)));
    let would = of_cache(&["prune", "--all", "--dry-run"]);
    assert_eq!(would, lines("would remove ") + "0 images, 20.00 KiB\n");
    assert!(left.iter().all(|path| cache.path().join(path).exists()));
    assert_eq!(of_cache(&["prune"]), "removed what builds are at or have left, 4.00 KiB\n0 images, 4.00 KiB\n");
    assert!(of_cache(&["prune", "--all"]).ends_with("\n0 images, 16.00 KiB\n"));
    for dir in ["images", "downloads", "registries/blobs/sha256"] {
        assert_only_locks(&cache.path().join(dir));
    }
}

/// Answers on loopback with this text, whatever is asked for, for as long as the test runs.
fn publisher(text: String) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = BufReader::new(stream.try_clone().expect("it can be duplicated")).lines();
            head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let length = text.len();
            // A client that goes is none of its business.
            _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}");
        }
    });
    url
}

#[test]
fn the_catalog_is_shown_with_what_is_known() {
    let cache = tempfile::tempdir().expect("a directory");
    let own = cache.path().join("own.json");
    fs::write(&own, r#"{"version": 1, "images": [{"name": "base", "architecture": "x86_64"}]}"#)
        .expect("it can be written");
    let of_cache = [("VMTEST_CACHE", cache.path()), ("VMTEST_CATALOG", &own)];
    let text = said(&image(&["catalog"], &of_cache));
    let debian = text.lines().find(|line| line.starts_with("debian-12 ")).unwrap_or_else(|| panic!("{text}"));
    assert!(debian.contains("sha512:") && debian.contains("  https://"), "{debian}");
    assert!(text.ends_with(&format!("13 images, with those of {}\n", own.display())), "{text}");
    let listed: Value = serde_json::from_str(&said(&image(&["catalog", "--json"], &of_cache))).expect("it is JSON");
    let of = |name: &str| {
        let images = listed["images"].as_array().expect("images are a list");
        images.iter().find(|image| image["name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    assert_eq!((&listed["version"], &listed["catalog"]), (&json!(1), &json!(own)));
    let base = json!({
        "name": "base", "architecture": "x86_64", "date": null, "digest": null, "url": null, "catalog": own, "cached": false,
    });
    assert_eq!(of("base"), base);
    assert_eq!(of("debian-12")["catalog"], Value::Null);
    fs::write(&own, "{").expect("it can be written");
    let broken = image(&["catalog"], &of_cache);
    assert_eq!(broken.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(complaint.contains(&format!("error: the catalog {}:1 cannot be read: ", own.display())), "{complaint}");
}

#[test]
fn a_catalog_is_bumped_as_far_as_publishers_answer() {
    let cache = tempfile::tempdir().expect("a directory");
    let (own, digest) = (cache.path().join("own.json"), "ab".repeat(32));
    let site = publisher(format!("{digest}  base-20260712.img\n"));
    let entry = |name: &str, file: &str| {
        json!({
            "name": name, "architecture": "x86_64",
            "bump": { "index": site, "file": format!(r"{file}-[0-9]+\.img"), "sums": "SHA256SUMS" },
        })
    };
    let write = |images: &[Value]| {
        fs::write(&own, json!({ "version": 1, "images": images }).to_string()).expect("it can be written");
    };
    let of_cache = [("VMTEST_CACHE", cache.path()), ("VMTEST_CATALOG", &own)];
    write(&[entry("base", "base")]);
    let before = fs::read(&own).expect("it is there");
    let found = "base: - -> 2026-07-12, sha256:abababababab\n";
    assert_eq!(said(&image(&["bump", "--dry-run"], &of_cache)), found);
    assert_eq!(fs::read(&own).expect("it is there"), before);
    assert_eq!(said(&image(&["bump"], &of_cache)), found);
    assert_eq!(said(&image(&["bump", "base"], &of_cache)), "base: 2026-07-12, nothing newer\n");

    // One that fails is named, and the others are written.
    write(&[entry("base", "base"), entry("other", "other")]);
    let ended = image(&["bump", "--json"], &of_cache);
    assert_eq!(ended.status.code(), Some(1));
    let why = format!("{site}/SHA256SUMS names no `other-[0-9]+\\.img`");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), format!("error: other: {why}\n"));
    let report: Value = serde_json::from_slice(&ended.stdout).expect("it is JSON");
    let unknown = json!({ "date": null, "digest": null, "url": null });
    let known = json!({
        "date": "2026-07-12", "digest": format!("sha256:{digest}"), "url": format!("{site}/base-20260712.img"),
    });
    let of = |name: &str, changed: bool, after: &Value, error: &Value| {
        json!({
            "name": name, "architecture": "x86_64", "changed": changed, "before": unknown, "after": after, "error": error,
        })
    };
    let images = [of("base", true, &known, &Value::Null), of("other", false, &Value::Null, &json!(why))];
    assert_eq!(report, json!({ "version": 1, "catalog": own, "written": true, "images": images }));
    let written: Value = serde_json::from_slice(&fs::read(&own).expect("it is there")).expect("it is JSON");
    assert_eq!((&written["images"][0]["digest"], &written["images"][1]["digest"]), (&known["digest"], &Value::Null));

    let nowhere = image(&["bump"], &[("VMTEST_CACHE", cache.path())]);
    assert_eq!(nowhere.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(complaint.starts_with("error: there is no catalog to write to: ours comes with vmtest"), "{complaint}");
}

/// How often a file is looked for that another process makes.
const POLL: Duration = Duration::from_millis(1);

/// A cache that has what images of containers are made with.
fn cache_with_micro() -> TempDir {
    private_cache(build_micro)
}

fn build_micro(cache: &Path) {
    said(&image(&["build", "micro"], &[("VMTEST_CACHE", cache)]));
}

/// A layout with one file of this content.
fn layout(dir: &Path, content: &[u8]) -> Layout {
    Layout::new(dir, &[layer(&[("file", tar::EntryType::Regular, content)])], &json!({ "Cmd": ["/file"] }))
}

/// As much as takes a while.
fn large() -> Vec<u8> {
    (0..32 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// The name of an image that takes a while, which is made in this directory.
fn large_image(dir: &Path) -> String {
    format!("oci:{}", layout(&dir.join("layout"), &large()).path().display())
}

/// What there is of images of containers, and of what is made into one.
fn containers(cache: &Path) -> Vec<String> {
    let entries = fs::read_dir(cache.join("images")).expect("it is there").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.contains("oci-") && !name.ends_with(".lock")).collect();
    names.sort();
    names
}

fn start(args: &[&str], cache: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vmtest"));
    command.arg("image").args(args).env("VMTEST_CACHE", cache).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("the command runs")
}

/// Kills it as soon as there is something at a path that this finds.
fn kill_at(mut child: Child, find: impl Fn() -> bool) {
    while !find() && child.try_wait().expect("it can be waited for").is_none() {
        thread::sleep(POLL);
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it can be waited for");
}

/// Whether anything in this directory has a name that ends so.
fn has(dir: &Path, ending: &str) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(ending))
}

#[test]
fn two_who_build_the_same_image_build_it_once_also_after_a_kill() {
    let (cache, dir) = (cache_with_micro(), tempfile::tempdir().expect("a directory"));
    let (name, before) = (large_image(dir.path()), containers(cache.path()));
    let begun = || {
        containers(cache.path()).iter().any(|name| {
            name.contains("-build-") && cache.path().join("images").join(name).join("tree/root/file").exists()
        })
    };
    kill_at(start(&["build", &name], cache.path()), begun);
    let left: Vec<_> = containers(cache.path()).into_iter().filter(|name| !before.contains(name)).collect();
    assert!(left.iter().all(|name| name.contains("-build-")), "{left:?}");

    let both = [0; 2].map(|_| start(&["build", &name], cache.path()));
    let places = both.map(|child| said(&child.wait_with_output().expect("it can be waited for")));
    assert_eq!(places[0], places[1]);
    let made: Vec<_> = containers(cache.path()).into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(made.len(), 2, "the image and its record: {made:?}");
    let place = PathBuf::from(places[0].trim_end());
    assert!(place.join("root.ext4").is_file() && made.contains(&place.file_name().unwrap().display().to_string()));
}

#[test]
fn an_image_that_has_no_room_is_named_and_leaves_nothing_half_made() {
    let (common, dir) = (cache_with_micro(), tempfile::tempdir().expect("a directory"));
    let (name, cache) = (large_image(dir.path()), dir.path().join("cache"));
    fs::create_dir(&cache).expect("it can be made");
    // The micro image stays where its record says that it is.
    let script = "set -e; mount -t tmpfs -o size=16m tmpfs $VMTEST_CACHE; mkdir $VMTEST_CACHE/images; \
                  cp $1/images/micro-*.json $VMTEST_CACHE/images; code=0; $2 image build $3 || code=$?; \
                  ls -A $VMTEST_CACHE/images; exit $code";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(common.path()).arg(env!("CARGO_BIN_EXE_cargo-vmtest"));
    let failed = command.arg(&name).env("VMTEST_CACHE", &cache).output().expect("the command runs");
    let complaint = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1), "{complaint}");
    let full = format!("no space left in {}/images: free some, as `cargo vmtest image prune` does", cache.display());
    assert!(complaint.contains(&full), "{complaint}");
    let left = String::from_utf8_lossy(&failed.stdout).into_owned();
    let is_of_micro_or_lock = |name: &str| name.starts_with("micro-") || name.ends_with(".lock");
    assert!(left.contains("micro-") && left.lines().all(is_of_micro_or_lock), "{left}");
}

#[test]
fn a_pull_that_is_killed_leaves_nothing_half_made() {
    let Some(registry) = Registry::start(false) else { return };
    let (cache, dir) = (cache_with_micro(), tempfile::tempdir().expect("a directory"));
    let layout = layout(&dir.path().join("layout"), &large());
    registry.push(&layout, "web", "1");
    let (name, before) = (registry.image("web:1"), containers(cache.path()));
    let registries = cache.path().join("registries");
    kill_at(start(&["pull", &name], cache.path()), || has(&registries.join("incoming"), ".part"));
    // What was being made is in a directory that the next one removes.
    let made = containers(cache.path()).into_iter().filter(|name| !name.contains("-build-")).collect::<Vec<_>>();
    assert_eq!(made, before);
    for blob in fs::read_dir(registries.join("blobs/sha256")).expect("it is there").flatten() {
        let pushed = layout.blobs().join(blob.file_name());
        assert!(fs::read(blob.path()).expect("it is there") == fs::read(pushed).expect("it was pushed"));
    }
    let both = [0; 2].map(|_| start(&["pull", &name], cache.path()));
    let said = both.map(|child| said(&child.wait_with_output().expect("it can be waited for")));
    assert!(said.iter().any(|said| said.ends_with(&format!("/web:1 is new: {}\n", layout.digest()))), "{said:?}");
    assert!(!has(&registries.join("incoming"), ".part"));
    assert_eq!(containers(cache.path()).len(), before.len() + 2);
}

#[test]
fn an_image_of_a_registry_is_pulled_listed_and_removed() {
    let Some(registry) = Registry::start(true) else { return };
    let (cache, dir) = (cache_with_micro(), tempfile::tempdir().expect("a directory"));
    let (first, second) = (layout(&dir.path().join("first"), b"1"), layout(&dir.path().join("second"), b"2"));
    registry.push(&first, "web", "1");
    registry.push(&first, "web", "one");
    let names = ["web:1", "web:one", "web:9"].map(|name| registry.image(name));
    let config = dir.path().join("config.json");
    let run = |args: &[&str]| {
        let output = image(args, &[("VMTEST_CACHE", cache.path()), ("DOCKER_CONFIG", dir.path())]);
        let printed = [&output.stdout[..], &output.stderr].concat();
        assert!(!String::from_utf8_lossy(&printed).contains(Registry::PASSWORD));
        output
    };

    let refused = run(&["pull", &names[0]]);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    let expected = format!("`docker login {}` or `skopeo login` makes one", registry.host());
    assert!(complaint.contains(&format!("error: {}: ", names[0])) && complaint.contains(&expected), "{complaint}");

    let auth = json!({ "username": Registry::USER, "password": Registry::PASSWORD });
    fs::write(&config, json!({ "auths": { registry.host(): auth } }).to_string()).expect("it can be written");
    assert_eq!(said(&run(&["pull", &names[0]])), format!("{} is new: {}\n", names[0], first.digest()));
    assert!(said(&run(&["pull", &names[0]])).contains(" has not changed: "));

    // By a program that keeps logins, and with another name for the same image.
    let helper = dir.path().join("docker-credential-vmtest-test");
    let login = json!({ "Username": Registry::USER, "Secret": Registry::PASSWORD });
    fs::write(&helper, format!("#!/bin/sh\ngrep -q '{}' && echo '{login}'\n", registry.host()))
        .expect("it can be written");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("it can be changed");
    fs::write(&config, json!({ "credsStore": "vmtest-test" }).to_string()).expect("it can be written");
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").expect("there are programs"));
    let run_with_helper = |args: &[&str]| {
        let environment = [("VMTEST_CACHE", cache.path()), ("DOCKER_CONFIG", dir.path()), ("PATH", Path::new(&path))];
        image(args, &environment)
    };
    let both = run_with_helper(&["pull", "--json", &names[2], &names[1]]);
    assert_eq!(both.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&both.stderr).into_owned();
    assert!(complaint.contains(&format!("{} has no `web:9` (MANIFEST_UNKNOWN", registry.host())), "{complaint}");
    let report: Value = serde_json::from_slice(&both.stdout).expect("it is JSON");
    assert_eq!((&report["version"], &report["images"][0]["changed"]), (&json!(1), &json!(true)));
    assert_eq!(report["images"][0]["image"]["digest"], first.digest());
    let listed = said(&run(&["ls"]));
    let line = listed.lines().find(|line| line.contains(&names[0])).expect("it is listed");
    let shown = format!(", {}, {}, {}", &first.digest()[.."sha256:".len() + 12], names[0], names[1]);
    assert!(line.starts_with("oci-") && line.ends_with(&shown), "{listed}");
    assert!(listed.contains("\nlayers as they came from registries, "), "{listed}");

    // A tag that has moved is another image for whoever pulls it, and for nobody else.
    registry.push(&second, "web", "1");
    assert!(said(&run_with_helper(&["build", &names[0]])).ends_with(&format!("{}\n", line.split(' ').next().unwrap())));
    assert!(said(&run_with_helper(&["pull", &names[0]])).ends_with(&format!(" is new: {}\n", second.digest())));
    let inspected =
        |name: &str| -> Value { serde_json::from_str(&said(&run(&["inspect", name]))).expect("it is JSON") };
    assert_eq!(inspected(&names[0])["image"]["digest"], second.digest());
    assert_eq!(inspected(&names[1])["names"], json!([names[1]]));
    assert!(said(&run(&["rm", &names[1]])).starts_with("removed oci-"));
    assert!(!said(&run(&["ls"])).contains(&names[1]));
    assert!(said(&run(&["prune", "--all"])).contains("removed oci-"));
    assert!(!said(&run(&["ls"])).contains("layers as they came"));

    for name in ["micro", "oci:x"] {
        let refused = run(&["pull", name]);
        let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(complaint.contains("it is in no registry: `cargo vmtest image build` makes it"), "{complaint}");
    }
}
