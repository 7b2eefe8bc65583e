//! Whom a registry is told that asks: what `docker login` has kept, and the tokens that it gives for that.

use std::{
    env,
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use http_auth::{ChallengeRef, basic::encode_credentials, parse_challenges};
use serde::Deserialize;
use ureq::{
    Agent, Body,
    http::{Response, StatusCode, Uri, header},
};

use super::reference::is_private;
use crate::fetch::Failed;

/// The registry of Docker, and by what it is called where credentials are kept.
const USUAL: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");
/// What a helper says that has none.
const NONE_FOUND: &str = "credentials not found";
/// Who asks, of whom a registry of tokens wants to know that.
const CLIENT: &str = "vmtest";
/// Bytes in an answer with a token; a larger one is none.
const ANSWER: u64 = 1 << 20;

/// Where credentials are. What they are stays in here: nothing of it is in any error, and neither type can be printed.
pub(super) struct Login {
    /// The file that `docker login` writes, if there is a place for one.
    config: Option<PathBuf>,
}

/// The value of the header by which a registry knows who asks.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authorization(String);

impl Authorization {
    pub(super) fn value(&self) -> &str {
        &self.0
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Login {
    /// By the file in `$DOCKER_CONFIG`, else in `~/.docker`.
    pub(super) fn usual() -> Self {
        let var = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dir = var("DOCKER_CONFIG").or_else(|| var("HOME").map(|home| home.join(".docker")));
        Self { config: dir.map(|dir| dir.join("config.json")) }
    }

    #[cfg(test)]
    pub(super) fn by(config: PathBuf) -> Self {
        Self { config: Some(config) }
    }

    /// The answer to the challenge of this registry, which may be to ask somebody else for a token that lets one read there.
    pub(super) fn answer(
        &self,
        agent: &Agent,
        registry: &str,
        repository: &str,
        challenged: &Response<Body>,
    ) -> Result<Authorization, Failed> {
        let unclear = || Failed::ForGood(format!("{registry} wants a login of a kind that is not known here"));
        let headers = challenged.headers().get_all(header::WWW_AUTHENTICATE);
        let texts: Vec<_> = headers.iter().filter_map(|value| value.to_str().ok()).collect();
        let all: Vec<ChallengeRef<'_>> = texts.iter().flat_map(|text| parse_challenges(text)).flatten().collect();
        let of = |scheme: &str| all.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
        let credentials = self.credentials(registry).map_err(Failed::ForGood)?;
        if let Some(challenge) = of("bearer") {
            return self.token(agent, registry, repository, challenge, credentials);
        }
        match (of("basic"), credentials) {
            (Some(_), Some(DockerCredential::UsernamePassword(user, password))) => {
                Ok(Authorization(encode_credentials(&user, &password)))
            }
            (Some(_), _) => Err(Failed::ForGood(self.refusal(registry, repository, false))),
            (None, _) => Err(unclear()),
        }
    }

    fn token(
        &self,
        agent: &Agent,
        registry: &str,
        repository: &str,
        challenge: &ChallengeRef<'_>,
        credentials: Option<DockerCredential>,
    ) -> Result<Authorization, Failed> {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").unwrap_or_default();
        // Whoever is asked gets the credentials.
        let uri: Option<Uri> = realm.parse().ok();
        if !uri.as_ref().is_some_and(is_private) {
            return Err(Failed::ForGood(format!(
                "{registry} sends one to `{realm}` for a token, and only `https` keeps that secret"
            )));
        }
        let scope = parameter("scope").unwrap_or_else(|| format!("repository:{repository}:pull"));
        let service = parameter("service");
        let known = credentials.is_some();
        let mut response = if let Some(DockerCredential::IdentityToken(token)) = &credentials {
            let mut form = vec![
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT),
                ("scope", &scope),
                ("refresh_token", token),
            ];
            form.extend(service.as_deref().map(|service| ("service", service)));
            agent.post(&realm).send_form(form)?
        } else {
            let mut request = agent.get(&realm).query("scope", &scope);
            if let Some(service) = &service {
                request = request.query("service", service);
            }
            if let Some(DockerCredential::UsernamePassword(user, password)) = &credentials {
                request = request.header(header::AUTHORIZATION, encode_credentials(user, password));
            }
            request.call()?
        };
        match response.status() {
            StatusCode::OK => {}
            // What is wrong with a refresh token is told by the second of these.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                return Err(Failed::ForGood(self.refusal(registry, repository, known)));
            }
            _ => {
                let at = uri.as_ref().and_then(Uri::host).unwrap_or_default().to_owned();
                return Err(Failed::status(&response).in_words(|why| format!("asked for a token at {at}, {why}")));
            }
        }
        let text = response.body_mut().with_config().limit(ANSWER).read_to_vec().unwrap_or_default();
        let token = serde_json::from_slice::<Token>(&text).ok().and_then(|answer| answer.token.or(answer.access_token));
        let none = || Failed::ForGood(format!("there is no token in what {realm} answers"));
        Ok(Authorization(format!("Bearer {}", token.ok_or_else(none)?)))
    }

    /// Why this registry shows nothing, for one who has told it who asks or not.
    pub(super) fn refusal(&self, registry: &str, repository: &str, known: bool) -> String {
        let place = self.place();
        if known {
            format!(
                "{registry} does not show `{repository}` to the login in {place}: there may be no such image, or it may not be \
                 for this login; `docker login {registry}` makes another"
            )
        } else {
            format!(
                "{registry} shows `{repository}` to nobody without a login, or has no such image; {place} has no login for it, \
                 and `docker login {registry}` or `skopeo login` makes one"
            )
        }
    }

    /// Whether there are credentials for this registry.
    pub(super) fn knows(&self, registry: &str) -> bool {
        matches!(self.credentials(registry), Ok(Some(_)))
    }

    fn place(&self) -> String {
        self.config.as_deref().unwrap_or(Path::new("~/.docker/config.json")).display().to_string()
    }

    /// What is kept for this registry; may run a program that keeps it. An error says nothing of what is in there.
    fn credentials(&self, registry: &str) -> Result<Option<DockerCredential>, String> {
        use CredentialRetrievalError::{
            ConfigReadError, HelperCommunicationError, HelperFailure, MalformedHelperResponse, NoCredentialConfigured,
        };
        let Some(config) = &self.config else { return Ok(None) };
        let file = match File::open(config) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("cannot read the logins in {}: {e}", config.display())),
        };
        let server = if registry == USUAL.0 { USUAL.1 } else { registry };
        let place = config.display();
        match get_credential_from_reader(BufReader::new(file), server) {
            Ok(credential) => Ok(Some(credential)),
            Err(NoCredentialConfigured) => Ok(None),
            Err(HelperFailure { stdout, stderr, .. })
                if [&stdout, &stderr].iter().any(|said| said.contains(NONE_FOUND)) =>
            {
                Ok(None)
            }
            Err(HelperFailure { helper, .. }) => {
                Err(format!("`{helper}` gives no login: `echo {server} | {helper} get` says why"))
            }
            Err(HelperCommunicationError | MalformedHelperResponse) => Err(format!(
                "the program that keeps the logins, which {place} names, cannot be run or says something else: see that \
                 `docker-credential-…` is in PATH"
            )),
            Err(ConfigReadError) => Err(format!("{place} is not as `docker login` writes it")),
            Err(_) => Err(format!("the login for {server} in {place} is not as `docker login` writes it")),
        }
    }
}
