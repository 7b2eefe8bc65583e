//! A client of cloud-hypervisor's API: HTTP over its unix socket.

use std::path::PathBuf;

use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use crate::{
    error::{Error, Kind},
    hypervisor::{ApiCall, connect_socket},
};

/// The API socket's name in the node's folder.
pub(super) const API_SOCKET: &str = "api.sock";
/// What all paths begin with, of the only version of the API that there has been.
const ROOT: &str = "/api/v1";

/// The VMM's answer to `vm.info`: the part of it that we use.
#[derive(Debug, Deserialize)]
pub(super) struct VmInfo {
    pub(super) state: VmState,
}

/// What a machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum VmState {
    Running,
    /// Created, shut down, paused, or what later versions know.
    #[serde(other)]
    Other,
}

/// The call that tells the VMM to do this.
pub(super) fn put(what: &str) -> ApiCall {
    ApiCall { method: "PUT".into(), path: format!("{ROOT}/{what}"), body: None }
}

/// The API of one VMM, over a connection of its own for each call, so that one that was given up is in no other's way.
#[derive(Debug)]
pub(super) struct Api {
    /// The node's folder.
    dir: PathBuf,
}

impl Api {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Asks what the machine is doing. Cancel-safe.
    ///
    /// # Errors
    /// Those of [`call`](Self::call).
    pub(super) async fn info(&self) -> Result<VmInfo, Error> {
        let call = ApiCall { method: "GET".into(), path: format!("{ROOT}/vm.info"), body: None };
        let answer = self.call(&call).await?;
        serde_json::from_slice(&answer)
            .map_err(|e| Error::new(Kind::Host, "cloud-hypervisor's answer to `vm.info` makes no sense").caused_by(e))
    }

    /// Makes a call, and gives the body of the answer. Cancel-safe, though the VMM may do what it was told.
    ///
    /// # Errors
    /// [`Kind::Host`] with what the VMM said when it refused, [`Kind::Connection`] when it did not answer.
    pub(super) async fn call(&self, call: &ApiCall) -> Result<Bytes, Error> {
        let name = call.path.rsplit('/').next().unwrap_or_default();
        let silent = || Error::new(Kind::Connection, format!("cloud-hypervisor does not answer `{name}`"));
        let stream = connect_socket(&self.dir, API_SOCKET).await.map_err(|e| silent().caused_by(e))?;
        let request = request(call).map_err(|e| silent().caused_by(e))?;
        let (status, answer) = exchange(TokioIo::new(stream), request).await.map_err(|e| silent().caused_by(e))?;
        if status.is_success() {
            return Ok(answer);
        }
        Err(Error::new(Kind::Host, format!("cloud-hypervisor refused `{name}` ({status}): {}", reason(&answer))))
    }
}

fn request(call: &ApiCall) -> hyper::http::Result<Request<Full<Bytes>>> {
    let body = call.body.as_ref().map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = Request::builder().method(call.method.as_str()).uri(&call.path).header("Host", "localhost");
    request.header("Content-Type", "application/json").body(Full::new(body))
}

async fn exchange(
    stream: TokioIo<tokio::net::UnixStream>,
    request: Request<Full<Bytes>>,
) -> hyper::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = handshake(stream).await?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    // The connection ends when the sender is dropped; what it died of before, the answer says too.
    let (answer, _) = tokio::join!(answer, connection);
    answer
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
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    use super::*;

    /// Reads a request to its end, which is that of its JSON if it has any, and answers.
    async fn serve(listener: &UnixListener, end: &str, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(end.as_bytes()) {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn calls_are_made_and_answers_read() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(API_SOCKET)).unwrap();
        let api = Api::new(dir.path().to_owned());
        let create = ApiCall { body: Some(serde_json::json!({ "pvpanic": true })), ..put("vm.create") };
        let no_content = "HTTP/1.1 204 No Content\r\n\r\n";
        let (made, request) = tokio::join!(api.call(&create), serve(&listener, "}", no_content));
        made.unwrap();
        assert!(request.starts_with("PUT /api/v1/vm.create HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"pvpanic\":true}"), "{request}");
        for (state, expected) in [("Running", VmState::Running), ("BreakPoint", VmState::Other)] {
            let body = answer("200 OK", &format!(r#"{{"config": {{}}, "state": "{state}", "new": 1}}"#));
            let (info, _) = tokio::join!(api.info(), serve(&listener, "\r\n\r\n", &body));
            assert_eq!(info.unwrap().state, expected);
        }
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(API_SOCKET)).unwrap();
        let api = Api::new(dir.path().to_owned());
        for body in [r#"["Error from API", "Cannot open kernel"]"#, "Error from API: Cannot open kernel\n"] {
            let body = answer("500 Internal Server Error", body);
            let boot = put("vm.boot");
            let (refused, _) = tokio::join!(api.call(&boot), serve(&listener, "\r\n\r\n", &body));
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), Kind::Host);
            let said =
                "cloud-hypervisor refused `vm.boot` (500 Internal Server Error): Error from API: Cannot open kernel";
            assert_eq!(refused.to_string(), said);
        }
    }

    #[tokio::test]
    async fn silence_is_a_lost_connection() {
        let dir = tempfile::tempdir().unwrap();
        let api = Api::new(dir.path().to_owned());
        assert_eq!(api.info().await.unwrap_err().kind(), Kind::Connection);
        let listener = UnixListener::bind(dir.path().join(API_SOCKET)).unwrap();
        for half in ["", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
            let (silence, _) = tokio::join!(api.info(), serve(&listener, "\r\n\r\n", half));
            let silence = silence.unwrap_err();
            assert_eq!(silence.kind(), Kind::Connection, "{silence}");
            assert!(silence.to_string().starts_with("cloud-hypervisor does not answer `vm.info`"), "{silence}");
        }
    }
}
