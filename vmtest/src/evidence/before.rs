//! The attempt that a run repeats, for `cargo vmtest repro`: what is otherwise now.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::Value;

use super::{
    Kept, Started,
    attempt::{PLAN, SPEC},
    passwords::without_passwords,
    say, signature,
};
use crate::spec::{NodeSettings, NodeSpec};

/// Has a test say what is otherwise than in the attempt in this directory; set by `cargo vmtest repro`.
pub const REPEATS: &str = "VMTEST_INTERNAL_REPEATS";
/// Who reads on behind these has compared the files.
const SHOWN: usize = 12;
/// What other cluster a test asks for is seen from its beginning.
const WIDTH: usize = 100;

/// What of a node's settings says which image it has.
const IMAGE: [&str; 3] = ["image", "packages", "prepare"];

/// An earlier attempt of the same test.
#[derive(Debug)]
pub(super) struct Before {
    dir: PathBuf,
    started: Started,
}

impl Before {
    /// The attempt that the environment names, if it is one of the same test, with what is otherwise on this host now.
    pub(super) fn of(now: &Started) -> Option<Self> {
        let dir = PathBuf::from(env::var_os(REPEATS)?);
        let started = Started::read(&dir).ok().filter(|then| then.test == now.test)?;
        let (then, here) = (host(&started), host(now));
        let same = "this host and its settings are like those";
        tell(&format!("vmtest: `{}` again, as in {}", now.test, dir.display()), &differences(&then, &here), same);
        Some(Self { dir, started })
    }

    /// Says what the test asks for, what becomes of it and what runs it, as far as that is otherwise now.
    pub(super) fn planned(&self, spec: &impl Serialize, plan: &impl Serialize, backend: &str, now: &Started) {
        let kept = |name| self.kept(name);
        let (then, spec) = (kept(SPEC), as_kept(spec));
        let base = |spec: &Value| PathBuf::from(spec["base"].as_str().unwrap_or_default());
        let then_places = [(&*self.started.cache, "$CACHE"), (&base(&then), "$BASE")];
        let here_places = [(&*now.cache, "$CACHE"), (&base(&spec), "$BASE")];
        let mut found = differences(&placed(&then, &then_places), &placed(&spec, &here_places));
        // What the test asks for explains what is planned for it.
        if found.is_empty() {
            let (then, plan) = (kept(PLAN), as_kept(plan));
            found = differences(&planned(&then, &then_places), &planned(&plan, &here_places));
        }
        found.extend(self.backend().filter(|then| then != backend).map(|then| format!("{then} → {backend}")));
        tell("vmtest: what is planned", &found, "the same: machines, images, disks and backend");
        for volume in volumes(&serde_json::to_value(plan).unwrap_or_default()) {
            say(format_args!("vmtest: the volume `{volume}` is as it is now; what was on it then is not kept"));
        }
    }

    /// Says whether it has ended in the same way.
    pub(super) fn ended(&self, failure: Option<&str>) {
        let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        let Ok(then) = Kept::read(&self.dir) else { return };
        let was_killed = matches!(then.ending, super::Ending::NoVerdict);
        say(match (failure, &*then.failure) {
            _ if was_killed => "vmtest: there is no verdict of that attempt: it was killed".to_owned(),
            (None, "") => "vmtest: it passes, as then".to_owned(),
            (None, then) => format!("vmtest: it passes now; then it failed: {}", first(then)),
            (Some(_), "") => "vmtest: it fails now, and passed then".to_owned(),
            (Some(now), then) if signature(now) == signature(then) => "vmtest: it fails as it did then".to_owned(),
            (Some(_), then) => format!("vmtest: it fails in another way; then: {}", first(then)),
        });
    }

    /// The image that this node had, by the name of its directory in the cache: where the test asks for the same one now.
    pub(super) fn image_of(&self, node: &NodeSpec, defaults: &NodeSettings) -> Option<String> {
        let (spec, plan) = (self.kept(SPEC), self.kept(PLAN));
        let place = |nodes: &Value| nodes.as_array()?.iter().position(|then| then["name"] == *node.name);
        let then = &spec["nodes"][place(&spec["nodes"])?];
        let same = |then: &Value, now: &NodeSettings| {
            let now = as_kept(now);
            IMAGE.iter().all(|key| then[key] == now[key])
        };
        if !same(&then["settings"], &node.settings) || !same(&spec["defaults"], defaults) {
            return None;
        }
        let initramfs = Path::new(plan["base_initramfs"][place(&plan["nodes"])?].as_str()?);
        Some(initramfs.parent()?.file_name()?.to_str()?.to_owned())
    }

