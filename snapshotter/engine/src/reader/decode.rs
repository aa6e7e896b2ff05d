//! Compressed clusters: one stream in, exactly one cluster out.

use std::fmt;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use zstd::zstd_safe::{DCtx, find_frame_compressed_size};

use super::header::Compression;

/// Why a stream is no cluster.
pub type Fault = &'static str;

/// Decodes clusters of one image. Its memory is bounded whatever a stream says: output goes to the caller's cluster and
/// nowhere else.
pub struct Decoder {
    method: Method,
}

enum Method {
    // Memory-safe, and the input is anybody's.
    Zlib(Box<DecompressorOxide>),
    // The decoder that qemu uses, so that there cannot be two opinions.
    Zstd(DCtx<'static>),
}

impl fmt::Debug for Decoder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::Zlib(_) => Compression::Zlib,
            Method::Zstd(_) => Compression::Zstd,
        };
        out.debug_struct("Decoder")
            .field("method", &method)
            .finish()
    }
}

impl Decoder {
    /// For clusters that are compressed like this.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        let method = match compression {
            Compression::Zlib => Method::Zlib(Box::default()),
            Compression::Zstd => Method::Zstd(DCtx::create()),
        };
        Self { method }
    }

    /// Decodes the stream that `input` begins with; what follows it belongs to others. It has to fill `cluster` exactly.
    ///
    /// # Errors
    /// What is wrong with the stream; `cluster` then holds anything.
    pub fn decode(&mut self, input: &[u8], cluster: &mut [u8]) -> Result<(), Fault> {
        match &mut self.method {
            Method::Zlib(state) => inflate(state, input, cluster),
            Method::Zstd(context) => unzstd(context, input, cluster),
        }
    }
}

const SHORT: Fault = "it decodes to less than a cluster";
const LONG: Fault = "it decodes to more than a cluster";
const CUT: Fault = "it is cut short";
const BROKEN: Fault = "it is damaged";

fn inflate(state: &mut DecompressorOxide, input: &[u8], cluster: &mut [u8]) -> Result<(), Fault> {
    state.init();
    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, _read, written) = decompress(state, input, cluster, 0, flags);
    match status {
        TINFLStatus::Done if written == cluster.len() => Ok(()),
        TINFLStatus::Done => Err(SHORT),
        TINFLStatus::HasMoreOutput => Err(LONG),
        TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => Err(CUT),
        _ => Err(BROKEN),
    }
}

fn unzstd(context: &mut DCtx<'_>, input: &[u8], cluster: &mut [u8]) -> Result<(), Fault> {
    if window_bytes(input).ok_or(CUT)? > MAX_WINDOW {
        return Err("it wants more memory than decoders give it");
    }
    let length = find_frame_compressed_size(input).map_err(|_code| BROKEN)?;
    let frame = input.get(..length).ok_or(CUT)?;
    match context.decompress(cluster, frame) {
        Ok(written) if written == cluster.len() => Ok(()),
        Ok(_less) => Err(SHORT),
        Err(_code) => Err(BROKEN),
    }
}

/// What decoders that keep a window allow by default.
const MAX_WINDOW: u64 = 1 << 27;

/// The window that a zstd frame asks for, 0 where it does not need one (RFC 8878, 3.1.1.1.2).
fn window_bytes(frame: &[u8]) -> Option<u64> {
    const SINGLE_SEGMENT: u8 = 1 << 5;
    if frame.get(4)? & SINGLE_SEGMENT != 0 {
        return Some(0);
    }
    let descriptor = *frame.get(5)?;
    let base = 1u64 << (10 + (descriptor >> 3));
    Some(base + base / 8 * u64::from(descriptor & 7))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: usize = 4096;

    fn text() -> Vec<u8> {
        (0..=250u8).cycle().step_by(7).take(CLUSTER).collect()
    }

    fn deflated(data: &[u8]) -> Vec<u8> {
        miniz_oxide::deflate::compress_to_vec(data, 6)
    }

    fn zstded(data: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(data, 3).unwrap()
    }

    type Encode = fn(&[u8]) -> Vec<u8>;

    fn both() -> [(Compression, Encode); 2] {
        [(Compression::Zlib, deflated), (Compression::Zstd, zstded)]
    }

    #[test]
    fn stream_is_decoded_whatever_follows_it() {
        for (compression, encode) in both() {
            let mut decoder = Decoder::new(compression);
            let mut input = encode(&text());
            for _once_and_again in 0..2 {
                let mut cluster = vec![0xee; CLUSTER];
                decoder.decode(&input, &mut cluster).unwrap();
                assert_eq!(cluster, text());
                input.extend(b"somebody else's bytes");
            }
        }
    }

    #[test]
    fn stream_that_is_not_exactly_a_cluster_is_refused() {
        for (compression, encode) in both() {
            let mut decoder = Decoder::new(compression);
            let mut cluster = vec![0; CLUSTER];
            let data = text();
            let less = decoder.decode(&encode(&data[1..]), &mut cluster);
            assert_eq!(less, Err(SHORT), "{compression:?}");
            let more = decoder.decode(&encode(&[&data[..], b"x"].concat()), &mut cluster);
            assert!(more.is_err(), "{compression:?}");
            let bomb = decoder.decode(&encode(&vec![0; 64 << 20]), &mut cluster);
            assert!(bomb.is_err(), "{compression:?}");
            let whole = encode(&data);
            for length in 0..whole.len() {
                let cut = decoder.decode(&whole[..length], &mut cluster);
                assert!(cut.is_err(), "{compression:?} cut to {length}");
            }
        }
    }

    #[test]
    fn frames_that_are_no_data_or_want_a_huge_window_are_refused() {
        let mut decoder = Decoder::new(Compression::Zstd);
        let mut cluster = vec![0; CLUSTER];
        let skippable = [
            &0x184d_2a50u32.to_le_bytes()[..],
            &4u32.to_le_bytes(),
            b"skip",
        ]
        .concat();
        assert!(decoder.decode(&skippable, &mut cluster).is_err());
        // Magic, no content size, a window of 2^31 bytes; then one RLE block that would be right.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3];
        let block = u32::try_from(CLUSTER).unwrap() << 3 | 1 << 1 | 1;
        frame.extend(&block.to_le_bytes()[..3]);
        frame.push(7);
        assert!(
            decoder
                .decode(&frame, &mut cluster)
                .unwrap_err()
                .contains("memory")
        );
        frame[5] = 10 << 3;
        decoder.decode(&frame, &mut cluster).unwrap();
        assert_eq!(cluster, [7; CLUSTER]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            for (compression, _) in both() {
                let mut cluster = vec![0; CLUSTER];
                let _either = Decoder::new(compression).decode(&input, &mut cluster);
            }
        }
    }
}
