//! What kernels are called that are given by path.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

/// Where the header of a bzImage has its magic, and what that is (Documentation/arch/x86/boot.rst of Linux).
const MAGIC: (u64, &[u8; 4]) = (0x202, b"HdrS");
/// Where it says where the version is, counted from [`VERSION_BASE`].
const VERSION: u64 = 0x20e;
const VERSION_BASE: u64 = 0x200;
/// The release is the first word of the version; Linux allows it 64 bytes.
const LONGEST_RELEASE: usize = 64;

/// How an ELF file begins.
const ELF: &[u8; 4] = b"\x7fELF";
/// What stands before the release in the words with which a kernel begins to speak.
const BANNER: &[u8] = b"Linux version ";

/// The release of a kernel, as `uname -r` says it. Of a bzImage some hundred bytes are read, of an ELF file all that comes
/// before its first words, some 20 MB.
///
/// # Errors
/// When it cannot be read, or is neither ([`io::ErrorKind::InvalidData`]).
pub fn kernel_release(kernel: &Path) -> io::Result<String> {
    let mut file = File::open(kernel)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut begin = [0; ELF.len()];
    let is_elf = file.read_exact(&mut begin).is_ok() && begin == *ELF;
    let release = if is_elf { release_in(BufReader::new(file)) } else { read_release(&mut file) };
    release.map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            let why = "it is neither a bzImage nor a kernel as an ELF file: give what a kernel's `make bzImage vmlinux` \
                       makes, or a distribution's `vmlinuz`";
            io::Error::new(io::ErrorKind::InvalidData, why)
        }
        _ => e,
    })
}

/// The release in the first words of a kernel that is not compressed.
fn release_in(mut kernel: impl BufRead) -> io::Result<String> {
    loop {
        let mut text = Vec::new();
        if kernel.read_until(0, &mut text)? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let at = text.windows(BANNER.len()).rposition(|words| words == BANNER);
        let release = at.and_then(|at| text[at + BANNER.len()..].split(u8::is_ascii_whitespace).next());
        // The same words stand elsewhere before a place for the release.
        if let Some(release) = release.filter(|release| release.first().is_some_and(u8::is_ascii_digit)) {
            return String::from_utf8(release.to_vec()).map_err(|_| io::ErrorKind::InvalidData.into());
        }
    }
}

fn read_release(file: &mut (impl Read + Seek)) -> io::Result<String> {
    let mut at = |place: u64, bytes: &mut [u8]| {
        file.seek(SeekFrom::Start(place))?;
        file.read_exact(bytes)
    };
    let (mut magic, mut offset) = ([0; 4], [0; 2]);
    at(MAGIC.0, &mut magic)?;
    at(VERSION, &mut offset)?;
    if magic != *MAGIC.1 || offset == [0; 2] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut version = Vec::new();
    file.seek(SeekFrom::Start(VERSION_BASE + u64::from(u16::from_le_bytes(offset))))?;
    file.take(LONGEST_RELEASE as u64 + 1).read_to_end(&mut version)?;
    let end = version.iter().position(|byte| byte.is_ascii_whitespace() || *byte == 0);
    let release = end.and_then(|end| str::from_utf8(&version[..end]).ok()).filter(|release| !release.is_empty());
    release.map(str::to_owned).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn bz_image(version: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x300];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        bytes.extend(version.as_bytes());
        bytes
    }

    #[test]
    fn the_release_is_the_first_word_of_the_version() {
        let mut image = Cursor::new(bz_image("6.12.1-test (builder@host) #1 SMP\0"));
        assert_eq!(read_release(&mut image).expect("it is one"), "6.12.1-test");
    }

    #[test]
    fn a_kernel_that_is_not_compressed_says_its_release_when_it_begins() {
        let mut bytes = b"\x7fELF\x02\x01\0\0code\0".to_vec();
        bytes.extend(b"Linux version %s\0\xff\xfe\0Linux version 6.12.1-test (a@b) #1 SMP\n\0more");
        assert_eq!(release_in(Cursor::new(&bytes)).expect("it says it"), "6.12.1-test");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &bytes).expect("it can be written");
        assert_eq!(kernel_release(file.path()).expect("it says it"), "6.12.1-test");
        std::fs::write(file.path(), b"\x7fELF another program").expect("it can be written");
        assert!(kernel_release(file.path()).expect_err("it is none").to_string().contains("neither a bzImage nor"));
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let mut no_magic = bz_image("6.12 ");
        no_magic[0x202] = 0;
        let mut no_version = bz_image("6.12 ");
        no_version[0x20e..0x210].fill(0);
        for bytes in [no_magic, no_version, bz_image(""), bz_image(&"6".repeat(100)), vec![1; 100], vec![]] {
            assert!(read_release(&mut Cursor::new(bytes)).is_err());
        }
    }
}
