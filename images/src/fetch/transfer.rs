//! One request and its answer.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    time::Duration,
};

use ureq::{
    Agent,
    http::{Response, StatusCode, header},
};

/// How long a connection may take to begin: an answer from the other side of the world takes a third of a second.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How much is read and written at once.
const PIECE: usize = 64 << 10;

/// Why a try ended.
pub(super) enum Failed {
    /// The next may succeed.
    ForNow(String),
    /// The next would fail too.
    ForGood(String),
    /// What came could not be written.
    Here(io::Error),
}

pub(super) struct Transfer<'a> {
    url: &'a str,
    agent: Agent,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(url: &'a str, silence: Duration) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("vmtest/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_WITHIN))
            .timeout_recv_response(Some(silence))
            .timeout_per_read(Some(silence));
        Self { url, agent: config.build().into() }
    }

    /// Asks for what comes behind the bytes of this file and writes it there. `show` is told how much of the whole is there,
    /// in percent, where the server says how much that is.
    pub(super) fn go_on(&self, file: &mut File, show: &dyn Fn(u64)) -> Result<(), Failed> {
        let have = file.seek(SeekFrom::End(0)).map_err(Failed::Here)?;
        let mut request = self.agent.get(self.url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let mut response = request.call().map_err(failed)?;
        let mut at = match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&response) == Some(have) => have,
            // It sends all of it, or something else than it was asked for, which would leave a hole.
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                if is_whole(&response, have) {
                    return Ok(());
                }
                file.set_len(0).map_err(Failed::Here)?;
                return Err(Failed::ForNow("the server does not go on where it was asked to".to_owned()));
            }
            status => {
                let passes = status.is_server_error()
                    || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
                let why = format!("the server answers {status}");
                return Err(if passes { Failed::ForNow(why) } else { Failed::ForGood(why) });
            }
        };
        if at == 0 {
            file.set_len(0).and_then(|()| file.rewind()).map_err(Failed::Here)?;
        }
        let whole = response.body().content_length().map(|rest| at + rest);
        let mut body = response.body_mut().as_reader();
        let mut piece = vec![0; PIECE];
        loop {
            let read = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failed::ForNow(format!("the answer ended after {at} bytes: {e}"))),
            };
            file.write_all(&piece[..read]).map_err(Failed::Here)?;
            at += read as u64;
            if let Some(whole) = whole {
                show(at * 100 / whole.max(1));
            }
        }
        match whole {
            Some(whole) if at < whole => Err(Failed::ForNow(format!("the answer ended after {at} of {whole} bytes"))),
            _ => Ok(()),
        }
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

fn failed(error: ureq::Error) -> Failed {
    let why = error.to_string();
    match error {
        // A host without a network, or a wrong name: to wait for seconds helps neither.
        ureq::Error::HostNotFound | ureq::Error::BadUri(_) | ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
            Failed::ForGood(why)
        }
        ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed | ureq::Error::Http(_) => Failed::ForGood(why),
        _ => Failed::ForNow(why),
    }
}
