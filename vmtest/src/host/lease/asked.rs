//! What `VMTEST_BUDGET` says.

use crate::spec::parse_size;

/// The parts of the budget that the user has decided; the others are measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// In bytes.
    pub(crate) memory: Option<u64>,
    pub(crate) cpus: Option<u32>,
    /// In bytes.
    pub(crate) disk: Option<u64>,
}

/// The valid forms, for messages.
const FORMS: &str =
    "give any of `memory=8GiB`, `cpus=8` and `disk=20GiB`, with commas between them, such as \"memory=8GiB,cpus=8\"";

impl Asked {
    /// Reads `memory=8GiB,cpus=8,disk=20GiB`, of which each part may be left out.
    ///
    /// # Errors
    /// What is wrong, with the valid forms.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for part in text.split(',').map(str::trim) {
            let (name, value) =
                part.split_once('=').map(|(name, value)| (name.trim(), value.trim())).unwrap_or((part, ""));
            let twice = match name {
                "memory" => asked.memory.replace(bytes(part, value)?).is_some(),
                "cpus" => asked.cpus.replace(count(part, value)?).is_some(),
                "disk" => asked.disk.replace(bytes(part, value)?).is_some(),
                _ => return Err(format!("`{part}` is no part of a budget: {FORMS}")),
            };
            if twice {
                return Err(format!("`{name}` is there twice: {FORMS}"));
            }
        }
        Ok(asked)
    }
}

fn bytes(part: &str, value: &str) -> Result<u64, String> {
    let size = parse_size(value).filter(|&size| size > 0);
    size.ok_or_else(|| format!("`{part}` has no size with a unit above zero: {FORMS}"))
}

fn count(part: &str, value: &str) -> Result<u32, String> {
    let count = value.parse().ok().filter(|&count| count > 0);
    count.ok_or_else(|| format!("`{part}` has no whole number above zero: {FORMS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_may_be_left_out() {
        let all = Asked { memory: Some(8 << 30), cpus: Some(8), disk: Some(20_000_000_000) };
        assert_eq!(Asked::parse("memory=8GiB,cpus=8,disk=20GB"), Ok(all));
        assert_eq!(Asked::parse(" disk = 20 GB , memory = 8 GiB , cpus = 8 "), Ok(all));
        assert_eq!(Asked::parse("cpus=2"), Ok(Asked { cpus: Some(2), ..Asked::default() }));
        assert_eq!(Asked::parse("memory=1.5GiB"), Ok(Asked { memory: Some(3 << 29), ..Asked::default() }));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_valid_forms() {
        for (text, said) in [
            ("", "`` is no part of a budget"),
            ("8GiB", "`8GiB` is no part of a budget"),
            ("memory=8GiB,", "`` is no part of a budget"),
            ("ram=8GiB", "`ram=8GiB` is no part of a budget"),
            ("memory=8", "`memory=8` has no size with a unit"),
            ("memory=+8", "`memory=+8` has no size with a unit"),
            ("memory=lots", "`memory=lots` has no size with a unit"),
            ("memory=-1GiB", "`memory=-1GiB` has no size with a unit"),
            ("memory", "`memory` has no size with a unit"),
            ("disk=0GiB", "`disk=0GiB` has no size with a unit above zero"),
            ("cpus=0", "`cpus=0` has no whole number above zero"),
            ("cpus=1.5", "`cpus=1.5` has no whole number"),
            ("cpus=2,cpus=3", "`cpus` is there twice"),
        ] {
            let error = Asked::parse(text).unwrap_err();
            assert!(error.starts_with(said) && error.ends_with(FORMS), "{text:?}: {error}");
        }
    }
}
