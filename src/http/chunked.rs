//! Chunk framing (RFC 9112, 7.1) -> the pieces of the body. Strict: what another reader could take
//! otherwise is refused.
//!
//! ```text
//! 1*16HEXDIG [ ";" extension ] CRLF data CRLF   again and again, then
//! "0" [ ";" extension ] CRLF *( name ":" value CRLF ) CRLF
//! ```
//! In: the next bytes. Out: ranges of them that are body. Extensions and trailers are read over,
//! within limits for the whole request. O(1) state, no allocation.

use std::ops::Range;

use super::fault::HttpFault;

/// Chunk extensions of one request, all together. Nobody sends any; without a limit one-byte chunks
/// with long extensions would make us read for nothing (CVE-2023-39326 in Go).
pub const EXTENSION_BYTES_MAX: u32 = 4 << 10;
/// Trailers of one request.
pub const TRAILER_BYTES_MAX: u32 = 4 << 10;

const SIZE_DIGITS_MAX: u8 = 16;

/// A chunked body that is being read.
#[derive(Clone, Copy, Debug)]
pub struct ChunkedBody {
    state: State,
    body_bytes: u64,
    body_bytes_max: u64,
    extension_bytes: u32,
    trailer_bytes: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In a size.
    Size { digits: u8, value: u64 },
    /// Behind a size and its semicolon.
    Extension { value: u64 },
    /// Behind the CR of a size line.
    SizeLineFeed { value: u64 },
    /// In a chunk.
    Data { left: u64 },
    /// Behind a chunk.
    DataCarriageReturn,
    /// Behind the CR behind a chunk.
    DataLineFeed,
    /// At the start of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    /// In a trailer's name.
    TrailerName,
    /// Behind a trailer's colon.
    TrailerValue,
    /// Behind the CR of a trailer line.
    TrailerLineFeed,
    /// Behind the last CR.
    LastLineFeed,
}

/// What [`ChunkedBody::read`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkEvent {
    /// All of the input is taken, and more is to come.
    NeedMore,
    /// This range of the input is body; what follows it is not taken yet.
    Data(Range<usize>),
    /// The body ends with this many bytes of the input.
    End { len_bytes: usize },
}

impl ChunkedBody {
    /// In front of the first chunk of a body that may have `body_bytes_max` bytes without its
    /// framing.
    pub fn new(body_bytes_max: u64) -> Self {
        Self {
            state: State::Size { digits: 0, value: 0 },
            body_bytes: 0,
            body_bytes_max,
            extension_bytes: 0,
            trailer_bytes: 0,
        }
    }

    /// Looks at `input`, the bytes behind those it took before.
    pub fn read(&mut self, input: &[u8]) -> Result<ChunkEvent, HttpFault> {
        let mut at = 0;
        while at < input.len() {
            if let State::Data { left } = self.state {
                let room = (input.len() - at) as u64;
                let end = usize::try_from(left).map_or(input.len(), |left| at + left);
                let end = end.min(input.len());
                self.state = if left > room {
                    State::Data { left: left - room }
                } else {
                    State::DataCarriageReturn
                };
                return Ok(ChunkEvent::Data(at..end));
            }
            if self.take(input[at])? {
                return Ok(ChunkEvent::End { len_bytes: at + 1 });
            }
            at += 1;
        }
        Ok(ChunkEvent::NeedMore)
    }

    /// A byte of the framing; `true` if it was the body's last.
    fn take(&mut self, byte: u8) -> Result<bool, HttpFault> {
        self.state = match self.state {
            State::Size { digits, value } => take_size(byte, digits, value)?,
            State::Extension { value } => self.take_extension(byte, value)?,
            State::SizeLineFeed { value } => {
                expect(byte, b'\n', HttpFault::BareLineBreak)?;
                self.begin_chunk(value)?
            }
            State::Data { .. } => unreachable!("data is taken in ranges"),
            State::DataCarriageReturn => {
                expect(byte, b'\r', HttpFault::BadChunkEnd)?;
                State::DataLineFeed
            }
            State::DataLineFeed => {
                expect(byte, b'\n', HttpFault::BadChunkEnd)?;
                State::Size { digits: 0, value: 0 }
            }
            State::LastLineFeed => {
                expect(byte, b'\n', HttpFault::BareLineBreak)?;
                return Ok(true);
            }
            _ => self.take_trailer(byte)?,
        };
        Ok(false)
    }

    fn take_extension(&mut self, byte: u8, value: u64) -> Result<State, HttpFault> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            let extension_bytes_max = EXTENSION_BYTES_MAX;
            return Err(HttpFault::ChunkExtensionsTooLong { extension_bytes_max });
        }
        match byte {
            b'\r' => Ok(State::SizeLineFeed { value }),
            byte => check_text(byte).map(|()| State::Extension { value }),
        }
    }

    /// A size line ended.
    fn begin_chunk(&mut self, size: u64) -> Result<State, HttpFault> {
        if size == 0 {
            return Ok(State::TrailerStart);
        }
        let body_bytes_max = self.body_bytes_max;
        self.body_bytes = self.body_bytes.saturating_add(size);
        if self.body_bytes > body_bytes_max {
            return Err(HttpFault::BodyTooLarge { body_bytes_max });
        }
        Ok(State::Data { left: size })
    }

    fn take_trailer(&mut self, byte: u8) -> Result<State, HttpFault> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(HttpFault::TrailersTooLarge { trailer_bytes_max: TRAILER_BYTES_MAX });
        }
        match (self.state, byte) {
            (State::TrailerLineFeed, byte) => {
                expect(byte, b'\n', HttpFault::BareLineBreak)?;
                Ok(State::TrailerStart)
            }
            (State::TrailerStart, b'\r') => Ok(State::LastLineFeed),
            (State::TrailerStart, b' ' | b'\t') => Err(HttpFault::FoldedHeader),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerValue, byte) => check_text(byte).map(|()| State::TrailerValue),
            (_, byte) if is_token_byte(byte) => Ok(State::TrailerName),
            (_, byte) => check_text(byte).and(Err(HttpFault::BadTrailer)),
        }
    }
}

fn take_size(byte: u8, digits: u8, value: u64) -> Result<State, HttpFault> {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        b';' if digits > 0 => return Ok(State::Extension { value }),
        b'\r' if digits > 0 => return Ok(State::SizeLineFeed { value }),
        _ => return Err(HttpFault::BadChunkSize),
    };
    if digits == SIZE_DIGITS_MAX {
        return Err(HttpFault::BadChunkSize);
    }
    Ok(State::Size { digits: digits + 1, value: value << 4 | u64::from(digit) })
}

fn expect(byte: u8, want: u8, otherwise: HttpFault) -> Result<(), HttpFault> {
    if byte == want { Ok(()) } else { Err(otherwise) }
}

/// A byte that may stand in an extension or a field value.
fn check_text(byte: u8) -> Result<(), HttpFault> {
    match byte {
        b'\r' | b'\n' => Err(HttpFault::BareLineBreak),
        b'\t' | b' '..=0x7e | 0x80.. => Ok(()),
        _ => Err(HttpFault::ControlByte),
    }
}

/// `tchar` of RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
