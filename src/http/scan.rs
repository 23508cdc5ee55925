//! Finds the end of a request head in bytes that arrive in pieces, and refuses loose line breaks on
//! the way.
//!
//! In: the next bytes. Out: how many belong to the head. O(1) state, each byte is looked at once,
//! so a client that sends a head byte by byte costs no more than one that sends it whole.
//! `httparse` then sees whole heads only. It takes a lone LF for a line end; two parsers that
//! disagree on that are the door for smuggled requests, so it is shut here.

use super::fault::HttpFault;

/// Where in a head the scan stands.
#[derive(Clone, Copy, Debug)]
pub struct HeadScan {
    head_bytes: usize,
    line_bytes: usize,
    line: Line,
    after_carriage_return: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Nothing yet; one empty line is skipped, as RFC 9112, 2.2 asks for.
    BeforeRequest,
    /// The request line, the empty line in front of it gone.
    Request,
    /// A header field.
    Header,
}

/// What [`HeadScan::scan`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// All of the input belongs to the head, and more is to come.
    Partial,
    /// The head ends with this many bytes of the input.
    Complete { len_bytes: usize },
}

impl HeadScan {
    /// In front of a request.
    pub const START: Self = Self {
        head_bytes: 0,
        line_bytes: 0,
        line: Line::BeforeRequest,
        after_carriage_return: false,
    };

    /// Whether nothing at all has arrived.
    pub fn is_fresh(&self) -> bool {
        self.head_bytes == 0
    }

    /// Whether nothing of a request has arrived, but perhaps the empty line before it.
    pub fn is_idle(&self) -> bool {
        self.line_bytes == 0 && self.line != Line::Header && !self.after_carriage_return
    }

    /// Looks at `input`, the bytes behind those it saw before.
    pub fn scan(&mut self, input: &[u8], head_bytes_max: usize) -> Result<Scanned, HttpFault> {
        for (index, &byte) in input.iter().enumerate() {
            self.head_bytes += 1;
            if self.head_bytes > head_bytes_max {
                return Err(self.too_large(head_bytes_max));
            }
            if self.after_carriage_return {
                if byte != b'\n' {
                    return Err(HttpFault::BareLineBreak);
                }
                self.after_carriage_return = false;
                if self.end_line()? {
                    return Ok(Scanned::Complete { len_bytes: index + 1 });
                }
            } else if byte == b'\r' {
                self.after_carriage_return = true;
            } else {
                self.take(byte)?;
            }
        }
        Ok(Scanned::Partial)
    }

    /// A byte inside a line.
    #[inline]
    fn take(&mut self, byte: u8) -> Result<(), HttpFault> {
        if byte < b' ' || byte == 0x7f {
            match byte {
                b'\n' => return Err(HttpFault::BareLineBreak),
                b'\t' => {}
                _ => return Err(HttpFault::ControlByte),
            }
        }
        if self.line_bytes == 0 && matches!(byte, b' ' | b'\t') {
            return Err(match self.line {
                Line::Header => HttpFault::FoldedHeader,
                Line::BeforeRequest | Line::Request => HttpFault::BadRequestLine,
            });
        }
        self.line_bytes += 1;
        Ok(())
    }

    /// A line ended; `true` if the head did too.
    fn end_line(&mut self) -> Result<bool, HttpFault> {
        let is_empty = self.line_bytes == 0;
        self.line_bytes = 0;
        match (self.line, is_empty) {
            (Line::BeforeRequest, true) => self.line = Line::Request,
            (Line::Request, true) => return Err(HttpFault::BadRequestLine),
            (Line::Header, true) => return Ok(true),
            (_, false) => self.line = Line::Header,
        }
        Ok(false)
    }

    fn too_large(&self, head_bytes_max: usize) -> HttpFault {
        match self.line {
            Line::Header => HttpFault::HeadTooLarge { head_bytes_max },
            Line::BeforeRequest | Line::Request => HttpFault::TargetTooLong { head_bytes_max },
        }
    }
}
