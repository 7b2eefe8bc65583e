//! Packets as a file that Wireshark reads: pcapng, draft-ietf-opsawg-pcapng.

use std::time::Duration;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// By it readers know in which order our bytes are.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const VERSION: (u16, u16) = (1, 0);
const UNKNOWN_LENGTH: u64 = u64::MAX;
const ETHERNET: u16 = 1;
const NO_LIMIT: u32 = 0;
const OPTION_APPLICATION: u16 = 4;
const OPTION_NAME: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
/// Times count nanoseconds: ten to the power of minus this.
const NANOSECONDS: u8 = 9;

/// A packet with the time at which it was seen, since 1970.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) at: Duration,
    pub(super) data: Box<[u8]>,
}

/// The file with these packets, each on the interface at this place.
pub(super) fn pcapng(interfaces: &[&str], packets: &[(usize, &Captured)]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut section = Vec::new();
    section.extend(BYTE_ORDER.to_le_bytes());
    section.extend(VERSION.0.to_le_bytes());
    section.extend(VERSION.1.to_le_bytes());
    section.extend(UNKNOWN_LENGTH.to_le_bytes());
    option(&mut section, OPTION_APPLICATION, b"vmtest");
    end_of_options(&mut section);
    block(&mut file, SECTION, &section);
    for name in interfaces {
        let mut interface = Vec::new();
        interface.extend(ETHERNET.to_le_bytes());
        interface.extend([0; 2]);
        interface.extend(NO_LIMIT.to_le_bytes());
        option(&mut interface, OPTION_NAME, name.as_bytes());
        option(&mut interface, OPTION_RESOLUTION, &[NANOSECONDS]);
        end_of_options(&mut interface);
        block(&mut file, INTERFACE, &interface);
    }
    for (interface, Captured { at, data }) in packets {
        let mut packet = Vec::with_capacity(data.len() + 32);
        let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        packet.extend(low(*interface as u64).to_le_bytes());
        packet.extend(low(at >> 32).to_le_bytes());
        packet.extend(low(at).to_le_bytes());
        // All of it was captured.
        packet.extend(low(data.len() as u64).to_le_bytes());
        packet.extend(low(data.len() as u64).to_le_bytes());
        padded(&mut packet, data);
        block(&mut file, PACKET, &packet);
    }
    file
}

fn block(file: &mut Vec<u8>, kind: u32, content: &[u8]) {
    let length = low(content.len() as u64 + 12).to_le_bytes();
    file.extend(kind.to_le_bytes());
    file.extend(length);
    file.extend(content);
    file.extend(length);
}

fn option(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend(kind.to_le_bytes());
    to.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    padded(to, value);
}

fn end_of_options(to: &mut Vec<u8>) {
    to.extend([0; 4]);
}

/// With zeros up to a multiple of four bytes.
fn padded(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(bytes);
    to.extend(std::iter::repeat_n(0, bytes.len().next_multiple_of(4) - bytes.len()));
}

/// The lower half.
fn low(number: u64) -> u32 {
    (number & u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_section_its_ports_and_packets() {
        let packet = Captured { at: Duration::new(5, 7), data: [1, 2, 3].into() };
        let file = pcapng(&["tap0"], &[(0, &packet)]);
        let mut rest = &file[..];
        let mut blocks = Vec::new();
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let length = word(4) as usize;
            assert_eq!((length % 4, word(length - 4) as usize), (0, length));
            blocks.push((word(0), &rest[8..length - 4]));
            rest = &rest[length..];
        }
        assert_eq!(blocks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [SECTION, INTERFACE, PACKET]);
        let at = 5_000_000_007_u64;
        let expected = [0, low(at >> 32), low(at), 3, 3, u32::from_le_bytes([1, 2, 3, 0])];
        assert_eq!(blocks[2].1, expected.map(u32::to_le_bytes).concat());
    }
}
