//! How far apt trusts a source: the options of its entry in `sources.list` or in a file beside it (`sources.list(5)`).

use std::{fs, path::Path};

use crate::{Error, Result};

/// The options that decide whether a release is believed, as files `.sources` call them; in those of one line they are in lower
/// case.
const OPTIONS: &[&str] = &[
    "Signed-By",
    "Trusted",
    "Allow-Insecure",
    "Allow-Weak",
    "Allow-Downgrade-To-Insecure",
    "Check-Valid-Until",
    "Valid-Until-Min",
    "Valid-Until-Max",
    "Check-Date",
    "Date-Max-Future",
];
/// What an option has that is a key and no path of one.
const KEY: &str = "-----BEGIN";

/// The options of an entry that apt calls `<file>:<number>`, as lines of a file `.sources`. The number is that of a line, or of a
/// stanza in such a file.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn options(entry: &str) -> Result<String> {
    let Some((path, number)) = entry.rsplit_once(':') else { return Ok(String::new()) };
    let Ok(number) = number.parse() else { return Ok(String::new()) };
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    let stanzas = Path::new(path).extension().is_some_and(|ending| ending == "sources");
    Ok(lines(if stanzas { of_stanza(&text, number) } else { of_line(&text, number) }))
}

/// The lines of those that are taken over.
fn lines(options: Vec<(String, String)>) -> String {
    let line = |(name, value): (String, String)| {
        let name = OPTIONS.iter().find(|known| known.eq_ignore_ascii_case(&name))?;
        let words = || value.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty());
        let value = if value.contains(KEY) {
            value.trim_end().to_owned()
        } else {
            format!(" {}", words().collect::<Vec<_>>().join(" "))
        };
        Some(format!("{name}:{value}\n"))
    };
    options.into_iter().filter_map(line).collect()
}

/// Those of a stanza, each with all its lines.
fn of_stanza(text: &str, number: usize) -> Vec<(String, String)> {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let mut stanzas = lines.split(|line| line.trim().is_empty()).filter(|stanza| !stanza.is_empty());
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in stanzas.nth(number.saturating_sub(1)).unwrap_or_default() {
        if let Some((_, value)) = fields.last_mut().filter(|_| line.starts_with([' ', '\t'])) {
            *value += &format!("\n{line}");
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.to_owned(), value.to_owned()));
        }
    }
    fields
}

/// Those of a line, which stand in brackets behind its type.
fn of_line(text: &str, number: usize) -> Vec<(String, String)> {
    let inside = || {
        let (_, rest) = text.lines().nth(number.checked_sub(1)?)?.trim_start().split_once([' ', '\t'])?;
        Some(rest.trim_start().strip_prefix('[')?.split_once(']')?.0)
    };
    let option = |word: &str| {
        let (name, value) = word.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    };
    inside().unwrap_or_default().split_whitespace().filter_map(option).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const LINES: &str = "# deb [trusted=yes] http://old bookworm main\n\
        \n\
        deb [ arch=amd64 signed-by=/a.gpg,/b.asc  trusted=no ] http://mirror/debian bookworm main # [trusted=yes]\n\
        deb cdrom:[Debian trusted=yes]/ bookworm main\n\
        deb\t[signed-by=\"/c.gpg\" check-valid-until=no]\thttp://mirror/debian bookworm-updates main\n";
    const STANZAS: &str = "# What is here.\n\
        \n\
        # Its first.\n\
        Types: deb\n\
        Enabled: no\n\
        Trusted: yes\n\
        \n\
        \n\
        Types: deb deb-src\n\
        URIs: http://mirror/debian\n\
        signed-by: /a.gpg\n\
        # Between.\n \
         /b.asc\n\
        Architectures: amd64\n\
        Valid-Until-Max: 5\n\
        \n\
        Types: deb\n\
        Signed-By:\n \
         -----BEGIN PGP PUBLIC KEY BLOCK-----\n \
         .\n \
         mDMEYCQjIxYJKwYBBAHaRw8BAQdAD/P5,vvn\n \
         -----END PGP PUBLIC KEY BLOCK-----\n\
        Trusted: no\n";

    #[test]
    fn the_options_of_a_line_are_taken_over() {
        let of = |number| lines(of_line(LINES, number));
        assert_eq!(of(3), "Signed-By: /a.gpg /b.asc\nTrusted: no\n");
        assert_eq!(of(5), "Signed-By: /c.gpg\nCheck-Valid-Until: no\n");
        for none in [0, 2, 4, 6] {
            assert_eq!(of(none), "");
        }
    }

    #[test]
    fn the_options_of_a_stanza_are_taken_over() {
        let of = |number| lines(of_stanza(STANZAS, number));
        assert_eq!(of(1), "Trusted: yes\n");
        assert_eq!(of(2), "Signed-By: /a.gpg /b.asc\nValid-Until-Max: 5\n");
        expect![[r#"
            Signed-By:
             -----BEGIN PGP PUBLIC KEY BLOCK-----
             .
             mDMEYCQjIxYJKwYBBAHaRw8BAQdAD/P5,vvn
             -----END PGP PUBLIC KEY BLOCK-----
            Trusted: no
        "#]]
        .assert_eq(&of(3));
        assert_eq!(of(4), "");
    }

    #[test]
    fn an_entry_is_found_by_what_apt_calls_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("it can be written");
            path.display().to_string()
        };
        let (list, sources) = (file("a.list", LINES), file("a.sources", STANZAS));
        assert_eq!(options(&format!("{list}:3")).expect("it is there"), "Signed-By: /a.gpg /b.asc\nTrusted: no\n");
        assert_eq!(options(&format!("{sources}:1")).expect("it is there"), "Trusted: yes\n");
        let error = options("/nowhere.list:1").expect_err("it is not there").to_string();
        assert_eq!(error, "cannot read /nowhere.list");
        assert_eq!(options("$(SOURCESENTRY)").expect("an older apt does not know"), "");
    }
}
