//! A series comes into the index, or leaves it, and with it the pairs and names that only it had.
//!
//! Cost of either: a table look-up and two set operations a label. Nothing is moved or compacted:
//! what is freed is used again by what comes next.

use roaring::RoaringBitmap;

use super::cells::NONE;
use super::postings::{Left, Postings, insert_row};
use super::vacant::cut_column;
use super::{
    EMPTY, HOLE, Index, IndexFault, LAST, NO_HOLE, Name, Pair, SET_BYTES, Text, labels, len_u32,
    name_hash, pair_hash,
};
use crate::model::series::TenantId;

/// Numbers that must not be used again before every select that began earlier is over.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct LeftLabels {
    pairs: Vec<u32>,
    names: Vec<u32>,
}

/// Numbers cut off the end of the columns at a time.
const CUT_STEPS: usize = 4096;

impl Index {
    /// Indexes a series under `row`, which has none. Changes nothing on a fault.
    pub(in crate::node) fn register(
        &mut self,
        row: u32,
        tenant: TenantId,
        labels: &[u8],
    ) -> Result<(), IndexFault> {
        let mut label_count = 0;
        for label in labels::iterate(labels) {
            label.map_err(|_| IndexFault::Malformed)?;
            label_count += 1;
        }
        let pairs_fit = self.pairs.len() + label_count < NO_HOLE as usize;
        let texts_fit = self.texts.has_room(labels.len().div_ceil(4) + 2 * label_count);
        if !pairs_fit || !texts_fit || !self.lists.has_room(label_count) {
            return Err(IndexFault::Full);
        }
        self.scratch.clear();
        for (at, (name, value)) in labels::iterate(labels).flatten().enumerate() {
            let (name, pair) = match self.previous_at(at, tenant, name) {
                Some((pair, own)) if self.pair_value(pair) == value => (own, Some(pair)),
                Some((_, own)) => (own, self.pair_id(own, value)),
                None => {
                    let own = self.intern_name(tenant, name);
                    (own, self.pair_id(own, value))
                }
            };
            let pair = self.intern_pair((name, pair), value, row);
            self.scratch.push(pair);
        }
        self.set_list(row);
        std::mem::swap(&mut self.scratch, &mut self.previous);
        self.series_count += 1;
        self.label_count += label_count as u64;
        let all = self.tenants.entry(tenant).or_insert_with(|| {
            self.boxed_bytes += SET_BYTES;
            RoaringBitmap::new()
        });
        insert_row(all, row);
        Ok(())
    }

    /// Stores the scratch as the list of `row`.
    fn set_list(&mut self, row: u32) {
        let count = self.scratch.len();
        let mut start = EMPTY;
        if let Some(last) = self.scratch.last_mut() {
            *last |= LAST;
            start = self.lists.allocate(count);
            self.lists.cell_mut(start, count).copy_from_slice(&self.scratch);
        }
        let row = row as usize;
        if row >= self.list_of.len() {
            self.list_of.resize(row + 1, NONE);
        }
        self.list_of[row] = start;
    }

    /// The pair, and its name, that the series before has at this place, if the name is the same.
    #[inline]
    fn previous_at(&self, at: usize, tenant: TenantId, name: &[u8]) -> Option<(u32, u32)> {
        let pair = self.previous.get(at)? & !LAST;
        let own = self.pairs.get(pair as usize).map(|pair| pair.name).filter(|own| *own != NONE)?;
        let Name { tenant: of, text, .. } = self.names[own as usize];
        (of == tenant && self.text(text) == name).then_some((pair, own))
    }

    fn intern_name(&mut self, tenant: TenantId, name: &[u8]) -> u32 {
        if let Some(id) = self.name_id(tenant, name) {
            return id;
        }
        let text = self.push_text(name);
        let new = Name {
            tenant,
            text,
            pairs: Vec::new(),
            pair_count: 0,
            first_hole: NO_HOLE,
            having: RoaringBitmap::new(),
        };
        let id = self.names_vacant.lowest().unwrap_or_else(|| len_u32(&self.names));
        self.names_vacant.take(id);
        match self.names.get_mut(id as usize) {
            Some(place) => *place = new,
            None => self.names.push(new),
        }
        self.name_table.insert(name_hash(tenant, name), id);
        self.boxed_bytes += SET_BYTES;
        id
    }

    /// The number of the pair, if it has one already or not, which the series in `row` now carries.
    fn intern_pair(&mut self, (name, pair): (u32, Option<u32>), value: &[u8], row: u32) -> u32 {
        if !insert_row(&mut self.names[name as usize].having, row) {
            // A name twice in one series is refused long before; the first one stands.
            return pair.unwrap_or_else(|| self.push_pair(name, value, row));
        }
        let Some(pair) = pair else { return self.push_pair(name, value, row) };
        self.boxed_bytes += self.pairs[pair as usize].postings.insert(row);
        pair
    }

    fn push_pair(&mut self, name: u32, value: &[u8], row: u32) -> u32 {
        let text = self.push_text(value);
        let pair = self.pairs_vacant.lowest().unwrap_or_else(|| len_u32(&self.pairs));
        self.pairs_vacant.take(pair);
        let place = self.place_in_name(name, pair);
        let new = Pair { name, place, value: text, postings: Postings::One(row) };
        match self.pairs.get_mut(pair as usize) {
            Some(place) => *place = new,
            None => self.pairs.push(new),
        }
        self.pair_table.insert(pair_hash(name, value), pair);
        self.pair_count += 1;
        pair
    }

