//! Lets kubelet's registration client speak to a strict HTTP/2 server.
//!
//! kubelet dials the registration socket without naming an authority, so its gRPC library sends the socket's path in `:authority`,
//! percent-encoded (`%2Fvar%2Flib%2F...`). RFC 9110 has no such host, and our HTTP/2 library resets the stream with PROTOCOL_ERROR
//! before any code of ours sees the call. (To the driver's own socket kubelet says `localhost`.) So the bytes that arrive pass
//! through here, and that one value is replaced by `localhost`.
//!
//! Only the structure of a header block is read (RFC 7541, section 6), no value. Entries of the compression's dynamic table keep
//! their numbers, because each field stays the field it was.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// What the client says before the first frame (RFC 9113, 3.4).
const PREFACE: usize = 24;
/// Length (3), type, flags, stream (4).
const FRAME_HEADER: usize = 9;
/// The largest frame that our server takes, with its header (RFC 9113, 4.2: the default).
const LONGEST_FRAME: usize = FRAME_HEADER + (16 << 10);
/// The frame that begins a header block.
const HEADERS: u8 = 1;
const FLAG_PADDED: u8 = 0x08;
const FLAG_PRIORITY: u8 = 0x20;
/// `:authority` in the static table of RFC 7541.
const AUTHORITY: u64 = 1;
const LOCALHOST: &[u8] = b"localhost";

/// A connection of kubelet whose calls are for `localhost`.
#[derive(Debug)]
pub(super) struct ForLocalhost<C> {
    inner: C,
    rewriter: Rewriter,
    /// What was rewritten and not read yet.
    ready: Vec<u8>,
    given: usize,
}

