//! What a build leaves that is killed.

use std::{
    env,
    fs::{self, File, Permissions},
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    thread::{CapabilitySet, capabilities},
};
use vmtest_images::{Cache, ensure};

/// A kernel of a package is as little as programs of the distribution build.
const IMAGE: &str = "kernel:linux-image-of-the-test";
/// Where a build finds the pipe in which its programs say that they live; without it they do their work.
const PIPE: &str = "PIPE";

/// Those programs, as far as that build asks them.
const PROGRAMS: &[(&str, &str)] = &[
    ("apt-cache", "case \"$*\" in *linux-modules-*) exit 1;; *--recurse*) echo kmod;; esac"),
    ("apt-get", "touch linux-image-of-the-test_1_amd64.deb"),
    // As the real one, it has another program that writes.
    (
        "dpkg-deb",
        "if [ -n \"${PIPE:-}\" ]; then
            sh -c 'echo working >&9
                for n in $(seq 100); do mkdir -p \"$0/$n/x\"; sleep 0.1; done
                echo still working >&9' \"$3\" 9>\"$PIPE\"
        fi
        mkdir -p \"$3/boot\" \"$3/lib/modules/1\"
        echo kernel >\"$3/boot/vmlinuz-1\"
        : >\"$3/lib/modules/1/modules.dep\"",
    ),
];

#[test]
#[ignore = "run by nothing_of_a_killed_build_works_on"]
fn builds() {
    let cache = env::var_os("VMTEST_CACHE").expect("it is told where");
    let image = ensure(&Cache::open(cache).expect("a cache"), &IMAGE.into(), &()).expect("it is built");
    assert!(image.kernel.is_file());
}

fn start(dir: &Path, pipe: Option<&Path>) -> Child {
    let mut command = Command::new(env::current_exe().expect("a running test knows its binary"));
    let path = format!("{}:{}", dir.join("bin").display(), env::var("PATH").expect("there are programs"));
    command.args(["--exact", "builds", "--ignored"]).env("PATH", path).env("VMTEST_CACHE", dir.join("cache"));
    command.envs(pipe.map(|pipe| (PIPE, pipe))).stdout(Stdio::null()).spawn().expect("it starts")
}

#[test]
fn nothing_of_a_killed_build_works_on() {
    if !capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN)) {
        eprintln!("not run: without the right to process ids of its own only a part of a build ends with it");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (bin, pipe) = (dir.path().join("bin"), dir.path().join("pipe"));
    fs::create_dir(&bin).expect("it can be made");
    for (name, script) in PROGRAMS {
        fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).expect("it can be written");
        fs::set_permissions(bin.join(name), Permissions::from_mode(0o755)).expect("it can be changed");
    }
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("it can be made");

    let mut killed = start(dir.path(), Some(&pipe));
    let mut said = BufReader::new(File::open(&pipe).expect("it is there"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it is text");
    assert_eq!(line, "working\n");
    // Another one waits for it.
    let mut next = start(dir.path(), None);
    killed.kill().expect("it can be killed");
    killed.wait().expect("it can be waited for");
    // It ends when nobody has it any more.
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("it is text");
    assert_eq!(rest, "");
    assert!(next.wait().expect("it can be waited for").success());
}
