//! One repository of a registry, by the protocol that all of them have.

use std::sync::{Mutex, PoisonError};

use oci_spec::{
    distribution::Reference,
    image::{Descriptor, Digest, MediaType},
};
use sha2::{Digest as _, Sha256};
use ureq::{
    Agent, Body, ResponseExt,
    config::RedirectAuthHeaders,
    http::{Response, StatusCode, Uri, header},
};

use super::{
    super::store::{DOCUMENT, named},
    login::{Authorization, Login},
    reference::{is_local, is_private},
};
use crate::{
    Result,
    fetch::{Failed, Patience, Remote, Stop, agent, patiently, range},
};

/// What an image can be described by, the kinds of Docker among them.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";
/// What they begin with that describe images as they were before 2016.
const FIRST_KIND: &str = "application/vnd.docker.distribution.manifest.v1";
/// By which a registry says what it sends.
const DIGEST: &str = "docker-content-digest";
/// As much as is shown of what a registry says for people.
const SAID: usize = 200;

pub(super) struct Client {
    /// The image as it was asked for.
    image: String,
    pub(super) reference: Reference,
    /// `https://registry.example/v2/repository`
    base: String,
    agent: Agent,
    login: Login,
    patience: Patience,
    authorization: Mutex<Option<Authorization>>,
}

/// What a registry sent for the name of an image.
pub(super) struct Manifest {
    pub(super) descriptor: Descriptor,
    pub(super) text: Vec<u8>,
}

impl Client {
    pub(super) fn new(image: &str, reference: Reference, login: Login, patience: Patience) -> Self {
        let local = is_local(reference.registry());
        let scheme = if local { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/{}", reference.resolve_registry(), reference.repository());
        // Another port of the same host is somebody else, which `SameHost` does not see.
        let mut config = agent(patience.silence).https_only(!local).redirect_auth_headers(RedirectAuthHeaders::Never);
        if local {
            // What is on this machine is asked without one.
            config = config.proxy(None);
        }
        let (image, agent) = (image.to_owned(), config.build().into());
        Self { image, reference, base, agent, login, patience, authorization: Mutex::new(None) }
    }

    /// The manifest or index of this tag or digest.
    pub(super) fn manifest(&self, name: &str) -> Result<Manifest> {
        let url = format!("{}/manifests/{name}", self.base);
        let one = || self.read_manifest(&url, name);
        patiently(&url, self.patience.first_pause, &Stop::default(), one, || false).map_err(|why| why.of(&url))
    }

    fn read_manifest(&self, url: &str, name: &str) -> std::result::Result<Manifest, Failed> {
        let mut response = self.get(url, Some(MANIFESTS), 0)?;
        let registry = self.reference.registry();
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                let sign = if name.contains(':') { '@' } else { ':' };
                let said = said(&mut response);
                return Err(Failed::ForGood(format!(
                    "{registry} has no `{}{sign}{name}`{said}",
                    self.reference.repository()
                )));
            }
            _ => return Err(with_said(&mut response)),
        }
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let kind = header("content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        if kind.starts_with(FIRST_KIND) {
            return Err(Failed::ForGood(
                "it is an image in the first format of Docker: push it again with a newer one".to_owned(),
            ));
        }
        let digest = header(DIGEST);
        let limited = response.body_mut().with_config().limit(DOCUMENT);
        let text = limited.read_to_vec().map_err(|e| Failed::now(format!("the answer ended early: {e}")))?;
        let is = named(Sha256::new_with_prefix(&text));
        let asked = name.contains(':').then(|| name.to_owned());
        if let Some(other) = asked.or(digest).filter(|expected| *expected != is) {
            return Err(Failed::ForGood(format!("it sends {is}, and {other} was expected")));
        }
        let digest = is.parse::<Digest>().map_err(|e| Failed::ForGood(e.to_string()))?;
        let descriptor = Descriptor::new(MediaType::from(kind.as_str()), text.len() as u64, digest);
        Ok(Manifest { descriptor, text })
    }

    /// The address of a blob.
    pub(super) fn blob(&self, sha256: &str) -> Blob<'_> {
        Blob { client: self, url: format!("{}/blobs/sha256:{sha256}", self.base) }
    }

    /// Asks for it, and once more with what the registry wants to know if it says so.
    fn get(&self, url: &str, accept: Option<&str>, have: u64) -> std::result::Result<Response<Body>, Failed> {
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        let mut challenged = false;
        loop {
            let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut request = self.agent.get(url);
            if let Some(accept) = accept {
                request = request.header(header::ACCEPT, accept);
            }
            if have > 0 {
                request = request.header(header::RANGE, range(have));
            }
            if let Some(authorization) = &authorization {
                request = request.header(header::AUTHORIZATION, authorization.value());
            }
            let response = request.call()?;
            self.check_place(response.get_uri())?;
            // Where a registry sends one for blobs, nobody is asked for a login.
            let own = response.get_uri().authority() == url.parse::<Uri>().ok().as_ref().and_then(Uri::authority);
            match response.status() {
                _ if !own => return Ok(response),
                StatusCode::UNAUTHORIZED if !challenged => {
                    let answer = self.login.answer(&self.agent, registry, repository, &response)?;
                    *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
                    challenged = true;
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    let known = self.login.knows(registry);
                    return Err(Failed::ForGood(self.login.refusal(registry, repository, known)));
                }
                _ => return Ok(response),
            }
        }
    }

    /// A registry on this machine may send one elsewhere, but not without encryption.
    fn check_place(&self, uri: &Uri) -> std::result::Result<(), Failed> {
        let why = || {
            let host = uri.host().unwrap_or_default();
            Failed::ForGood(format!("{} sends one to {host} without encryption", self.reference.registry()))
        };
        is_private(uri).then_some(()).ok_or_else(why)
    }

    pub(super) fn image(&self) -> &str {
        &self.image
    }

    pub(super) fn patience(&self) -> Patience {
        self.patience
    }
}

/// A blob of a repository.
pub(super) struct Blob<'a> {
    client: &'a Client,
    pub(super) url: String,
}

impl Remote for Blob<'_> {
    fn ask(&self, have: u64) -> std::result::Result<Response<Body>, Failed> {
        self.client.get(&self.url, None, have)
    }
}

/// That an answer is none of success, with what the registry says of it.
fn with_said(response: &mut Response<Body>) -> Failed {
    Failed::status(response).in_words(|why| format!("{why}{}", said(response)))
}

/// What a registry says for people, in brackets; nothing where it says nothing.
fn said(response: &mut Response<Body>) -> String {
    let text = response.body_mut().with_config().limit(DOCUMENT).read_to_vec().unwrap_or_default();
    let answer: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
    let field = |name: &str| answer.as_ref()?.get("errors")?.get(0)?.get(name)?.as_str().map(str::to_owned);
    let words: Vec<_> = ["code", "message"].into_iter().filter_map(field).collect();
    let text: String = words.join(": ").chars().filter(|c| !c.is_control()).take(SAID).collect();
    if text.is_empty() { text } else { format!(" ({text})") }
}
