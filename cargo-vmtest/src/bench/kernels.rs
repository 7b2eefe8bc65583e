//! The kernel of our own configuration, beside the distribution's.

use vmtest_images::{Cache, ensure, find, kernel_by_name};

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
    let _held = small.hold().map_err(|e| e.to_string())?;
    let boot = |kernel| first_process(&Machine::micro(kernel, image.initramfs.clone()));
    let mut figure = Pairs::default();
    for n in 0..pairs {
        let kernel = |is_ours| if is_ours { small.kernel.clone() } else { image.kernel.clone() };
        let [ours, theirs] = in_turns(n, |is_ours| boot(kernel(is_ours)))?;
        figure.push(ours, theirs);
    }
    Ok(vec![figure.paired("the small kernel, from QEMU's start to the first process", "the distribution's")])
}
