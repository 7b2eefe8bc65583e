//! Disks that are kept from one run to the next.

use std::collections::BTreeMap;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use vmtest_fixtures::{VolumeWish, Volumes, check_volume_name};

use super::{DiskPlan, Facts, NodePlan, VolumeFacts, cluster::MIN_DISK, mount_point, overlap, problems::Problems};
use crate::spec::{Capability, ClusterSpec, NodeSettings, Volume, VolumeSpec};

/// What is kept on a disk when the run is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePlan {
    /// Its name.
    pub name: String,
    /// How large it shall be, in bytes; without, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How much of the host's disk it may take beside what it takes already, in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub room: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The volumes of a node: the test's and its own.
fn of<'a>(own: &'a NodeSettings, defaults: &'a NodeSettings) -> impl Iterator<Item = &'a VolumeSpec> {
    defaults.volumes.iter().chain(&own.volumes)
}

/// What a cluster wants of each of its volumes, by name: for machines that join later, too, what the test itself says.
pub(crate) fn wanted(spec: &ClusterSpec) -> BTreeMap<&str, Volume> {
    let mut wanted = BTreeMap::<_, Volume>::new();
    let all = spec.nodes.iter().map(|node| &node.settings).chain([&spec.defaults]);
    for volume in all.flat_map(|settings| &settings.volumes).map(|asked| &asked.volume) {
        let known = wanted.entry(volume.name()).or_insert_with(|| volume.clone());
        known.read_only &= volume.read_only;
        known.bytes = known.bytes.max(volume.bytes);
    }
    wanted
}

/// The disks of a node that are kept, beside those that are there.
pub(super) fn plan_volumes(
    node: &str,
    [own, defaults]: [&NodeSettings; 2],
    disks: &mut Vec<DiskPlan>,
    facts: &Facts,
    problems: &mut Problems,
) {
    for VolumeSpec { volume, at } in of(own, defaults) {
        let name = volume.name();
        let at = at.clone().unwrap_or_else(|| format!("/volumes/{name}"));
        let at = match check_volume_name(name)
            .map_err(|why| format!("`{name}` is no name of a volume: {why}"))
            .and(mount_point(&at).map_err(|why| format!("the volume `{name}` cannot be mounted at `{at}`: {why}")))
        {
            Ok(at) => at,
            Err(why) => {
                problems.spec(format!("node `{node}`: {why}"));
                continue;
            }
        };
        let Some(known) = facts.volumes.get(name).and_then(|known| known.as_ref().ok()) else { continue };
        let label = Volumes::label(name);
        for other in &*disks {
            if overlap(&other.at, &at) {
                problems.spec(format!(
                    "node `{node}`: the volume at `{at}` and the disk at `{}` are in each other's way: give one of them \
                     another `at`",
                    other.at
                ));
            }
            if other.label == label {
                problems.spec(format!(
                    "node `{node}`: the volume `{name}` has the label of the disk at `{}`, `{label}`: give one of them \
                     another name",
                    other.at
                ));
            }
        }
        let of_disk = facts.backend.as_ref().is_ok_and(|backend| backend.capabilities.has(Capability::OwnKernel));
        if let Err(why) = check(volume, known, of_disk) {
            problems.spec(format!("node `{node}`: the volume `{name}` {why}"));
        }
        let size = volume.bytes.or(known.kept).unwrap_or(VolumeWish::DEFAULT_BYTES);
        let room = if volume.read_only || !of_disk { 0 } else { size.saturating_sub(known.allocated) };
        let plan = VolumePlan { name: name.to_owned(), bytes: volume.bytes.filter(|_| of_disk), room };
        let path = known.path.display().to_string();
        disks.push(DiskPlan { path, label, at, read_only: volume.read_only, below: None, volume: Some(plan) });
    }
}

/// Whether the volume can be as it is asked for.
fn check(volume: &Volume, known: &VolumeFacts, of_disk: bool) -> Result<(), String> {
    let size = |bytes| ByteSize::b(bytes).display().iec().to_string();
    match (volume.bytes, known.kept) {
        (Some(_), _) if volume.read_only => {
            Err("is only read, and its `size` is that of the machine that writes it: leave one of the two out".into())
        }
        (_, None) if volume.read_only => {
            Err("is only read, and there is none yet: run a test first whose machine writes it".into())
        }
        (Some(bytes), _) if bytes < MIN_DISK => {
            Err(format!("has a `size` of {}, but it takes at least {}", size(bytes), size(MIN_DISK)))
        }
        (Some(bytes), Some(kept)) if of_disk && bytes < kept => Err(format!(
            "shall have {} and has {}: what is kept never becomes smaller: ask for as much, or remove it with \
             `cargo vmtest volume rm`",
            size(bytes),
            size(kept)
        )),
        _ => Ok(()),
    }
}

