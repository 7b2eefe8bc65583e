//! One request and its answer.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    time::Duration,
};

use ureq::{
    Agent, Body,
    config::ConfigBuilder,
    http::{Response, StatusCode, header},
    typestate::AgentScope,
};

use super::Stop;

/// How long a connection may take to begin: an answer from the other side of the world takes a third of a second.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How much is read and written at once.
const PIECE: usize = 64 << 10;

/// Why a try ended.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The next may succeed, after as long as the server asks for.
    ForNow(String, Option<Duration>),
    /// The next would fail too.
    ForGood(String),
    /// What came could not be written.
    Here(io::Error),
    /// Nobody wants it any more.
    Stopped,
}

impl Failed {
    pub(crate) fn now(why: impl Into<String>) -> Self {
        Self::ForNow(why.into(), None)
    }

    /// That an answer has this status, which is none of success.
    pub(crate) fn status<B>(response: &Response<B>) -> Self {
        let status = response.status();
        let why = format!("the server answers {status}");
        let passes =
            status.is_server_error() || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        let after = || response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok();
        if passes { Self::ForNow(why, after().map(Duration::from_secs)) } else { Self::ForGood(why) }
    }

    /// The same with these words for why.
    pub(crate) fn in_words(self, words: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::ForNow(why, after) => Self::ForNow(words(why), after),
            Self::ForGood(why) => Self::ForGood(words(why)),
            other => other,
        }
    }
}

impl From<ureq::Error> for Failed {
    fn from(error: ureq::Error) -> Self {
        use ureq::Error::{
            BadUri, HostNotFound, Http, RedirectFailed, RequireHttpsOnly, Rustls, Tls, TooManyRedirects,
        };
        let why = error.to_string();
        match error {
            // A host without a network, or a wrong name: to wait for seconds helps neither.
            HostNotFound | BadUri(_) | Tls(_) | Rustls(_) => Self::ForGood(why),
            TooManyRedirects | RedirectFailed | Http(_) | RequireHttpsOnly(_) => Self::ForGood(why),
            _ => Self::now(why),
        }
    }
}

/// What asks servers that may be silent for so long.
pub(crate) fn agent(silence: Duration) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("vmtest/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_WITHIN))
        .timeout_recv_response(Some(silence))
        .timeout_per_read(Some(silence))
}

/// Something that a server has.
pub(crate) trait Remote {
    /// Asks for it, without so many bytes at its beginning.
    fn ask(&self, have: u64) -> Result<Response<Body>, Failed>;
}

/// The value of the header that asks for what comes behind so many bytes.
pub(crate) fn range(have: u64) -> String {
    format!("bytes={have}-")
}

/// Asks for what comes behind the bytes of this file and writes it there; for no more than `size` in all. `show` is told how much
/// is there, and of how much where the server says that.
pub(super) fn go_on(
    remote: &dyn Remote,
    file: &mut File,
    size: Option<u64>,
    stop: &Stop,
    show: &dyn Fn(u64, Option<u64>),
) -> Result<(), Failed> {
    let have = file.seek(SeekFrom::End(0)).map_err(Failed::Here)?;
    let mut response = remote.ask(have)?;
    let mut at = match response.status() {
        StatusCode::PARTIAL_CONTENT if begins_at(&response) == Some(have) => have,
        // It sends all of it, or something else than it was asked for, which would leave a hole.
        StatusCode::OK => 0,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
            if is_whole(&response, have) {
                return Ok(());
            }
            file.set_len(0).map_err(Failed::Here)?;
            return Err(Failed::now("the server does not go on where it was asked to"));
        }
        _ => return Err(Failed::status(&response)),
    };
    if at == 0 {
        file.set_len(0).and_then(|()| file.rewind()).map_err(Failed::Here)?;
    }
    let whole = response.body().content_length().map(|rest| at + rest);
    let mut body = response.body_mut().as_reader();
    let mut piece = vec![0; PIECE];
    loop {
        if stop.is_set() {
            return Err(Failed::Stopped);
        }
        let read = match body.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failed::now(format!("the answer ended after {at} bytes: {e}"))),
        };
        at += read as u64;
        if size.is_some_and(|size| at > size) {
            file.set_len(0).map_err(Failed::Here)?;
            return Err(Failed::ForGood(format!("the server sends more than its {} bytes", size.unwrap_or_default())));
        }
        file.write_all(&piece[..read]).map_err(Failed::Here)?;
        show(at, whole);
    }
    match whole {
        Some(whole) if at < whole => Err(Failed::now(format!("the answer ended after {at} of {whole} bytes"))),
        _ => Ok(()),
    }
}

/// The place of the first byte of a part, from `bytes 200-999/1000`.
fn begins_at<B>(response: &Response<B>) -> Option<u64> {
    content_range(response)?.split_once('-')?.0.parse().ok()
}

/// Whether the server says that there is no more than this, as `bytes */1000`.
fn is_whole<B>(response: &Response<B>, have: u64) -> bool {
    let total = content_range(response).and_then(|range| range.strip_prefix("*/"));
    response.status() == StatusCode::RANGE_NOT_SATISFIABLE && total.and_then(|total| total.parse().ok()) == Some(have)
}

fn content_range<B>(response: &Response<B>) -> Option<&str> {
    response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")
}
