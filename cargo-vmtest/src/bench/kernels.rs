//! The kernel of our own configuration, beside the distribution's.

use vmtest_images::{Cache, Image, ensure, find, kernel_by_name};

use super::{
    Figure, Pairs,
    boot::{Machine, first_process},
    in_turns,
};

const SMALL: &str = "small";

/// Boots the same initramfs with each of them. The small kernel takes minutes to be made, so it must be in the cache.
pub(super) fn measure(pairs: u32) -> Result<Vec<Figure>, String> {
    let cache = Cache::open(Cache::default_dir(rustix::process::geteuid().as_raw())).map_err(|e| e.to_string())?;
    let image = ensure(&cache, &"micro".into(), &()).map_err(|e| e.to_string())?;
    let name = kernel_by_name(SMALL.as_ref()).ok_or("it is no kernel")?;
    let small = find(&cache, &name).map_err(|e| e.to_string())?.ok_or_else(|| {
        format!("the kernel is not in the cache: `cargo vmtest image build {name}` makes it, in some ten minutes")
    })?;
    let _held = [&image, &small].map(Image::hold);
    let ours = Machine::micro(small.kernel.clone(), image.initramfs.clone());
    let of_image = Machine { kernel: image.kernel.clone(), ..ours.clone() };
    let shipped = Machine { kernel: image.shipped_kernel(), arguments: "", ..ours.clone() };
    let (mut beside_shipped, mut beside_image) = (Pairs::default(), Pairs::default());
    for n in 0..pairs {
        let turn = |theirs: &Machine| in_turns(n, |is_ours| first_process(if is_ours { &ours } else { theirs }));
        let [small, other] = turn(&shipped)?;
        beside_shipped.push(small, other);
        let [small, other] = turn(&of_image)?;
        beside_image.push(small, other);
    }
    let what = "the small kernel, from QEMU's start to the first process";
    Ok(vec![
        beside_shipped.paired(what, "the distribution's as it is shipped"),
        beside_image.paired(what, "the distribution's as images have it"),
    ])
}
