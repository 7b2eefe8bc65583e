//! Disks as qcow2, whole and broken.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::Path,
};

use imago::{DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder, qcow2::Qcow2};

use super::{MIB, Place, debian, disk_of, disks::with_gpt};

/// The same as a qcow2, without what is zero.
fn as_qcow2(disk: &[u8], path: &Path) {
    let file = File::options().read(true).write(true).create_new(true).open(path).expect("it is new");
    let file = imago::file::File::try_from(file).expect("it is a file");
    let image = Qcow2::<imago::file::File>::create_builder(file).size(disk.len() as u64);
    let open = |file| Ok(Qcow2::<imago::file::File>::builder(file).write(true));
    let image = FormatAccess::new(image.create_open(DenyImplicitOpenGate::default(), open).expect("it is a file"));
    for (number, cluster) in disk.chunks(1 << 16).enumerate() {
        if cluster.iter().any(|byte| *byte != 0) {
            image.write(cluster, (number as u64) << 16).expect("it can be written");
        }
    }
    image.flush().expect("it can be written");
}

/// The same with each cluster compressed, as publishers have theirs: all of them behind the tables, one at the other.
fn as_compressed_qcow2(disk: &[u8], by: Compression) -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    // The bits of an offset in an entry; behind them is how many sectors there are beside the first.
    const OFFSET_BITS: u32 = 62 - (16 - 8);
    let mut file = vec![0; 5 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &16_u32.to_be_bytes());
    put(24, &(disk.len() as u64).to_be_bytes());
    // The first table, and the one of the counts of references, which has one block.
    put(36, &1_u32.to_be_bytes());
    put(40, &(CLUSTER as u64).to_be_bytes());
    put(48, &(3 * CLUSTER as u64).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &112_u32.to_be_bytes());
    if matches!(by, Compression::Zstd) {
        put(72, &8_u64.to_be_bytes());
        put(104, &[1]);
    }
    put(CLUSTER, &((1 << 63) | (2 * CLUSTER as u64)).to_be_bytes());
    put(3 * CLUSTER, &(4 * CLUSTER as u64).to_be_bytes());
    for (number, cluster) in
        disk.chunks(CLUSTER).enumerate().filter(|(_, cluster)| cluster.iter().any(|&byte| byte != 0))
    {
        let packed = match by {
            Compression::Zlib => {
                let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
                packed.write_all(cluster).expect("it is in memory");
                packed.finish().expect("it is in memory")
            }
            Compression::Zstd => {
                ruzstd::encoding::compress_to_vec(cluster, ruzstd::encoding::CompressionLevel::Fastest)
            }
        };
        let begin = file.len();
        file.extend(packed);
        let sectors = (file.len() - 1) / 512 - begin / 512;
        let entry = (1 << 62) | ((sectors as u64) << OFFSET_BITS) | begin as u64;
        file[2 * CLUSTER + number * 8..][..8].copy_from_slice(&entry.to_be_bytes());
    }
    file.resize(file.len().next_multiple_of(512), 0);
    // One reference to each cluster of the file, and one more for each that is compressed there: nobody counts them here.
    for number in 0..file.len().div_ceil(CLUSTER) {
        file[4 * CLUSTER + number * 2 + 1] = 1;
    }
    file
}

#[derive(Clone, Copy)]
enum Compression {
    Zlib,
    Zstd,
}

#[test]
fn a_qcow2_becomes_the_disk_that_it_is_of() {
    let place = Place::new();
    let (disk, path) = (with_gpt(&[&debian()]), place.path("disk.qcow2"));
    as_qcow2(&disk, &path);
    let image = place.image(&format!("cloud:{}", path.display())).expect("it can be made");
    assert!(disk_of(&image) == disk);
    let cloud = image.cloud.expect("it has a disk");
    let allocated = fs::metadata(&cloud.disk).expect("it is there").blocks() * 512;
    assert!(allocated <= 8 * MIB as u64, "{allocated}");
}

#[test]
fn a_qcow2_that_is_cut_off_anywhere_is_refused() {
    let place = Place::new();
    let path = place.path("disk.qcow2");
    as_qcow2(&with_gpt(&[&debian()]), &path);
    let length = fs::metadata(&path).expect("it is there").len();
    let file = File::options().write(true).open(&path).expect("it is there");
    // Behind the last data there can be tables; a quarter of a cluster less than all is inside of something.
    for left in [length - (1 << 14), length / 2, length / 4, 3 << 16, 1 << 16, 100, 10] {
        file.set_len(left).expect("it can be cut off");
        let error = place.image(&format!("cloud:{}", path.display())).expect_err("it is refused");
        assert!(error.contains("it is a qcow2 that is cut off"), "{left} of {length}: {error}");
        assert_eq!(place.left("images"), [""; 0]);
    }
}

#[test]
fn a_compressed_qcow2_is_whole_or_refused() {
    let place = Place::new();
    let (disk, path) = (with_gpt(&[&debian()]), place.path("disk.qcow2"));
    let image = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("it can be written");
        place.image(&format!("cloud:{}", path.display()))
    };
    let refused = |bytes: &[u8]| {
        let error = image(bytes).expect_err("it is refused");
        assert_eq!(place.left("images"), [""; 0], "after {error}");
        error
    };
    let whole = as_compressed_qcow2(&disk, Compression::Zlib);
    let zstd = as_compressed_qcow2(&disk, Compression::Zstd);
    assert!(
        refused(&zstd).contains("it is a qcow2 that is compressed by zstd, which is not read here: `qemu-img convert")
    );
    for cut in [1, 100, 512, 1000, whole.len() / 2, whole.len() - 100] {
        for whole in [&whole, &zstd] {
            let error = refused(&whole[..whole.len() - cut]);
            assert!(error.contains("it is a qcow2 that is cut off: fetch or copy it again"), "without {cut}: {error}");
        }
    }
    for (at, said) in [
        // Its version, its size, its first table, that itself, the second one, and what is compressed.
        (4, "it is a qcow2 that cannot be read: qcow2 v2147483651"),
        (24, "it is a qcow2 that is broken: its tables are for a smaller disk: fetch or copy it again"),
        (44, "it is a qcow2 that is cut off"),
        ((1 << 16) + 6, "it is a qcow2 that cannot be read: Invalid L1 entry"),
        ((2 << 16) + 5, "it is a qcow2 that is cut off"),
        ((2 << 16) + 7, "it is a qcow2 that cannot be read: Failed to decompress"),
        (5 << 16, "it is a qcow2 that cannot be read: Failed to decompress"),
    ] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x80;
        let error = refused(&flipped);
        assert!(error.contains(said), "with another bit at {at}: {error}");
    }
    assert!(disk_of(&image(&whole).expect("it can be made")) == disk);
}

#[test]
fn a_layer_over_another_disk_is_refused() {
    let place = Place::new();
    let path = place.path("layer.qcow2");
    vmtest_images::layer_over(Path::new("/base.raw"), &path, 1 << 20).expect("it can be made");
    let error = place.image(&format!("cloud:{}", path.display())).expect_err("it is refused");
    assert!(error.contains("it is a layer over `/base.raw`: `qemu-img convert"), "{error}");
}
