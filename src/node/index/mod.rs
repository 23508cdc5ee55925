//! Which series carry which labels, for one node shard: label pairs interned once, postings per
//! pair. Grows only.
//!
//! ```text
//! texts    one byte arena of all label names and values
//! names    (tenant, name)  -> its pairs, and the set of series that have it
//! pairs    (name, value)   -> postings: ids of the series that carry the pair
//! series   id -> its pairs, in canonical order: 4 bytes a label
//! ```
//! A name belongs to one tenant, and with it its pairs, so that no look-up can cross from one
//! tenant to another. In: canonical label bytes. Out: ids, sets of ids, texts. Not here: samples
//! (`head`), the walk of a query (`select`).

mod condition;
mod id_table;
mod labels;
mod postings;

use hashbrown::HashMap;
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::model::series::TenantId;

pub(in crate::node) use condition::{Condition, Test};
pub(in crate::node) use id_table::IdTable;
pub(in crate::node) use postings::Postings;

/// The index of one head.
#[derive(Default)]
pub(in crate::node) struct Index {
    texts: Vec<u8>,
    names: Vec<Name>,
    name_table: IdTable,
    pairs: Vec<Pair>,
    pair_table: IdTable,
    /// The pairs of all series, one series behind the other.
    series_pairs: Vec<u32>,
    /// Exclusive end of each series in `series_pairs`.
    series_end: Vec<u32>,
    tenants: HashMap<TenantId, RoaringBitmap>,
    /// Estimated bytes behind the boxes: postings, sets and lists.
    boxed_bytes: u64,
    /// Pairs of the series that is being registered; kept for its memory.
    new_pairs: Vec<u32>,
}

/// Where a text lies in the arena.
#[derive(Clone, Copy)]
struct Text {
    offset: u32,
    len: u32,
}

struct Name {
    tenant: TenantId,
    text: Text,
    pairs: Vec<u32>,
    /// Series that have the label at all: absence is asked for as often as presence.
    having: RoaringBitmap,
}

struct Pair {
    name: u32,
    value: Text,
    postings: Postings,
}

const _: () = assert!(size_of::<Pair>() == 32);

/// Why a series cannot be indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum IndexFault {
    /// The label bytes are not in canonical form.
    Malformed,
    /// Texts or pairs no longer fit 32-bit offsets.
    Full,
}

/// What a new name or tenant costs beside its text: struct, set, table entry.
const SET_BYTES: u64 = 128;

impl Index {
    /// Indexes one more series and returns its id: the number of series before it. Changes nothing
    /// on a fault.
    pub(in crate::node) fn register(
        &mut self,
        tenant: TenantId,
        labels: &[u8],
    ) -> Result<u32, IndexFault> {
        let mut label_count = 0;
        for label in labels::iterate(labels) {
            label.map_err(|_| IndexFault::Malformed)?;
            label_count += 1;
        }
        let room = u32::MAX as usize;
        if self.texts.len() + labels.len() > room || self.series_pairs.len() + label_count > room {
            return Err(IndexFault::Full);
        }
        let id = len_u32(&self.series_end);
        self.new_pairs.clear();
        for (name, value) in labels::iterate(labels).flatten() {
            let name = self.intern_name(tenant, name);
            let pair = self.intern_pair(name, value, id);
            self.new_pairs.push(pair);
        }
        self.series_pairs.extend_from_slice(&self.new_pairs);
        self.series_end.push(len_u32(&self.series_pairs));
        let all = self.tenants.entry(tenant).or_insert_with(|| {
            self.boxed_bytes += SET_BYTES;
            RoaringBitmap::new()
        });
        all.insert(id);
        Ok(id)
    }

    fn intern_name(&mut self, tenant: TenantId, name: &[u8]) -> u32 {
        if let Some(id) = self.name_id(tenant, name) {
            return id;
        }
        let id = len_u32(&self.names);
        let text = self.push_text(name);
        self.names.push(Name { tenant, text, pairs: Vec::new(), having: RoaringBitmap::new() });
        self.name_table.insert(name_hash(tenant, name), id);
        self.boxed_bytes += SET_BYTES;
        id
    }

