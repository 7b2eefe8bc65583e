//! The kernel of our own configuration, beside the distribution's.

use std::fs;

use vmtest_images::{Cache, Image, ensure, find, kernel_by_name};

use super::{
    Figure, Pairs,
    boot::{Machine, first_instruction, first_process},
    in_turns,
};

const SMALL: &str = "small";

/// Boots the same initramfs with each of them, and takes from that what QEMU and its firmware need before any kernel. The small kernel
/// takes minutes to be made, so it must be in the cache.
pub(super) fn measure(pairs: u32) -> Result<Vec<Figure>, String> {
    let cache = Cache::open(Cache::default_dir(rustix::process::geteuid().as_raw())).map_err(|e| e.to_string())?;
    let image = ensure(&cache, &"micro".into(), &()).map_err(|e| e.to_string())?;
    let name = kernel_by_name(SMALL.as_ref()).ok_or("it is no kernel")?;
    let small = find(&cache, &name).map_err(|e| e.to_string())?.ok_or_else(|| {
        format!("the kernel is not in the cache: `cargo vmtest image build {name}` makes it, in some ten minutes")
    })?;
    let _held = [&image, &small].map(Image::hold);
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let ours = Machine::micro(small.kernel.clone(), image.initramfs.clone());
    let of_image = Machine { kernel: image.kernel.clone(), ..ours.clone() };
    let shipped = Machine { kernel: image.shipped_kernel(), arguments: "", ..ours.clone() };
    let empty = dir.path().join("empty");
    fs::write(&empty, empty_kernel()).map_err(|e| e.to_string())?;
    let empty = Machine { kernel: empty, ..ours.clone() };
    let mut before = Vec::new();
    let (mut beside_shipped, mut beside_image) = (Pairs::default(), Pairs::default());
    for n in 0..pairs {
        let start = first_instruction(&empty)?;
        before.push(start);
        let boot = |machine: &Machine| first_process(machine).map(|took| took.saturating_sub(start));
        let turn = |theirs: &Machine| in_turns(n, |is_ours| boot(if is_ours { &ours } else { theirs }));
        let [small, other] = turn(&shipped)?;
        beside_shipped.push(small, other);
        let [small, other] = turn(&of_image)?;
        beside_image.push(small, other);
    }
    let what = "the small kernel, from its first instruction to the first process";
    Ok(vec![
        Figure::time("QEMU and its firmware, before any kernel", before),
        beside_shipped.paired(what, "the distribution's as it is shipped"),
        beside_image.paired(what, "the distribution's as images have it"),
    ])
}

/// A kernel of one instruction, which no processor knows: the machine is reset.
fn empty_kernel() -> Vec<u8> {
    const AT: u64 = 1 << 20;
    const HEADERS: u64 = 64 + 2 * 56;
    const INVALID: [u8; 4] = [0x0f, 0x0b, 0x0f, 0x0b];
    let entry = AT + HEADERS;
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let longs = |longs: &[u64]| longs.iter().flat_map(|long| long.to_le_bytes()).collect::<Vec<u8>>();
    // "Xen", with where it is entered (`XEN_ELFNOTE_PHYS32_ENTRY`).
    let note = [words(&[4, 8, 18]), b"Xen\0".to_vec(), longs(&[entry])].concat();
    let (note_at, note_size) = (HEADERS + INVALID.len() as u64, note.len() as u64);
    let size = note_at + note_size;
    [
        b"\x7fELF\x02\x01\x01".to_vec(),
        vec![0; 9],
        // An executable for x86-64 of the first version; where it is entered, and where its program headers are.
        words(&[2 | 62 << 16, 1]),
        longs(&[entry, 64, 0]),
        // The sizes of its headers, and that there are two of the program.
        words(&[0, 64 | 56 << 16, 2 | 64 << 16, 0]),
        // To be loaded, readable and executable; and a note.
        words(&[1, 5]),
        longs(&[0, AT, AT, size, size, 4096]),
        words(&[4, 4]),
        longs(&[note_at, AT + note_at, AT + note_at, note_size, note_size, 4]),
        INVALID.to_vec(),
        note,
    ]
    .concat()
}
