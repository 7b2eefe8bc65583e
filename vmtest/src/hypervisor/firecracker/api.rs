//! What Firecracker is told and says over its API.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::{Error, Kind},
    hypervisor::{ApiCall, http::HttpApi},
};

/// The API socket's name in the node's folder.
pub(super) const API_SOCKET: &str = "api.sock";

/// The VMM's answer to a call of `/`, with what only people read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct InstanceInfo {
    pub(super) state: VmState,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// What a machine is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum VmState {
    Running,
    /// Not started, paused, or what later versions know.
    #[serde(untagged)]
    Other(String),
}

/// The body of a refusal.
#[derive(Debug, Deserialize)]
struct Refusal {
    fault_message: String,
}

/// The call that gives the VMM this.
pub(super) fn put(path: &str, body: impl Serialize) -> ApiCall {
    call("PUT", path, body)
}

/// The call that stops the virtual CPUs (`Paused`) or lets them run again (`Resumed`).
pub(super) fn patch_state(state: &str) -> ApiCall {
    call("PATCH", "/vm", serde_json::json!({ "state": state }))
}

fn call(method: &str, path: &str, body: impl Serialize) -> ApiCall {
    let body = serde_json::to_value(body).expect("a body is plain data");
    ApiCall { method: method.into(), path: path.into(), body: Some(body) }
}

/// The API of the VMM in this node's folder.
pub(super) fn api(dir: PathBuf) -> HttpApi {
    HttpApi { dir, socket: API_SOCKET, root: "/", vmm: "Firecracker", reason }
}

/// Asks what the machine is doing. Cancel-safe.
///
/// # Errors
/// Those of [`HttpApi::call`].
pub(super) async fn info(api: &HttpApi) -> Result<InstanceInfo, Error> {
    let answer = api.call(&ApiCall { method: "GET".into(), path: "/".into(), body: None }).await?;
    serde_json::from_slice(&answer)
        .map_err(|e| Error::new(Kind::Host, "Firecracker's answer about its machine makes no sense").caused_by(e))
}

fn reason(answer: &[u8]) -> String {
    match serde_json::from_slice::<Refusal>(answer) {
        Ok(refusal) => refusal.fault_message,
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
        for (state, expected) in [("Running", VmState::Running), ("Not started", VmState::Other("Not started".into()))]
        {
            let body = answer("200 OK", &format!(r#"{{"id": "node", "state": "{state}", "vmm_version": "1.16.1"}}"#));
            let (info, request) = tokio::join!(info(&api), serve(&listener, "\r\n\r\n", &body));
            assert_eq!(info.unwrap().state, expected);
            assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
        }
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(API_SOCKET)).unwrap();
        let api = api(dir.path().to_owned());
        let body = answer("400 Bad Request", r#"{"fault_message":"The kernel file cannot be opened: ENOENT"}"#);
        let put = put("/boot-source", serde_json::json!({ "kernel_image_path": "vmlinux" }));
        let (refused, _) = tokio::join!(api.call(&put), serve(&listener, "}", &body));
        let said = "Firecracker refused `boot-source` (400 Bad Request): The kernel file cannot be opened: ENOENT";
        assert_eq!(refused.unwrap_err().to_string(), said);
        assert_eq!(reason(b"Too many requests\n"), "Too many requests");
    }
}
