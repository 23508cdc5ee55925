//! Which series carry which labels, for one node shard: label pairs interned once, postings per
//! pair. What no series carries any more leaves.
//!
//! ```text
//! texts    arena of all label names and values
//! names    (tenant, name)  -> its pairs, and the set of rows of the series that have it
//! pairs    (name, value)   -> postings: rows of the series that carry the pair
//! lists    arena of the pairs of each series, in canonical order: 4 bytes a label
//! ```
//! A series is known here by its row in the head's columns. A name belongs to one tenant, and with
//! it its pairs, so that no look-up can cross from one tenant to another.
//!
//! Rows, and the numbers of pairs and names, are used again, but only when no select that began
//! before is left (`head/grace.rs`). A pair that leaves makes a hole in its name's list, which the
//! next pair of that name fills: a cursor in the list stays good.
//! In: canonical label bytes (`change`). Out: rows, sets of rows, texts. Not here: samples
//! (`head`), the walk of a query (`select`).

mod cells;
mod change;
mod condition;
mod id_table;
mod labels;
mod postings;
mod vacant;

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::model::series::TenantId;
use cells::{Cells, NONE};

pub(in crate::node) use change::LeftLabels;
pub(in crate::node) use condition::{Condition, Test};
pub(in crate::node) use id_table::IdTable;
pub(in crate::node) use postings::Postings;
pub(in crate::node) use vacant::{Vacant, cut_column};

/// The index of one head.
#[derive(Default)]
pub(in crate::node) struct Index {
    texts: Cells,
    names: Vec<Name>,
    names_vacant: Vacant,
    name_table: IdTable,
    pairs: Vec<Pair>,
    pairs_vacant: Vacant,
    pair_table: IdTable,
    /// The pairs of each series; the last one of a list has [`LAST`] set.
    lists: Cells,
    /// Row -> its list, [`NONE`] without a series, [`EMPTY`] for one without labels.
    list_of: Vec<u32>,
    series_count: u32,
    pair_count: u32,
    /// Labels of all series.
    label_count: u64,
    tenants: HashMap<TenantId, RoaringBitmap>,
    /// Estimated bytes behind the boxes: postings, sets and lists.
    boxed_bytes: u64,
    /// Pairs of the series that comes or goes; kept for its memory.
    scratch: Vec<u32>,
    /// The list of the series that came before: most of its pairs are those of the next one, which
    /// saves two look-ups each. They may have left, and their numbers may be others' by now.
    previous: Vec<u32>,
}

/// The list of a series without labels, which the grammar of labels refuses, and this does not.
const EMPTY: u32 = NONE - 1;
/// Set in the last pair of a series' list.
const LAST: u32 = 1 << 31;
/// Set in an entry of a name's pairs that is none; the rest is the place of the next such one.
const HOLE: u32 = 1 << 31;
/// The last hole.
const NO_HOLE: u32 = HOLE - 1;

/// Where a text lies in the arena.
#[derive(Clone, Copy)]
struct Text {
    word: u32,
    len: u32,
}

struct Name {
    tenant: TenantId,
    text: Text,
    /// Pairs, and holes.
    pairs: Vec<u32>,
    pair_count: u32,
    first_hole: u32,
    /// Series that have the label at all: absence is asked for as often as presence.
    having: RoaringBitmap,
}

struct Pair {
    /// [`NONE`]: the pair left.
    name: u32,
    /// In the name's pairs.
    place: u32,
    value: Text,
    postings: Postings,
}

const _: () = assert!(size_of::<Pair>() == 32);

/// Why a series cannot be indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum IndexFault {
    /// The label bytes are not in canonical form.
    Malformed,
    /// Texts or pairs no longer fit their numbers.
    Full,
}

/// What a new name or tenant costs beside its text: struct, set, table entry.
const SET_BYTES: u64 = 128;

impl Index {
    fn text(&self, text: Text) -> &[u8] {
        let words = &self.texts.from(text.word)[..(text.len as usize).div_ceil(4)];
        &bytemuck::cast_slice(words)[..text.len as usize]
    }

    /// Series in the index.
    pub(in crate::node) fn series_count(&self) -> u32 {
        self.series_count
    }

    /// Label pairs in the index.
    pub(in crate::node) fn pair_count(&self) -> u32 {
        self.pair_count
    }

