//! Disks as cloud images have them.

use std::{fs, io::Cursor, process::Command};

use gpt::{
    GptConfig,
    disk::LogicalBlockSize,
    mbr::{PartRecord, ProtectiveMBR},
};

use super::{MIB, UUID};

/// A file system with these files.
pub(crate) fn ext4(files: &[(&str, &[u8])]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (tree, disk) = (dir.path().join("tree"), dir.path().join("disk"));
    fs::create_dir(&tree).expect("it can be made");
    for (name, content) in files {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().expect("it is below the tree")).expect("it can be made");
        fs::write(path, content).expect("it can be written");
    }
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-U", UUID, "-d"]).arg(&tree).arg(&disk).arg("4m");
    mkfs.stdout(std::process::Stdio::null());
    assert!(mkfs.status().expect("mkfs.ext4 is there").success());
    fs::read(disk).expect("it was made")
}

/// A disk with a GPT and these partitions.
pub(crate) fn with_gpt(partitions: &[&[u8]]) -> Vec<u8> {
    let size = (partitions.len() + 1) * 8 * MIB;
    let mut disk = Cursor::new(vec![0; size]);
    let sectors = u32::try_from(size / 512 - 1).expect("it is small");
    ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut disk).expect("it is in memory");
    let config = GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let mut table = config.create_from_device(disk, None).expect("it is in memory");
    let mut places = Vec::new();
    for partition in partitions {
        let number = table
            .add_partition("", partition.len() as u64, gpt::partition_types::LINUX_FS, 0, None)
            .expect("there is room");
        let start = table.partitions()[&number].bytes_start(LogicalBlockSize::Lb512).expect("it is small");
        places.push(usize::try_from(start).expect("it is small"));
    }
    let mut disk = table.write().expect("it is in memory").into_inner();
    for (start, partition) in places.into_iter().zip(partitions) {
        disk[start..start + partition.len()].copy_from_slice(partition);
    }
    disk
}

/// A disk with an MBR and this partition.
pub(crate) fn with_mbr(partition: &[u8]) -> Vec<u8> {
    let mut record = PartRecord::zero();
    (record.os_type, record.lb_start) = (0x83, 2048);
    record.lb_size = u32::try_from(partition.len() / 512).expect("it is small");
    let mut mbr = ProtectiveMBR::new();
    assert!(mbr.set_partition(0, record).is_some());
    let mut disk = vec![0; MIB + partition.len()];
    disk[..512].copy_from_slice(&mbr.to_bytes());
    disk[MIB..].copy_from_slice(partition);
    disk
}
