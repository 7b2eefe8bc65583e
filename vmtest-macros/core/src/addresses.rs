//! Addresses of a node, read at compile time. Whether they fit into the network is known when the cluster is planned.

use std::net::Ipv4Addr;

/// What an IPv4 address looks like, for messages.
const IPS: &str = "write an address such as \"10.77.0.50\"";

/// What a hardware address looks like, for messages.
const MACS: &str = "write six bytes such as \"52:54:00:00:00:50\"";

/// The bit of the first byte that makes a hardware address one of a group.
const MULTICAST: u8 = 1;

/// The bytes of an IPv4 address.
pub(crate) fn ip(text: &str) -> Result<[u8; 4], String> {
    let ip: Ipv4Addr = text.parse().map_err(|_| format!("`{text}` is not an IPv4 address: {IPS}"))?;
    Ok(ip.octets())
}

/// The bytes of a hardware address that a machine can have.
pub(crate) fn mac(text: &str) -> Result<[u8; 6], String> {
    let byte = |digits: &str| {
        let hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u8::from_str_radix(digits, 16).ok().filter(|_| hex)
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    match bytes {
        None => Err(format!("`{text}` is not a hardware address: {MACS}")),
        Some([0, 0, 0, 0, 0, 0]) => Err(format!("`{text}` stands for no address: {MACS}")),
        Some([first, ..]) if first & MULTICAST != 0 => Err(format!(
            "`{text}` is the address of a group, as its first byte is odd, and no machine can have it: {MACS}"
        )),
        Some(bytes) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::{ip, mac};

    #[test]
    fn addresses_are_read() {
        assert_eq!(ip("10.77.0.50"), Ok([10, 77, 0, 50]));
        assert_eq!(mac("52:54:00:00:0a:Fe"), Ok([0x52, 0x54, 0, 0, 0x0a, 0xfe]));
    }

    #[test]
    fn others_are_refused_with_a_reason() {
        for text in ["", "10.77.0", "10.77.0.256", "10.77.0.50/24", " 10.77.0.50", "fd77::50", "alice"] {
            let message = ip(text).expect_err("it is refused");
            assert!(message.starts_with(&format!("`{text}` is not an IPv4 address: write")), "{message}");
        }
        for (text, reason) in [
            ("", "is not a hardware address"),
            ("52:54:00:00:00", "is not a hardware address"),
            ("52:54:00:00:00:50:51", "is not a hardware address"),
            ("52:54:00:00:00:5g", "is not a hardware address"),
            ("52:54:00:00:00:+5", "is not a hardware address"),
            ("52-54-00-00-00-50", "is not a hardware address"),
            ("2:54:00:00:00:50", "is not a hardware address"),
            ("00:00:00:00:00:00", "stands for no address"),
            ("53:54:00:00:00:50", "is the address of a group"),
            ("ff:ff:ff:ff:ff:ff", "is the address of a group"),
        ] {
            let message = mac(text).expect_err("it is refused");
            assert!(message.starts_with(&format!("`{text}` {reason}")), "{message}");
            assert!(message.ends_with("write six bytes such as \"52:54:00:00:00:50\""), "{message}");
        }
    }
}
