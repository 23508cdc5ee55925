//! The `MANIFEST` of a data folder: which node this is, and which incarnation of its shards counts.
//! Text, for people.
//!
//! ```text
//! tidegate data folder
//! format 1
//! node 0123456789abcdef0123456789abcdef
//! incarnation 1
//! shards 2
//! crc32c 01234567
//! ```
//! The checksum covers the lines above its own.

use crate::base::checksum::crc32c;

const TITLE: &str = "tidegate data folder";
const FORMAT: u32 = 1;

/// What the manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The node's id: random, made at the first start, never changed.
    pub node: u128,
    /// Rises each time the shards are cut anew; ids of series die with it.
    pub incarnation: u64,
    /// Shards of this incarnation.
    pub shards: u32,
}

/// Why text is not a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestFault {
    /// The line (from 1) is not what belongs there.
    Line { line: u32 },
    /// The checksum does not match.
    Damaged,
    /// Of a version that this program does not know.
    UnknownFormat { format: u32 },
}

impl Manifest {
    /// The text of the file.
    pub fn encode(&self) -> String {
        let Self { node, incarnation, shards } = self;
        let body = format!(
            "{TITLE}\nformat {FORMAT}\nnode {node:032x}\nincarnation {incarnation}\n\
             shards {shards}\n"
        );
        let crc = crc32c(body.as_bytes());
        format!("{body}crc32c {crc:08x}\n")
    }

    /// Reads what `encode` wrote.
    pub fn decode(text: &str) -> Result<Self, ManifestFault> {
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(ManifestFault::Line { line: 1 });
        }
        let mut value_of = |line: u32, key: &str| {
            let line_text = lines.next().unwrap_or_default();
            let value = line_text.strip_prefix(key).and_then(|rest| rest.strip_prefix(' '));
            value.ok_or(ManifestFault::Line { line })
        };
        let format = value_of(2, "format")?.parse().or(Err(ManifestFault::Line { line: 2 }))?;
        if format != FORMAT {
            return Err(ManifestFault::UnknownFormat { format });
        }
        let node = u128::from_str_radix(value_of(3, "node")?, 16);
        let node = node.or(Err(ManifestFault::Line { line: 3 }))?;
        let incarnation = value_of(4, "incarnation")?.parse();
        let incarnation = incarnation.or(Err(ManifestFault::Line { line: 4 }))?;
        let shards = value_of(5, "shards")?.parse().or(Err(ManifestFault::Line { line: 5 }))?;
        let crc = u32::from_str_radix(value_of(6, "crc32c")?, 16);
        let crc = crc.or(Err(ManifestFault::Line { line: 6 }))?;
        let body = text.rfind("crc32c ").map_or("", |end| &text[..end]);
        if crc32c(body.as_bytes()) != crc || shards == 0 {
            return Err(ManifestFault::Damaged);
        }
        Ok(Self { node, incarnation, shards })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_changed_byte() {
        let manifest = Manifest { node: 0xabc << 100, incarnation: 7, shards: 16 };
        let text = manifest.encode();
        assert_eq!(Manifest::decode(&text), Ok(manifest));
        for at in 0..text.len() - 1 {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1;
            let bad = String::from_utf8(bad).expect("ASCII");
            assert!(Manifest::decode(&bad).is_err(), "byte {at}: {bad}");
            assert!(Manifest::decode(&text[..at]).is_err(), "cut at {at}");
        }
    }
}
