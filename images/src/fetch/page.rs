//! Texts of the network, which are read whole and not kept.

use ureq::{
    Agent,
    http::{StatusCode, header},
};

use super::{Failed, Patience, Stop, agent, patiently};
#[cfg(doc)]
use crate::Error;
use crate::Result;

/// In bytes: listings and files of checksums have a line of some hundred bytes for each of some hundred files.
const LIMIT: u64 = 8 << 20;

/// A text, and what its server says of it.
pub(crate) struct Page {
    pub(crate) text: String,
    /// When it was changed, as HTTP writes that.
    pub(crate) modified: Option<String>,
}

/// Reads the text at this address, and tries again after failures that may pass. What is asked for by `https` never comes by
/// `http`. Blocks.
///
/// # Errors
/// [`Error::Download`]
pub(crate) fn page(url: &str, patience: Patience) -> Result<Page> {
    let agent: Agent = agent(patience.silence).https_only(url.starts_with("https://")).build().into();
    let page = patiently(url, patience.first_pause, &Stop::default(), || read(&agent, url), || false);
    page.map_err(|why| why.of(url))
}

fn read(agent: &Agent, url: &str) -> std::result::Result<Page, Failed> {
    let mut response = agent.get(url).call()?;
    if response.status() != StatusCode::OK {
        return Err(Failed::status(&response));
    }
    let modified = response.headers().get(header::LAST_MODIFIED).and_then(|time| time.to_str().ok()).map(str::to_owned);
    let bytes = response.body_mut().with_config().limit(LIMIT).read_to_vec().map_err(|e| match e {
        ureq::Error::BodyExceedsLimit(_) => Failed::ForGood(format!("it has more than {} MiB", LIMIT >> 20)),
        e => Failed::now(format!("the answer ended early: {e}")),
    })?;
    Ok(Page { text: String::from_utf8_lossy(&bytes).into_owned(), modified })
}
