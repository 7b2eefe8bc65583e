//! What a machine needs that an image of a container does not have: a first process, an SSH server, and programs for those
//! that the image lacks; and how its own service is started.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::Path,
};

use cpio::newc::Reader;
use goblin::elf::{Elf, program_header::PT_INTERP};
use oci_spec::image::ImageConfiguration;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::{
    cpio_writer::Archive,
    initramfs::{DROPBEAR, SWITCH},
    seed::copy_to_append,
    shell::quoted,
};

const SWITCH_SCRIPT: &str = include_str!("../guest/oci-switch.sh");
const PREPARE: &str = include_str!("../guest/oci-prepare.sh");
const INIT: &str = include_str!("../guest/oci-init.sh");
const LOGIN: &str = include_str!("../guest/oci-login.sh");
/// Everything in it that is ours.
pub(super) const OWN_PARTS: &[&str] = &[SWITCH_SCRIPT, PREPARE, INIT, LOGIN, ENTRYPOINT, LOADER];
/// Where our own things are in the machine's root, which a container's image does not have.
const ENTRYPOINT: &str = "/.vmtest/entrypoint";
const LOADER: &str = "/.vmtest/ld.so";
/// Where they are in the initramfs.
const PLACE: &str = "lib/vmtest/oci";
/// What every service has that says nothing else.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image says of its service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Runtime {
    command: Vec<String>,
    env: Vec<(String, String)>,
    dir: String,
    /// Numbers of a user and a group, where it is not root.
    user: Option<(u32, u32)>,
}

/// Reads it; users by name are those of the image's own `/etc/passwd`.
pub(super) fn read(configuration: &ImageConfiguration, root: &Path) -> Result<Runtime, String> {
    let config = configuration.config().clone().unwrap_or_default();
    let command = [config.entrypoint().clone(), config.cmd().clone()].into_iter().flatten().flatten().collect();
    let env = config.env().clone().unwrap_or_default();
    let has_path = env.iter().any(|variable| variable.starts_with("PATH="));
    let split = |variable: String| {
        let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
        let begins = name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic());
        let ok = begins && name.bytes().all(|c| c == b'_' || c.is_ascii_alphanumeric());
        // Others cannot be told to any shell.
        ok.then(|| (name.to_owned(), value.to_owned()))
    };
    let path = (!has_path).then(|| PATH.to_owned());
    let env = path.into_iter().chain(env).filter_map(split).collect();
    let dir = config.working_dir().clone().filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".to_owned());
    let user = user(config.user().as_deref().unwrap_or_default(), root)?;
    Ok(Runtime { command, env, dir, user })
}

impl Runtime {
    /// The program in the guest that starts the service, if the image has one.
    pub(super) fn guest_path(&self) -> Option<String> {
        (!self.command.is_empty()).then(|| ENTRYPOINT.to_owned())
    }

    /// Writes `out`: this initramfs, and behind it what the image's machines have beside it.
    pub(super) fn append_to(&self, base: &Path, out: &Path) -> io::Result<()> {
        let server = with_loader(file_of(base, DROPBEAR)?, LOADER)?;
        let mut archive = Archive::new(copy_to_append(base, out)?);
        archive.file(SWITCH, 0o644, SWITCH_SCRIPT.as_bytes())?;
        archive.directory(PLACE, 0o755)?;
        let mut put = |name: &str, content: &[u8]| archive.file(&format!("{PLACE}/{name}"), 0o755, content);
        put("dropbear", &server)?;
        put("prepare", PREPARE.as_bytes())?;
        put("init", INIT.as_bytes())?;
        put("login", LOGIN.as_bytes())?;
        put("env", self.exports().as_bytes())?;
        if !self.command.is_empty() {
            put("entrypoint", self.script().as_bytes())?;
        }
        archive.finish()?.flush()
    }

    /// Lines by which a shell has the image's variables.
    fn exports(&self) -> String {
        self.env.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect()
    }

