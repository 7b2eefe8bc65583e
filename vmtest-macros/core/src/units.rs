//! Sizes, rates and durations: strings with units, read at compile time.

use std::str::FromStr;

use bytesize::ByteSize;

/// What a size looks like, for messages.
const SIZES: &str = "write a size such as \"512MiB\" or \"1GiB\"";

/// What a rate looks like, for messages.
const RATES: &str = "write a rate such as \"512kbit\" or \"10Mbit\", bits a second";

/// Units of rates, each with the size that is as many bytes.
const BITS: &[(&str, &str)] = &[("bit", "B"), ("kbit", "kB"), ("Mbit", "MB"), ("Gbit", "GB")];

/// What a duration looks like, for messages.
const DURATIONS: &str = "write a duration such as \"90s\" or \"3m\"";

/// Bytes, from a number and a unit. A bare number is refused: nobody can tell its unit.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim_start();
    if unit.len() == text.len() {
        return Err(format!("`{text}` is not a size: {SIZES}"));
    }
    if unit.is_empty() {
        return Err(format!("`{text}` has no unit: {SIZES}"));
    }
    if bytesize::Unit::from_str(unit).is_err() {
        return Err(format!("`{unit}` is not a unit of size: {SIZES}"));
    }
    match ByteSize::from_str(text).map(|size| size.as_u64()) {
        Ok(0) => Err(format!("a size is more than zero: {SIZES}")),
        // bytesize saturates.
        Ok(u64::MAX) => Err(format!("`{text}` is too large: {SIZES}")),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(format!("`{text}` is not a size: {SIZES}")),
    }
}

/// Bits a second, from a number and a unit; prefixes are powers of ten, as everywhere in networks. What could be read as
/// bytes is refused.
pub(crate) fn bits_a_second(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - unit.len()];
    if number.is_empty() {
        return Err(format!("`{text}` is not a rate: {RATES}"));
    }
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Err(format!("`{text}` has no unit: {RATES}"));
    }
    let Some((_, size)) = BITS.iter().find(|(bits, _)| *bits == unit) else {
        return Err(format!("`{unit}` is not a unit of rates: {RATES}"));
    };
    match ByteSize::from_str(&format!("{number}{size}")).map(|size| size.as_u64()) {
        Ok(0) => Err(format!("a rate is more than zero: {RATES}")),
        // bytesize saturates.
        Ok(u64::MAX) => Err(format!("`{text}` is too much: {RATES}")),
        Ok(bits) => Ok(bits),
        Err(_) => Err(format!("`{text}` is not a rate: {RATES}")),
    }
}

/// Milliseconds, from one or more numbers with units (`"1m 30s"`).
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is not a duration ({error}): {DURATIONS}"))?;
    match u64::try_from(duration.as_millis()) {
        Ok(0) => Err(format!("a duration is at least one millisecond: {DURATIONS}")),
        Ok(milliseconds) => Ok(milliseconds),
        Err(_) => Err(format!("`{text}` is too long: {DURATIONS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{bits_a_second, bytes, milliseconds};

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes(" 1 GiB "), Ok(1 << 30));
        assert_eq!(bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(bytes("2GB"), Ok(2_000_000_000));
    }

    #[test]
    fn other_sizes_are_refused_with_a_reason() {
        for (text, reason) in [
            ("512", "`512` has no unit"),
            ("1.5 ", "`1.5` has no unit"),
            ("12 bananas", "`bananas` is not a unit of size"),
            ("lots", "`lots` is not a size"),
            ("", "`` is not a size"),
            ("-1GiB", "`-1GiB` is not a size"),
            ("1.2.3GiB", "`1.2.3GiB` is not a size"),
            ("0MiB", "more than zero"),
            ("0.1B", "more than zero"),
            ("99999999EiB", "too large"),
            ("99999999999999999999999B", "too large"),
        ] {
            let message = bytes(text).expect_err("it is refused");
            assert!(message.contains(reason), "{text:?}: {message}");
            assert!(message.contains("\"512MiB\" or \"1GiB\""), "{text:?}: {message}");
        }
    }

    #[test]
    fn rates_are_bits_a_second() {
        for (text, bits) in
            [("10Mbit", 10_000_000), ("1.5 Gbit", 1_500_000_000), ("512kbit", 512_000), (" 64000bit ", 64_000)]
        {
            assert_eq!(bits_a_second(text), Ok(bits), "{text}");
        }
        for (text, reason) in [
            ("10", "`10` has no unit"),
            ("10MB", "`MB` is not a unit of rates"),
            ("10Mbps", "`Mbps` is not a unit of rates"),
            ("10mbit", "`mbit` is not a unit of rates"),
            ("10Mibit", "`Mibit` is not a unit of rates"),
            ("fast", "`fast` is not a rate"),
            ("", "`` is not a rate"),
            ("-1Mbit", "`-1Mbit` is not a rate"),
            ("1.2.3Mbit", "`1.2.3Mbit` is not a rate"),
            ("0bit", "more than zero"),
            ("99999999999999999999Gbit", "too much"),
        ] {
            let message = bits_a_second(text).expect_err("it is refused");
            assert!(message.contains(reason), "{text:?}: {message}");
            assert!(message.contains("\"512kbit\" or \"10Mbit\""), "{text:?}: {message}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(milliseconds("3m"), Ok(180_000));
        assert_eq!(milliseconds("1m 30s"), Ok(90_000));
        assert_eq!(milliseconds("250ms"), Ok(250));
    }

    #[test]
    fn other_durations_are_refused_with_a_reason() {
        for (text, reason) in [
            ("30", "time unit needed"),
            ("soon", "expected number"),
            ("3 bananas", "unknown time unit \"bananas\""),
            ("0s", "at least one millisecond"),
            ("10us", "at least one millisecond"),
            ("999999999999y", "is not a duration"),
            ("", "`` is not a duration"),
        ] {
            let message = milliseconds(text).expect_err("it is refused");
            assert!(message.contains(reason), "{text:?}: {message}");
            assert!(message.contains("\"90s\" or \"3m\""), "{text:?}: {message}");
        }
    }
}
