//! Host names, from the names of parameters.

use proc_macro2::Ident;
use syn::ext::IdentExt;

/// The longest label of a host name (RFC 1123).
const LONGEST: usize = 63;

/// What a parameter without a name is told.
pub(crate) const NAMELESS: &str = "a node needs a name: write `name: Node`";

/// The host name of a parameter: leading underscores are dropped, the others become hyphens.
///
/// The error is the text of a diagnostic.
pub(crate) fn host_name(ident: &Ident) -> Result<String, String> {
    let written = ident.unraw().to_string();
    let name = written.trim_start_matches('_').replace('_', "-");
    if name.is_empty() {
        return Err(NAMELESS.to_owned());
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(format!("`{written}` is no host name: only a to z, 0 to 9 and underscores can be part of one"));
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        let lower = written.to_ascii_lowercase();
        return Err(format!("`{written}` is no host name: they are in lower case; write `{lower}`"));
    }
    if name.ends_with('-') {
        return Err(format!("`{written}` is no host name: `{name}` would end in a hyphen"));
    }
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{written}` is no host name: `{name}` would be read as an address"));
    }
    if name.len() > LONGEST {
        return Err(format!("`{written}` is no host name: {} characters, at most {LONGEST} are allowed", name.len()));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use quote::format_ident;

    use super::host_name;

    #[test]
    fn a_parameter_names_its_host() {
        for (ident, host) in
            [("primary", "primary"), ("_cluster", "cluster"), ("db_2", "db-2"), ("__a__b", "a--b"), ("r#type", "type")]
        {
            assert_eq!(host_name(&format_ident!("{ident}")).as_deref(), Ok(host));
        }
    }

    #[test]
    fn what_cannot_be_a_host_is_refused_with_a_reason() {
        let long = "x".repeat(64);
        for (ident, reason) in [
            ("__", "a node needs a name"),
            ("Primary", "write `primary`"),
            ("größe", "only a to z"),
            ("a_", "end in a hyphen"),
            ("_1", "read as an address"),
            (long.as_str(), "64 characters, at most 63"),
        ] {
            let message = host_name(&format_ident!("{ident}")).expect_err("it is refused");
            assert!(message.contains(reason), "{ident}: {message}");
        }
    }
}
