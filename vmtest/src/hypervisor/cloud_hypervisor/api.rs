//! What cloud-hypervisor is told and says over its API.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::{Error, Kind},
    hypervisor::{ApiCall, http::HttpApi},
};

/// The API socket's name in the node's folder.
pub(super) const API_SOCKET: &str = "api.sock";
/// What all paths begin with, of the only version of the API that there has been.
const ROOT: &str = "/api/v1/";

/// The VMM's answer to `vm.info`, with what only people read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct VmInfo {
    pub(super) state: VmState,
    /// What the guest has of its memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) memory_actual_size: Option<u64>,
    #[serde(default)]
    pub(super) config: InfoConfig,
    /// Its devices by their names.
    #[serde(default)]
    pub(super) device_tree: BTreeMap<String, Value>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// What the machine is made of now.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct InfoConfig {
    #[serde(default)]
    pub(super) cpus: InfoCpus,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Its virtual CPUs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct InfoCpus {
    /// How many it has, those that were plugged in included.
    #[serde(default)]
    pub(super) boot_vcpus: u32,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// What a machine is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum VmState {
    Running,
    /// Created, shut down, paused, or what later versions know.
    #[serde(untagged)]
    Other(String),
}

/// The call that tells the VMM to do this.
pub(super) fn put(what: &str) -> ApiCall {
    ApiCall { method: "PUT".into(), path: format!("{ROOT}{what}"), body: None }
}

/// The API of the VMM in this node's folder.
pub(super) fn api(dir: PathBuf) -> HttpApi {
    HttpApi { dir, socket: API_SOCKET, root: ROOT, vmm: "cloud-hypervisor", reason }
}

/// Asks what the machine is doing. Cancel-safe.
///
/// # Errors
/// Those of [`HttpApi::call`].
pub(super) async fn info(api: &HttpApi) -> Result<VmInfo, Error> {
    let answer = api.call(&ApiCall { method: "GET".into(), ..put("vm.info") }).await?;
    serde_json::from_slice(&answer)
        .map_err(|e| Error::new(Kind::Host, "cloud-hypervisor's answer to `vm.info` makes no sense").caused_by(e))
}

/// What a refusal says: from v48 on a list of errors from the outermost to its cause, before that one text.
fn reason(answer: &[u8]) -> String {
    match serde_json::from_slice::<Vec<String>>(answer) {
        Ok(chain) => chain.join(": "),
        Err(_) => String::from_utf8_lossy(answer).trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;
    use crate::hypervisor::http::tests::{answer, serve};

    #[tokio::test]
    async fn the_state_of_a_machine_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(API_SOCKET)).unwrap();
        let api = api(dir.path().to_owned());
        for (state, expected) in [("Running", VmState::Running), ("BreakPoint", VmState::Other("BreakPoint".into()))] {
            let said = serde_json::json!({
                "state": state,
                "config": { "cpus": { "boot_vcpus": 1, "new": 1 }, "pvpanic": true },
                "device_tree": { "_disk0": { "children": [] } },
                "new": 1,
            });
            let body = answer("200 OK", &said.to_string());
            let (info, _) = tokio::join!(info(&api), serve(&listener, "\r\n\r\n", &body));
            let info = info.unwrap();
            assert_eq!(info.state, expected);
            assert_eq!(serde_json::to_value(info).unwrap(), said, "what is not known is kept");
        }
    }

    #[test]
    fn all_versions_say_why_they_refuse() {
        for body in [r#"["Error from API", "Cannot open kernel"]"#, "Error from API: Cannot open kernel\n"] {
            assert_eq!(reason(body.as_bytes()), "Error from API: Cannot open kernel");
        }
    }
}
