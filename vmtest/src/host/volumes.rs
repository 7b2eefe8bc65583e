//! The volumes that a run has: nobody else's until it gives them back, or its process ends.

use std::{
    collections::BTreeMap,
    fmt, io,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use vmtest_fixtures::{TakenVolume, VolumeForm, VolumeUser, VolumeWish, Volumes};

use crate::{
    error::{Error, Kind},
    plan::NodePlan,
};

/// A program that some thread starts has a copy of every descriptor until it begins, in milliseconds: what another test of this
/// process has given back seems to be its own for so long.
const BEGUN_WITHIN: Duration = Duration::from_millis(500);
/// Of a lock that is given back there is no event but to whoever waits for it, which could be for ever.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a run has of the volumes of its project.
pub(crate) struct HeldVolumes {
    store: Volumes,
    form: VolumeForm,
    test: String,
    /// `None` once they are given back.
    taken: Mutex<Option<BTreeMap<String, TakenVolume>>>,
}

impl fmt::Debug for HeldVolumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldVolumes").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl HeldVolumes {
    /// None yet, for the run of this test.
    pub(crate) fn new(store: Volumes, form: VolumeForm, test: &str) -> Self {
        Self { store, form, test: test.to_owned(), taken: Mutex::new(Some(BTreeMap::new())) }
    }

    /// Takes a volume, and waits for those who have it: before its machines are there, and in the order of the names, so that
    /// no two tests wait for each other. `waits` is told of them. Blocks.
    ///
    /// # Errors
    /// [`Kind::Spec`] for one that would have to become smaller or of which there is nothing to read, [`Kind::Host`] when it
    /// cannot be made or is damaged.
    pub(crate) fn take(
        &self,
        name: &str,
        write: bool,
        bytes: Option<u64>,
        waits: &dyn Fn(&[VolumeUser]),
    ) -> Result<(), Error> {
        self.fit(&self.wish(name, write, bytes), &|users| {
            waits(users);
            true
        })
    }

    /// Takes those of machines that join. A cluster that is there does not wait for another one, which may wait for it. Blocks.
    ///
    /// # Errors
    /// [`Kind::Spec`] for one that the cluster has had from its start, but only to read; [`Kind::Missing`] for one that another
    /// test has; [`Kind::TornDown`] after its end, else those of [`take`](Self::take).
    pub(crate) fn take_for<'a>(&self, nodes: impl IntoIterator<Item = &'a NodePlan>) -> Result<(), Error> {
        for (node, disk) in nodes.into_iter().flat_map(|node| node.disks.iter().map(move |disk| (node, disk))) {
            let Some(volume) = &disk.volume else { continue };
            let wish = self.wish(&volume.name, !disk.read_only, volume.bytes);
            let began = Instant::now();
            let fitted = loop {
                match self.fit(&wish, &|_| false) {
                    Err(e) if e.kind() == Kind::Missing && began.elapsed() < BEGUN_WITHIN => thread::sleep(LOOK_EVERY),
                    fitted => break fitted,
                }
            };
            fitted.map_err(|e| e.on_node(&node.name))?;
        }
        Ok(())
    }

    /// The locks of what this machine has, for its process: a test that is killed is gone before its machines are, and until
    /// then nobody else may have their volumes.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub(crate) fn locks(&self, node: &NodePlan) -> io::Result<Vec<OwnedFd>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let names = node.disks.iter().filter_map(|disk| Some(&disk.volume.as_ref()?.name));
        names.filter_map(|name| taken.as_ref()?.get(name)).map(TakenVolume::lock).collect()
    }

    /// Gives all of them back, as soon as no machine has them any more. Idempotent.
    pub(crate) fn release(&self) {
        drop(self.taken.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn wish(&self, name: &str, write: bool, bytes: Option<u64>) -> VolumeWish {
        VolumeWish { name: name.to_owned(), form: self.form, write, bytes }
    }

    fn fit(&self, wish: &VolumeWish, waits: &dyn Fn(&[VolumeUser]) -> bool) -> Result<(), Error> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = taken.as_mut().ok_or_else(Error::torn_down)?;
        match taken.get(&wish.name) {
            // No machine has it now: the plan refuses a second one beside one that writes.
            Some(held) if held.is_alone() => return held.fit(wish).map_err(|e| failed(wish, &e)),
            Some(_) if !wish.write => return Ok(()),
            Some(_) => {
                let message = format!(
                    "the cluster has had the volume `{}` only to read, as others may: name it on the test without \
                     `access = \"read-only\"`",
                    wish.name
                );
                return Err(Error::new(Kind::Spec, message));
            }
            None => {}
        }
        let users = Mutex::default();
        let waits = |others: &[VolumeUser]| {
            *users.lock().unwrap_or_else(PoisonError::into_inner) = shown(others);
            waits(others)
        };
        match self.store.take(wish, &self.test, &waits).map_err(|e| failed(wish, &e))? {
            Some(held) => {
                taken.insert(wish.name.clone(), held);
                Ok(())
            }
            None => Err(busy(wish, &users.into_inner().unwrap_or_else(PoisonError::into_inner))),
        }
    }
}

