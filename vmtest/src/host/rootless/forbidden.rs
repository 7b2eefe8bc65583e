//! Why a host does not let a user have a namespace, and what changes that.

use std::{fs, io, path::Path};

use nix::libc;
use rustix::process::geteuid;

use super::enter::Step;

/// As many as a host of 8 GiB allows by default.
const ENOUGH_NAMESPACES: u32 = 31_000;
/// Since Ubuntu 24.04.
const APPARMOR: &str = "kernel.apparmor_restrict_unprivileged_userns";
/// For when no setting forbids it: a container gets namespaces only when it is started.
const CONTAINER: &str = "a container's rules, as those of Docker do, or a chroot forbid it: start the container with \
                         `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`";

/// What forbids it, as the settings in this directory, `/proc/sys` but for tests, and the error tell; with the line that
/// changes it.
pub(super) fn why(step: Step, error: &io::Error, proc_sys: &Path) -> String {
    let read = |name: &str| {
        let text = fs::read_to_string(proc_sys.join(name.replace('.', "/"))).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let set = |name: &str, value: u32| {
        let is = read(name).map_or_else(String::new, |is| format!(" is {is}"));
        format!("`{name}`{is}: run `sudo sysctl -w {name}={value}`, and write it into /etc/sysctl.d to keep it")
    };
    let (clone, limit) = ("kernel.unprivileged_userns_clone", "user.max_user_namespaces");
    let apparmor = APPARMOR;
    match (step, error.raw_os_error()) {
        (_, Some(libc::ENOSPC | libc::EUSERS)) => set(limit, ENOUGH_NAMESPACES),
        (Step::Enter, Some(libc::EPERM)) if read(clone) == Some(0) => set(clone, 1),
        (_, Some(libc::EPERM | libc::EACCES)) if read(apparmor).is_some_and(|is| is != 0) => set(apparmor, 0),
        (Step::MapIds, Some(libc::EPERM)) if geteuid().is_root() => {
            "root gets one only with CAP_SETFCAP, which this process has given up: run the tests as another user"
                .to_owned()
        }
        (Step::Enter, Some(libc::EPERM)) => CONTAINER.to_owned(),
        (Step::Enter, Some(libc::EINVAL | libc::ENOSYS)) => {
            "its kernel was built without CONFIG_USER_NS: use one that has it".to_owned()
        }
        _ => format!("{error}, while {step}"),
    }
}

/// What AppArmor does to namespaces of users, as the settings in this directory say: the line that changes it where it takes
/// them their rights.
pub(crate) fn apparmor(proc_sys: &Path) -> Result<&'static str, String> {
    match fs::read_to_string(proc_sys.join(APPARMOR.replace('.', "/"))) {
        Ok(text) if text.trim() != "0" => {
            let line = format!("run `sudo sysctl -w {APPARMOR}=0`, and write it into /etc/sysctl.d to keep it");
            Err(format!("it lets users who are not root have no namespaces with rights: {line}"))
        }
        Ok(_) => Ok("it lets users have namespaces"),
        Err(_) => Ok("it has no setting about namespaces of users here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(step: Step, errno: i32, settings: &[(&str, &str)]) -> String {
        let proc_sys = tempfile::tempdir().unwrap();
        for (name, value) in settings {
            let path = proc_sys.path().join(name.replace('.', "/"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{value}\n")).unwrap();
        }
        why(step, &io::Error::from_raw_os_error(errno), proc_sys.path())
    }

    #[test]
    fn the_setting_that_forbids_is_named_with_the_line_that_changes_it() {
        let apparmor = ("kernel.apparmor_restrict_unprivileged_userns", "1");
        let changes = "run `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`";
        for (step, errno) in [
            (Step::Enter, libc::EACCES),
            (Step::Enter, libc::EPERM),
            (Step::MapIds, libc::EPERM),
            (Step::UseRights, libc::EPERM),
        ] {
            let said = said(step, errno, &[apparmor, ("kernel.unprivileged_userns_clone", "1")]);
            assert!(said.starts_with("`kernel.apparmor_restrict_unprivileged_userns` is 1: "), "{said}");
            assert!(said.contains(changes), "{said}");
        }
        let clone = said(Step::Enter, libc::EPERM, &[("kernel.unprivileged_userns_clone", "0"), apparmor]);
        assert!(
            clone.contains("`kernel.unprivileged_userns_clone` is 0: run `sudo sysctl -w kernel.unpriv"),
            "{clone}"
        );
        let limit = said(Step::Enter, libc::ENOSPC, &[("user.max_user_namespaces", "0")]);
        assert!(limit.contains("`user.max_user_namespaces` is 0: run `sudo sysctl -w user.max_user_namespaces=31000`"));
    }

    #[test]
    fn what_no_setting_forbids_is_said_as_it_is() {
        let off = ("kernel.apparmor_restrict_unprivileged_userns", "0");
        assert!(said(Step::Enter, libc::EPERM, &[off]).contains("seccomp=unconfined"));
        assert!(said(Step::Enter, libc::EINVAL, &[]).contains("CONFIG_USER_NS"));
        let other = said(Step::MapIds, libc::EACCES, &[off]);
        assert_eq!(other, "Permission denied (os error 13), while mapping the user's ids");
    }

    #[test]
    fn what_apparmor_does_is_known_before_anybody_asks_for_a_namespace() {
        let proc_sys = tempfile::tempdir().unwrap();
        assert!(apparmor(proc_sys.path()).is_ok());
        fs::create_dir(proc_sys.path().join("kernel")).unwrap();
        let setting = proc_sys.path().join("kernel/apparmor_restrict_unprivileged_userns");
        fs::write(&setting, "1\n").unwrap();
        let said = apparmor(proc_sys.path()).unwrap_err();
        assert!(said.contains("run `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"), "{said}");
        fs::write(&setting, "0\n").unwrap();
        assert_eq!(apparmor(proc_sys.path()), Ok("it lets users have namespaces"));
    }
}