    /// The pairs of the series in `row`, in canonical order; none if there is no series.
    pub(in crate::node) fn pairs_of(&self, row: u32) -> impl Iterator<Item = u32> + '_ {
        let start = self.list_of.get(row as usize).copied().unwrap_or(NONE);
        let list = if start >= EMPTY { &[][..] } else { self.lists.from(start) };
        let end = list.iter().position(|pair| pair & LAST != 0).map_or(0, |last| last + 1);
        list[..end].iter().map(|pair| pair & !LAST)
    }

    /// Appends the canonical label bytes of the series in `row`, the same that it was registered
    /// with.
    pub(in crate::node) fn encode_labels(&self, row: u32, out: &mut Vec<u8>) {
        for pair in self.pairs_of(row) {
            let pair = &self.pairs[pair as usize];
            let name = self.names[pair.name as usize].text;
            labels::encode(self.text(name), self.text(pair.value), out);
        }
    }

    /// Whose the series in `row` is.
    pub(in crate::node) fn tenant_of(&self, row: u32) -> TenantId {
        let Some(pair) = self.pairs_of(row).next() else {
            let of = self.tenants.iter().find(|(_, rows)| rows.contains(row));
            return of.map(|(tenant, _)| *tenant).unwrap_or_default();
        };
        self.names[self.pairs[pair as usize].name as usize].tenant
    }

    /// The name's number, if a series of `tenant` has it.
    pub(in crate::node) fn name_id(&self, tenant: TenantId, name: &[u8]) -> Option<u32> {
        self.name_table.find(name_hash(tenant, name), |id| {
            let candidate = &self.names[id as usize];
            candidate.tenant == tenant && self.text(candidate.text) == name
        })
    }

    /// The number of the pair `name` = `value`, if a series carries it.
    pub(in crate::node) fn pair_id(&self, name: u32, value: &[u8]) -> Option<u32> {
        self.pair_table.find(pair_hash(name, value), |id| {
            let candidate = &self.pairs[id as usize];
            candidate.name == name && self.text(candidate.value) == value
        })
    }

    /// The bytes of a name.
    pub(in crate::node) fn name_text(&self, name: u32) -> &[u8] {
        self.text(self.names[name as usize].text)
    }

    /// Numbers of pairs are below this; some are free.
    pub(in crate::node) fn pair_numbers(&self) -> u32 {
        len_u32(&self.pairs)
    }

    /// The name of a pair; `None` if the number is free.
    pub(in crate::node) fn name_of_pair(&self, pair: u32) -> Option<u32> {
        self.pairs.get(pair as usize).map(|pair| pair.name).filter(|name| *name != NONE)
    }

    /// Whose a name is.
    pub(in crate::node) fn name_tenant(&self, name: u32) -> TenantId {
        self.names[name as usize].tenant
    }

    /// The name of a pair.
    pub(in crate::node) fn pair_name(&self, pair: u32) -> u32 {
        self.pairs[pair as usize].name
    }

    /// The bytes of a pair's value.
    pub(in crate::node) fn pair_value(&self, pair: u32) -> &[u8] {
        self.text(self.pairs[pair as usize].value)
    }

    /// The series that carry a pair.
    pub(in crate::node) fn postings(&self, pair: u32) -> &Postings {
        &self.pairs[pair as usize].postings
    }

    /// Places of the pairs of a name: a cursor goes through 0 up to this.
    pub(in crate::node) fn places_of_name(&self, name: u32) -> usize {
        self.names[name as usize].pairs.len()
    }

    /// The pair at a place; `None` where one left. A pair never changes its place, and new ones may
    /// come anywhere.
    pub(in crate::node) fn pair_at(&self, name: u32, place: usize) -> Option<u32> {
        let pair = *self.names[name as usize].pairs.get(place)?;
        (pair & HOLE == 0).then_some(pair)
    }

    /// The series that have a name.
    pub(in crate::node) fn having(&self, name: u32) -> &RoaringBitmap {
        &self.names[name as usize].having
    }

    /// All series of a tenant.
    pub(in crate::node) fn all(&self, tenant: TenantId) -> Option<&RoaringBitmap> {
        self.tenants.get(&tenant)
    }

    /// Bytes that labels left behind and that others will use.
    pub(in crate::node) fn bytes_free(&self) -> u64 {
        self.texts.bytes_free() + self.lists.bytes_free()
    }

    /// Bytes of label texts, and of all else. O(1).
    pub(in crate::node) fn bytes(&self) -> IndexBytes {
        let names = (self.names.capacity() * size_of::<Name>()) as u64;
        let pairs = (self.pairs.capacity() * size_of::<Pair>()) as u64;
        // Two sets of at most a bit, or two bytes where sparse, for each label and series.
        let sets = self.label_count / 4;
        let vacant = self.names_vacant.bytes() + self.pairs_vacant.bytes();
        IndexBytes {
            labels: self.texts.bytes() + self.lists.bytes() + 4 * self.list_of.capacity() as u64,
            index: names
                + pairs
                + sets
                + vacant
                + self.boxed_bytes
                + self.name_table.bytes()
                + self.pair_table.bytes(),
        }
    }
}

/// What an index takes.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct IndexBytes {
    /// Texts, and the list of pairs of each series.
    pub(in crate::node) labels: u64,
    /// Tables, pairs and postings.
    pub(in crate::node) index: u64,
}

fn name_hash(tenant: TenantId, name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, u64::from(tenant.0))
}

fn pair_hash(name: u32, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, u64::from(name))
}

/// The length of a column whose growth was checked against 2^31.
fn len_u32<T>(column: &[T]) -> u32 {
    u32::try_from(column.len()).expect("growth is checked in register")
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers from a seeded generator")]
mod tests;