    /// One of its files.
    fn kept(&self, name: &str) -> Value {
        fs::read(self.dir.join(name)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// What ran it, with its version.
    fn backend(&self) -> Option<String> {
        let kept = Kept::read(&self.dir).ok()?;
        let planned = kept.events.iter().find(|event| event["event"] == "planned")?;
        planned["backend"].as_str().map(str::to_owned)
    }
}

fn tell(of: &str, differences: &[String], none: &str) {
    if differences.is_empty() {
        return say(format_args!("{of}: {none}"));
    }
    let shown: String = differences.iter().take(SHOWN).map(|line| format!("\n  {line}")).collect();
    let more = differences.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    say(format_args!("{of}; then → now:{shown}{more}"));
}

/// What of a start says something about its host, and about the settings that another one need not share.
fn host(started: &Started) -> Value {
    let Started { vmtest, profile, settings, host, .. } = started;
    let is_place = |name: &str| super::again::PLACES.contains(&name) || name.starts_with("VMTEST_INTERNAL_");
    // What holds a cluster or names its backend is what a repetition is about.
    let own = |name: &str| is_place(name) || matches!(name, "VMTEST_HOLD" | "VMTEST_BACKEND" | "VMTEST_ON_MISSING");
    let settings: serde_json::Map<_, _> = settings
        .iter()
        .filter(|(name, _)| !own(name))
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect();
    serde_json::json!({ "vmtest": vmtest, "profile": profile, "host": host, "settings": settings })
}

/// What would be written of it, to be compared with what was.
fn as_kept(value: &impl Serialize) -> Value {
    let text = serde_json::to_string(value).unwrap_or_default();
    serde_json::from_str(&without_passwords(&text)).unwrap_or_default()
}

/// A plan, without what is another in each run.
fn planned(plan: &Value, places: &[(&Path, &str)]) -> Value {
    let mut plan = placed(plan, places);
    let in_host = plan["networks"].as_array().is_some_and(|all| all.iter().any(|network| !network["host"].is_null()));
    let has_volumes = !volumes(&plan).is_empty();
    let nodes = plan["nodes"].as_array_mut().into_iter().flatten();
    for disk in nodes.flat_map(|node| node["disks"].as_array_mut().into_iter().flatten()) {
        if let Some(volume) = disk.get_mut("volume").and_then(Value::as_object_mut) {
            volume.remove("room");
        }
    }
    if let Some(fields) = plan.as_object_mut() {
        fields.remove("egress");
        if has_volumes {
            // How much room they take depends on what is on them.
            fields.remove("claim");
        }
        if in_host {
            fields.remove("networks");
        }
    }
    for node in plan["nodes"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut).filter(|_| in_host)
    {
        // Their addresses are those that were free.
        node.remove("interfaces");
        node.remove("kernel_args");
    }
    plan
}

/// The names of the volumes of a plan.
fn volumes(plan: &Value) -> BTreeSet<String> {
    let nodes = plan["nodes"].as_array().into_iter().flatten();
    let disks = nodes.flat_map(|node| node["disks"].as_array().into_iter().flatten());
    disks.filter_map(|disk| Some(disk["volume"]["name"].as_str()?.to_owned())).collect()
}

/// With these directories by their names.
fn placed(value: &Value, places: &[(&Path, &str)]) -> Value {
    match value {
        Value::String(text) => {
            let below = |(dir, name): &(&Path, &str)| {
                let rest = Path::new(text).strip_prefix(dir).ok().filter(|_| dir.is_absolute())?;
                Some(Path::new(name).join(rest).display().to_string())
            };
            places.iter().find_map(below).map_or_else(|| value.clone(), Value::from)
        }
        Value::Array(all) => all.iter().map(|value| placed(value, places)).collect(),
        Value::Object(all) => all.iter().map(|(name, value)| (name.clone(), placed(value, places))).collect(),
        _ => value.clone(),
    }
}

/// What differs, a line each, by its path.
fn differences(then: &Value, now: &Value) -> Vec<String> {
    let mut found = Vec::new();
    differ("", then, now, &mut found);
    found
}

fn differ(path: &str, then: &Value, now: &Value, found: &mut Vec<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (then, now) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for name in names {
                differ(&below(name), &then[name], &now[name], found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (place, (then, now)) in a.iter().zip(b).enumerate() {
                let name = then["name"].as_str().map_or_else(|| place.to_string(), str::to_owned);
                differ(&below(&name), then, now, found);
            }
        }
        _ if then == now => {}
        _ => found.push(format!("{path}: {} → {}", shown(then), shown(now))),
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_named_by_their_paths() {
        let then =
            json!({"memory": 1, "nodes": [{"name": "web", "kernel": "/a/images/micro-1/vmlinuz"}], "gone": true});
        let now = json!({"memory": 1, "nodes": [{"name": "web", "kernel": "/b/images/micro-2/vmlinuz"}]});
        let then = placed(&then, &[(Path::new("/a"), "$CACHE")]);
        let now = placed(&now, &[(Path::new("/b"), "$CACHE")]);
        assert_eq!(
            differences(&then, &now),
            ["gone: true → nothing", "nodes.web.kernel: $CACHE/images/micro-1/vmlinuz → $CACHE/images/micro-2/vmlinuz"]
        );
        assert_eq!(differences(&now, &now), Vec::<String>::new());
    }

    #[test]
    fn what_is_another_in_each_run_is_no_difference() {
        let plan = |number: u8| {
            json!({
                "networks": [{"name": "default", "host": {"number": number}}], "timeout": 1,
                "nodes": [{"name": "web", "memory": 5, "interfaces": [number],
                           "disks": [{"at": "/srv", "volume": {"name": "data", "room": number}}, {"at": "/x"}]}],
                "egress": {"way": number}, "claim": {"disk": number},
            })
        };
        assert_eq!(differences(&planned(&plan(1), &[]), &planned(&plan(2), &[])), Vec::<String>::new());
        assert_eq!(volumes(&plan(1)).into_iter().collect::<Vec<_>>(), ["data"]);
    }
}