/// Finds machines that would write the same volume, or write one that others read, among these of the spec and those that
/// have been there; and what cannot be saved.
pub(super) fn check_sharing(spec: &ClusterSpec, others: &[NodePlan], problems: &mut Problems) {
    // By volume: who has it, and whether to write it.
    let mut users: BTreeMap<&str, Vec<(&str, bool)>> = BTreeMap::new();
    for other in others {
        for disk in &other.disks {
            let Some(volume) = &disk.volume else { continue };
            users.entry(&volume.name).or_default().push((&other.name, !disk.read_only));
        }
    }
    for node in &spec.nodes {
        for VolumeSpec { volume, .. } in of(&node.settings, &spec.defaults) {
            users.entry(volume.name()).or_default().push((&node.name, !volume.read_only));
        }
    }
    for (volume, users) in users {
        let writers = users.iter().filter(|(_, writes)| *writes).count();
        if writers == 0 {
            continue;
        }
        if users.len() > 1 {
            let names: Vec<_> = users.iter().map(|(name, _)| format!("`{name}`")).collect();
            let what = if writers == users.len() { "would write it" } else { "have it, and not only to read" };
            problems.spec(format!(
                "the volume `{volume}`: {} {what}, and a volume that is written is one machine's alone: give each its own, \
                 or say `access = \"read-only\"` for all",
                names.join(" and ")
            ));
        }
        if spec.requires.contains(&Capability::Snapshot) {
            problems.spec(format!(
                "the volume `{volume}` is written, and a test that says `requires(snapshot)` takes its machines back to what \
                 they were, which would break a volume: leave one of the two out, or say `access = \"read-only\"`"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::{
        plan::{
            BackendFacts, Plan,
            cluster::tests::{backend, facts},
            plan, plan_more,
        },
        spec::{FixtureSpec, NodeSpec, Resources},
    };

    const GIB: u64 = 1 << 30;

    /// What is known where `kept` is there and others are not.
    fn with_volumes() -> Facts {
        let facts_of = |name: &str, kept, allocated| {
            let path = format!("/cache/volumes/shop/{name}.ext4").into();
            (name.to_owned(), Ok(VolumeFacts { path, kept, allocated }))
        };
        let volumes = [facts_of("kept", Some(2 * GIB), GIB / 2), facts_of("new", None, 0), facts_of("other", None, 0)];
        Facts { volumes: volumes.into(), ..facts() }
    }

    fn spec(nodes: impl IntoIterator<Item = NodeSpec>) -> ClusterSpec {
        ClusterSpec { nodes: nodes.into_iter().collect(), ..ClusterSpec::new("t") }
    }

    fn planned(nodes: impl IntoIterator<Item = NodeSpec>) -> Plan {
        plan(&spec(nodes), &with_volumes()).unwrap()
    }

    fn check(spec: &ClusterSpec, said: Expect) {
        said.assert_eq(&plan(spec, &with_volumes()).expect_err("it cannot be").to_string());
    }

    #[test]
    fn a_volume_is_a_disk_before_the_scratch_disk() {
        let mut spec = spec([NodeSpec::new("db").disk(GIB).volume(Volume::new("kept").size(4 * GIB), "/var/lib/db/")]);
        spec.nodes[0].settings.fixtures.push(FixtureSpec { fixture: "/src/schema".into(), at: None });
        let plan = plan(&spec, &with_volumes()).unwrap();
        let node = &plan.nodes[0];
        expect![[r#"
            [
              "/cache/fixtures/1.ext4 (schema) at /fixtures/schema, read-only",
              "/cache/volumes/shop/kept.ext4 (label of kept) at /var/lib/db, VolumePlan { name: \"kept\", bytes: Some(4294967296), room: 3758096384 }",
              "scratch/disk.ext4 (vmtest-scratch) at /scratch"
            ]"#]]
        .assert_eq(&shown(node));
        let scratch = node.scratch_disk().map(|(disk, bytes)| (disk.path.as_str(), bytes));
        assert_eq!(scratch, Some(("scratch/disk.ext4", GIB)), "the one that is made for it");
        assert_eq!(plan.claim.disk, GIB + 4 * GIB - GIB / 2, "what it takes already is taken");
    }

    fn shown(node: &NodePlan) -> String {
        let disk = |DiskPlan { path, label, at, read_only, volume, .. }: &DiskPlan| {
            let access = if *read_only { ", read-only" } else { "" };
            let label = label.replace(&Volumes::label("kept"), "label of kept");
            let volume = volume.as_ref().map(|volume| format!(", {volume:?}")).unwrap_or_default();
            format!("{path} ({label}) at {at}{access}{volume}")
        };
        serde_json::to_string_pretty(&node.disks.iter().map(disk).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_is_said_of_no_size_is_as_it_is() {
        let claim = |name: &str| planned([NodeSpec::new("a").volume(name, "/srv/a")]).claim.disk;
        assert_eq!([claim("kept"), claim("new")], [2 * GIB - GIB / 2, 2 * GIB]);
        let reads = |node: &str| NodeSpec::new(node).volume(Volume::new("kept").read_only(), "/srv/a");
        let plan = planned([reads("a"), reads("b")]);
        assert_eq!(plan.claim.disk, 0);
        assert!(plan.nodes.iter().all(|node| node.disks[0].read_only));
    }

    #[test]
    fn one_that_says_no_place_has_one() {
        let mut asked = spec([NodeSpec::new("a")]);
        asked.defaults.volumes.push(VolumeSpec { volume: "new".into(), at: None });
        assert_eq!(plan(&asked, &with_volumes()).unwrap().nodes[0].disks[0].at, "/volumes/new");
    }

    #[test]
    fn a_fake_machine_has_a_directory_and_no_size() {
        let facts = Facts { backend: Ok(backend("fake", false, &[], 0)), ..with_volumes() };
        let asked = spec([NodeSpec::new("a").volume(Volume::new("kept").size(GIB), "/srv/a")]);
        let plan = plan(&asked, &facts).unwrap();
        assert_eq!(plan.claim, Resources::NONE);
        assert_eq!(plan.nodes[0].disks[0].volume.as_ref().unwrap().bytes, None);
    }

    #[test]
    fn what_cannot_be_is_said_at_once() {
        let twice = NodeSpec::new("twice").volume("new", "/srv/a").volume("other", "/srv/a/b");
        let nodes = [
            twice,
            NodeSpec::new("small").volume(Volume::new("kept").size(GIB), "/srv/a"),
            NodeSpec::new("odd").volume("../etc", "/srv/a").volume("fine", "srv"),
        ];
        let tiny = NodeSpec::new("tiny").disk(GIB).volume(Volume::new("kept").size(1), "/scratch/x");
        check(
            &spec(nodes.into_iter().chain([tiny])),
            expect![[r#"
                `t` cannot run, for 7 reasons:
                  - the volume `kept`: `small` and `tiny` would write it, and a volume that is written is one machine's alone: give each its own, or say `access = "read-only"` for all
                  - node `twice`: the volume at `/srv/a/b` and the disk at `/srv/a` are in each other's way: give one of them another `at`
                  - node `small`: the volume `kept` shall have 1.0 GiB and has 2.0 GiB: what is kept never becomes smaller: ask for as much, or remove it with `cargo vmtest volume rm`
                  - node `odd`: `../etc` is no name of a volume: it may hold letters, digits, `-` and `_`
                  - node `odd`: the volume `fine` cannot be mounted at `srv`: give an absolute path
                  - node `tiny`: the volume `kept` has a `size` of 1 B, but it takes at least 16.0 MiB
                  - node `tiny`: its `disk` is mounted at `/scratch`: give the volume at `/scratch/x` another `at`"#]],
        );
    }

    #[test]
    fn a_reader_needs_something_to_read() {
        let reads = |volume: Volume| NodeSpec::new("a").volume(volume.read_only(), "/srv/a");
        check(
            &spec([reads(Volume::new("new"))]),
            expect![[
                r#"`t` cannot run: node `a`: the volume `new` is only read, and there is none yet: run a test first whose machine writes it"#
            ]],
        );
        check(
            &spec([reads(Volume::new("kept").size(2 * GIB))]),
            expect![[
                r#"`t` cannot run: node `a`: the volume `kept` is only read, and its `size` is that of the machine that writes it: leave one of the two out"#
            ]],
        );
    }

    #[test]
    fn what_is_written_is_one_machines_alone() {
        let reads = NodeSpec::new("reads").volume(Volume::new("kept").read_only(), "/srv/a");
        let writes = NodeSpec::new("writes").volume("kept", "/srv/a");
        check(
            &spec([reads.clone(), writes.clone()]),
            expect![[
                r#"`t` cannot run: the volume `kept`: `reads` and `writes` have it, and not only to read, and a volume that is written is one machine's alone: give each its own, or say `access = "read-only"` for all"#
            ]],
        );
        let first = planned([writes.clone()]);
        let late =
            |node: NodeSpec, others: &[NodePlan]| plan_more(&spec([node]), &with_volumes(), &first.networks, others, 1);
        let refused = late(reads.clone(), &first.nodes).unwrap_err().to_string();
        assert!(refused.contains("the volume `kept`: `writes` and `reads` have it"), "{refused}");
        assert!(late(reads, &[]).is_ok(), "the machine that wrote it has left");
    }

    #[test]
    fn a_machine_that_goes_back_in_time_writes_no_volume() {
        let can = [Capability::OwnKernel, Capability::Snapshot];
        let facts = Facts { backend: Ok::<BackendFacts, _>(backend("qemu", false, &can, 0)), ..with_volumes() };
        let asked = |volume: Volume| spec([NodeSpec::new("a").volume(volume, "/srv/a")]).requires(Capability::Snapshot);
        let refused = plan(&asked("kept".into()), &facts).unwrap_err().to_string();
        assert!(
            refused.contains("the volume `kept` is written, and a test that says `requires(snapshot)`"),
            "{refused}"
        );
        assert!(plan(&asked(Volume::new("kept").read_only()), &facts).is_ok());
    }
}
