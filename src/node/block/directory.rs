//! What a reader of a block holds in memory: where its pages are. About 40 bytes a page of 16 KiB,
//! and the names.
//!
//! ```text
//! | columns end u64 | series u32 | pairs u32
//! | tenants v | tenant u32, first series u32 | series pages v | page ref, first u32, tenant u32,
//!   values base u64 | order pages v | page ref |
//! | names v | tenant u32, text, series u32, having page ref,
//!   pages v | page ref, first rank u32, count u32, postings at u64, first value text | |
//! ```

use roaring::RoaringBitmap;

use super::format::{BlockFault, PageRef, Walk, write_text};
use super::pair_page::{Malformed, PairPageView};
use crate::base::varint::write_varint;
use crate::model::series::TenantId;

/// See the module's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    /// Where the columns end and the series pages begin.
    pub columns_end: u64,
    pub series: u32,
    pub pairs: u32,
    /// In order; each tenant's series go up to the next one's first.
    pub tenants: Vec<TenantEntry>,
    pub series_pages: Vec<SeriesPage>,
    pub order_pages: Vec<PageRef>,
    /// By tenant and name.
    pub names: Vec<NameEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TenantEntry {
    pub tenant: TenantId,
    pub first: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeriesPage {
    pub page: PageRef,
    /// Its first series.
    pub first: u32,
    pub tenant: TenantId,
    /// What its first `gap` counts from.
    pub values_base: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NameEntry {
    pub tenant: TenantId,
    pub name: Box<[u8]>,
    /// Series that have it.
    pub series: u32,
    pub having: PageRef,
    pub pages: Vec<PairPage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PairPage {
    pub page: PageRef,
    pub first_rank: u32,
    pub count: u32,
    /// Where the postings of its pairs begin.
    pub postings_at: u64,
    pub first_value: Box<[u8]>,
}

impl PairPage {
    /// The pairs in its bytes.
    pub(super) fn view<'a>(&self, bytes: &'a [u8]) -> Result<PairPageView<'a>, Malformed> {
        PairPageView::new(bytes, self.count, self.postings_at)
    }

    /// Its checksum held, and what it says cannot be.
    pub(super) fn malformed(&self) -> BlockFault {
        BlockFault::Malformed { offset: self.page.offset }
    }
}

impl Directory {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.columns_end.to_le_bytes());
        out.extend_from_slice(&self.series.to_le_bytes());
        out.extend_from_slice(&self.pairs.to_le_bytes());
        write_varint(&mut out, self.tenants.len() as u64);
        for entry in &self.tenants {
            out.extend_from_slice(&entry.tenant.0.to_le_bytes());
            out.extend_from_slice(&entry.first.to_le_bytes());
        }
        write_varint(&mut out, self.series_pages.len() as u64);
        for entry in &self.series_pages {
            entry.page.encode(&mut out);
            out.extend_from_slice(&entry.first.to_le_bytes());
            out.extend_from_slice(&entry.tenant.0.to_le_bytes());
            out.extend_from_slice(&entry.values_base.to_le_bytes());
        }
        write_varint(&mut out, self.order_pages.len() as u64);
        for page in &self.order_pages {
            page.encode(&mut out);
        }
        write_varint(&mut out, self.names.len() as u64);
        for name in &self.names {
            out.extend_from_slice(&name.tenant.0.to_le_bytes());
            write_text(&mut out, &name.name);
            out.extend_from_slice(&name.series.to_le_bytes());
            name.having.encode(&mut out);
            write_varint(&mut out, name.pages.len() as u64);
            for page in &name.pages {
                page.page.encode(&mut out);
                out.extend_from_slice(&page.first_rank.to_le_bytes());
                out.extend_from_slice(&page.count.to_le_bytes());
                out.extend_from_slice(&page.postings_at.to_le_bytes());
                write_text(&mut out, &page.first_value);
            }
        }
        out
    }

    /// `None` if the bytes are not a directory. Lists are as long as the bytes allow.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut walk = Walk::new(bytes);
        let (columns_end, series, pairs) = (walk.u64()?, walk.u32()?, walk.u32()?);
        let tenants = list(&mut walk, |walk| {
            Some(TenantEntry { tenant: TenantId(walk.u32()?), first: walk.u32()? })
        })?;
        let series_pages = list(&mut walk, |walk| {
            Some(SeriesPage {
                page: walk.page_ref()?,
                first: walk.u32()?,
                tenant: TenantId(walk.u32()?),
                values_base: walk.u64()?,
            })
        })?;
        let order_pages = list(&mut walk, Walk::page_ref)?;
        let names = list(&mut walk, |walk| {
            Some(NameEntry {
                tenant: TenantId(walk.u32()?),
                name: walk.text()?.into(),
                series: walk.u32()?,
                having: walk.page_ref()?,
                pages: list(walk, |walk| {
                    Some(PairPage {
                        page: walk.page_ref()?,
                        first_rank: walk.u32()?,
                        count: walk.u32()?,
                        postings_at: walk.u64()?,
                        first_value: walk.text()?.into(),
                    })
                })?,
            })
        })?;
        let directory =
            Self { columns_end, series, pairs, tenants, series_pages, order_pages, names };
        (walk.is_done() && directory.is_sound()).then_some(directory)
    }

    /// Whether the lists are in order, so that searches in them work.
    fn is_sound(&self) -> bool {
        let firsts = self.series_pages.is_sorted_by(|one, next| one.first < next.first);
        let tenants = self
            .tenants
            .is_sorted_by(|one, next| one.tenant < next.tenant && one.first < next.first);
        let names = self
            .names
            .is_sorted_by(|one, next| (one.tenant, &one.name) < (next.tenant, &next.name));
        let mut rank = 0_u64;
        let ranks = self.names.iter().flat_map(|name| &name.pages).all(|page| {
            let is_next = u64::from(page.first_rank) == rank;
            rank += u64::from(page.count);
            is_next && page.count > 0
        });
        let starts = self.series_pages.first().is_some_and(|page| page.first == 0);
        firsts && tenants && names && ranks && starts && rank == u64::from(self.pairs)
    }

    /// The name's entry, if a series of `tenant` has it.
    pub(super) fn name(&self, tenant: TenantId, name: &[u8]) -> Option<&NameEntry> {
        let at =
            self.names.binary_search_by(|entry| (entry.tenant, &*entry.name).cmp(&(tenant, name)));
        at.ok().map(|at| &self.names[at])
    }

    /// The names of a tenant, sorted.
    pub(super) fn names_of(&self, tenant: TenantId) -> &[NameEntry] {
        let start = self.names.partition_point(|entry| entry.tenant < tenant);
        let end = self.names.partition_point(|entry| entry.tenant <= tenant);
        &self.names[start..end]
    }

    /// The ids of a tenant's series.
    pub(super) fn series_of(&self, tenant: TenantId) -> std::ops::Range<u32> {
        let at = self.tenants.iter().position(|entry| entry.tenant == tenant);
        let Some(at) = at else { return 0..0 };
        let end = self.tenants.get(at + 1).map_or(self.series, |next| next.first);
        self.tenants[at].first..end
    }

    /// The name and page of the pair with this rank.
    pub(super) fn pair_page(&self, rank: u32) -> Option<(&NameEntry, &PairPage)> {
        let first = |name: &NameEntry| name.pages.first().map_or(u32::MAX, |page| page.first_rank);
        let name = self.names.partition_point(|name| first(name) <= rank).checked_sub(1)?;
        let name = &self.names[name];
        let page = name.pages.partition_point(|page| page.first_rank <= rank).checked_sub(1)?;
        Some((name, &name.pages[page]))
    }

    /// The index of the page that holds series `id`.
    pub(super) fn series_page(&self, id: u32) -> usize {
        self.series_pages.partition_point(|page| page.first <= id).saturating_sub(1)
    }

    /// One above the last series of a page.
    pub(super) fn series_page_end(&self, page: usize) -> u32 {
        self.series_pages.get(page + 1).map_or(self.series, |next| next.first)
    }
}

fn list<'a, T>(
    walk: &mut Walk<'a>,
    mut item: impl FnMut(&mut Walk<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = walk.len()?;
    // Not reserved: the count is not to be believed.
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(walk)?);
    }
    Some(items)
}

/// Adds the ids of a list of runs.
pub(super) fn decode_runs(bytes: &[u8], set: &mut RoaringBitmap) -> Option<()> {
    let mut walk = Walk::new(bytes);
    let mut end = 0_u32;
    while !walk.is_done() {
        let start = end.checked_add(walk.varint_u32()?)?;
        let last = start.checked_add(walk.varint_u32()?)?;
        set.insert_range(start..=last);
        end = last.checked_add(1)?;
    }
    Some(())
}

/// The ids of a stored list, all below `series`.
pub(super) fn decode_postings(bytes: &[u8], series: u32) -> Option<RoaringBitmap> {
    let (kind, rest) = bytes.split_first()?;
    let mut set = RoaringBitmap::new();
    match kind {
        0 => decode_runs(rest, &mut set)?,
        1 => set = RoaringBitmap::deserialize_from(rest).ok()?,
        _ => return None,
    }
    set.max().is_none_or(|max| max < series).then_some(set)
}
