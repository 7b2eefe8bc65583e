//! Fixture disks as a guest sees them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, Permissions},
    io::Read,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::Path,
    process::Command,
};

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use vmtest::{fixture, prelude::*};

/// As many disks as a node takes.
const MOST: usize = 23;

/// A path, a mode, and what is there; a later one that cannot be is left out.
type Tree = Vec<(Vec<Vec<u8>>, u32, Thing)>;

#[derive(Debug, Clone)]
enum Thing {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let byte = prop_oneof![8 => b'a'..=b'd', 1 => (1..=255_u8).prop_filter("no slash", |byte| *byte != b'/')];
    let name = prop_oneof![8 => prop::collection::vec(byte.clone(), 1..4), 1 => prop::collection::vec(byte, 90..100)];
    let name = name.prop_filter("no dots", |name| name != b"." && name != b"..");
    let contents = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        (0..200_000_usize, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ];
    let thing = prop_oneof![
        2 => Just(Thing::Directory),
        4 => contents.prop_map(Thing::File),
        1 => prop::collection::vec(b'a'..=b'z', 1..99).prop_map(Thing::Symlink),
    ];
    prop::collection::vec((prop::collection::vec(name, 1..5), 0..=0o7777_u32, thing), 0..40)
}

fn make(root: &Path, tree: &Tree) {
    fs::create_dir(root).expect("made");
    let mut modes = vec![(root.to_owned(), 0o755)];
    for (path, mode, thing) in tree {
        let names = path.iter().map(|name| OsString::from_vec(name.clone()));
        let path = names.fold(root.to_owned(), |path, name| path.join(name));
        let made = fs::create_dir_all(path.parent().expect("below the root")).and_then(|()| match thing {
            _ if path.symlink_metadata().is_ok() => Ok(()),
            Thing::Directory => fs::create_dir(&path),
            Thing::File(contents) => fs::write(&path, contents),
            Thing::Symlink(target) => symlink(OsString::from_vec(target.clone()), &path),
        });
        // A file may stand where a directory was wanted.
        if made.is_ok() && !path.is_symlink() {
            modes.push((path, *mode));
        }
    }
    // Whoever made it must be able to read it.
    for (path, mode) in modes {
        fs::set_permissions(&path, Permissions::from_mode(mode | 0o500)).expect("set");
    }
}

/// Each path with its type, mode, owner, and contents or target.
type Seen = BTreeMap<Vec<u8>, (char, u32, u64, Vec<u8>)>;

fn on_host(root: &Path, path: &Path, seen: &mut Seen) {
    let metadata = fs::symlink_metadata(path).expect("it is there");
    let key = path.strip_prefix(root).expect("below the root").as_os_str().as_bytes().to_vec();
    let mode = metadata.mode() & 0o7777;
    if metadata.is_dir() {
        seen.insert(key, ('d', mode, 0, vec![]));
        for entry in fs::read_dir(path).expect("it can be read") {
            on_host(root, &entry.expect("it can be read").path(), seen);
        }
    } else if metadata.is_symlink() {
        let target = fs::read_link(path).expect("a symlink").into_os_string().into_vec();
        seen.insert(key, ('l', 0o777, 0, target));
    } else {
        seen.insert(key, ('f', mode, 0, fs::read(path).expect("it can be read")));
    }
}

/// What `tar` in the guest makes of a directory there.
async fn in_guest(node: &Node, at: &str) -> Result<Seen> {
    let archive = node.sh(format!("tar -C {at} -cf - .")).await?;
    let mut seen = Seen::new();
    for entry in tar::Archive::new(&*archive.stdout_raw()).entries()? {
        let mut entry = entry?;
        let path = entry.path_bytes().to_vec();
        let path = path.strip_prefix(b"./").unwrap_or(&path).to_vec();
        let path = path.strip_suffix(b"/").unwrap_or(&path).to_vec();
        let header = entry.header();
        let (kind, mode, owner) = (header.entry_type(), header.mode()?, header.uid()? + header.gid()?);
        let seen_as = if kind.is_dir() {
            ('d', mode & 0o7777, owner, vec![])
        } else if kind.is_symlink() {
            ('l', 0o777, owner, entry.link_name_bytes().unwrap_or_default().to_vec())
        } else {
            let mut contents = vec![];
            entry.read_to_end(&mut contents)?;
            ('f', mode & 0o7777, owner, contents)
        };
        seen.insert(if path == b"." { vec![] } else { path }, seen_as);
    }
    Ok(seen)
}

/// As many random trees as a node takes disks, so that one boot looks at all of them.
fn a_guest_sees_what_random_trees_hold(backend: &'static str) {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut runner = TestRunner::new(Config::default());
    let mut node = NodeSpec::new("node");
    let mut expected = vec![];
    for n in 0..MOST {
        let root = scratch.path().join(format!("tree{n}"));
        make(&root, &tree().new_tree(&mut runner).expect("a tree").current());
        let mut seen = Seen::new();
        on_host(&root, &root, &mut seen);
        expected.push(seen);
        node = node.fixture(&root, format!("/srv/tree{n}"));
    }
    let result = Cluster::builder().backend(backend).node(node).run(async move |cluster| {
        let node = cluster.node("node")?;
        for (n, expected) in expected.into_iter().enumerate() {
            let mut seen = in_guest(&node, &format!("/srv/tree{n}")).await?;
            assert!(seen.remove(b"lost+found".as_slice()).is_some());
            let paths = |seen: &Seen| seen.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(paths(&seen), paths(&expected), "tree {n}");
            for (path, seen) in seen {
                assert_eq!(seen, expected[&path], "tree {n}: {}", path.escape_ascii());
            }
        }
        Ok::<_, Failure>(())
    });
    result.expect("it passes");
}

