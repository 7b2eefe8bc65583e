//! A registry on loopback that does what a test tells it to.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    /// By their names in small letters.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization").map(String::as_str)
    }
}

/// What is sent for one.
#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// After so many bytes of the body the connection ends.
    pub(super) cut: Option<usize>,
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(super) fn json(value: &Value) -> Self {
        Self { status: 200, body: value.to_string().into_bytes(), ..Self::default() }
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// What a test has it do in place of what it would: `None` leaves it to that.
type Rule = dyn Fn(&Seen) -> Option<Reply> + Send + Sync;

pub(super) struct StandIn {
    pub(super) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl StandIn {
    /// Serves the image of this layout as `web:1`.
    pub(super) fn start(layout: PathBuf, rule: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, rule): (_, Arc<Rule>) = (seen.clone(), Arc::new(rule));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (layout, kept, rule) = (layout.clone(), kept.clone(), rule.clone());
                // A client that goes is none of its business.
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    while let Some(seen) = request(&mut stream) {
                        kept.lock().unwrap().push(seen.clone());
                        let reply = rule(&seen).unwrap_or_else(|| usual(&layout, &seen));
                        if answer(&mut stream, &seen, reply).is_none() {
                            break;
                        }
                    }
                });
            }
        });
        Self { port, seen }
    }

    pub(super) fn image(&self) -> String {
        format!("docker://127.0.0.1:{}/web:1", self.port)
    }

    /// All requests until now.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The paths that were asked for, without what is the same in all.
    pub(super) fn asked(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.path.replace("/v2/web/", "")).collect()
    }
}

fn request(stream: &mut TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = Vec::new();
    if let Some(length) = headers.get("content-length") {
        body.resize(length.parse().ok()?, 0);
        reader.read_exact(&mut body).ok()?;
    } else if headers.contains_key("transfer-encoding") {
        // One piece, which is what a form is.
        let mut length = String::new();
        reader.read_line(&mut length).ok()?;
        body.resize(usize::from_str_radix(length.trim(), 16).ok()?, 0);
        reader.read_exact(&mut body).ok()?;
        let mut rest = String::new();
        while rest != "0\r\n" {
            rest.clear();
            reader.read_line(&mut rest).ok()?;
        }
        reader.read_line(&mut rest).ok()?;
    }
    Some(Seen { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// What a registry does that has this image.
fn usual(layout: &std::path::Path, seen: &Seen) -> Reply {
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let blob = |digest: &str| std::fs::read(layout.join("blobs/sha256").join(digest)).ok();
    let whole = |body: Vec<u8>| Reply { status: 200, body, ..Reply::default() };
    let missing = |code: &str| {
        let error = serde_json::json!({ "errors": [{ "code": code, "message": "it is\nunknown" }] });
        Reply { status: 404, ..Reply::json(&error) }
    };
    if let Some(name) = seen.path.strip_prefix("/v2/web/manifests/") {
        let top = &index["manifests"][0];
        let digest = if name == "1" { top["digest"].as_str().unwrap() } else { name };
        let Some(text) = digest.strip_prefix("sha256:").and_then(blob) else { return missing("MANIFEST_UNKNOWN") };
        let manifest: Value = serde_json::from_slice(&text).unwrap();
        let kind = manifest["mediaType"].as_str().or(top["mediaType"].as_str()).unwrap().to_owned();
        return whole(text).header("Content-Type", kind).header("Docker-Content-Digest", digest);
    }
    let Some(digest) = seen.path.strip_prefix("/v2/web/blobs/sha256:") else { return missing("NAME_UNKNOWN") };
    let Some(content) = blob(digest) else { return missing("BLOB_UNKNOWN") };
    let from: Option<usize> =
        seen.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match from {
        Some(from) if from >= content.len() => {
            Reply::status(416).header("Content-Range", format!("bytes */{}", content.len()))
        }
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            Reply { status: 206, body: content[from..].to_vec(), ..Reply::default() }.header("Content-Range", range)
        }
        None => whole(content),
    }
}

/// `None` when the connection is over.
fn answer(stream: &mut TcpStream, seen: &Seen, reply: Reply) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} Some\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).ok()?;
    let body = if seen.method == "HEAD" { &[][..] } else { &reply.body };
    stream.write_all(&body[..reply.cut.unwrap_or(body.len()).min(body.len())]).ok()?;
    reply.cut.is_none().then_some(())
}