    /// Becomes the service, in its directory and as its user.
    fn script(&self) -> String {
        let command: Vec<_> = self.command.iter().map(|word| quoted(word)).collect();
        let (program, arguments) = command.split_first().map_or((String::new(), String::new()), |(first, rest)| {
            (first.clone(), rest.iter().map(|word| format!(" {word}")).collect())
        });
        let dir = quoted(&self.dir);
        // busybox's `su` and `setuidgid` know names only; this one takes numbers, and looks for no other process where
        // there is no file that names one.
        let run = match self.user {
            None => format!("exec {program}{arguments}"),
            Some((uid, gid)) => format!(
                "program=$(command -v {program}) || {{ echo {program}: not found >&2; exit 127; }}\n\
                 exec /.vmtest/busybox start-stop-daemon -S -q -p /.vmtest/none -c {uid}:{gid} -x \"$program\" --{arguments}"
            ),
        };
        format!("#!/.vmtest/busybox sh\n. /.vmtest/env\nmkdir -p {dir} && cd {dir} || exit\n{run}\n")
    }
}

/// The numbers of a user as an image names it: `name`, `number`, each with a group behind a colon; `None` for root.
fn user(text: &str, root: &Path) -> Result<Option<(u32, u32)>, String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    if user.is_empty() {
        return Ok(None);
    }
    let list = |name: &str| list_of(root, &Path::new("etc").join(name)).unwrap_or_default();
    let field = |list: &str, by: usize, value: &str, wanted: usize| {
        let mut lines = list.lines().map(|line| line.split(':').collect::<Vec<_>>());
        lines.find(|line| line.get(by) == Some(&value)).and_then(|line| line.get(wanted)?.parse::<u32>().ok())
    };
    let users = list("passwd");
    let unknown =
        |what: &str, name: &str, file: &str| format!("its service's {what} `{name}` is not in its /etc/{file}");
    let uid = match user.parse() {
        Ok(number) => number,
        Err(_) => field(&users, 0, user, 2).ok_or_else(|| unknown("user", user, "passwd"))?,
    };
    let gid = match group {
        None => field(&users, 2, &uid.to_string(), 3).unwrap_or(0),
        Some(group) => match group.parse() {
            Ok(number) => number,
            Err(_) => field(&list("group"), 0, group, 2).ok_or_else(|| unknown("group", group, "group"))?,
        },
    };
    Ok(Some((uid, gid)).filter(|ids| *ids != (0, 0)))
}

/// The text of a file of an image. Links lead where they do in the image, and so not to a list of the host.
fn list_of(root: &Path, path: &Path) -> io::Result<String> {
    let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // Nobody would write into a pipe that has this name.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(&root, path, flags, Mode::empty(), resolve)?);
    if file.metadata()?.is_file() { io::read_to_string(file) } else { Ok(String::new()) }
}

/// The content of one file of an archive.
fn file_of(archive: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut archive: Box<dyn Read> = Box::new(BufReader::new(File::open(archive)?));
    loop {
        let mut entry = Reader::new(archive)?;
        if entry.entry().is_trailer() {
            return Err(io::Error::other(format!("the initramfs has no {name}")));
        }
        if entry.entry().name() == name {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            return Ok(content);
        }
        archive = entry.finish()?;
    }
}

