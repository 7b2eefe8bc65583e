use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{
    super::tests::{ARCHITECTURE, FILE, Layout, TAR, gzip, layer},
    standin::{Reply, Seen, StandIn},
    *,
};

/// What no error and no file may show.
const SECRET: &str = "open-sesame";
const TOKEN: &str = "token-of-a-registry";

/// Three layers, of which two are one, and the digests of those that differ.
fn image() -> (Layout, [String; 2]) {
    let (one, two) = (gzip(&layer(&[("one", FILE, "1", 0o644)])), layer(&[("two", FILE, "2", 0o644)]));
    let digests = [digest(&one), digest(&two)];
    (Layout::new(&[(&one, "x+gzip"), (&two, TAR), (&one, "x+gzip")]), digests)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Pulling {
    dir: TempDir,
    layout: PathBuf,
    server: StandIn,
}

impl Pulling {
    fn from(layout: &Layout, rule: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let (dir, layout) = (TempDir::new().unwrap(), layout.path().to_owned());
        Self { dir, server: StandIn::start(layout.clone(), rule), layout }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.json")
    }

    /// The login of `me` as `docker login` writes it.
    fn log_in(&self) {
        let host = format!("127.0.0.1:{}", self.server.port);
        let auth = encoded(&format!("me:{SECRET}"));
        fs::write(self.config(), json!({ "auths": { host: { "auth": auth } } }).to_string()).unwrap();
    }

    fn cache(&self) -> Cache {
        Cache::open(self.dir.path().join("cache")).unwrap()
    }

    fn named(&self, image: &str) -> Result<Request> {
        // A server on loopback answers within a millisecond, also on a busy host within seconds.
        let patience = Patience { silence: Duration::from_secs(10), first_pause: Duration::from_millis(1) };
        let request =
            Pull::by(&self.cache(), image, Login::by(self.config()), patience)?.resolve(&self.cache(), &())?;
        let Source::Registry(pull) = &request.source else { panic!("it is of a registry") };
        pull.layers(&self.cache(), &request.found.layers, &())?;
        Ok(request)
    }

    fn run(&self) -> Result<Request> {
        self.named(&self.server.image())
    }

    /// What it says when it fails, which is no secret; nothing of what is wrong stays.
    fn complaint(&self) -> String {
        let said = self.run().map(drop).unwrap_err();
        let said = format!("{said} {said:?}");
        for secret in [SECRET, TOKEN, &encoded(&format!("me:{SECRET}"))] {
            assert!(!said.contains(secret), "{said}");
        }
        said
    }

    /// The digests of the blobs in the cache, each of which is right. What is not complete is the beginning of one that is, and
    /// was stopped because another failed.
    fn blobs(&self) -> Vec<String> {
        let dir = self.dir.path().join("cache/registries");
        let names = |path: &Path| {
            let entries = fs::read_dir(path).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        for name in names(&dir.join("incoming")).iter().filter(|name| !name.ends_with(".lock")) {
            let whole = fs::read(self.layout.join("blobs/sha256").join(name.trim_end_matches(".part"))).unwrap();
            assert!(whole.starts_with(&fs::read(dir.join("incoming").join(name)).unwrap()), "{name}");
        }
        let blobs = names(&dir.join("blobs/sha256"));
        for blob in &blobs {
            assert_eq!(digest(&fs::read(dir.join("blobs/sha256").join(blob)).unwrap()), *blob);
        }
        blobs
    }
}

fn encoded(text: &str) -> String {
    http_auth::basic::encode_credentials(text.split(':').next().unwrap(), text.split_once(':').unwrap().1)
        .replace("Basic ", "")
}

/// What a registry of tokens says to who has none.
fn wants_token(port: &str) -> Reply {
    let challenge =
        format!("Bearer realm=\"http://{port}/token?a=b\",service=\"the registry\",scope=\"repository:web:pull\"");
    Reply::status(401).header("WWW-Authenticate", challenge)
}

#[test]
fn an_image_comes_once() {
    let (layout, digests) = image();
    let pulling = Pulling::from(&layout, |_| None);
    let request = pulling.run().unwrap();
    let root = TempDir::new().unwrap();
    request.unpack(root.path(), 0, &()).unwrap();
    assert_eq!([fs::read(root.path().join("one")).unwrap(), fs::read(root.path().join("two")).unwrap()], [b"1", b"2"]);
    let asked = pulling.server.asked();
    assert_eq!(asked.len(), 4, "the manifest, the configuration, two layers: {asked:?}");
    assert_eq!(pulling.blobs().len(), 4);
    assert!(digests.iter().all(|layer| pulling.blobs().contains(layer)));

    assert_eq!(pulling.run().unwrap().key(), request.key());
    assert_eq!(pulling.server.asked()[4..], ["manifests/1"], "what a tag stands for is asked again");
    let pinned = format!("docker://127.0.0.1:{}/web@{}", pulling.server.port, request.found.digest);
    let before = pulling.server.asked().len();
    assert_eq!(pulling.named(&pinned).unwrap().key(), request.key());
    assert!(pulling.server.asked().len() <= before + 1, "a digest always stands for the same");
}

#[test]
fn a_layer_that_was_cut_off_goes_on_where_it_ended() {
    let content = gzip(&layer(&[("large", FILE, &"0123456789".repeat(9000), 0o644)]));
    let layout = Layout::new(&[(&content, TAR)]);
    let cut = content.len() / 2;
    let path = format!("/v2/web/blobs/sha256:{}", digest(&content));
    let tried = AtomicU32::new(0);
    let pulling = Pulling::from(&layout, {
        let (path, content) = (path.clone(), content.clone());
        move |seen| {
            let first = seen.path == path && tried.fetch_add(1, Ordering::Relaxed) == 0;
            first.then(|| Reply { status: 200, body: content.clone(), cut: Some(cut), ..Reply::default() })
        }
    });
    pulling.run().unwrap();
    let of_layer: Vec<_> = pulling.server.seen().into_iter().filter(|seen| seen.path == path).collect();
    assert_eq!(of_layer.len(), 2);
    assert_eq!(of_layer[1].headers["range"], format!("bytes={cut}-"));
    assert_eq!(pulling.blobs().len(), 3);
}

#[test]
fn of_what_is_wrong_nothing_stays() {
    let (layout, [first, second]) = image();
    let wrong = |part: &'static str, reply: Reply| {
        let pulling = Pulling::from(&layout, move |seen| seen.path.contains(part).then(|| reply.clone()));
        (pulling.complaint(), pulling.blobs())
    };
    let whole = |body: &[u8]| Reply { status: 200, body: body.to_vec(), ..Reply::default() };
    // As long as it should be, shorter, longer.
    let second: &'static str = String::leak(second);
    let length = fs::metadata(layout.path().join("blobs/sha256").join(second)).unwrap().len() as usize;
    let (said, blobs) = wrong(second, whole(&vec![b'x'; length]));
    assert!(said.contains(&format!("and {second} was expected; nothing of it was kept")), "{said}");
    assert!(!blobs.contains(&second.to_owned()) && !blobs.is_empty());
    let (said, blobs) = wrong(second, whole(&vec![b'x'; length / 2]));
    assert!(said.contains("nothing of it was kept") && !blobs.contains(&second.to_owned()), "{said}");
    let pulling = Pulling::from(&layout, {
        let second = second.to_owned();
        move |seen| {
            seen.path.contains(&second).then(|| Reply { status: 200, body: vec![b'x'; length + 1], ..Reply::default() })
        }
    });
    let said = pulling.complaint();
    assert!(said.contains(&format!("the server sends more than its {length} bytes")), "{said}");

    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = whole(b"{}").header("Content-Type", kind);
    let (said, blobs) =
        wrong("manifests/1", manifest.clone().header("Docker-Content-Digest", format!("sha256:{first}")));
    assert!(said.contains(&format!("and sha256:{first} was expected")), "{said}");
    assert_eq!(blobs, Vec::<String>::new());
    let (said, _) = wrong("manifests/1", manifest);
    assert!(said.contains("is not what it should be: missing field"), "{said}");
    let (said, _) = wrong(
        "manifests/1",
        whole(b"{}").header("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    );
    assert!(said.contains("in the first format of Docker"), "{said}");
}

#[test]
fn a_damaged_layer_of_the_cache_comes_again() {
    let (layout, [first, _]) = image();
    let pulling = Pulling::from(&layout, |_| None);
    pulling.run().unwrap();
    let blob = pulling.dir.path().join("cache/registries/blobs/sha256").join(&first);
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, "damaged").unwrap();
    let root = TempDir::new().unwrap();
    let said = pulling.run().unwrap().unpack(root.path(), 0, &()).unwrap_err().to_string();
    assert!(said.contains(&format!("sha256:{first} is cut off")), "{said}");
    let root = TempDir::new().unwrap();
    pulling.run().unwrap().unpack(root.path(), 0, &()).unwrap();
    assert_eq!(pulling.blobs().len(), 4);
}

#[test]
fn what_is_not_there_is_named() {
    let (layout, _) = image();
    let pulling = Pulling::from(&layout, |_| None);
    let port = pulling.server.port;
    let error =
        |name: &str| pulling.named(&format!("docker://127.0.0.1:{port}/{name}")).map(drop).unwrap_err().to_string();
    let said = error("web:2");
    let expected = format!("after 1 try: 127.0.0.1:{port} has no `web:2` (MANIFEST_UNKNOWN: it isunknown)");
    assert!(said.ends_with(&expected), "{said}");
    let digest = "a".repeat(64);
    assert!(error(&format!("web@sha256:{digest}")).contains(&format!("has no `web@sha256:{digest}` (MANI")));
    assert!(error("other:1").contains("has no `other:1` (NAME_UNKNOWN"));
    assert!(error("web:").contains("write it as `docker://registry.example:5000/repository:tag`"));
    drop(pulling);
    let nobody =
        Pulling::from(&layout, |_| None).named("docker://127.0.0.1:1/web:1").map(drop).unwrap_err().to_string();
    assert!(nobody.contains("cannot fetch http://127.0.0.1:1/v2/web/manifests/1, after 5 tries: "), "{nobody}");
}

#[test]
fn a_registry_that_wants_a_password_gets_it() {
    let (layout, _) = image();
    let expected = format!("Basic {}", encoded(&format!("me:{SECRET}")));
    let pulling = Pulling::from(&layout, move |seen| {
        let known = seen.authorization() == Some(&expected);
        (!known).then(|| Reply::status(401).header("WWW-Authenticate", "Basic realm=\"here\""))
    });
    let said = pulling.complaint();
    assert!(
        said.contains("shows `web` to nobody without a login") && said.contains("docker login 127.0.0.1:"),
        "{said}"
    );
    pulling.log_in();
    pulling.run().unwrap();
    assert_eq!(pulling.blobs().len(), 4);

    let refuses =
        Pulling::from(&layout, |_| Some(Reply::status(401).header("WWW-Authenticate", "Basic realm=\"here\"")));
    refuses.log_in();
    assert!(refuses.complaint().contains("does not show `web` to the login in "));
    fs::write(refuses.config(), format!("{{ {SECRET}")).unwrap();
    assert!(refuses.complaint().contains("is not as `docker login` writes it"));
    let other = Pulling::from(&layout, |_| Some(Reply::status(401).header("WWW-Authenticate", "Negotiate")));
    assert!(other.complaint().contains("wants a login of a kind that is not known here"));
}

#[test]
fn a_token_is_asked_for_and_again_when_it_has_run_out() {
    let (layout, _) = image();
    let (given, used) = (AtomicU32::new(0), AtomicU32::new(0));
    let pulling = Pulling::from(&layout, move |seen| {
        if seen.path.starts_with("/token") {
            let number = given.fetch_add(1, Ordering::Relaxed);
            return Some(Reply::json(&json!({ "token": format!("{TOKEN}-{number}") })));
        }
        let first = format!("Bearer {TOKEN}-0");
        let known = match seen.authorization() {
            // It lasts for the manifest and the configuration.
            Some(token) if token == first => used.fetch_add(1, Ordering::Relaxed) < 2,
            Some(token) => token.starts_with("Bearer "),
            None => false,
        };
        (!known).then(|| wants_token(&seen.headers["host"]))
    });
    pulling.run().unwrap();
    assert_eq!(pulling.blobs().len(), 4);
    let tokens: Vec<_> = pulling.server.seen().into_iter().filter(|seen| seen.path.starts_with("/token")).collect();
    assert!(tokens.len() > 1, "{tokens:?}");
    for token in tokens {
        assert_eq!(token.path, "/token?a=b&scope=repository%3Aweb%3Apull&service=the%20registry");
        assert_eq!(token.authorization(), None);
    }
}

#[test]
fn a_token_is_given_for_a_login() {
    let (layout, _) = image();
    let basic = format!("Basic {}", encoded(&format!("me:{SECRET}")));
    let by_token = move |seen: &Seen| {
        let refreshed = seen.body.contains("grant_type=refresh_token") && seen.body.contains(SECRET);
        if seen.path.starts_with("/token") {
            let known = seen.authorization() == Some(&basic) || refreshed;
            return Some(if known { Reply::json(&json!({ "access_token": TOKEN })) } else { Reply::status(401) });
        }
        let known = seen.authorization() == Some(&format!("Bearer {TOKEN}"));
        (!known).then(|| wants_token(&seen.headers["host"]))
    };
    let pulling = Pulling::from(&layout, by_token);
    assert!(pulling.complaint().contains("shows `web` to nobody without a login"));
    pulling.log_in();
    pulling.run().unwrap();
    // What a login by a browser keeps.
    let host = format!("127.0.0.1:{}", pulling.server.port);
    fs::write(pulling.config(), json!({ "auths": { host: { "identitytoken": SECRET } } }).to_string()).unwrap();
    fs::remove_dir_all(pulling.dir.path().join("cache")).unwrap();
    pulling.run().unwrap();
    let seen = pulling.server.seen();
    let asked = seen.iter().rfind(|seen| seen.path.starts_with("/token")).unwrap();
    assert_eq!((asked.method.as_str(), asked.authorization()), ("POST", None));
    assert!(asked.body.contains("service=the") && asked.body.contains("scope=repository"), "{}", asked.body);
}

#[test]
fn credentials_go_nowhere_else() {
    let (layout, _) = image();
    let elsewhere = StandIn::start(layout.path().to_owned(), |_| None);
    let port = elsewhere.port;
    let basic = format!("Basic {}", encoded(&format!("me:{SECRET}")));
    let pulling = Pulling::from(&layout, move |seen| {
        if seen.authorization() != Some(&basic) {
            return Some(Reply::status(401).header("WWW-Authenticate", "Basic realm=\"here\""));
        }
        let to = format!("http://127.0.0.1:{port}{}", seen.path);
        seen.path.contains("/blobs/").then(|| Reply::status(307).header("Location", to))
    });
    pulling.log_in();
    pulling.run().unwrap();
    assert_eq!(pulling.blobs().len(), 4);
    let seen = elsewhere.seen();
    assert!(seen.len() == 3 && seen.iter().all(|seen| seen.authorization().is_none()), "{seen:?}");

    // Nor are they asked for by who is not the registry, or in the open.
    let greedy = StandIn::start(layout.path().to_owned(), |_| {
        Some(Reply::status(401).header("WWW-Authenticate", "Basic realm=\"mine\""))
    });
    let port = greedy.port;
    let pulling = Pulling::from(&layout, move |seen| {
        let to = format!("http://127.0.0.1:{port}{}", seen.path);
        seen.path.contains("/blobs/").then(|| Reply::status(307).header("Location", to))
    });
    pulling.log_in();
    assert!(pulling.complaint().contains("the server answers 401"));
    assert!(greedy.seen().iter().all(|seen| seen.authorization().is_none()));
    let open = Pulling::from(&layout, |_| {
        Some(Reply::status(401).header("WWW-Authenticate", "Bearer realm=\"http://auth.example/token\""))
    });
    open.log_in();
    assert!(open.complaint().contains("sends one to `http://auth.example/token` for a token, and only `https`"));
}

#[test]
fn a_registry_may_ask_for_a_pause() {
    let (layout, _) = image();
    let limits = |after: &'static str, times: u32| {
        let asked = AtomicU32::new(0);
        move |seen: &Seen| {
            let limited = seen.path.contains("/blobs/") && asked.fetch_add(1, Ordering::Relaxed) < times;
            let error = json!({ "errors": [{ "code": "TOOMANYREQUESTS", "message": "too many" }] });
            limited.then(|| Reply { status: 429, ..Reply::json(&error) }.header("Retry-After", after))
        }
    };
    let began = Instant::now();
    let pulling = Pulling::from(&layout, limits("1", 1));
    pulling.run().unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(pulling.blobs().len(), 4);
    let pulling = Pulling::from(&layout, limits("3600", 1));
    let said = pulling.complaint();
    assert!(said.contains("429 Too Many Requests, and asks for a pause of 3600 s: try again then"), "{said}");
}

#[test]
fn an_image_for_another_machine_says_for_which_it_is() {
    let (layout, _) = image();
    let manifest = layout.manifest();
    let of = |os: &str, architecture: &str, variant: Option<&str>| {
        let mut one = manifest.clone();
        one["platform"] = json!({ "os": os, "architecture": architecture });
        if let Some(variant) = variant {
            one["platform"]["variant"] = variant.into();
        }
        one
    };
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = |manifests: &[serde_json::Value]| {
        let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": manifests });
        let top = layout.add(index.to_string().as_bytes(), kind);
        layout.index(&[top]);
        Pulling::from(&layout, |_| None)
    };
    let foreign = [of("linux", "arm", Some("v7")), of("windows", "amd64", None), of("unknown", "unknown", None)];
    let said = index(&foreign).complaint();
    let expected = format!("none of its images is for linux/{ARCHITECTURE}; there are: linux/arm/v7, windows/amd64");
    assert!(said.contains(&expected), "{said}");

    let mine = if ARCHITECTURE == "arm64" { Some("v8") } else { None };
    let all = [&foreign[..], &[of("linux", ARCHITECTURE, Some("v9")), of("linux", ARCHITECTURE, mine)]].concat();
    let pulling = index(&all);
    assert_eq!(pulling.run().unwrap().found.digest, manifest["digest"].as_str().unwrap());
    assert_eq!(pulling.blobs().len(), 5, "the index too");
}
