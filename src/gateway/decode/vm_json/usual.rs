//! One pass over a line of the usual shape: an object with `metric`, `values` and `timestamps` once
//! each, in any order; strings of printable ASCII without escapes; decimals and `null`; whole
//! timestamps. In: a body and where a line begins. Out: the line's labels and columns, or "not
//! usual": then `any.rs` decides, so nothing is refused here, and what is taken must be what
//! simd-json would take.

use super::number::{read_f64, read_i64, read_thirteen_digits};
use super::{Line, integer_timestamp_ms};
use crate::model::sample::STALE_NAN;

/// Reads the line at `body[start..]` into `line`, and says where the next one begins. `None` if the
/// line is not of the usual shape; `line` is then left half filled.
#[inline]
pub fn read_line(body: &[u8], start: usize, line: &mut Line) -> Option<usize> {
    let mut cursor = Cursor { bytes: body, at: start };
    let mut has_metric = false;
    cursor.expect(b'{')?;
    loop {
        let key = cursor.string()?;
        cursor.expect(b':')?;
        match key {
            b"metric" if !has_metric => {
                cursor.metric(line)?;
                has_metric = true;
            }
            b"values" if line.value.is_empty() => cursor.values(&mut line.value)?,
            b"timestamps" if line.timestamp_ms.is_empty() => {
                cursor.timestamps(&mut line.timestamp_ms)?;
            }
            _ => return None,
        }
        if cursor.is_last(b'}')? {
            break;
        }
    }
    // A missing array shows as an empty one when the line is taken.
    if !has_metric {
        return None;
    }
    cursor.line_end()
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The next byte that is not white space inside a line; it is not taken yet.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    #[inline]
    fn expect(&mut self, want: u8) -> Option<()> {
        let is_there = self.peek()? == want;
        self.at += 1;
        is_there.then_some(())
    }

    /// Behind an element: whether `close` ends the list, or a comma goes on with it.
    #[inline]
    fn is_last(&mut self, close: u8) -> Option<bool> {
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b',' => Some(false),
            _ => (byte == close).then_some(true),
        }
    }

    fn line_end(&mut self) -> Option<usize> {
        match self.peek() {
            None => Some(self.bytes.len()),
            Some(b'\n') => Some(self.at + 1),
            Some(_) => None,
        }
    }

    /// A string of printable ASCII without escapes.
    #[inline]
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            let Some(word) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()) else {
                return self.last_string(start);
            };
            let ends = string_ends(u64::from_le_bytes(*word));
            if ends == 0 {
                self.at += 8;
                continue;
            }
            self.at += ends.trailing_zeros() as usize / 8;
            let is_quote = self.bytes[self.at] == b'"';
            let string = &self.bytes[start..self.at];
            self.at += 1;
            return is_quote.then_some(string);
        }
    }

    /// The end of a string in the last eight bytes of the body.
    #[cold]
    fn last_string(&mut self, start: usize) -> Option<&'a [u8]> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return Some(&self.bytes[start..self.at - 1]),
                b'\\' | 0..0x20 | 0x80.. => return None,
                _ => {}
            }
        }
    }

    fn metric(&mut self, line: &mut Line) -> Option<()> {
        self.expect(b'{')?;
        loop {
            let name = self.string()?;
            self.expect(b':')?;
            let value = self.string()?;
            line.labels.push(name, value);
            if self.is_last(b'}')? {
                return Some(());
            }
        }
    }

    fn values(&mut self, values: &mut Vec<f64>) -> Option<()> {
        self.expect(b'[')?;
        loop {
            let first = self.peek()?;
            if first == b'n' {
                let null = self.bytes.get(self.at..self.at + 4)?;
                if null != b"null" {
                    return None;
                }
                values.push(STALE_NAN);
                self.at += 4;
            } else {
                let read = read_f64(self.bytes, self.at)?;
                values.push(read.number);
                self.at = read.end;
            }
            if self.is_last(b']')? {
                return Some(());
            }
        }
    }

    fn timestamps(&mut self, timestamps_ms: &mut Vec<i64>) -> Option<()> {
        self.expect(b'[')?;
        loop {
            self.peek()?;
            let read = match read_thirteen_digits(self.bytes, self.at) {
                Some(read) => read,
                None => read_i64(self.bytes, self.at)?,
            };
            timestamps_ms.push(integer_timestamp_ms(read.number)?);
            self.at = read.end;
            if self.is_last(b']')? {
                return Some(());
            }
        }
    }
}

/// The top bit of each byte that is a quote, a backslash, a control character or no ASCII. Bits
/// above the lowest one may be wrong (a borrow), the lowest is right.
#[inline]
fn string_ends(word: u64) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let is_zero = |word: u64| word.wrapping_sub(LOW) & !word;
    let quote = is_zero(word ^ (LOW * 0x22));
    let backslash = is_zero(word ^ (LOW * 0x5c));
    let control = word.wrapping_sub(LOW * 0x20) & !word;
    (quote | backslash | control | word) & HIGH
}
