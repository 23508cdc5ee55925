//! Decimals of JSON -> exact f64 and i64, eight digits at a time. ASCII in, no allocation, about 4
//! ns a number.
//!
//! Exact by the theorem of Clinger ("How to read floating point numbers accurately", 1990): a
//! mantissa below 2^53 and a power of ten up to 10^22 are both f64s without error, so one division
//! rounds as the true quotient would. All else goes to the standard library, which is exact too.

/// A number and where it ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Read<T> {
    pub number: T,
    pub end: usize,
}

const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
const SMALL_POWERS_OF_TEN: [u64; 8] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000];
const MANTISSA_MAX: u64 = 1 << 53;
/// More digits may not fit a `u64`.
const DIGITS_MAX: usize = 19;

/// Some digits in a row: their value (modulo 2^64) and where they end.
#[derive(Clone, Copy)]
struct Digits {
    value: u64,
    end: usize,
}

/// The number at `bytes[start..]`, in JSON's grammar. `None` if there is none, or if it is above
/// f64.
///
/// What follows the number is the caller's to check.
#[inline]
pub fn read_f64(bytes: &[u8], start: usize) -> Option<Read<f64>> {
    let is_negative = *bytes.get(start)? == b'-';
    let integer_start = start + usize::from(is_negative);
    let integer = read_digits(bytes, integer_start, 0);
    let integer_len = integer.end - integer_start;
    if integer_len != 1 && (integer_len == 0 || bytes[integer_start] == b'0') {
        return None;
    }
    let (mantissa, end, fraction_len) = match bytes.get(integer.end) {
        Some(b'.') => {
            let fraction_start = integer.end + 1;
            let fraction = read_digits(bytes, fraction_start, integer.value);
            (fraction.value, fraction.end, fraction.end - fraction_start)
        }
        _ => (integer.value, integer.end, 0),
    };
    if fraction_len == 0 && end != integer.end {
        return None;
    }
    let is_short = integer_len + fraction_len <= DIGITS_MAX && mantissa <= MANTISSA_MAX;
    if !is_short || matches!(bytes.get(end), Some(b'e' | b'E')) {
        return read_long(bytes, start, end);
    }
    let magnitude = mantissa as f64 / POWERS_OF_TEN[fraction_len];
    Some(Read { number: if is_negative { -magnitude } else { magnitude }, end })
}

/// A number with an exponent, or with more digits than fit: `bytes[start..end]` is its part before
/// the exponent.
fn read_long(bytes: &[u8], start: usize, end: usize) -> Option<Read<f64>> {
    let mut end = end;
    if let Some(b'e' | b'E') = bytes.get(end) {
        end += 1;
        if let Some(b'+' | b'-') = bytes.get(end) {
            end += 1;
        }
        let exponent = read_digits(bytes, end, 0);
        if exponent.end == end {
            return None;
        }
        end = exponent.end;
    }
    let number: f64 = std::str::from_utf8(&bytes[start..end]).ok()?.parse().ok()?;
    number.is_finite().then_some(Read { number, end })
}

/// The whole number without a sign at `bytes[start..]`, of up to 18 digits.
#[inline]
pub fn read_i64(bytes: &[u8], start: usize) -> Option<Read<i64>> {
    let digits = read_digits(bytes, start, 0);
    let len = digits.end - start;
    if len > 18 || (len != 1 && (len == 0 || bytes[start] == b'0')) {
        return None;
    }
    Some(Read { number: digits.value.cast_signed(), end: digits.end })
}

/// The whole number of exactly thirteen digits at `bytes[start..]`, as milliseconds of this age
/// are; `None` if what is there is anything else.
///
/// That the next element's place does not hang on what was read is what makes it twice as fast as
/// [`read_i64`].
#[inline]
pub fn read_thirteen_digits(bytes: &[u8], start: usize) -> Option<Read<i64>> {
    let window: &[u8; 14] = bytes.get(start..start + 14)?.first_chunk()?;
    let high = u64::from_le_bytes(*window.first_chunk()?) ^ ZEROS;
    let low = u64::from_le_bytes(*window[5..].first_chunk()?) ^ ZEROS;
    let is_digits = other_bytes(high) | other_bytes(low) == 0;
    if !is_digits || window[13].is_ascii_digit() || window[0] == b'0' {
        return None;
    }
    // The three digits that both words have count in the first one.
    let number = eight_digits(high) * 100_000 + eight_digits(low & !0x00ff_ffff);
    Some(Read { number: number.cast_signed(), end: start + 13 })
}

/// The digits at `bytes[start..]`, appended to `value`'s.
#[inline]
fn read_digits(bytes: &[u8], start: usize, value: u64) -> Digits {
    let mut value = value;
    let mut end = start;
    loop {
        let word = load_word(bytes, end) ^ ZEROS;
        let others = other_bytes(word);
        if others != 0 {
            let count = others.trailing_zeros() / 8;
            if count > 0 {
                let digits = eight_digits(word << (64 - 8 * count));
                value = value.wrapping_mul(SMALL_POWERS_OF_TEN[count as usize]);
                value = value.wrapping_add(digits);
            }
            return Digits { value, end: end + count as usize };
        }
        value = value.wrapping_mul(100_000_000).wrapping_add(eight_digits(word));
        end += 8;
    }
}

