//! Where the firmware of machines is that are started by the boot loader of their disk.

use std::path::{Path, PathBuf};

use crate::plan::BIOS;

/// The firmware with UEFI, by its name.
const UEFI: &str = "uefi";
/// Where distributions put OVMF as one file: Debian and Ubuntu, Fedora, Arch, openSUSE.
const OVMF: &[&str] = &[
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/qemu/OVMF.fd",
    "/usr/share/edk2/ovmf/OVMF.fd",
    "/usr/share/edk2/x64/OVMF.fd",
    "/usr/share/qemu/ovmf-x86_64.bin",
];

/// What the VMM is told of the firmware of this name: `bios`, which it has itself, or the absolute path of a file. Paths are
/// seen from `base`.
///
/// # Errors
/// Where there is none, with what to do.
pub(crate) fn find_firmware(base: &Path, name: &Path) -> Result<String, String> {
    find_in(base, name, OVMF)
}

fn find_in(base: &Path, name: &Path, places: &[&str]) -> Result<String, String> {
    if name == Path::new(BIOS) {
        return Ok(BIOS.to_owned());
    }
    let file = if name == Path::new(UEFI) {
        places.iter().map(PathBuf::from).find(|place| place.is_file()).ok_or_else(|| {
            "there is no OVMF here: run `apt-get install --no-install-recommends ovmf` as root, or give the path of its file"
                .to_owned()
        })?
    } else {
        let path = base.join(name);
        let path = std::path::absolute(&path).unwrap_or(path);
        if !path.is_file() {
            let at = path.display();
            return Err(format!("there is no {at}: write `{BIOS}`, `{UEFI}`, or the path of a firmware's file"));
        }
        path
    };
    file.into_os_string().into_string().map_err(|path| format!("{} is not UTF-8", Path::new(&path).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_by_name_or_by_path_or_its_remedy_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("OVMF.fd");
        let find = |name: &str, places: &[&str]| find_in(dir.path(), Path::new(name), places);
        let found = file.display().to_string();
        assert_eq!(find("bios", &[]).as_deref(), Ok("bios"));
        assert!(find("uefi", &[&found]).expect_err("it is not there").contains("apt-get install"));
        assert!(find("OVMF.fd", &[]).expect_err("it is not there").contains("OVMF.fd: write `bios`, `uefi`"));
        std::fs::write(&file, "").expect("it can be written");
        assert_eq!(find("uefi", &["/nowhere", &found]).as_ref(), Ok(&found));
        assert_eq!(find("OVMF.fd", &[]), Ok(found));
    }
}
