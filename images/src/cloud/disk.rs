//! Disks of cloud images as the cache keeps them: raw, and without what nobody has written.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use imago::{FormatAccess, Mapping, qcow2::Qcow2};

use vmtest_fixtures::copy_sparse;

/// How much is converted at once.
const PIECE: usize = 1 << 20;
/// A disk ends with a whole sector.
const SECTOR: u64 = 512;
/// What a qcow2 begins with.
const QCOW2: &[u8] = b"QFI\xfb";
/// The bits of a table's entry that are an offset, that which says that a cluster is compressed, and those that are neither an
/// offset nor a length then (docs/interop/qcow2.txt of QEMU).
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const FLAGS: u64 = 3 << 62;
/// Sizes of clusters, as a power of two, that a qcow2 can have.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// The features that nobody reads it without begin here in the header of all but its old versions; one is to be compressed by zstd.
const FEATURES: usize = 72;
const OLD: u32 = 2;
const ZSTD: u64 = 1 << 3;
/// Above this a first table is none: QEMU takes no larger one.
const LARGEST_TABLE: u64 = 32 << 20;

/// What helps where a qcow2 has what few have.
const TO_RAW: &str =
    "`qemu-img check` says whether it is whole, and `qemu-img convert -O raw` makes a disk that is read everywhere";

/// Why a disk could not be had.
#[derive(Debug)]
pub(super) enum Failed {
    /// It is not what it should be; the end of a sentence about it.
    Source(String),
    /// It could not be written.
    Write(io::Error),
}

/// Writes the content of a disk image, a qcow2 or raw, to a new file. `show` is told how much is done, in percent. The result is
/// its size in bytes.
///
/// # Errors
/// What is wrong with it, or that it cannot be written.
pub(super) fn import(source: &Path, to: &Path, show: &dyn Fn(u64)) -> Result<u64, Failed> {
    let unreadable = |e: io::Error| Failed::Source(format!("{}: {e}", source.display()));
    let from = File::open(source).map_err(unreadable)?;
    let meta = from.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(Failed::Source(format!("{} is no file", source.display())));
    }
    let mut begin = Vec::new();
    (&from).take(QCOW2.len() as u64).read_to_end(&mut begin).map_err(unreadable)?;
    if begin == QCOW2 {
        let disk = File::create_new(to).map_err(Failed::Write)?;
        return convert(from, meta.len(), &disk, show);
    }
    show(0);
    copy_sparse(&from, to).map_err(Failed::Write)?;
    let size = meta.len().next_multiple_of(SECTOR);
    File::options().write(true).open(to).and_then(|disk| disk.set_len(size)).map_err(Failed::Write)?;
    Ok(size)
}

fn convert(from: File, length: u64, to: &File, show: &dyn Fn(u64)) -> Result<u64, Failed> {
    let wrong = |why: String| Failed::Source(why);
    let unreadable = |e: io::Error| wrong(format!("it is a qcow2 that cannot be read: {e}: {TO_RAW}"));
    if let Some(tables) = Tables::read(&from, length).map_err(|why| wrong(why.to_owned()))? {
        tables.compressed_is_there(&from, length).map_err(|why| wrong(why.to_owned()))?;
    }
    let file = imago::file::File::try_from(from).map_err(unreadable)?;
    let image = Qcow2::<imago::file::File>::open_image(file, false).map_err(unreadable)?;
    if let Some(below) = image.implicit_backing_file() {
        return Err(wrong(format!("it is a layer over `{below}`: `qemu-img convert -O qcow2` makes one file of both")));
    }
    if image.requires_external_data_file() {
        return Err(wrong(
            "its data is in another file: `qemu-img convert -O qcow2` makes one file of both".to_owned(),
        ));
    }
    let disk = FormatAccess::new(image);
    let size = disk.size().next_multiple_of(SECTOR);
    to.set_len(size).map_err(Failed::Write)?;
    let (mut at, mut piece) = (0, vec![0; PIECE]);
    while at < disk.size() {
        show(at * 100 / size);
        let (mapping, mapped) = disk.get_mapping(at, disk.size() - at).map_err(unreadable)?;
        match mapping {
            Mapping::Zero { .. } => {
                at += mapped;
                continue;
            }
            Mapping::Eof { .. } => break,
            Mapping::Raw { offset, .. } if offset.saturating_add(mapped) > length => {
                return Err(wrong(cut_off().to_owned()));
            }
            _ => {}
        }
        let end = at + mapped;
        while at < end {
            let some = &mut piece[..PIECE.min(usize::try_from(end - at).unwrap_or(PIECE))];
            disk.read(&mut *some, at).map_err(unreadable)?;
            if some.iter().any(|byte| *byte != 0) {
                to.write_all_at(some, at).map_err(Failed::Write)?;
            }
            at += some.len() as u64;
        }
    }
    Ok(size)
}

