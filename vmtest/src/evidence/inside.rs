//! What a guest is asked when a test fails.

/// What is asked, with the file that gets the answer: of several commands the first that the guest has.
const ASKED: [(&str, &[&str]); 9] = [
    ("dmesg", &["dmesg"]),
    ("journal", &["journalctl --no-pager -n 500 -o short-monotonic"]),
    ("failed-units", &["systemctl --no-pager list-units --failed"]),
    ("sockets", &["ss -anp", "netstat -anp", "netstat -an"]),
    ("addresses", &["ip addr", "ifconfig -a"]),
    ("routes", &["ip route", "route -n"]),
    ("processes", &["ps -ef", "ps"]),
    ("disks", &["df -h"]),
    ("memory", &["cat /proc/meminfo"]),
];
/// What stands before each answer.
const MARK: &str = "==vmtest==";
/// What one command may print; the end of it says most.
const PRINTED_BYTES: u32 = 256 << 10;

/// A script for a guest's shell that prints all answers. A command that hangs does not hold up those after it, where the
/// guest has `timeout`.
///
/// A machine without a kernel of its own has nothing to say of one.
pub(crate) fn script(own_kernel: bool) -> String {
    let mut script = String::from("t=; command -v timeout >/dev/null 2>&1 && t='timeout 2'\n");
    for (file, commands) in ASKED {
        if file == "dmesg" && !own_kernel {
            continue;
        }
        for (number, command) in commands.iter().enumerate() {
            let program = command.split_whitespace().next().unwrap_or_default();
            let word = if number == 0 { "if" } else { "elif" };
            script += &format!(
                "{word} command -v {program} >/dev/null 2>&1; then echo '{MARK} {file}'; $t {command} 2>&1 | tail -c {PRINTED_BYTES}\n"
            );
        }
        script += "fi\n";
    }
    script
}

/// The answers by their files.
pub(crate) fn answers(printed: &str) -> Vec<(&str, &str)> {
    let parts = printed.split(MARK).skip(1).filter_map(|part| part.trim_start().split_once('\n'));
    parts.filter(|(file, _)| ASKED.iter().any(|(asked, _)| asked == file)).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_answers_what_it_can() {
        let output = Command::new("sh").arg("-c").arg(script(false)).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        let answers = answers(&printed);
        let of = |file: &str| answers.iter().find(|(of, _)| *of == file).map(|(_, text)| *text);
        assert!(of("memory").unwrap().contains("MemTotal:"), "{printed}");
        assert!(of("processes").is_some_and(|text| text.contains("PID")), "{printed}");
        assert_eq!(of("dmesg"), None);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }

    #[test]
    fn what_was_not_asked_is_no_answer() {
        assert_eq!(answers("==vmtest== ../x\na\n==vmtest== disks\nb\nc\n"), [("disks", "b\nc\n")]);
    }
}
