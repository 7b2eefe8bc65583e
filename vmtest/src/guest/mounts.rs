//! What proves that a machine has its disks where they were asked for.

use std::{borrow::Cow, time::Duration};

use vmtest_images::mount_options;

use crate::plan::DiskPlan;

/// Compares what is mounted at `$1`, last, with the device `$2` (or any, if that is empty) and the access `$3`.
const MOUNTED: &str = r#"mounted() {
    found=
    while read -r device at kind options rest; do
        [ "$at" = "$1" ] && found="${2:+$device} ${options%%,*}"
    done </proc/mounts
    [ "$found" = "$2 $3" ] || { echo "nothing is mounted $3 at $1 (of the label $4): ${found:-nothing at all}"; wrong=1; }
}
wrong=0
"#;

/// A script that fails, and says where, unless each of these disks of a machine is mounted at its place, with its access. `None`
/// when there are none. `own_kernel`: whether disks are devices there that have labels.
pub(crate) fn check(disks: &[DiskPlan], own_kernel: bool) -> Option<String> {
    if disks.is_empty() {
        return None;
    }
    let line = |DiskPlan { label, at, read_only, .. }: &DiskPlan| {
        let device = if own_kernel { format!("\"$(findfs LABEL={})\"", quoted(label)) } else { "''".to_owned() };
        let access = if *read_only { "ro" } else { "rw" };
        format!("mounted {} {device} {access} {}\n", quoted(at), quoted(label))
    };
    Some(format!("{MOUNTED}{}exit $wrong", disks.iter().map(line).collect::<String>()))
}

/// A script that mounts a disk that was plugged in just now, once it is there; it fails, and says why, when it is not in time.
pub(crate) fn mount(DiskPlan { label, at, read_only, .. }: &DiskPlan, within: Duration) -> String {
    let (label, at, tries) = (quoted(label), quoted(at), within.as_millis() / 50);
    let options = mount_options(*read_only);
    format!(
        r#"tries={tries}
until device=$(findfs LABEL={label}); do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || exit 1
    sleep 0.05
done 2>/dev/null
[ -n "$device" ] || {{ echo "there is no disk with the label "{label}; exit 1; }}
mkdir -p {at} && mount -t ext4 -o {options} "$device" {at}
"#
    )
}

pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    // Only a NUL byte cannot be quoted, and no mount point has one.
    shlex::try_quote(word).unwrap_or(Cow::Borrowed("''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What the script says of this host, which has its root file system and nothing at the other place.
    fn said(disks: &[(&str, bool)]) -> (bool, String) {
        let disk = |(at, read_only): &(&str, bool)| DiskPlan {
            path: "/disk".into(),
            label: "it's data".into(),
            at: (*at).into(),
            read_only: *read_only,
            below: None,
            volume: None,
        };
        let disks: Vec<_> = disks.iter().map(disk).collect();
        let output = Command::new("sh").arg("-c").arg(check(&disks, false).unwrap()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn every_disk_that_is_not_there_is_named() {
        let (success, text) = said(&[("/proc", false), ("/srv/it's", true), ("/proc", true)]);
        assert!(!success);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("nothing is mounted ro at /srv/it's (of the label it's data)"), "{text}");
        assert!(lines[1].starts_with("nothing is mounted ro at /proc"), "{text}");
        assert_eq!(said(&[("/proc", false)]), (true, String::new()));
        assert!(check(&[], false).is_none());
    }
}
