//! Which of two versions is the newer one.

/// Each number of a version with what is before it, so that `6.1.0-10` is above `6.1.0-9`.
pub(crate) fn pieces(version: &str) -> Vec<(String, u64)> {
    let mut pieces = Vec::new();
    let mut rest = version;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let number = rest[text..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| text + end);
        pieces.push((rest[..text].to_owned(), rest[text..number].parse().unwrap_or(u64::MAX)));
        rest = &rest[number..];
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let sorted = ["6.1.0-9-amd64", "6.1.0-10-amd64", "6.1.0-10-cloud-amd64", "6.1.9", "6.12.1", "6.12.1-rc2"];
        let mut versions = sorted.to_vec();
        versions.reverse();
        versions.sort_by_cached_key(|version| pieces(version));
        assert_eq!(versions, sorted);
    }
}