/// These, in a sentence.
pub(crate) fn shown(users: &[VolumeUser]) -> String {
    let names: Vec<_> = users.iter().map(|user| format!("`{}`, process {}", user.name, user.pid)).collect();
    if names.is_empty() { "another test".to_owned() } else { names.join(" and ") }
}

fn busy(wish: &VolumeWish, users: &str) -> Error {
    let message = format!(
        "the volume `{}` is in use by {users}, and a machine that joins does not wait for it: name it on the test, which is \
         not begun before it can be had",
        wish.name
    );
    Error::new(Kind::Missing, message)
}

fn failed(wish: &VolumeWish, why: &vmtest_fixtures::Error) -> Error {
    let kind = match why {
        vmtest_fixtures::Error::SmallerVolume { .. } | vmtest_fixtures::Error::NoVolume { .. } => Kind::Spec,
        _ => Kind::Host,
    };
    Error::new(kind, format!("volume `{}`: {why}", wish.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Option<u64> = Some(16 << 20);

    fn of_run(cache: &std::path::Path, test: &str) -> HeldVolumes {
        HeldVolumes::new(Volumes::of(cache, "/src/shop".as_ref()), VolumeForm::Disk, test)
    }

    /// A program that another test starts has a copy of every descriptor until it begins.
    fn free(_: &[VolumeUser]) {}

    fn with(name: &str, read_only: bool) -> NodePlan {
        let mut node = crate::plan::tests::planned(vec![crate::spec::NodeSpec::new("late")]).remove(0);
        let volume = crate::plan::VolumePlan { name: name.into(), bytes: None, room: 0 };
        let (path, label, at) = ("/disk".into(), "l".into(), "/srv".into());
        node.disks.push(crate::plan::DiskPlan { path, label, at, read_only, below: None, volume: Some(volume) });
        node
    }

    #[test]
    fn a_machine_that_joins_has_what_its_cluster_has_and_waits_for_no_other() {
        let cache = tempfile::tempdir().unwrap();
        let (ours, theirs) = (of_run(cache.path(), "ours"), of_run(cache.path(), "theirs"));
        ours.take("a", true, SIZE, &free).unwrap();
        theirs.take("b", true, SIZE, &free).unwrap();
        ours.take_for(&[with("a", false)]).unwrap();
        ours.take_for(&[with("a", true)]).unwrap();
        let refused = ours.take_for(&[with("b", true)]).unwrap_err();
        assert_eq!(refused.kind(), Kind::Missing);
        let said = format!("the volume `b` is in use by `theirs`, process {}", std::process::id());
        assert!(refused.to_string().contains(&said), "{refused}");
        theirs.release();
        ours.take_for(&[with("b", true)]).unwrap();
        let refused = ours.take_for(&[with("b", false)]).unwrap_err();
        assert!(refused.to_string().contains("has had the volume `b` only to read"), "{refused}");
        ours.release();
        assert_eq!(ours.take_for(&[with("a", true)]).unwrap_err().kind(), Kind::TornDown);
        of_run(cache.path(), "others").take("a", true, None, &free).unwrap();
    }
}