    /// The id of the pair, which the series `id` now carries.
    fn intern_pair(&mut self, name: u32, value: &[u8], id: u32) -> u32 {
        let pair = self.pair_id(name, value);
        let having = &mut self.names[name as usize].having;
        if having.max() == Some(id) {
            // A name twice in one series is refused long before; the first one stands.
            return pair.unwrap_or_else(|| self.push_pair(name, value, id));
        }
        having.insert(id);
        let Some(pair) = pair else { return self.push_pair(name, value, id) };
        self.boxed_bytes += self.pairs[pair as usize].postings.push(id);
        pair
    }

    fn push_pair(&mut self, name: u32, value: &[u8], id: u32) -> u32 {
        let pair = len_u32(&self.pairs);
        let text = self.push_text(value);
        self.pairs.push(Pair { name, value: text, postings: Postings::One(id) });
        self.pair_table.insert(pair_hash(name, value), pair);
        let list = &mut self.names[name as usize].pairs;
        let before = list.capacity();
        list.push(pair);
        self.boxed_bytes += 4 * (list.capacity() - before) as u64;
        pair
    }

    fn push_text(&mut self, text: &[u8]) -> Text {
        let offset = len_u32(&self.texts);
        self.texts.extend_from_slice(text);
        Text { offset, len: len_u32(text) }
    }

    fn text(&self, text: Text) -> &[u8] {
        &self.texts[text.offset as usize..][..text.len as usize]
    }

    /// Series in the index.
    pub(in crate::node) fn series_count(&self) -> u32 {
        len_u32(&self.series_end)
    }

    /// Label pairs in the index.
    pub(in crate::node) fn pair_count(&self) -> u32 {
        len_u32(&self.pairs)
    }

    /// The pairs of series `id`, in canonical order.
    pub(in crate::node) fn pairs_of(&self, id: u32) -> &[u32] {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.series_end[id - 1] as usize };
        &self.series_pairs[start..self.series_end[id] as usize]
    }

    /// Appends the canonical label bytes of series `id`, the same that it was registered with.
    pub(in crate::node) fn encode_labels(&self, id: u32, out: &mut Vec<u8>) {
        for pair in self.pairs_of(id) {
            let pair = &self.pairs[*pair as usize];
            let name = self.names[pair.name as usize].text;
            labels::encode(self.text(name), self.text(pair.value), out);
        }
    }

    /// The name's id, if a series of `tenant` has it.
    pub(in crate::node) fn name_id(&self, tenant: TenantId, name: &[u8]) -> Option<u32> {
        self.name_table.find(name_hash(tenant, name), |id| {
            let candidate = &self.names[id as usize];
            candidate.tenant == tenant && self.text(candidate.text) == name
        })
    }

    /// The id of the pair `name` = `value`, if a series carries it.
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

    /// All pairs of a name, in order of their first appearance; only ever appended to.
    pub(in crate::node) fn pairs_of_name(&self, name: u32) -> &[u32] {
        &self.names[name as usize].pairs
    }

    /// The series that have a name.
    pub(in crate::node) fn having(&self, name: u32) -> &RoaringBitmap {
        &self.names[name as usize].having
    }

    /// All series of a tenant.
    pub(in crate::node) fn all(&self, tenant: TenantId) -> Option<&RoaringBitmap> {
        self.tenants.get(&tenant)
    }

    /// Bytes of label texts, and of all else. O(1).
    pub(in crate::node) fn bytes(&self) -> IndexBytes {
        let series = (self.series_pairs.capacity() + self.series_end.capacity()) * 4;
        let names = self.names.capacity() * size_of::<Name>();
        let pairs = self.pairs.capacity() * size_of::<Pair>();
        // Two sets of at most a bit, or two bytes where sparse, for each label and series.
        let sets = self.series_pairs.len() / 4;
        IndexBytes {
            labels: self.texts.capacity() as u64 + series as u64,
            index: (names + pairs + sets) as u64
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

/// The length of a column whose growth was checked against 2^32.
fn len_u32<T>(column: &[T]) -> u32 {
    u32::try_from(column.len()).expect("growth is checked in register")
}
