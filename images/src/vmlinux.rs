//! The kernel as it was before it was compressed, for VMMs that load no other, and for processors that are slow to unpack it.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use goblin::elf::Elf;
use lz4_flex::block;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;

use crate::{Cache, Error, Result, kept::remove, key::short};

/// What the names of unpacked kernels begin with.
pub(crate) const KERNEL: &str = "vmlinux-";
const ELF: &[u8] = b"\x7fELF";
/// Where a bzImage says how many sectors come before its protected-mode part, and where its payload is in that: the
/// kernel's boot protocol, since its version 2.08.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: (usize, &[u8]) = (0x202, b"HdrS");
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;
/// Behind the payload, and counted in its length, is the size of what comes out of it.
const SIZE: usize = 4;
const XZ: &[u8] = b"\xfd7zXZ\0";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
/// LZ4's legacy format: blocks, each behind its size, that are 8 MiB until the last one.
const LZ4: &[u8] = b"\x02\x21\x4c\x18";
const LZ4_BLOCK: usize = 8 << 20;
/// The note in which a kernel says where it is entered by what knows nothing of Linux (`XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_ENTRY: (&str, u32) = ("Xen", 18);

/// The kernel as an ELF file: this one if it is such, else what it was before it was compressed into a bzImage, in the
/// cache. Blocks: a tenth of a second the first time, then for as long as it takes to read the kernel.
///
/// # Errors
/// [`Error::Kernel`] for a file that is no kernel or is compressed in another way, [`Error::File`] for one that cannot be
/// read or written.
pub fn vmlinux(cache: &Cache, kernel: &Path) -> Result<PathBuf> {
    let mut file = File::open(kernel).map_err(Error::file("read", kernel))?;
    let mut bytes = Vec::new();
    let mut read = |limit, bytes: &mut Vec<u8>| {
        Read::by_ref(&mut file).take(limit).read_to_end(bytes).map_err(Error::file("read", kernel))
    };
    // Of what is one already, some 50 MB, no more than that.
    read(ELF.len() as u64, &mut bytes)?;
    if bytes == ELF {
        return Ok(kernel.to_owned());
    }
    read(u64::MAX, &mut bytes)?;
    let name = format!("{KERNEL}{}", short(blake3::hash(&bytes)));
    let path = cache.images().join(&name);
    if is_there(&path) {
        return Ok(path);
    }
    let _lock = cache.lock(&name, || ())?;
    if is_there(&path) {
        return Ok(path);
    }
    let plain = unpack(&bytes).map_err(|why| Error::Kernel { path: kernel.to_owned(), why: why.to_string() })?;
    let unfinished = cache.images().join(format!(".{name}"));
    let write = || {
        let mut file = File::create_new(&unfinished)?;
        file.write_all(&plain)?;
        file.set_permissions(PermissionsExt::from_mode(0o444))?;
        // Else a power cut after the rename leaves its name and nothing in it.
        file.sync_all()?;
        fs::rename(&unfinished, &path)
    };
    // What a killed process has left there may not be written to.
    remove(&unfinished)?;
    write().map_err(|e| {
        // Where there is no space, it takes some; the next one removes it, or a prune.
        _ = fs::remove_file(&unfinished);
        Error::file("write", &path)(e)
    })?;
    Ok(path)
}

/// Whether there is one, which is used now: those that nobody uses are removed.
fn is_there(path: &Path) -> bool {
    // Whose cache that is says how old it is.
    File::open(path).is_ok_and(|file| file.set_modified(SystemTime::now()).is_ok() || path.exists())
}

/// What this kernel was before it was compressed, where every VMM can start that. An emulated processor takes 0.16 s to unpack
/// Debian's.
pub(crate) fn to_be_started(kernel: &[u8]) -> Option<Vec<u8>> {
    unpack(kernel).ok().filter(|plain| has_pvh_entry(plain))
}

