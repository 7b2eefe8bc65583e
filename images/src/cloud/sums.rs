//! Files of checksums, in the forms in which publishers have them.

use crate::{Algorithm, Digest};

/// A digest, and the file that it is of; without a name, of the one beside which the text stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) file: Option<String>,
    pub(super) digest: Digest,
}

/// All digests of a text that we know. Other lines are passed over, such as those of a signature.
pub(super) fn read(text: &str) -> Vec<Sum> {
    text.lines().map(str::trim).filter_map(|line| tagged(line).or_else(|| plain(line))).collect()
}

/// `SHA256 (name) = digits`, as BSD's programs print it, and Fedora.
fn tagged(line: &str) -> Option<Sum> {
    let (before, digits) = line.split_once(") = ")?;
    let (tag, file) = before.split_once(" (")?;
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.tag().eq_ignore_ascii_case(tag))?;
    Some(Sum { file: Some(base(file).to_owned()), digest: algorithm.read(digits).ok()? })
}

/// `digits  name` or `digits *name`, as GNU's programs print it, or the digits alone.
fn plain(line: &str) -> Option<Sum> {
    let (digits, file) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.digits() == digits.len())?;
    let file = file.trim_start();
    let file = file.strip_prefix('*').unwrap_or(file);
    Some(Sum { file: (!file.is_empty()).then(|| base(file).to_owned()), digest: algorithm.read(digits).ok()? })
}

/// The name of a file that may stand with directories before it.
fn base(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let (short, long) = ("ab".repeat(32), "CD".repeat(64));
        let of = |text: &str| -> Vec<String> {
            let show = |sum: Sum| format!("{} {}", sum.file.as_deref().unwrap_or("-"), &sum.digest.tagged()[..11]);
            read(text).into_iter().map(show).collect()
        };
        assert_eq!(of(&format!("{short}  a.img\n{long}  ./b.img\r\n")), ["a.img sha256:abab", "b.img sha512:cdcd"]);
        assert_eq!(of(&format!("{short} *a.img\n")), ["a.img sha256:abab"]);
        assert_eq!(of(&long), ["- sha512:cdcd"]);
        let signed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# a.qcow2: 5 bytes\nSHA256 (a.qcow2) = {short}\n\
             MD5 (a.qcow2) = abab\nSHA512 (b.qcow2) = {long}\n-----BEGIN PGP SIGNATURE-----\n\niQIzBAEB\n=abcd\n\
             -----END PGP SIGNATURE-----\n"
        );
        assert_eq!(of(&signed), ["a.qcow2 sha256:abab", "b.qcow2 sha512:cdcd"]);
        // What is shorter or no digest at all.
        assert_eq!(of(&format!("{}  a.img\n{}  b.img\n", &short[..40], "xy".repeat(32))), [""; 0]);
        assert_eq!(of(&format!("SHA512 (a.img) = {short}\n")), [""; 0]);
    }
}