    /// Puts `pair` into the first hole of its name's list, or behind the others.
    fn place_in_name(&mut self, name: u32, pair: u32) -> u32 {
        let name = &mut self.names[name as usize];
        name.pair_count += 1;
        if name.first_hole != NO_HOLE {
            let place = name.first_hole;
            let hole = std::mem::replace(&mut name.pairs[place as usize], pair);
            name.first_hole = hole & !HOLE;
            return place;
        }
        let before = name.pairs.capacity();
        name.pairs.push(pair);
        self.boxed_bytes += 4 * (name.pairs.capacity() - before) as u64;
        len_u32(&name.pairs) - 1
    }

    fn push_text(&mut self, text: &[u8]) -> Text {
        let words = text.len().div_ceil(4);
        let word = self.texts.allocate(words);
        let cell = self.texts.cell_mut(word, words);
        bytemuck::cast_slice_mut(cell)[..text.len()].copy_from_slice(text);
        Text { word, len: u32::try_from(text.len()).expect("room was asked for") }
    }

    fn release_text(&mut self, text: Text) {
        self.texts.release(text.word, (text.len as usize).div_ceil(4));
    }

    /// Takes the series in `row` out, and what only it had. The numbers that are free then are
    /// added to `left`, to be given to [`Index::vacate`] when nobody can name them any more; so is
    /// the row not to be used before.
    pub(in crate::node) fn remove(&mut self, row: u32, left: &mut LeftLabels) {
        let tenant = self.tenant_of(row);
        let mut pairs = std::mem::take(&mut self.scratch);
        pairs.clear();
        pairs.extend(self.pairs_of(row));
        let start = std::mem::replace(&mut self.list_of[row as usize], NONE);
        assert!(start != NONE, "the row has a series");
        if start != EMPTY {
            self.lists.release(start, pairs.len());
        }
        self.series_count -= 1;
        self.label_count -= pairs.len() as u64;
        for pair in &pairs {
            self.remove_from_pair(*pair, row, left);
        }
        self.scratch = pairs;
        if let Some(all) = self.tenants.get_mut(&tenant) {
            all.remove(row);
            if all.is_empty() {
                self.tenants.remove(&tenant);
                self.boxed_bytes -= SET_BYTES;
            }
        }
    }

    fn remove_from_pair(&mut self, pair: u32, row: u32, left: &mut LeftLabels) {
        let Pair { name, postings, .. } = &mut self.pairs[pair as usize];
        if *name == NONE {
            return; // The same pair twice in one series, which is refused long before.
        }
        self.names[*name as usize].having.remove(row);
        let before = postings.heap_bytes();
        let rest = postings.remove(row);
        self.boxed_bytes = self.boxed_bytes + postings.heap_bytes() - before;
        if rest == Left::Nothing {
            self.remove_pair(pair, left);
        }
    }

    fn remove_pair(&mut self, pair: u32, left: &mut LeftLabels) {
        let Pair { name, place, value, .. } = self.pairs[pair as usize];
        let hash = pair_hash(name, self.text(value));
        self.pair_table.remove(hash, pair);
        self.release_text(value);
        self.pairs[pair as usize].name = NONE;
        self.pair_count -= 1;
        left.pairs.push(pair);
        let of = &mut self.names[name as usize];
        of.pairs[place as usize] = HOLE | of.first_hole;
        of.first_hole = place;
        of.pair_count -= 1;
        if of.pair_count == 0 {
            self.remove_name(name, left);
        }
    }

    fn remove_name(&mut self, name: u32, left: &mut LeftLabels) {
        let Name { tenant, text, .. } = self.names[name as usize];
        let hash = name_hash(tenant, self.text(text));
        self.name_table.remove(hash, name);
        self.release_text(text);
        let of = &mut self.names[name as usize];
        self.boxed_bytes -= SET_BYTES + 4 * of.pairs.capacity() as u64;
        (of.pairs, of.first_hole) = (Vec::new(), NO_HOLE);
        of.having = RoaringBitmap::new();
        left.names.push(name);
    }

    /// Nobody can name what `left` holds any more: its numbers may be used again.
    pub(in crate::node) fn vacate(&mut self, left: &LeftLabels) {
        left.pairs.iter().for_each(|pair| self.pairs_vacant.give(*pair));
        left.names.iter().for_each(|name| self.names_vacant.give(*name));
    }

    /// Whether [`Index::cut_numbers`] has something to do.
    pub(in crate::node) fn has_numbers_to_cut(&self) -> bool {
        self.pairs_vacant.has_last(self.pairs.len()) || self.names_vacant.has_last(self.names.len())
    }

    /// Cuts some free numbers off the ends of the columns, and gives their memory back.
    pub(in crate::node) fn cut_numbers(&mut self) {
        let pairs = self.pairs_vacant.cut_off(self.pairs.len(), CUT_STEPS);
        cut_column(&mut self.pairs, pairs);
        let names = self.names_vacant.cut_off(self.names.len(), CUT_STEPS);
        cut_column(&mut self.names, names);
    }

    /// The rows from `rows` on are not there any more.
    pub(in crate::node) fn cut_rows(&mut self, rows: usize) {
        cut_column(&mut self.list_of, rows);
    }
}
