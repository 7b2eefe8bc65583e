//! Digests, as release pages print them.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use sha2::{Sha256, Sha512};

use crate::{Error, Result};

/// How much is read at once.
const PIECE: usize = 64 << 10;

/// How a digest is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// What most publishers give.
    Sha256,
    /// What Debian and Alpine give.
    Sha512,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// What it is called where it stands before a digest.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits one has.
    pub(crate) fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// Reads the hexadecimal digits of one.
    ///
    /// # Errors
    /// [`Error::NoDigest`]
    pub(crate) fn read(self, text: &str) -> Result<Digest> {
        let wrong = || Error::NoDigest { text: text.to_owned(), algorithm: self };
        let bytes = bytes(text).ok_or_else(wrong)?;
        let digest = match self {
            Self::Sha256 => bytes.try_into().map(Bytes::Sha256),
            Self::Sha512 => bytes.try_into().map(Bytes::Sha512),
        };
        digest.map(Digest).map_err(|_| wrong())
    }
}

/// As people write it.
impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "SHA-256",
            Self::Sha512 => "SHA-512",
        })
    }
}

/// The SHA-256 or SHA-512 of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(Bytes);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

impl Digest {
    /// The SHA-256 of a file's content.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        Self::of_file_by(Algorithm::Sha256, path)
    }

    /// The digest of a file's content.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_file_by(algorithm: Algorithm, path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self(match algorithm {
            Algorithm::Sha256 => Bytes::Sha256(hash::<Sha256>(file)?.into()),
            Algorithm::Sha512 => Bytes::Sha512(hash::<Sha512>(file)?.into()),
        }))
    }

    /// How it was made.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Bytes::Sha256(_) => Algorithm::Sha256,
            Bytes::Sha512(_) => Algorithm::Sha512,
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Sha256(bytes) => bytes,
            Bytes::Sha512(bytes) => bytes,
        }
    }

    /// With what tells how it was made: `sha512:` and its digits.
    pub fn tagged(&self) -> String {
        format!("{}:{self}", self.algorithm().tag())
    }
}

fn hash<H: sha2::Digest>(mut file: File) -> io::Result<sha2::digest::Output<H>> {
    let (mut hash, mut piece) = (H::new(), vec![0; PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash.finalize()),
            read => hash.update(&piece[..read]),
        }
    }
}

/// Those that these hexadecimal digits say.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |c: char| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits: Vec<u8> = text.chars().map(digit).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect())
}

impl FromStr for Digest {
    type Err = Error;

    /// Reads the hexadecimal digits of a SHA-256, or those of either behind `sha256:` or `sha512:`.
    fn from_str(text: &str) -> Result<Self> {
        let tagged = |algorithm: Algorithm| {
            let digits = text.strip_prefix(algorithm.tag())?.strip_prefix(':')?;
            Some(algorithm.read(digits))
        };
        Algorithm::ALL.into_iter().find_map(tagged).unwrap_or_else(|| Algorithm::Sha256.read(text))
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.tagged()
    }
}

/// Its hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Of the three bytes `abc`, from FIPS 180-2.
    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const SHA512: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                          2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn digests_are_read_and_written() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "abc").expect("it can be written");
        let digest = Digest::of_file(file.path()).expect("it can be read");
        assert_eq!(digest.to_string(), SHA256);
        assert_eq!(SHA256.to_uppercase().parse::<Digest>().expect("it is one"), digest);
        assert_eq!(format!("sha256:{SHA256}").parse::<Digest>().expect("it is one"), digest);
        let longer = Digest::of_file_by(Algorithm::Sha512, file.path()).expect("it can be read");
        assert_eq!((longer.to_string().as_str(), longer.tagged()), (SHA512, format!("sha512:{SHA512}")));
        assert_eq!(longer.tagged().parse::<Digest>().expect("it is one"), longer);
        let odd = "é".repeat(32);
        for wrong in ["", "ba78", &SHA256[1..], &format!("{SHA256}00"), &SHA256.replace('b', "g"), &odd, SHA512] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_none_says_how_one_is_written() {
        let said = |text: &str| text.parse::<Digest>().expect_err("it is none").to_string();
        assert!(said("abc").starts_with("`abc` is no SHA-256: give its 64 hexadecimal digits, as `sha256sum` prints"));
        let error = said(&format!("sha512:{SHA256}"));
        assert!(error.contains("is no SHA-512: give its 128 hexadecimal digits, as `sha512sum` prints"), "{error}");
    }
}
