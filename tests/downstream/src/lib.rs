//! A service: the page that a web server of one's own would serve.

/// The page.
pub const PAGE: &str = "it works\n";