#[test]
fn a_fake_sees_what_random_trees_hold() {
    a_guest_sees_what_random_trees_hold("fake");
}

mod real {
    #[test]
    fn a_guest_sees_what_random_trees_hold() {
        super::a_guest_sees_what_random_trees_hold("qemu");
    }
}

#[vm_test(backend = "qemu, fake", fixture("tests/data/tree", at = "/srv/tree"))]
async fn all_nodes_share_a_disk(
    nodes: [Node; 2],
    #[node(fixture("tests/data/tree"))] twice: Node,
    cluster: Cluster,
) -> Result {
    let plans = &cluster.plan().nodes;
    let disks: BTreeSet<_> = plans.iter().flat_map(|plan| &plan.disks).map(|disk| &disk.path).collect();
    assert_eq!(disks.len(), 1);
    for node in nodes.iter().chain([&twice]) {
        assert_eq!(node.sh("cat /srv/tree/hello.txt").await?.stdout(), "hello from the host");
    }
    assert_eq!(twice.sh("cat /fixtures/tree/hello.txt").await?.stdout(), "hello from the host");
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn a_test_makes_up_files(cluster: Cluster) -> Result {
    let conf = Fixture::from_files([("app.conf", "port = 80"), ("bin/run", "#!/bin/sh\ncat /srv/conf/app.conf\n")]);
    let node = NodeSpec::new("late")
        .fixture(conf.mode("bin/run", 0o755).label("conf"), "/srv/conf")
        .fixture(Fixture::from_bytes("blob", vec![0, 1, 2, 255]), "/srv/blob")
        .fixture(fixture!("tests/data/tree"), "/srv/tree");
    let node = cluster.add(node).await?;
    assert_eq!(node.sh("/srv/conf/bin/run").await?.stdout(), "port = 80");
    assert_eq!(*node.sh("cat /srv/blob/blob").await?.stdout_raw(), [0, 1, 2, 255]);
    assert_eq!(node.sh("cat /srv/tree/hello.txt").await?.stdout(), "hello from the host");
    Ok(())
}

/// What [`a_crate_that_moved_is_found`] runs elsewhere.
#[test]
#[ignore = "a helper of a_crate_that_moved_is_found"]
fn moved() {
    let node = NodeSpec::new("node").fixture(fixture!("data"), "/srv/data");
    let run = Cluster::builder().backend("fake").node(node).run(async |cluster: Cluster| {
        assert_eq!(cluster.node("node")?.sh("cat /srv/data/file").await?.stdout(), "moved");
        Ok::<_, Failure>(())
    });
    run.expect("it passes");
}

#[test]
fn a_crate_that_moved_is_found() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    fs::create_dir(elsewhere.path().join("data")).expect("made");
    fs::write(elsewhere.path().join("data/file"), "moved").expect("written");
    let mut program = Command::new(std::env::current_exe().expect("it has a path"));
    program
        .args(["--ignored", "--exact", "fixtures::moved", "--nocapture"])
        .env("CARGO_MANIFEST_DIR", elsewhere.path());
    let output = program.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "it was run");
    // Another package's directory says nothing of this one's.
    let output = program.env("CARGO_PKG_NAME", "another").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("tests/data does not exist"), "{said}");
}

#[test]
fn everything_that_is_wrong_with_fixtures_is_said_at_once() {
    let scratch = tempfile::tempdir().expect("a directory");
    let root = scratch.path().join("data");
    fs::create_dir(&root).expect("made");
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("bound");
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    symlink("loop", scratch.path().join("loop")).expect("made");
    let node = NodeSpec::new("node")
        .fixture(&root, "/srv/data")
        .fixture(scratch.path().join("missing"), "/srv/missing")
        .fixture(scratch.path().join("loop"), "relative")
        .fixture(root.join("socket"), "/srv/socket");
    let error = Cluster::builder().backend("fake").node(node).run(async |_| Ok::<_, Failure>(()));
    let error = error.expect_err("nothing can be made").to_string();
    for said in [
        "for 5 reasons",
        "data/socket is a socket",
        "data/fifo is a FIFO",
        "missing does not exist",
        "loop is a loop of symlinks",
        "socket is not a directory",
        "cannot be mounted at `relative`: give an absolute path",
    ] {
        assert!(error.contains(said), "no {said:?} in {error}");
    }
}

#[test]
fn a_disk_is_held_while_a_cluster_has_it() {
    let scratch = tempfile::tempdir().expect("a directory");
    let contents: Vec<u8> = scratch.path().as_os_str().as_bytes().to_vec();
    let node = NodeSpec::new("node").fixture(Fixture::from_bytes("unique", contents), "/srv/unique");
    let is_held = |path: &Path| {
        let root = path.ancestors().nth(2).expect("it is in a cache");
        let disks = vmtest_fixtures::Cache::open(root).and_then(|cache| cache.disks()).expect("listed");
        disks.into_iter().find(|disk| disk.path == path).expect("it is there").in_use
    };
    let (tell, path) = std::sync::mpsc::channel();
    let run = Cluster::builder().backend("fake").node(node).run(async move |cluster: Cluster| {
        let path = std::path::PathBuf::from(&cluster.plan().nodes[0].disks[0].path);
        assert!(is_held(&path));
        tell.send(path)?;
        Ok::<_, Failure>(())
    });
    run.expect("it passes");
    let path = path.recv().expect("the body ran");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    // The last of the run's threads ends a moment later.
    while is_held(&path) {
        assert!(std::time::Instant::now() < deadline, "{} is held for ever", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    fs::remove_file(path).expect("nobody has it");
}