fn cut_off() -> &'static str {
    "it is a qcow2 that is cut off: fetch or copy it again"
}

/// Where the tables of a qcow2 are that say where its clusters are.
struct Tables {
    cluster_bits: u32,
    second: Vec<u64>,
    zstd: bool,
}

impl Tables {
    /// Looks whether the file ends before its tables do. Whoever reads beyond its end finds zeros there, as if nobody had written
    /// anything. What else is wrong with it is said by who reads all of it: `None`.
    fn read(from: &File, length: u64) -> Result<Option<Self>, &'static str> {
        let mut header = [0; 80];
        from.read_exact_at(&mut header, 0).map_err(|_| cut_off())?;
        let four = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let eight = |at: usize| u64::from(four(at)) << 32 | u64::from(four(at + 4));
        let (cluster_bits, size, entries, offset) = (four(20), eight(24), u64::from(four(36)), eight(40));
        let features = if four(4) > OLD { eight(FEATURES) } else { 0 };
        if !CLUSTER_BITS.contains(&cluster_bits) || entries * 8 > LARGEST_TABLE || features & !ZSTD != 0 {
            return Ok(None);
        }
        // Each entry of a second table is about one cluster, and it is one cluster of such entries.
        if size > entries << (2 * cluster_bits - 3) {
            return Err("it is a qcow2 that is broken: its tables are for a smaller disk: fetch or copy it again");
        }
        let mut table = vec![0; usize::try_from(entries * 8).unwrap_or_default()];
        from.read_exact_at(&mut table, offset).map_err(|_| cut_off())?;
        let second: Vec<_> = numbers(&table).map(|entry| entry & OFFSET).filter(|offset| *offset != 0).collect();
        let end = second.iter().map(|offset| offset.saturating_add(1 << cluster_bits)).max();
        let zstd = features == ZSTD;
        if end.is_some_and(|end| end > length) { Err(cut_off()) } else { Ok(Some(Self { cluster_bits, second, zstd })) }
    }

    /// The same for what is compressed: zeros behind a part of it may be unpacked without an error. That it is not by zstd.
    fn compressed_is_there(&self, from: &File, length: u64) -> Result<(), &'static str> {
        let offset_bits = 62 - (self.cluster_bits - 8);
        let mut table = vec![0; 1 << self.cluster_bits];
        for at in &self.second {
            from.read_exact_at(&mut table, *at).map_err(|_| cut_off())?;
            // Its length is that of the sectors that it is in, without the first.
            let end = |entry: u64| {
                let (offset, sectors) = (entry & ((1 << offset_bits) - 1), (entry & !FLAGS) >> offset_bits);
                offset / SECTOR * SECTOR + (sectors + 1) * SECTOR
            };
            if numbers(&table).filter(|entry| entry & COMPRESSED != 0).any(|entry| end(entry) > length) {
                return Err(cut_off());
            }
        }
        if self.zstd {
            return Err(
                "it is a qcow2 that is compressed by zstd, which is not read here: `qemu-img convert -O raw` unpacks it",
            );
        }
        Ok(())
    }
}

/// The entries of a table.
fn numbers(table: &[u8]) -> impl Iterator<Item = u64> {
    table.chunks_exact(8).map(|entry| entry.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)))
}
