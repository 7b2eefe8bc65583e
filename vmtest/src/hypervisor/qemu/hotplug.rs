//! Plugging disks in and pulling them out.

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    commands::Command,
    qmp::Qmp,
    render::{port, rate_object},
    sizes::{DeviceAdd, DeviceDel},
};
use crate::{
    error::Error,
    plan::{DiskPlan, DiskRatePlan},
};

/// Opens the file of a disk.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct BlockdevAdd(Value);

impl Command for BlockdevAdd {
    const NAME: &'static str = "blockdev-add";
    type Reply = Value;
}

/// Closes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct BlockdevDel {
    node_name: String,
}

impl Command for BlockdevDel {
    const NAME: &'static str = "blockdev-del";
    type Reply = Value;
}

/// Makes an object.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct ObjectAdd(Value);

impl Command for ObjectAdd {
    const NAME: &'static str = "object-add";
    type Reply = Value;
}

/// Removes an object.
#[derive(Debug, Serialize)]
struct ObjectDel {
    id: String,
}

impl Command for ObjectDel {
    const NAME: &'static str = "object-del";
    type Reply = Value;
}

/// What the disk at this place is called, as a device and as a file.
fn name(place: usize) -> String {
    format!("hotplug{place}")
}

/// The limit of the disk at this place.
fn limit(place: usize) -> String {
    format!("hotplug{place}-rate")
}

/// Plugs a disk in at this place, no faster than this.
///
/// # Errors
/// What QEMU refused; then nothing of it is there.
pub(super) async fn add_disk(qmp: &Qmp, place: usize, disk: &DiskPlan, rate: DiskRatePlan) -> Result<(), Error> {
    if !rate.is_none() {
        qmp.execute(ObjectAdd(rate_object(&limit(place), rate))).await?;
    }
    let added = add(qmp, place, disk, rate).await;
    if added.is_err() {
        // Some of it may not be there; what was refused first is what counts.
        drop(qmp.execute(BlockdevDel { node_name: name(place) }).await);
        drop(qmp.execute(ObjectDel { id: limit(place) }).await);
    }
    added
}

async fn add(qmp: &Qmp, place: usize, disk: &DiskPlan, rate: DiskRatePlan) -> Result<(), Error> {
    let name = name(place);
    let raw = json!({
        "driver": "raw",
        "read-only": disk.read_only,
        "file": { "driver": "file", "filename": disk.path, "locking": "off" },
    });
    let mut node = if rate.is_none() {
        raw
    } else {
        json!({ "driver": "throttle", "throttle-group": limit(place), "read-only": disk.read_only, "file": raw })
    };
    node["node-name"] = name.clone().into();
    qmp.execute(BlockdevAdd(node)).await?;
    let properties = [("bus", port(place)), ("drive", name.clone())];
    let properties = properties.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    qmp.execute(DeviceAdd { driver: "virtio-blk-pci".into(), id: name, properties }).await.map(drop)
}

/// Pulls the disk at this place out; resolves when the guest has let it go and its file is closed.
///
/// # Errors
/// What QEMU refused.
pub(super) async fn remove_disk(qmp: &Qmp, place: usize, rate: DiskRatePlan) -> Result<(), Error> {
    let gone = qmp.removal(name(place));
    qmp.execute(DeviceDel { id: name(place) }).await?;
    gone.await?;
    close(qmp, place, rate).await
}

async fn close(qmp: &Qmp, place: usize, rate: DiskRatePlan) -> Result<(), Error> {
    qmp.execute(BlockdevDel { node_name: name(place) }).await?;
    if !rate.is_none() {
        qmp.execute(ObjectDel { id: limit(place) }).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::UnixStream,
    };

    use super::*;

    /// A QEMU that refuses this command, lets a device go in its own time, and the commands that it was given.
    async fn qemu(refuses: &'static str) -> (Qmp, Arc<Mutex<Vec<String>>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, mut writer) = theirs.into_split();
        let given = Arc::new(Mutex::new(Vec::new()));
        let to = given.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(reader).lines();
            writer.write_all(b"{\"QMP\": {}}\n").await.unwrap();
            while let Some(line) = lines.next_line().await.unwrap() {
                let request: Value = serde_json::from_str(&line).unwrap();
                let name = request["execute"].as_str().unwrap();
                let mut answer = if name == refuses {
                    json!({ "error": { "class": "GenericError", "desc": "no" }, "id": request["id"] }).to_string()
                } else {
                    json!({ "return": {}, "id": request["id"] }).to_string()
                };
                to.lock().unwrap().push(name.to_owned());
                if name == "device_del" {
                    for device in [json!({ "path": "/a/part" }), json!({ "device": "hotplug2", "path": "/hotplug2" })] {
                        answer += &format!("\n{}", json!({ "event": "DEVICE_DELETED", "data": device }));
                    }
                }
                writer.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
            }
        });
        (Qmp::connect(ours).await.unwrap(), given)
    }

    fn disk() -> DiskPlan {
        DiskPlan {
            path: "scratch/a".into(),
            label: "l".into(),
            at: "/mnt".into(),
            read_only: false,
            below: None,
            volume: None,
        }
    }

    const RATE: DiskRatePlan = DiskRatePlan { bytes: Some(1 << 20), operations: None };

    #[tokio::test]
    async fn what_was_plugged_in_is_closed_once_the_guest_lets_it_go() {
        let (qmp, given) = qemu("").await;
        add_disk(&qmp, 2, &disk(), RATE).await.unwrap();
        remove_disk(&qmp, 2, RATE).await.unwrap();
        let all = "qmp_capabilities object-add blockdev-add device_add device_del blockdev-del object-del";
        assert_eq!(given.lock().unwrap().join(" "), all);
    }

    #[tokio::test]
    async fn nothing_stays_of_a_disk_that_is_refused() {
        let (qmp, given) = qemu("device_add").await;
        let refused = add_disk(&qmp, 2, &disk(), RATE).await.unwrap_err();
        assert_eq!(refused.to_string(), "QEMU refused `device_add`: no (GenericError)");
        let all = "qmp_capabilities object-add blockdev-add device_add blockdev-del object-del";
        assert_eq!(given.lock().unwrap().join(" "), all);
    }
}
