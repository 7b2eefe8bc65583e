//! Where on a disk file systems can be.

use std::{fs::File, io};

use gpt::{
    GptConfig,
    disk::LogicalBlockSize,
    mbr::{MBRError, ProtectiveMBR},
};

/// The sectors that partition tables of disk images count in.
const SECTOR: u64 = 512;
/// What an MBR calls the partition that stands for a GPT.
const GPT: u8 = 0xee;

/// A part of a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: u64,
    pub(super) length: u64,
}

/// All partitions of a disk in the order of their numbers; of one without a partition table, all of it.
///
/// # Errors
/// Why the table cannot be read, as the end of a sentence about the disk.
pub(super) fn places(disk: &File) -> Result<Vec<Place>, String> {
    let whole = disk.metadata().map(|meta| Place { start: 0, length: meta.len() }).map_err(|e| e.to_string())?;
    let mbr = match ProtectiveMBR::from_disk(&mut &*disk, LogicalBlockSize::Lb512) {
        Ok(mbr) => mbr,
        Err(MBRError::InvalidMBRSignature) => return Ok(vec![whole]),
        Err(MBRError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(vec![whole]),
        Err(e) => return Err(format!("its partition table cannot be read: {e}")),
    };
    let records: Vec<_> = (0..4).filter_map(|number| mbr.partition(number)).collect();
    if records.iter().any(|record| record.os_type == GPT) {
        return of_gpt(disk);
    }
    // Those inside of an extended partition are not looked for: no cloud image has them.
    let used = records.iter().filter(|record| record.os_type != 0 && record.lb_size != 0);
    let place =
        |(start, sectors): (u32, u32)| Place { start: u64::from(start) * SECTOR, length: u64::from(sectors) * SECTOR };
    let found: Vec<_> = used.map(|record| place((record.lb_start, record.lb_size))).collect();
    // A boot sector without partitions, as extlinux writes it before a file system.
    Ok(if found.is_empty() { vec![whole] } else { found })
}

fn of_gpt(disk: &File) -> Result<Vec<Place>, String> {
    let table = GptConfig::new().writable(false).open_from_device(disk);
    let table = table.map_err(|e| format!("its partition table cannot be read: {e}"))?;
    let place = |partition: &gpt::partition::Partition| {
        let start = partition.bytes_start(LogicalBlockSize::Lb512).ok()?;
        Some(Place { start, length: partition.bytes_len(LogicalBlockSize::Lb512).ok()? })
    };
    Ok(table.partitions().values().filter(|partition| partition.is_used()).filter_map(place).collect())
}
