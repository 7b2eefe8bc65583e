//! A real registry on loopback: the one of the distribution.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use ureq::{Agent, http::header};

use crate::Layout;

use crate::find_on_path;

/// The package of the distribution and its program.
const PROGRAM: &str = "docker-registry";
/// What it says with its address when it can be asked.
const LISTENING: &str = "listening on ";
/// A line for it that lets [`USER`] in with [`PASSWORD`], by bcrypt with few rounds.
const HTPASSWD: &str = "me:$2b$04$ZIbPZ.bTx0GPswLbDI.UTuNJDyhN8HnLHENi6QZr6Bu2ZdCI7H826\n";

/// A registry that ends with this value. Its images are in a directory of its own.
#[derive(Debug)]
pub struct Registry {
    server: Child,
    /// `127.0.0.1:4711`
    host: String,
    locked: bool,
    _dir: TempDir,
}

impl Registry {
    /// Who may read and write where a password is wanted.
    pub const USER: &str = "me";
    /// With what.
    pub const PASSWORD: &str = "open-sesame";

    /// Starts one that lets everybody in, or only [`USER`](Self::USER); `None` where the program is not installed, which it says.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(locked: bool) -> Option<Self> {
        if find_on_path(PROGRAM).is_none() {
            eprintln!("not run: {PROGRAM} is not installed");
            return None;
        }
        let dir = TempDir::new().expect("a directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::write(path("htpasswd"), HTPASSWD).expect("it can be written");
        let auth = format!("auth: {{ htpasswd: {{ realm: here, path: {} }} }}\n", path("htpasswd"));
        let config = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: 127.0.0.1:0 }}\n{}",
            path("data"),
            if locked { &auth } else { "" }
        );
        fs::write(path("config.yml"), config).expect("it can be written");
        // So that it ends with the test, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", PROGRAM, "serve", &path("config.yml")]).stderr(Stdio::piped());
        let mut server = command.spawn().expect("it starts");
        let mut said = BufReader::new(server.stderr.take().expect("it was asked for")).lines();
        let address = |line: String| Some(line.split_once(LISTENING)?.1.split('"').next()?.to_owned());
        let host = said.by_ref().map_while(Result::ok).find_map(address).expect("it says where it listens");
        // It ends when it can say nothing more.
        std::thread::spawn(move || said.for_each(drop));
        Some(Self { server, host, locked, _dir: dir })
    }

    /// `127.0.0.1:4711`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What a test calls the image of this name, such as `web:1`.
    pub fn image(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.host)
    }

    /// Puts this image there.
    ///
    /// # Panics
    /// When it does not take it.
    pub fn push(&self, layout: &Layout, repository: &str, tag: &str) {
        let agent: Agent = Agent::config_builder().proxy(None).build().into();
        let authorization = if self.locked { "Basic bWU6b3Blbi1zZXNhbWU=" } else { "" };
        let base = format!("http://{}/v2/{repository}", self.host);
        for entry in fs::read_dir(layout.blobs()).expect("it is there") {
            let entry = entry.expect("it can be read");
            let begun =
                agent.post(format!("{base}/blobs/uploads/")).header(header::AUTHORIZATION, authorization).send_empty();
            let begun = begun.expect("it takes a blob");
            let place =
                begun.headers().get(header::LOCATION).and_then(|place| place.to_str().ok()).expect("it says where");
            let digest = entry.file_name().into_string().expect("it is plain");
            let put = agent.put(format!("{place}&digest=sha256:{digest}")).header(header::AUTHORIZATION, authorization);
            put.send(&fs::read(entry.path()).expect("it can be read")[..]).expect("it takes the blob");
        }
        let put = agent.put(format!("{base}/manifests/{tag}")).header(header::AUTHORIZATION, authorization);
        let put = put.header(header::CONTENT_TYPE, "application/vnd.oci.image.manifest.v1+json");
        put.send(&layout.manifest()[..]).expect("it takes the manifest");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.server.kill();
        _ = self.server.wait();
    }
}
