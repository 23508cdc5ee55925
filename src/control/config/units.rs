//! Quantities as people write them in the configuration: `64MiB`, `10m`, `127.0.0.1:8428`. Each
//! reads back what it prints.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};

use crate::query::duration::{format_duration_ms, parse_duration_ms};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// The whole mebibytes of `bytes`: for defaults, which people read.
    pub const fn mebibytes_of(bytes: u64) -> Self {
        Self(bytes >> 20 << 20)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is not a size; write for example 64MiB, 1GiB or 4096");
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        let count: u64 = digits.parse().map_err(|_| fault())?;
        let unit = unit.trim_start();
        let unit_bytes = match SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((_, unit_bytes)) => *unit_bytes,
            None if unit.is_empty() => 1,
            None => return Err(fault()),
        };
        count.checked_mul(unit_bytes).map(Self).ok_or_else(fault)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = &SIZE_UNITS[..4];
        match binary.iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes)) {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A length of time, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(u64);

impl Period {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Milliseconds, as sample times have them.
    pub fn as_ms(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration_ms(text)
            .and_then(|duration_ms| u64::try_from(duration_ms).ok())
            .map(Self)
            .ok_or_else(|| {
                format!("{text:?} is not a length of time; write for example 10s, 1h30m or 0")
            })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_duration_ms(self.0))
    }
}

/// Addresses to listen on; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen(pub Vec<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |part: &str| {
            part.trim().parse().map_err(|_| {
                format!("{part:?} is not an address; write for example 127.0.0.1:8428 or [::]:8428")
            })
        };
        text.split(',').map(parse).collect::<Result<_, _>>().map(Self)
    }
}

/// Names, such as those of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl FromStr for Names {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(|name| name.trim().to_owned());
        Ok(Self(names.filter(|name| !name.is_empty()).collect()))
    }
}

/// When a client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// Every owner has its samples.
    All,
    /// One owner has.
    One,
}

impl FromStr for AckMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "one" => Ok(Self::One),
            _ => Err(format!("{text:?} is neither `all` nor `one`")),
        }
    }
}

impl Serialize for AckMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::All => "all",
            Self::One => "one",
        })
    }
}

impl<'de> Deserialize<'de> for AckMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor("`all` or `one`")).and_then(|text| parse(&text))
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(TextVisitor("a name, or a list of them"))
            .and_then(|text| parse(&text))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for address in &self.0 {
            list.serialize_element(&address.to_string())?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(TextVisitor("a size such as 64MiB"))
            .and_then(|text| parse(&text))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(TextVisitor("a length of time such as 10m"))
            .and_then(|text| parse(&text))
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(TextVisitor("an address, or a list of them"))
            .and_then(|text| parse(&text))
    }
}

fn parse<T: FromStr<Err = String>, E: Error>(text: &str) -> Result<T, E> {
    text.parse().map_err(E::custom)
}

/// Takes a string, or a list of them.
pub(super) struct ListVisitor(pub &'static str);

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
        Ok(vec![text.to_owned()])
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            texts.push(text);
        }
        Ok(texts)
    }
}

/// Takes a string, a whole number, or a list of strings (joined by commas): what YAML makes of
/// unquoted quantities.
struct TextVisitor(&'static str);

impl<'de> Visitor<'de> for TextVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
        let number = u64::try_from(number)
            .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
        Ok(number.to_string())
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<String, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = list.next_element::<String>()? {
            parts.push(part);
        }
        Ok(parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        #[track_caller]
        fn check(text: &str, want: Option<u64>) {
            assert_eq!(text.parse::<ByteSize>().ok(), want.map(ByteSize), "text={text:?}");
        }
        check("0", Some(0));
        check("4096", Some(4096));
        check("64MiB", Some(64 << 20));
        check("64 mib", Some(64 << 20));
        check("1GB", Some(1_000_000_000));
        check("7B", Some(7));
        check("", None);
        check("MiB", None);
        check("-1", None);
        check("1.5GiB", None);
        check("1XiB", None);
        check("99999999999999TiB", None);
        for bytes in [0, 1, 1023, 1024, 1025, 64 << 20, 3 << 40, 1_000_000_000, u64::MAX] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
        assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
    }

    #[test]
    fn periods() {
        assert_eq!("10m".parse(), Ok(Period::from_secs(600)));
        assert_eq!("0".parse(), Ok(Period::from_secs(0)));
        assert_eq!(Period::from_secs(5400).to_string(), "1h30m");
        assert!("10".parse::<Period>().is_err());
        assert!("-1s".parse::<Period>().is_err());
    }

    #[test]
    fn addresses() {
        let listen: Listen = "127.0.0.1:1, [::1]:2".parse().expect("two");
        assert_eq!(listen.0.len(), 2);
        assert!("localhost".parse::<Listen>().is_err());
        assert!("".parse::<Listen>().is_err());
    }
}
