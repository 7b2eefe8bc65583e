//! Reads a layer on a thread of its own, so that it is compared with its digests and decompressed while files are written.

use std::{
    io::{self, BufReader, Cursor, Read},
    ops::RangeInclusive,
    panic::resume_unwind,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel, sync_channel},
    },
    thread,
};

use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::{
    Wrong,
    frames::Frames,
    store::{Blob, named},
};

/// What compressed layers begin with.
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: u32 = 0xfd2f_b528;
/// What frames of zstd begin with that hold nothing; some write one before all others.
const SKIPPED: RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;
/// Bytes that are handed over at once: few files are larger, and a processor's cache has room for some.
const PIECE: usize = 256 << 10;
/// Pieces that wait to be written, which is as far as either side is ahead of the other.
const PIECES: usize = 8;

/// Hands the layer to `use_it` as it was before it was compressed, which must have this digest, and how much of the blob was read to
/// `tell`. Afterwards reads what is left of the blob.
///
/// # Errors
/// What is wrong with the blob or with what it holds, whatever `use_it` makes of that.
pub(super) fn read<T>(
    blob: Blob,
    diff_id: &str,
    tell: impl Fn(u64),
    use_it: impl FnOnce(&mut dyn Read) -> T,
) -> Result<T, Wrong> {
    let so_far = AtomicU64::new(0);
    thread::scope(|scope| {
        let (sender, pieces) = sync_channel(PIECES);
        let (back, spare) = channel::<Vec<u8>>();
        let counted = Counted { blob, so_far: &so_far };
        let reading = scope.spawn(move || {
            let mut counted = counted;
            let layer = counted.blob.name();
            // Whoever wants no more of it has closed the channel.
            let plain = hand_over(&mut counted, &spare, &|piece| sender.send(piece).is_ok());
            drop(sender);
            // One that is not what it should be holds something else, too.
            counted.blob.finish()?;
            match plain.map(|digest| digest.unwrap_or_else(|| layer.clone())) {
                Ok(digest) if digest == diff_id => Ok(()),
                Ok(digest) => Err(Wrong::new(format!(
                    "the layer {layer} holds {digest}, and the image's configuration says that it holds {diff_id}"
                ))),
                Err(e) => Err(Wrong::new(format!("the layer {layer} cannot be decompressed: {e}"))),
            }
        });
        let tell = || tell(so_far.load(Ordering::Relaxed));
        let mut pieces = Pieces { pieces, piece: Cursor::default(), back, tell: &tell };
        let used = use_it(&mut pieces);
        drop(pieces);
        reading.join().unwrap_or_else(|panic| resume_unwind(panic)).map(|()| used)
    })
}

/// Reads all of a layer, into pieces that were used before; `take` says whether more of it is wanted. The result is the digest of
/// what it holds, if that is not the layer as it is.
fn hand_over(
    layer: &mut impl Read,
    spare: &Receiver<Vec<u8>>,
    take: &dyn Fn(Vec<u8>) -> bool,
) -> io::Result<Option<String>> {
    let (mut plain, is_compressed) = decompressed(layer)?;
    let mut hash = is_compressed.then(Sha256::new);
    let mut wanted = true;
    loop {
        let mut piece = spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE));
        piece.clear();
        plain.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Ok(hash.map(named));
        }
        if let Some(hash) = &mut hash {
            hash.update(&piece);
        }
        // The end of an archive comes before that of what holds it.
        wanted = wanted && take(piece);
    }
}

/// A layer as it was before it was compressed, and whether it was.
fn decompressed<'a>(layer: &'a mut (impl Read + 'a)) -> io::Result<(Box<dyn Read + 'a>, bool)> {
    let mut begin = Vec::new();
    layer.by_ref().take(4).read_to_end(&mut begin)?;
    let magic = begin.first_chunk().map(|magic| u32::from_le_bytes(*magic));
    let gzip = begin.starts_with(GZIP);
    let zstd = magic.is_some_and(|magic| magic == ZSTD || SKIPPED.contains(&magic));
    let whole = Cursor::new(begin).chain(layer);
    let plain: Box<dyn Read + 'a> = if gzip {
        Box::new(MultiGzDecoder::new(BufReader::with_capacity(PIECE, whole)))
    } else if zstd {
        Box::new(Frames::new(BufReader::with_capacity(PIECE, whole)))
    } else {
        Box::new(whole)
    };
    Ok((plain, gzip || zstd))
}

/// A blob that says how much of it was read.
struct Counted<'a> {
    blob: Blob,
    so_far: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read(buffer)?;
        self.so_far.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// What the other thread has read.
struct Pieces<'a> {
    pieces: Receiver<Vec<u8>>,
    piece: Cursor<Vec<u8>>,
    /// Where pieces go that were used: memory that is new has to be cleared by the kernel.
    back: Sender<Vec<u8>>,
    tell: &'a dyn Fn(),
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = self.piece.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            // What ended early is said by whoever has read it.
            let Ok(piece) = self.pieces.recv() else { return Ok(0) };
            let used = std::mem::replace(&mut self.piece, Cursor::new(piece));
            // At the end nobody takes it.
            _ = self.back.send(used.into_inner());
            (self.tell)();
            read = self.piece.read(buffer)?;
        }
        Ok(read)
    }
}
