//! Giving a machine memory and CPUs while it runs, and taking them back.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{commands::Command, qmp::Qmp};
use crate::error::{Error, Kind};

/// Asks the guest to have so much memory.
#[derive(Debug, Serialize)]
pub(super) struct Balloon {
    /// In bytes.
    pub(super) value: u64,
}

impl Command for Balloon {
    const NAME: &'static str = "balloon";
    type Reply = Value;
}

/// Asks how much memory the guest has.
#[derive(Debug, Serialize)]
pub(super) struct QueryBalloon {}

/// The answer to [`QueryBalloon`].
#[derive(Debug, Deserialize)]
pub(super) struct BalloonInfo {
    /// In bytes.
    pub(super) actual: u64,
}

impl Command for QueryBalloon {
    const NAME: &'static str = "query-balloon";
    type Reply = BalloonInfo;
}

/// Asks for the places of virtual CPUs.
#[derive(Debug, Serialize)]
struct QueryHotpluggableCpus {}

/// A place for a virtual CPU. The list begins with the last one.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Place {
    r#type: String,
    /// Where it is: thread, core and so on.
    props: Map<String, Value>,
    /// What is there.
    qom_path: Option<String>,
}

impl Command for QueryHotpluggableCpus {
    const NAME: &'static str = "query-hotpluggable-cpus";
    type Reply = Vec<Place>;
}

/// Plugs a device in.
#[derive(Debug, Serialize)]
pub(super) struct DeviceAdd {
    pub(super) driver: String,
    pub(super) id: String,
    #[serde(flatten)]
    pub(super) properties: Map<String, Value>,
}

impl Command for DeviceAdd {
    const NAME: &'static str = "device_add";
    type Reply = Value;
}

/// Asks the guest to let a device go.
#[derive(Debug, Serialize)]
pub(super) struct DeviceDel {
    pub(super) id: String,
}

impl Command for DeviceDel {
    const NAME: &'static str = "device_del";
    type Reply = Value;
}

/// Where what was plugged in is found.
const PLUGGED_IN: &str = "/machine/peripheral/";

/// Plugs in virtual CPUs until the machine has so many. None is ever pulled out: under emulation, QEMU 7.2 dies of it when the
/// guest has used the CPU.
///
/// # Errors
/// What QEMU refused; [`Kind::Spec`] for more than there are places.
pub(super) async fn add_cpus(qmp: &Qmp, count: u32) -> Result<(), Error> {
    let places = qmp.execute(QueryHotpluggableCpus {}).await?;
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let (used, free): (Vec<_>, Vec<_>) = places.iter().rev().partition(|place| place.qom_path.is_some());
    if wanted > places.len() {
        return Err(Error::new(Kind::Spec, format!("it can have {} CPUs, not {count}", places.len())));
    }
    let more = wanted.saturating_sub(used.len());
    for (number, Place { r#type, props, .. }) in (used.len()..).zip(free.into_iter().take(more)) {
        let (driver, properties) = (r#type.clone(), props.clone());
        qmp.execute(DeviceAdd { driver, id: format!("cpu{number}"), properties }).await?;
    }
    Ok(())
}

/// Whether CPUs have been plugged in.
///
/// # Errors
/// What QEMU refused.
pub(super) async fn has_more_cpus(qmp: &Qmp) -> Result<bool, Error> {
    let places = qmp.execute(QueryHotpluggableCpus {}).await?;
    Ok(places.iter().any(|place| place.qom_path.as_ref().is_some_and(|path| path.starts_with(PLUGGED_IN))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::UnixStream,
    };

    use super::*;

    /// What is asked of a QEMU with four places, of which the first holds what it has booted with, and so many more what was
    /// plugged in, for it to have so many CPUs.
    async fn asked(plugged_in: u64, count: u32) -> Result<Vec<String>, String> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, mut writer) = theirs.into_split();
        let served = tokio::spawn(async move {
            let mut lines = BufReader::new(reader).lines();
            writer.write_all(b"{\"QMP\": {}}\n").await.unwrap();
            let place = |core: u64| {
                let mut place = json!({ "type": "max-x86_64-cpu", "props": { "core-id": core }, "vcpus-count": 1 });
                match core {
                    0 => place["qom-path"] = "/machine/unattached/device[0]".into(),
                    core if core <= plugged_in => place["qom-path"] = format!("/machine/peripheral/cpu{core}").into(),
                    _ => {}
                }
                place
            };
            let mut asked = Vec::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                let request: Value = serde_json::from_str(&line).unwrap();
                let places = request["execute"] == QueryHotpluggableCpus::NAME;
                let answer = if places { (0..4).rev().map(place).collect() } else { json!({}) };
                if !places && request["execute"] != "qmp_capabilities" {
                    asked.push(format!("{} {}", request["execute"], request["arguments"]));
                }
                let answer = json!({ "return": answer, "id": request["id"] });
                writer.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
            }
            asked
        });
        let qmp = Qmp::connect(ours).await.unwrap();
        let done = add_cpus(&qmp, count).await;
        drop(qmp);
        let asked = served.await.unwrap();
        done.map(|()| asked).map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn cpus_are_plugged_in_at_the_next_places_and_stay() {
        let add = |core| format!(r#""device_add" {{"core-id":{core},"driver":"max-x86_64-cpu","id":"cpu{core}"}}"#);
        assert_eq!(asked(0, 3).await.unwrap(), [add(1), add(2)]);
        assert_eq!(asked(2, 4).await.unwrap(), [add(3)]);
        assert!(asked(1, 2).await.unwrap().is_empty());
        assert!(asked(3, 1).await.unwrap().is_empty());
        assert_eq!(asked(1, 5).await.unwrap_err(), "it can have 4 CPUs, not 5");
    }
}