/// Whether QEMU and cloud-hypervisor can start it; Firecracker starts any.
fn has_pvh_entry(elf: &[u8]) -> bool {
    let Ok(parsed) = Elf::parse(elf) else { return false };
    let mut notes = parsed.iter_note_headers(elf).into_iter().flatten().flatten();
    notes.any(|note| (note.name.trim_end_matches('\0'), note.n_type) == PVH_ENTRY)
}

/// What a bzImage was made of.
fn unpack(image: &[u8]) -> io::Result<Vec<u8>> {
    let wrong = |why: &'static str| io::Error::other(why);
    let payload = payload(image).ok_or_else(|| wrong("it is neither an ELF file nor a bzImage"))?;
    let (compressed, size) = payload.split_last_chunk::<SIZE>().ok_or_else(|| wrong("its payload is cut off"))?;
    let size = usize::try_from(u32::from_le_bytes(*size)).map_err(io::Error::other)?;
    let mut plain = Vec::new();
    if compressed.starts_with(XZ) {
        XzReader::new(compressed, false).read_to_end(&mut plain)?;
    } else if compressed.starts_with(ZSTD) {
        StreamingDecoder::new(compressed).map_err(io::Error::other)?.read_to_end(&mut plain)?;
    } else if let Some(blocks) = compressed.strip_prefix(LZ4) {
        plain = unpack_lz4(blocks)?;
    } else {
        return Err(wrong("it is compressed in a way that is not known here: known are xz, zstd and LZ4"));
    }
    if !plain.starts_with(ELF) || plain.len() != size {
        return Err(wrong("its payload is no ELF file of the size that it should have"));
    }
    Ok(plain)
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(*image.get(at..)?.first_chunk()?) as usize);
    let (at, magic) = MAGIC;
    if !image.get(at..)?.starts_with(magic) {
        return None;
    }
    // Nought stands for four, since the days when nobody wrote it.
    let sectors = match *image.get(SETUP_SECTORS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let begin = ((sectors + 1) * SECTOR).checked_add(word(PAYLOAD_OFFSET)?)?;
    image.get(begin..begin.checked_add(word(PAYLOAD_LENGTH)?)?)
}

