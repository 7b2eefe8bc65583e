//! Which kernel modules an image takes along, and in which order they are loaded.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
};

use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;

/// The modules' dependencies, as `depmod` wrote them down.
pub(crate) struct Modules<'a> {
    by_name: BTreeMap<String, (&'a str, Vec<&'a str>)>,
}

impl<'a> Modules<'a> {
    /// Reads the text of `modules.dep`: a path, a colon, and the paths that it needs.
    pub(crate) fn parse(dep: &'a str) -> Self {
        let lines = dep.lines().filter_map(|line| line.split_once(':'));
        Self { by_name: lines.map(|(path, needs)| (name(path), (path, needs.split_whitespace().collect()))).collect() }
    }

    /// The paths of these modules and of all that they need, each after what it needs. A name that is no module is
    /// built into the kernel, or the kernel has no such thing; the guest finds out which.
    pub(crate) fn closure(&self, names: &[&str]) -> Vec<&'a str> {
        let mut order = Vec::new();
        for wanted in names {
            self.visit(wanted, &mut order);
        }
        order
    }

    fn visit(&self, wanted: &str, order: &mut Vec<&'a str>) {
        let Some((path, needs)) = self.by_name.get(wanted) else { return };
        if order.contains(path) {
            return;
        }
        for need in needs.iter().rev() {
            self.visit(&name(need), order);
        }
        order.push(path);
    }
}

/// The name of a module from its path: without directory and endings, with underscores.
pub(crate) fn name(path: &str) -> String {
    let file = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
    file.split_once(".ko").map_or(&*file, |(stem, _)| stem).replace('-', "_")
}

/// The content of a module's file, by the ending of its name: Debian compresses with xz, Ubuntu with zstd.
pub(crate) fn decompress(path: &Path, content: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => XzReader::new(content.as_slice(), true).read_to_end(&mut plain)?,
        Some("zst") => StreamingDecoder::new(content.as_slice()).map_err(io::Error::other)?.read_to_end(&mut plain)?,
        _ => return Ok(content),
    };
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_modules_are_read() {
        // `printf module | xz`, and the same with `zstd`.
        let xz: &[u8] = b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x16\x00\x00\x00t/\xe5\xa3\x01\x00\x05module\x00\x00\x004P3\x07r\xfc|\xbd\x00\x01\x1e\x06\xc1/\xa4\x1d\x1f\xb6\xf3}\x01\x00\x00\x00\x00\x04YZ";
        let zst: &[u8] = b"(\xb5/\xfd\x04X1\x00\x00module]\x89\xa9\x8d";
        for (name, content) in [("a.ko.xz", xz), ("a.ko.zst", zst), ("a.ko", b"module")] {
            let plain = decompress(Path::new(name), content.to_vec()).expect("it is whole");
            assert_eq!(plain, b"module", "{name}");
        }
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let dep = "kernel/fs/ext4.ko.xz: kernel/fs/jbd2.ko.xz kernel/lib/crc16.ko\nkernel/fs/jbd2.ko.xz:\n\
                   kernel/lib/crc16.ko:\nkernel/net/virtio-net.ko: kernel/lib/crc16.ko\n";
        let modules = Modules::parse(dep);
        let order = modules.closure(&["ext4", "virtio_net", "virtio_pci"]);
        assert_eq!(
            order,
            ["kernel/lib/crc16.ko", "kernel/fs/jbd2.ko.xz", "kernel/fs/ext4.ko.xz", "kernel/net/virtio-net.ko"]
        );
    }
}