/// The program with its loader at another place, so that it runs beside any other C library.
fn with_loader(mut program: Vec<u8>, loader: &str) -> io::Result<Vec<u8>> {
    let range = {
        let elf = Elf::parse(&program).map_err(io::Error::other)?;
        let header = elf.program_headers.iter().find(|header| header.p_type == PT_INTERP);
        header.map(|header| header.file_range()).ok_or_else(|| io::Error::other("the SSH server has no loader"))?
    };
    let place = program.get_mut(range).filter(|place| place.len() > loader.len());
    let place = place.ok_or_else(|| io::Error::other("the SSH server has no room for its loader's path"))?;
    place.fill(0);
    place[..loader.len()].copy_from_slice(loader.as_bytes());
    Ok(program)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use expect_test::expect;
    use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder, RootFsBuilder};

    use super::*;

    fn configuration(user: &str, command: &[&str]) -> ImageConfiguration {
        let config = ConfigBuilder::default()
            .user(user)
            .entrypoint(command.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
            .env(["GREETING=it's", "A-B=not told", "7ZIP=not told", "=not told", "_A7=b"].map(str::to_owned).to_vec())
            .working_dir("/srv")
            .build()
            .unwrap();
        let rootfs = RootFsBuilder::default().typ("layers").diff_ids(Vec::new()).build().unwrap();
        ImageConfigurationBuilder::default()
            .architecture("amd64")
            .os("linux")
            .config(config)
            .rootfs(rootfs)
            .history(Vec::new())
            .build()
            .unwrap()
    }

    #[test]
    fn a_service_runs_as_its_image_says() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:44::/:/bin/false\n").unwrap();
        let runtime = read(&configuration("web", &["httpd", "-h", "a b"]), root.path()).unwrap();
        assert_eq!(runtime.guest_path().as_deref(), Some(ENTRYPOINT));
        expect![[r#"
            #!/.vmtest/busybox sh
            . /.vmtest/env
            mkdir -p '/srv' && cd '/srv' || exit
            program=$(command -v 'httpd') || { echo 'httpd': not found >&2; exit 127; }
            exec /.vmtest/busybox start-stop-daemon -S -q -p /.vmtest/none -c 33:44 -x "$program" -- '-h' 'a b'
        "#]]
        .assert_eq(&runtime.script());
        expect![[r"
            export PATH='/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
            export GREETING='it'\''s'
            export _A7='b'
        "]]
        .assert_eq(&runtime.exports());
        let runtime = read(&configuration("", &["/bin/sh"]), root.path()).unwrap();
        assert!(runtime.script().ends_with("|| exit\nexec '/bin/sh'\n"), "{}", runtime.script());
        assert_eq!(read(&configuration("", &[]), root.path()).unwrap().guest_path(), None);
    }

    #[test]
    fn users_are_those_of_the_image() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), "web:x:33:44::/:\n").unwrap();
        fs::write(root.path().join("etc/group"), "staff:x:50:\n").unwrap();
        for (text, expected) in [
            ("", None),
            ("0", None),
            ("root:0", None),
            ("web", Some((33, 44))),
            ("33", Some((33, 44))),
            ("web:staff", Some((33, 50))),
            ("7", Some((7, 0))),
            ("7:8", Some((7, 8))),
        ] {
            if text == "root:0" {
                let error = user(text, root.path()).unwrap_err();
                assert_eq!(error, "its service's user `root` is not in its /etc/passwd");
                continue;
            }
            assert_eq!(user(text, root.path()).unwrap(), expected, "{text}");
        }
        assert!(user("web:nobody", root.path()).unwrap_err().contains("group `nobody`"));
    }

    #[test]
    fn links_of_an_image_lead_to_no_list_of_the_host() {
        let (root, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(host.path().join("passwd"), "web:x:33:44::/:\n").unwrap();
        let user_by = |link: &Path, to: &Path| {
            symlink(to, root.path().join(link)).unwrap();
            let user = user("web", root.path());
            fs::remove_file(root.path().join(link)).unwrap();
            user
        };
        assert!(user_by(Path::new("etc"), host.path()).is_err());
        fs::create_dir(root.path().join("etc")).unwrap();
        assert!(user_by(Path::new("etc/passwd"), &host.path().join("passwd")).is_err());
        fs::create_dir(root.path().join("usr")).unwrap();
        fs::write(root.path().join("usr/passwd"), "web:x:3:4::/:\n").unwrap();
        assert_eq!(user_by(Path::new("etc/passwd"), Path::new("/usr/passwd")), Ok(Some((3, 4))));
    }

    #[test]
    fn a_program_finds_its_loader_at_its_new_place() {
        // This test's own binary has a loader as every dynamic program has.
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let moved = with_loader(own.clone(), LOADER).unwrap();
        let interpreter = Elf::parse(&moved).unwrap().interpreter.unwrap();
        assert_eq!(interpreter.trim_end_matches('\0'), LOADER);
        assert_eq!(moved.len(), own.len());
        assert!(with_loader(own, &"/long".repeat(50)).unwrap_err().to_string().contains("no room"));
    }
}