/// Eight times the digit 0: digits become their values.
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The top bit of each byte above 9. A carry makes bits above the lowest one unsure; that none is
/// set is sure.
#[inline]
fn other_bytes(word: u64) -> u64 {
    (word | word.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080
}

/// Eight bytes, the first one lowest; zeros stand in behind the end.
#[inline]
fn load_word(bytes: &[u8], start: usize) -> u64 {
    match bytes.get(start..).and_then(|rest| rest.first_chunk()) {
        Some(word) => u64::from_le_bytes(*word),
        None => load_last_word(bytes, start),
    }
}

#[cold]
fn load_last_word(bytes: &[u8], start: usize) -> u64 {
    let rest = bytes.get(start..).unwrap_or_default();
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(word)
}

/// The number that eight digit values make, the first digit in the lowest byte: pairs, fours,
/// eight, each step all at once.
/// <https://lemire.me/blog/2022/01/21/swar-explained-parsing-eight-digits/>
#[inline]
fn eight_digits(word: u64) -> u64 {
    const PAIRS: u64 = 0x0000_00ff_0000_00ff;
    const HIGH: u64 = 100 + (1_000_000 << 32);
    const LOW: u64 = 1 + (10_000 << 32);
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    let high = (pairs & PAIRS).wrapping_mul(HIGH);
    let low = ((pairs >> 16) & PAIRS).wrapping_mul(LOW);
    high.wrapping_add(low) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;

    #[track_caller]
    fn check(text: &str, want_end: usize) {
        let want: f64 = text[..want_end].parse().expect("a number");
        for tail in ["", ",", "]          ", "x1234567"] {
            let bytes = format!("[{text}{tail}");
            let read = read_f64(bytes.as_bytes(), 1).expect("a number");
            assert_eq!(read.number.to_bits(), want.to_bits(), "{bytes}");
            assert_eq!(read.end, 1 + want_end, "{bytes}");
        }
    }

    #[test]
    fn floats_are_exact() {
        for text in [
            "0",
            "-0",
            "-0.0",
            "1",
            "12345678",
            "123456789",
            "0.1",
            "0.30000000000000004",
            "9007199254740992",
            "9007199254740993",
            "18446744073709551615",
            "18446744073709551617",
            "99999999999999999999999999999",
            "0.000000000000000000000001",
            "1234567890123456789.5",
            "1e22",
            "1E+3",
            "1.5e-7",
            "-2.2250738585072011e-308",
            "4.9e-324",
            "1e-400",
            "1.7976931348623157e308",
        ] {
            check(text, text.len());
        }
        let mut random = Random(3);
        for _ in 0..50_000 {
            let number = f64::from_bits(random.next());
            if number.is_finite() {
                let text = number.to_string();
                check(&text, text.len());
            }
            let digits = random.next() >> random.index(64);
            let mut text = digits.to_string();
            text.insert(random.index(text.len()) + 1, '.');
            text.push('5');
            if !text.starts_with('0') || text.starts_with("0.") {
                check(&text, text.len());
            }
        }
    }

    #[test]
    fn what_is_no_number_of_json() {
        for text in
            ["", "-", "+1", ".5", "1.", "1.,", "01", "-01", "1e", "1e+", "1e400", "NaN", "x"]
        {
            assert_eq!(read_f64(text.as_bytes(), 0), None, "{text}");
        }
        check("1x", 1);
        check("0x10", 1);
    }

    #[test]
    fn thirteen_digits() {
        #[track_caller]
        fn check(text: &str, want: Option<i64>) {
            let got = read_thirteen_digits(text.as_bytes(), 0);
            assert_eq!(got, want.map(|number| Read { number, end: 13 }), "{text}");
        }
        check("1700000012345,", Some(1_700_000_012_345));
        check("9999999999999]", Some(9_999_999_999_999));
        check("1234567890123.", Some(1_234_567_890_123));
        check("12345678901234", None);
        check("123456789012,3", None);
        check("0234567890123,", None);
        check("1700000012345", None); // The last bytes of a body are for the slower way.
        for at in 0..13 {
            for other in ["/", ":", ",", "-", "\0", "\u{7f}"] {
                let mut text = String::from("1700000012345,");
                text.replace_range(at..=at, other);
                check(&text, None);
            }
        }
    }

    #[test]
    fn whole_numbers() {
        #[track_caller]
        fn check(text: &str, want: Option<(i64, usize)>) {
            let got = read_i64(text.as_bytes(), 0).map(|read| (read.number, read.end));
            assert_eq!(got, want, "{text}");
        }
        check("0", Some((0, 1)));
        check("1700000000123,", Some((1_700_000_000_123, 13)));
        check("170000000012345678]", Some((170_000_000_012_345_678, 18)));
        check("1700000000.5", Some((1_700_000_000, 10)));
        check("1700000000123456789", None);
        check("01", None);
        check("-1", None);
        check("", None);
    }
}