fn unpack_lz4(mut blocks: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    while let Some((size, rest)) = blocks.split_first_chunk() {
        let size = u32::from_le_bytes(*size) as usize;
        let (compressed, rest) = rest.split_at_checked(size).ok_or_else(|| io::Error::other("a block is cut off"))?;
        let length = block::decompress_into(compressed, &mut block).map_err(io::Error::other)?;
        plain.extend_from_slice(&block[..length]);
        blocks = rest;
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is compressed: `\x7fELF` and `kernel `, a hundred times.
    fn plain() -> Vec<u8> {
        [ELF, "kernel ".repeat(100).as_bytes()].concat()
    }

    fn bz_image(payload: &[u8], size: usize) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR + 16];
        image[SETUP_SECTORS] = 1;
        image[MAGIC.0..][..4].copy_from_slice(MAGIC.1);
        image[PAYLOAD_OFFSET] = 16;
        image[PAYLOAD_LENGTH..][..4].copy_from_slice(&u32::to_le_bytes((payload.len() + SIZE) as u32));
        [&image, payload, &u32::to_le_bytes(size as u32), b"and what follows"].concat()
    }

    // `xz --check=crc32`, `zstd` and `lz4 -l` of that.
    const XZ_OF_IT: &[u8] = b"\xfd7zXZ\x00\x00\x01i\"\xde6\x02\x00!\x01\x16\x00\x00\x00t/\xe5\xa3\xe0\x02\xbf\x00\x15]\x00?\x91E\x84l0\xd2\xef&\xe2:\xd6HGkn6\xfe\x1e`\x00\x00\x00\x00\x00[\x08H:\x00\x01-\xc0\x05\x00\x00\x00\xdc\xda\xac\xa6>0\x0d\x8b\x02\x00\x00\x00\x00\x01YZ";
    const ZSTD_OF_IT: &[u8] = b"(\xb5/\xfdd\xc0\x01\x95\x00\x00X\x7fELFkernel \x01\x00\xb2T\x15/8\x9e\xed(";
    const LZ4_OF_IT: &[u8] = b"\x02!L\x18\x17\x00\x00\x00\xbf\x7fELFkernel \x07\x00\xff\xff\x9fPrnel ";

    #[test]
    fn what_a_kernel_was_made_of_is_found_in_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::open(dir.path().join("cache")).expect("a cache");
        let kernel = dir.path().join("vmlinuz");
        for payload in [XZ_OF_IT, ZSTD_OF_IT, LZ4_OF_IT] {
            fs::write(&kernel, bz_image(payload, plain().len())).expect("it can be written");
            let found = vmlinux(&cache, &kernel).expect("it is whole");
            assert!(fs::read(&found).expect("it is there") == plain());
            let file = File::open(&found).expect("it is there");
            file.set_modified(SystemTime::UNIX_EPOCH).expect("it is ours");
            assert_eq!(vmlinux(&cache, &kernel).expect("it is in the cache"), found);
            let used = fs::metadata(&found).and_then(|meta| meta.modified()).expect("it is there");
            assert!(used > SystemTime::UNIX_EPOCH, "who takes it uses it");
            assert_eq!(vmlinux(&cache, &found).expect("it is one already"), found);
        }
    }

    /// An ELF file that has this as its note of "Xen".
    fn elf_with_note(kind: u32) -> Vec<u8> {
        const HEADERS: u64 = 64 + 56;
        let note = [&[4, 4, kind].map(u32::to_le_bytes).concat()[..], b"Xen\0", &0x100_0000_u32.to_le_bytes()].concat();
        let halfs = |halfs: &[u16]| halfs.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<u8>>();
        let longs = |longs: &[u64]| longs.iter().flat_map(|long| long.to_le_bytes()).collect::<Vec<u8>>();
        let size = note.len() as u64;
        [
            [ELF, &[2, 1, 1]].concat(),
            vec![0; 9],
            // An executable of x86-64, with its program headers behind this one.
            halfs(&[2, 62, 1, 0]),
            longs(&[0, 64, 0]),
            halfs(&[0, 0, 64, 56, 1, 64, 0, 0]),
            // PT_NOTE, readable.
            halfs(&[4, 0, 4, 0]),
            longs(&[HEADERS, 0, 0, size, size, 4]),
            note,
        ]
        .concat()
    }

    #[test]
    fn an_image_has_what_every_vmm_starts() {
        let compressed = |elf: &[u8]| {
            let block = block::compress(elf);
            bz_image(&[LZ4, &u32::to_le_bytes(block.len() as u32), &block].concat(), elf.len())
        };
        let elf = elf_with_note(PVH_ENTRY.1);
        assert!(to_be_started(&compressed(&elf)) == Some(elf));
        for other in [compressed(&elf_with_note(17)), bz_image(XZ_OF_IT, plain().len()), b"a kernel".to_vec()] {
            assert!(to_be_started(&other).is_none());
        }
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::open(dir.path().join("cache")).expect("a cache");
        let kernel = dir.path().join("vmlinuz");
        let size = plain().len();
        let cut_off = &bz_image(XZ_OF_IT, size)[..SECTOR * 2 + 40];
        for (content, why) in [
            (b"MZ".to_vec(), "it is neither an ELF file nor a bzImage"),
            (cut_off.to_vec(), "it is neither an ELF file nor a bzImage"),
            (bz_image(b"\x1f\x8b", size), "known are xz, zstd and LZ4"),
            (bz_image(ZSTD_OF_IT, size + 1), "no ELF file of the size that it should have"),
            (bz_image(&LZ4_OF_IT[..20], size), "a block is cut off"),
        ] {
            fs::write(&kernel, content).expect("it can be written");
            let error = vmlinux(&cache, &kernel).expect_err("it is no kernel").to_string();
            assert!(error.contains("vmlinuz cannot be unpacked: ") && error.contains(why), "{error}");
        }
    }
}