impl<C> ForLocalhost<C> {
    pub(super) fn new(inner: C) -> Self {
        Self {
            inner,
            rewriter: Rewriter::default(),
            ready: Vec::new(),
            given: 0,
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for ForLocalhost<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.given == this.ready.len() {
            let mut space = [0; 4096];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.given = 0;
            this.rewriter.push(read.filled(), &mut this.ready);
        }
        let rest = &this.ready[this.given..];
        let take = rest.len().min(out.remaining());
        out.put_slice(&rest[..take]);
        this.given += take;
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for ForLocalhost<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<C: Connected> Connected for ForLocalhost<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

/// Finds the header blocks in a stream of frames. A frame is held back until it is whole.
#[derive(Debug, Default)]
struct Rewriter {
    preface: usize,
    held: Vec<u8>,
}

impl Rewriter {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let preface = bytes.len().min(PREFACE - self.preface);
        self.preface += preface;
        out.extend_from_slice(&bytes[..preface]);
        self.held.extend_from_slice(&bytes[preface..]);
        let mut done = 0;
        while let Some(length) = frame_length(&self.held[done..]) {
            let frame = &self.held[done..];
            let Some(frame) = frame.get(..length) else {
                if length > LONGEST_FRAME {
                    // Not a frame that the server takes: it is told so and ends the connection.
                    out.extend(self.held.drain(..).skip(done));
                    return;
                }
                break;
            };
            if frame[3] == HEADERS {
                rewrite_frame(frame, out);
            } else {
                out.extend_from_slice(frame);
            }
            done += length;
        }
        self.held.drain(..done);
    }
}

/// The length of the frame that begins here, its header included.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<FRAME_HEADER>()?;
    let payload = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    Some(FRAME_HEADER + usize::try_from(payload).ok()?)
}

/// Writes a HEADERS frame with its authority replaced; one that is not understood is passed on as it is, for the server to judge.
fn rewrite_frame(frame: &[u8], out: &mut Vec<u8>) {
    match rewritten(frame) {
        Some(frame) => out.extend_from_slice(&frame),
        None => out.extend_from_slice(frame),
    }
}

fn rewritten(frame: &[u8]) -> Option<Vec<u8>> {
    let (header, payload) = frame.split_at_checked(FRAME_HEADER)?;
    let flags = header[4];
    let mut start = 0;
    let mut padding = 0;
    if flags & FLAG_PADDED != 0 {
        padding = usize::from(*payload.first()?);
        start += 1;
    }
    if flags & FLAG_PRIORITY != 0 {
        start += 5;
    }
    let end = payload.len().checked_sub(padding)?;
    let block = for_localhost(payload.get(start..end)?)?;
    let payload = [&payload[..start], &block, &payload[end..]].concat();
    let length = u32::try_from(payload.len()).ok()?.to_be_bytes();
    Some([&length[1..], &header[3..], &payload].concat())
}

/// A header block in which each authority is `localhost`; `None` if it is no header block.
fn for_localhost(block: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(block.len());
    let mut rest = block;
    while let Some(&first) = rest.first() {
        let field = rest;
        // One field: indexed, a change of the table's size, or a literal whose name is indexed or spelled out.
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let (index, after_index) = integer(rest, prefix)?;
        rest = after_index;
        if first >= 0x80 || (0x20..0x40).contains(&first) {
            out.extend_from_slice(&field[..field.len() - rest.len()]);
            continue;
        }
        if index == 0 {
            rest = after_string(rest)?;
        }
        let name = &field[..field.len() - rest.len()];
        let value = rest;
        rest = after_string(rest)?;
        out.extend_from_slice(name);
        if index == AUTHORITY {
            out.push(u8::try_from(LOCALHOST.len()).ok()?);
            out.extend_from_slice(LOCALHOST);
        } else {
            out.extend_from_slice(&value[..value.len() - rest.len()]);
        }
    }
    Some(out)
}

/// An integer with a prefix of so many bits (RFC 7541, 5.1), and what follows it.
fn integer(bytes: &[u8], prefix: u32) -> Option<(u64, &[u8])> {
    let (&first, mut rest) = bytes.split_first()?;
    let full = (1_u64 << prefix) - 1;
    let mut value = u64::from(first) & full;
    if value < full {
        return Some((value, rest));
    }
    for shift in (0..28).step_by(7) {
        let (&next, after) = rest.split_first()?;
        rest = after;
        value += u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

/// What follows a string (RFC 7541, 5.2).
fn after_string(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = integer(bytes, 7)?;
    rest.get(usize::try_from(length).ok()?..)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `:method POST`, `:scheme http`, `:path /a` (literal), `:authority %2Fx` (literal, not Huffman-coded), `te: trailers`.
    fn block(authority: &[u8]) -> Vec<u8> {
        let length = u8::try_from(authority.len()).unwrap();
        [
            &[0x83, 0x86, 0x44, 2][..],
            b"/a",
            &[0x41, length],
            authority,
            &[0x40, 2],
            b"te",
            &[8],
            b"trailers",
        ]
        .concat()
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn pushed(bytes: &[u8], step: usize) -> Vec<u8> {
        let mut rewriter = Rewriter::default();
        let mut out = Vec::new();
        for part in bytes.chunks(step) {
            rewriter.push(part, &mut out);
        }
        out
    }

    #[test]
    fn the_path_in_authority_becomes_localhost_and_nothing_else_changes() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = frame(4, 0, &[0, 3, 0, 0, 0, 100]);
        let data = frame(0, 1, b"\0\0\0\0\0");
        let given = [
            &preface[..],
            &settings,
            &frame(HEADERS, 4, &block(b"%2Fvar%2Flib")),
            &data,
        ]
        .concat();
        let expected = [
            &preface[..],
            &settings,
            &frame(HEADERS, 4, &block(LOCALHOST)),
            &data,
        ]
        .concat();
        for step in [1, 2, 7, 1000] {
            assert_eq!(pushed(&given, step), expected, "in parts of {step}");
        }
    }

    #[test]
    fn padding_and_priority_stay_around_the_block() {
        let inside =
            |authority: &[u8]| [&[2, 0, 0, 0, 0, 16][..], &block(authority), &[0, 0]].concat();
        let flags = 4 | FLAG_PADDED | FLAG_PRIORITY;
        let found = rewritten(&frame(HEADERS, flags, &inside(b"%2F"))).unwrap();
        assert_eq!(found, frame(HEADERS, flags, &inside(LOCALHOST)));
    }

    #[test]
    fn what_is_no_header_block_is_passed_on_for_the_server_to_judge() {
        for garbage in [
            &[0x41][..],
            &[0x41, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x40, 9, 1],
        ] {
            let given = frame(HEADERS, 4, garbage);
            let mut out = Vec::new();
            rewrite_frame(&given, &mut out);
            assert_eq!(out, given);
        }
        let hostile = [0xff; 64];
        assert_eq!(pushed(&hostile, 64), hostile);
    }
}
