//! What a test has of volumes: looked at for its plan, and taken before its machines are there.

use std::{cell::Cell, collections::BTreeMap, path::PathBuf, time::Instant};

use vmtest_fixtures::{KeptVolume, VolumeForm, VolumeUser, Volumes, check_volume_name};

use super::settings::Settings;
use crate::{
    error::{Error, Kind, Phase},
    evidence::{Event, Recorder, say},
    host::{HeldVolumes, shown},
    hypervisor::Hypervisor,
    plan::{VolumeFacts, wanted_volumes},
    spec::{Capability, ClusterSpec},
};

/// What there is of each volume that the spec names, for machines of this backend. What has no possible name is left out.
pub(super) fn volume_facts(
    spec: &ClusterSpec,
    settings: &Settings,
    hypervisor: Option<&dyn Hypervisor>,
) -> BTreeMap<String, Result<VolumeFacts, String>> {
    let (store, form) = store(spec, settings, hypervisor);
    let facts = |name: &str| {
        let size = store.size(name, form).map_err(|e| e.to_string())?;
        let (kept, allocated) = (size.map(|size| size.bytes), size.map_or(0, |size| size.allocated));
        Ok(VolumeFacts { path: store.path(name, form), kept, allocated })
    };
    let names = wanted_volumes(spec).into_keys().filter(|name| check_volume_name(name).is_ok());
    names.map(|name| (name.to_owned(), facts(name))).collect()
}

/// Takes the volumes that the test names, in the order of their names, and shows for whom it waits. Blocks.
///
/// # Errors
/// Those of [`HeldVolumes::take`].
pub(super) fn take_volumes(
    spec: &ClusterSpec,
    settings: &Settings,
    hypervisor: &dyn Hypervisor,
    recorder: &Recorder,
) -> Result<HeldVolumes, Error> {
    let (store, form) = store(spec, settings, Some(hypervisor));
    let held = HeldVolumes::new(store, form, &spec.name);
    for (name, volume) in wanted_volumes(spec) {
        let (began, waited) = (Instant::now(), Cell::new(false));
        let waits = |users: &[VolumeUser]| {
            waited.set(true);
            let whom = shown(users);
            say(format_args!("vmtest: volume {name}: {} waits for {whom}", spec.name));
            recorder.emit(&Event::Volume { volume: name.to_owned(), whom });
        };
        held.take(name, !volume.read_only, volume.bytes, &waits).map_err(|e| e.in_phase(Phase::Lease))?;
        if waited.get() {
            let waited = began.elapsed();
            say(format_args!("vmtest: volume {name}: {} goes on, after {:.1} s", spec.name, waited.as_secs_f64()));
            recorder.emit(&Event::VolumeTaken { volume: name.to_owned(), waited });
        }
    }
    Ok(held)
}

fn store(spec: &ClusterSpec, settings: &Settings, hypervisor: Option<&dyn Hypervisor>) -> (Volumes, VolumeForm) {
    let of_disk = hypervisor.is_none_or(|found| found.capabilities().has(Capability::OwnKernel));
    let form = if of_disk { VolumeForm::Disk } else { VolumeForm::Directory };
    (Volumes::of(&settings.cache_dir(), &spec.base), form)
}

/// The volumes in the cache, of all projects, what was used last first.
///
/// # Errors
/// [`Kind::Spec`] for a wrong setting, [`Kind::Host`] when the cache cannot be read.
pub fn volumes() -> Result<Vec<KeptVolume>, Error> {
    let cache: PathBuf = Settings::get()?.cache_dir();
    KeptVolume::all(&cache).map_err(|e| Error::new(Kind::Host, e.to_string()))
}
