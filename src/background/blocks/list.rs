//! The list of a node's blocks and deletions, `BLOCKS`: which files count. Replaced as a whole, so
//! that what it says changes at once. Text in, text out.
//!
//! ```text
//! {"version":1,"node":"<32 hex>","next_block":7,"next_tombstone":2,"blocks":[3,6],"tombstones":[]}
//! crc32c 01234567
//! ```
//! `"lost":[5]` stands behind the blocks if there are any.
//! Text, because it is short, seldom written, and the first thing to look at by hand.

use serde::{Deserialize, Serialize};

use crate::base::checksum::crc32c;
use crate::model::matcher::{MatchOperator, Matcher};
use crate::model::series::TenantId;
use crate::node::block::Tombstone;

const VERSION: u32 = 1;

/// What `BLOCKS` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockList {
    /// Whose blocks they are.
    pub node: u128,
    /// The next block's id; higher than any used before.
    pub next_block: u64,
    /// The next tombstone's id.
    pub next_tombstone: u64,
    /// Ids of the blocks that count, ascending.
    pub blocks: Vec<u64>,
    /// Ids of blocks that counted and are gone or damaged: said at each start, and counted again
    /// if they are put back.
    pub lost: Vec<u64>,
    /// In order of their ids.
    pub tombstones: Vec<Tombstone>,
}

/// Why a text is not a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFault {
    /// Torn, or changed since it was written.
    Damaged,
    /// A version that this program does not know.
    UnknownVersion { version: u32 },
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    node: String,
    next_block: u64,
    next_tombstone: u64,
    blocks: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lost: Vec<u64>,
    tombstones: Vec<WrittenTombstone>,
}

#[derive(Serialize, Deserialize)]
struct WrittenTombstone {
    id: u64,
    tenant: u32,
    /// Name, operator, value.
    matchers: Vec<(String, String, String)>,
    start_ms: i64,
    end_ms: i64,
}

impl BlockList {
    /// The list of a node that has no block yet.
    pub fn new(node: u128) -> Self {
        Self {
            node,
            next_block: 1,
            next_tombstone: 1,
            blocks: Vec::new(),
            lost: Vec::new(),
            tombstones: Vec::new(),
        }
    }

    /// The text of the file.
    pub fn encode(&self) -> String {
        let written = Written {
            version: VERSION,
            node: format!("{:032x}", self.node),
            next_block: self.next_block,
            next_tombstone: self.next_tombstone,
            blocks: self.blocks.clone(),
            lost: self.lost.clone(),
            tombstones: self.tombstones.iter().map(write_tombstone).collect(),
        };
        let line = serde_json::to_string(&written).expect("numbers and texts");
        format!("{line}\ncrc32c {:08x}\n", crc32c(line.as_bytes()))
    }

    /// Reads what `encode` wrote; spaces behind it do not matter.
    pub fn decode(text: &str) -> Result<Self, ListFault> {
        let (line, rest) = text.split_once('\n').ok_or(ListFault::Damaged)?;
        let crc = rest.trim_end().strip_prefix("crc32c ").ok_or(ListFault::Damaged)?;
        if u32::from_str_radix(crc, 16) != Ok(crc32c(line.as_bytes())) {
            return Err(ListFault::Damaged);
        }
        let written: Written = serde_json::from_str(line).map_err(|_| ListFault::Damaged)?;
        if written.version != VERSION {
            return Err(ListFault::UnknownVersion { version: written.version });
        }
        let tombstones = written.tombstones.into_iter().map(read_tombstone);
        Ok(Self {
            node: u128::from_str_radix(&written.node, 16).map_err(|_| ListFault::Damaged)?,
            next_block: written.next_block,
            next_tombstone: written.next_tombstone,
            blocks: written.blocks,
            lost: written.lost,
            tombstones: tombstones.collect::<Option<_>>().ok_or(ListFault::Damaged)?,
        })
    }
}

fn write_tombstone(tombstone: &Tombstone) -> WrittenTombstone {
    let write = |matcher: &Matcher| {
        let operator = match matcher.operator {
            MatchOperator::Equal => "=",
            MatchOperator::NotEqual => "!=",
            MatchOperator::Regex => "=~",
            MatchOperator::NotRegex => "!~",
        };
        (matcher.name.clone(), operator.to_owned(), matcher.value.clone())
    };
    WrittenTombstone {
        id: tombstone.id,
        tenant: tombstone.tenant.0,
        matchers: tombstone.matchers.iter().map(write).collect(),
        start_ms: tombstone.start_ms,
        end_ms: tombstone.end_ms,
    }
}

fn read_tombstone(written: WrittenTombstone) -> Option<Tombstone> {
    let read = |(name, operator, value): (String, String, String)| {
        let operator = match operator.as_str() {
            "=" => MatchOperator::Equal,
            "!=" => MatchOperator::NotEqual,
            "=~" => MatchOperator::Regex,
            "!~" => MatchOperator::NotRegex,
            _ => return None,
        };
        Some(Matcher { name, operator, value })
    };
    let matchers: Option<Vec<_>> = written.matchers.into_iter().map(read).collect();
    Some(Tombstone {
        id: written.id,
        tenant: TenantId(written.tenant),
        matchers: matchers.filter(|matchers| !matchers.is_empty())?,
        start_ms: written.start_ms,
        end_ms: written.end_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> BlockList {
        let operator = MatchOperator::NotRegex;
        let matchers = vec![
            Matcher::equal("__name__", "up\n\"x\""),
            Matcher { name: "job".into(), operator, value: "a|b".into() },
        ];
        let (start_ms, end_ms) = (i64::MIN, 5);
        let tombstone = Tombstone { id: 4, tenant: TenantId(0), matchers, start_ms, end_ms };
        let (blocks, lost, tombstones) = (vec![3, 6], Vec::new(), vec![tombstone]);
        BlockList { node: 1 << 100 | 7, next_block: 8, next_tombstone: 5, blocks, lost, tombstones }
    }

    #[test]
    fn round_trip_and_every_change_is_found() {
        let text = example().encode();
        assert_eq!(BlockList::decode(&text), Ok(example()));
        let lossy = BlockList { lost: vec![1, 5], ..example() };
        assert_eq!(BlockList::decode(&lossy.encode()), Ok(lossy));
        assert_eq!(BlockList::decode(&format!("{text}\0\0").replace('\0', " ")), Ok(example()));
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 4;
            let changed = String::from_utf8_lossy(&bytes);
            // A digit of the checksum may be written large.
            let is_found = BlockList::decode(&changed).is_err();
            assert!(is_found, "at={at}");
            assert!(BlockList::decode(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn text_is_frozen() {
        let golden = include_str!("../../../tests/golden/block_list_v1.txt");
        assert_eq!(example().encode(), golden);
    }
}
