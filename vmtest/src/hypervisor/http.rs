//! A client of VMMs that are told what to do over HTTP on a unix socket.

use std::path::PathBuf;

use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;

use super::{ApiCall, connect_socket};
use crate::error::{Error, Kind};

/// The API of one VMM, over a connection of its own for each call, so that one that was given up is in no other's way.
#[derive(Debug)]
pub(super) struct HttpApi {
    /// The node's folder.
    pub(super) dir: PathBuf,
    /// The socket's name there.
    pub(super) socket: &'static str,
    /// What all paths begin with.
    pub(super) root: &'static str,
    /// The VMM, for people.
    pub(super) vmm: &'static str,
    /// What it says in the body of a refusal.
    pub(super) reason: fn(&[u8]) -> String,
}

impl HttpApi {
    /// Makes a call, and gives the body of the answer. Cancel-safe, though the VMM may do what it was told.
    ///
    /// # Errors
    /// [`Kind::Host`] with what the VMM said when it refused, [`Kind::Connection`] when it did not answer.
    pub(super) async fn call(&self, call: &ApiCall) -> Result<Bytes, Error> {
        let (vmm, name) = (self.vmm, call.path.strip_prefix(self.root).unwrap_or(&call.path));
        let silent = || Error::new(Kind::Connection, format!("{vmm} does not answer `{name}`"));
        let stream = connect_socket(&self.dir, self.socket).await.map_err(|e| silent().caused_by(e))?;
        let request = request(call).map_err(|e| silent().caused_by(e))?;
        let (status, answer) = exchange(TokioIo::new(stream), request).await.map_err(|e| silent().caused_by(e))?;
        if status.is_success() {
            return Ok(answer);
        }
        Err(Error::new(Kind::Host, format!("{vmm} refused `{name}` ({status}): {}", (self.reason)(&answer))))
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

#[cfg(test)]
pub(super) mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    use super::*;

    const SOCKET: &str = "api.sock";

    /// Reads a request to its end, which is that of its JSON if it has any, and answers.
    pub(in crate::hypervisor) async fn serve(listener: &UnixListener, end: &str, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(end.as_bytes()) {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    }

    /// An answer with this body.
    pub(in crate::hypervisor) fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn api(dir: &tempfile::TempDir) -> HttpApi {
        let reason = |answer: &[u8]| String::from_utf8_lossy(answer).to_uppercase();
        HttpApi { dir: dir.path().to_owned(), socket: SOCKET, root: "/v1/", vmm: "the VMM", reason }
    }

    fn call(method: &str, body: Option<serde_json::Value>) -> ApiCall {
        ApiCall { method: method.into(), path: "/v1/disks/a".into(), body }
    }

    #[tokio::test]
    async fn calls_are_made_and_answers_read() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let api = api(&dir);
        let put = call("PUT", Some(serde_json::json!({ "size": 1 })));
        let (made, request) = tokio::join!(api.call(&put), serve(&listener, "}", "HTTP/1.1 204 No Content\r\n\r\n"));
        assert!(made.unwrap().is_empty());
        assert!(request.starts_with("PUT /v1/disks/a HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"size\":1}"), "{request}");
        let get = call("GET", None);
        let empty = answer("200 OK", "{}");
        let (made, _) = tokio::join!(api.call(&get), serve(&listener, "\r\n\r\n", &empty));
        assert_eq!(made.unwrap(), "{}");
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let (api, get) = (api(&dir), call("GET", None));
        let no = answer("400 Bad Request", "no");
        let (refused, _) = tokio::join!(api.call(&get), serve(&listener, "\r\n\r\n", &no));
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), Kind::Host);
        assert_eq!(refused.to_string(), "the VMM refused `disks/a` (400 Bad Request): NO");
    }

    #[tokio::test]
    async fn silence_is_a_lost_connection() {
        let dir = tempfile::tempdir().unwrap();
        let (api, get) = (api(&dir), call("GET", None));
        assert_eq!(api.call(&get).await.unwrap_err().kind(), Kind::Connection);
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        for half in ["", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
            let (silence, _) = tokio::join!(api.call(&get), serve(&listener, "\r\n\r\n", half));
            let silence = silence.unwrap_err();
            assert_eq!(silence.kind(), Kind::Connection, "{silence}");
            assert!(silence.to_string().starts_with("the VMM does not answer `disks/a`"), "{silence}");
        }
    }
}
