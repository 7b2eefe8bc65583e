//! The last packets of each port, for whoever wants to see them in Wireshark.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt, io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use nix::{
    libc,
    net::if_::if_indextoname,
    sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket},
};
use tokio::io::unix::AsyncFd;

use super::pcapng::{Captured, pcapng};
use crate::{
    error::{Error, Kind},
    sys::watch_readable,
};

/// The largest packet of a port with segmentation offload, with its header.
const LARGEST: usize = (64 << 10) + 256;
/// What a packet takes in memory and in the file beside its content.
const OVERHEAD: usize = 64;

/// A ring of packets for each port of the network in which it was opened.
pub(crate) struct Capture {
    socket: AsyncFd<OwnedFd>,
    /// Of each ring, in bytes.
    limit: usize,
    rings: Mutex<BTreeMap<String, Ring>>,
}

/// The last packets of a port, up to a number of bytes.
#[derive(Debug, Default)]
struct Ring {
    packets: VecDeque<Captured>,
    bytes: usize,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Capture {
    /// Listens to all ports in the network of the calling thread, on the current runtime, and keeps so many bytes of each.
    ///
    /// # Errors
    /// [`Kind::Host`] without the right to do so.
    pub(crate) fn open(limit: u64) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::new(Kind::Host, "cannot capture packets").caused_by(e);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll);
        let socket = socket.map_err(|e| failed(e.into()))?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(Self { socket: watch_readable(socket).map_err(failed)?, limit, rings: Mutex::default() })
    }

    /// Keeps what passes the ports of these names, until it is dropped. Must be polled on threads in that network.
    pub(crate) async fn run(&self, is_wanted: impl Fn(&str) -> bool) {
        let mut ports: HashMap<usize, Option<String>> = HashMap::new();
        let mut packet = vec![0; LARGEST];
        loop {
            let Ok(mut ready) = self.socket.readable().await else { return };
            let received = ready.try_io(|socket| Ok(recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut packet)?));
            let (length, from) = match received {
                Ok(Ok(received)) => received,
                // A port that is taken away says so once.
                Ok(Err(e)) if e.raw_os_error() == Some(libc::ENETDOWN) => continue,
                Ok(Err(e)) => return tracing::warn!("no more packets are captured: {e}"),
                // Nothing was there after all.
                Err(_) => continue,
            };
            let Some(index) = from.map(|from| from.ifindex()) else { continue };
            // A number is never given to another port.
            let name = ports.entry(index).or_insert_with(|| name_of(index).filter(|name| is_wanted(name)));
            if let Some(name) = name {
                self.keep(name, &packet[..length]);
            }
        }
    }

    fn keep(&self, port: &str, packet: &[u8]) {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        if !rings.contains_key(port) {
            rings.insert(port.to_owned(), Ring::default());
        }
        if let Some(ring) = rings.get_mut(port) {
            ring.push(at, packet, self.limit);
        }
    }

    /// A file in the form of pcapng with the packets of these ports; nothing if there were none.
    pub(crate) fn file(&self, ports: &[&str]) -> Option<Vec<u8>> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut packets: Vec<_> = ports
            .iter()
            .enumerate()
            .filter_map(|(place, port)| Some((place, rings.get(*port)?)))
            .flat_map(|(place, ring)| ring.packets.iter().map(move |packet| (place, packet)))
            .collect();
        packets.sort_by_key(|(_, packet)| packet.at);
        (!packets.is_empty()).then(|| pcapng(ports, &packets))
    }
}

impl Ring {
    fn push(&mut self, at: Duration, packet: &[u8], limit: usize) {
        self.bytes += packet.len() + OVERHEAD;
        self.packets.push_back(Captured { at, data: packet.into() });
        while self.bytes > limit
            && let Some(oldest) = self.packets.pop_front()
        {
            self.bytes -= oldest.data.len() + OVERHEAD;
        }
    }
}

/// The name of a port by its number, in the network of the calling thread.
fn name_of(index: usize) -> Option<String> {
    let name = if_indextoname(libc::c_uint::try_from(index).ok()?).ok()?;
    Some(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_port_the_last_packets_are_kept() {
        let mut ring = Ring::default();
        for n in 0..100_u8 {
            ring.push(Duration::from_secs(n.into()), &[n; 36], 1000);
        }
        assert_eq!(ring.packets.len(), 10);
        assert_eq!((ring.bytes, ring.packets.back().map(|packet| packet.data[0])), (1000, Some(99)));
        ring.push(Duration::ZERO, &[0; 5000], 1000);
        assert_eq!((ring.packets.len(), ring.bytes), (0, 0), "one that has no room is not kept");
    }
}
