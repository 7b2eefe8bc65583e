//! Files between the test and its machines.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use vmtest::{Kind, prelude::*};

const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tree");

/// Names with modes, targets of links and sizes, as the guest's `find` and ours print them.
fn listing(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir).expect("it can be read") {
        let path = entry.expect("it can be read").path();
        let meta = fs::symlink_metadata(&path).expect("it is there");
        let shown = path.display();
        if meta.is_symlink() {
            lines.push(format!("{shown} -> {}", fs::read_link(&path).expect("it is a link").display()));
        } else if meta.is_dir() {
            lines.push(format!("{shown} {:o}", meta.permissions().mode() & 0o7777));
            lines.extend(listing(&path));
        } else {
            let content = fs::read(&path).expect("it can be read");
            lines.push(format!(
                "{shown} {:o} {}",
                meta.permissions().mode() & 0o7777,
                String::from_utf8_lossy(&content)
            ));
        }
    }
    lines.sort();
    lines
}

fn relative(dir: &Path) -> Vec<String> {
    let prefix = dir.display().to_string();
    listing(dir).into_iter().map(|line| line.replace(&prefix, "")).collect()
}

#[vm_test(backend = "qemu, fake")]
async fn files_are_written_and_read(node: Node) -> Result {
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    node.write("/new/dir/it's a file", all.clone()).await?;
    assert_eq!(node.read("/new/dir/it's a file").await?, all);
    assert_eq!(node.sh("stat -c %a \"/new/dir/it's a file\"").await?.stdout(), "644");
    node.write("/empty", "").await?;
    assert_eq!(node.read("/empty").await?, b"");

    node.sh("echo old >/script; chmod 750 /script").await?;
    node.write("/script", "new").await?;
    assert_eq!(node.sh("cat /script; stat -c :%a /script").await?.stdout(), "new:750");
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn trees_travel_both_ways_with_modes_and_links(a: Node, b: Node) -> Result {
    let dir = tempfile::tempdir()?;
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("deep/er"))?;
    fs::write(tree.join("deep/er/file"), "content")?;
    fs::write(tree.join("run.sh"), "#!/bin/sh\n")?;
    fs::set_permissions(tree.join("run.sh"), PermissionsExt::from_mode(0o750))?;
    fs::set_permissions(tree.join("deep"), PermissionsExt::from_mode(0o711))?;
    symlink("../run.sh", tree.join("deep/link"))?;
    symlink("nowhere", tree.join("dangling"))?;
    fs::write(tree.join("x".repeat(180)), "a long name")?;

    a.upload(&tree, "/srv/copy").await?;
    assert_eq!(a.sh("stat -c '%a %u:%g' /srv/copy/run.sh").await?.stdout(), "750 0:0");
    a.download("/srv/copy", dir.path().join("back")).await?;
    assert_eq!(relative(&dir.path().join("back")), relative(&tree));

    // One file, to a directory that is not there yet, and on to another machine.
    b.upload(tree.join("run.sh"), "/made/on/the/way").await?;
    b.download("/made/on/the/way", dir.path().join("way")).await?;
    assert_eq!(fs::metadata(dir.path().join("way"))?.permissions().mode() & 0o7777, 0o750);

    // A directory that is there keeps what else is in it.
    a.sh("echo kept >/srv/copy/kept; rm /srv/copy/run.sh").await?;
    a.upload(TREE, "/srv/copy").await?;
    assert_eq!(
        a.sh("cat /srv/copy/kept; cat /srv/copy/hello.txt; ls /srv/copy/run.sh 2>&1 | wc -l").await?.stdout(),
        "kept\nhello from the host\n1"
    );
    fs::write(dir.path().join("back/mine"), "mine")?;
    a.download("/srv/copy/sub", dir.path().join("back")).await?;
    assert_eq!(fs::read(dir.path().join("back/mine"))?, b"mine");
    assert!(dir.path().join("back/run.sh").exists() && dir.path().join("back/link").is_symlink());
    Ok(())
}

#[vm_test(backend = "qemu, fake", memory = "512MiB")]
async fn what_fails_is_said_and_leaves_nothing(node: Node) -> Result {
    let dir = tempfile::tempdir()?;
    let local = dir.path().join("there");
    node.sh("mkdir /dir; mkdir /small; mount -t tmpfs -o size=64k none /small").await?;

    for (error, kind, said) in [
        (node.read("/nowhere").await.err(), Kind::Command, "cannot read `/nowhere`: cat: can't open '/nowhere'"),
        (node.read("/dir").await.err(), Kind::Command, "/dir is a directory"),
        (node.read("/a\0b").await.err(), Kind::Spec, "NUL byte"),
        (node.write("/dir", "x").await.err(), Kind::Command, "cannot write `/dir`: /dir is a directory"),
        (node.write("/small/f", vec![b'x'; 1 << 20]).await.err(), Kind::Command, "No space left on device"),
        (node.upload("/nowhere", "/x").await.err(), Kind::Spec, "cannot upload /nowhere to `/x`: No such file"),
        (node.upload(format!("{TREE}/hello.txt"), "/dir").await.err(), Kind::Command, "/dir is a directory"),
        (node.download("/nowhere", &local).await.err(), Kind::Command, "/nowhere: No such file or directory"),
        (node.download("/etc/passwd", dir.path()).await.err(), Kind::Host, "is a directory: name the file in it"),
        (node.download("/etc/passwd", "/proc/x").await.err(), Kind::Host, "cannot download `/etc/passwd` to /proc/x"),
    ] {
        let error = error.expect("it fails");
        assert!(error.to_string().contains(said), "`{error}` does not say `{said}`");
        assert_eq!((error.kind(), error.node()), (kind, Some("node")), "{error}");
    }
    let big = dir.path().join("big");
    fs::write(&big, vec![b'x'; 1 << 20])?;
    let error = node.upload(&big, "/small/big").await.expect_err("there is no room");
    assert!(error.to_string().contains("give the node more"), "{error}");

    // A copy that is given up, in the middle.
    fs::write(&big, vec![b'x'; 64 << 20])?;
    let given_up = tokio::time::timeout(Duration::from_millis(50), node.upload(&big, "/given-up"));
    assert!(given_up.await.is_err(), "64 MB take longer than that");
    // The test's own timeout ends this.

    assert!(!node.sh("ls /given-up /small/big /small/f").unchecked().await?.success());
    assert!(!local.exists());
    let left: Vec<_> = fs::read_dir(dir.path())?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["big"]);
    Ok(())
}

#[vm_test(backend = "qemu, fake", memory = "512MiB")]
async fn large_files_arrive_whole(node: Node) -> Result {
    let dir = tempfile::tempdir()?;
    let (there, back) = (dir.path().join("there"), dir.path().join("back"));
    let bytes: Vec<u8> = (0..64 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(&there, &bytes)?;
    node.upload(&there, "/tmp/large").await?;
    node.download("/tmp/large", &back).await?;
    assert!(fs::read(&back)? == bytes);
    Ok(())
}
