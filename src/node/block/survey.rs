//! What a block holds, summed up for people: bytes by section, codecs, the labels with the most
//! values and series.
//!
//! Reads the whole index and no column. Memory: one entry a name, and the decoded page at hand.

use std::collections::BTreeMap;

use super::format::{BLOCK_EDGE_BYTES, BlockFault};
use super::reader::{BlockIndex, BlockReader, BlockSource};
use crate::model::series::TenantId;

/// See the module's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSurvey {
    /// Bytes by section.
    pub sections: SectionBytes,
    /// Chunks and bytes by codec of the timestamps. A column that series share counts for each.
    pub timestamp_codecs: BTreeMap<u8, (u64, u64)>,
    /// Chunks and bytes by codec of the values.
    pub value_codecs: BTreeMap<u8, (u64, u64)>,
    /// By tenant and name.
    pub names: Vec<NameSurvey>,
}

/// Bytes by section; together the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionBytes {
    /// Value columns.
    pub values: u64,
    /// Timestamp columns, each once.
    pub timestamps: u64,
    /// Which labels a series has and where its chunks lie.
    pub series: u64,
    /// Distinct label pairs.
    pub labels: u64,
    /// Which series a pair has.
    pub postings: u64,
    /// From references to label pairs.
    pub order: u64,
    /// Header, directory, meta, padding and trailer.
    pub rest: u64,
}

/// A label name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameSurvey {
    /// Whose.
    pub tenant: TenantId,
    /// It.
    pub name: Box<[u8]>,
    /// Series that have it.
    pub series: u64,
    /// Distinct values.
    pub values: u64,
    /// The values that most series have, most first.
    pub top: Vec<(Box<[u8]>, u64)>,
}

impl SectionBytes {
    /// What is not samples.
    pub fn index(&self) -> u64 {
        self.series + self.labels + self.postings + self.order + self.rest
    }
}

impl<S: BlockSource> BlockReader<'_, S> {
    /// Surveys the block, whose file has `len` bytes, with the `top` most frequent values of each
    /// name.
    pub async fn survey(&self, len: u64, top: usize) -> Result<BlockSurvey, BlockFault> {
        let mut value_bytes = 0;
        let (mut timestamp_codecs, mut value_codecs) = (BTreeMap::new(), BTreeMap::new());
        for page in 0..self.page_count() {
            for series in self.series_of_page(page, |_| true).await? {
                for chunk in &series.chunks {
                    let (timestamp_codec, value_codec) = chunk.codecs();
                    let (timestamp_len, value_len) = chunk.column_bytes();
                    value_bytes += value_len;
                    add(&mut timestamp_codecs, timestamp_codec, timestamp_len);
                    add(&mut value_codecs, value_codec, value_len);
                }
            }
        }
        let names = self.survey_names(top).await?;
        let sections = sections(self.index, value_bytes, len);
        Ok(BlockSurvey { sections, timestamp_codecs, value_codecs, names })
    }

    async fn survey_names(&self, top: usize) -> Result<Vec<NameSurvey>, BlockFault> {
        let mut names = Vec::new();
        for name in &self.index.directory().names {
            let mut best: Vec<(Box<[u8]>, u64)> = Vec::new();
            for page in &name.pages {
                let bytes = self.source.page(page.page).await?;
                let malformed = |_| page.malformed();
                let mut pairs = page.view(&bytes).map_err(malformed)?.walk();
                while let Some(pair) = pairs.next().map_err(malformed)? {
                    best.push((pair.value.into(), u64::from(pair.series)));
                }
                // Stable: of equally frequent values the first ones stay.
                best.sort_by_key(|(_, series)| std::cmp::Reverse(*series));
                best.truncate(top);
            }
            names.push(NameSurvey {
                tenant: name.tenant,
                name: name.name.clone(),
                series: u64::from(name.series),
                values: name.pages.iter().map(|page| u64::from(page.count)).sum(),
                top: best,
            });
        }
        Ok(names)
    }
}

fn add(codecs: &mut BTreeMap<u8, (u64, u64)>, codec: u8, bytes: u64) {
    let (chunks, total) = codecs.entry(codec).or_default();
    *chunks += 1;
    *total += bytes;
}

fn sections(index: &BlockIndex, values: u64, len: u64) -> SectionBytes {
    let directory = index.directory();
    let columns = directory.columns_end.saturating_sub(BLOCK_EDGE_BYTES as u64);
    let lens = |lens: &mut dyn Iterator<Item = u32>| lens.map(u64::from).sum::<u64>();
    let series = lens(&mut directory.series_pages.iter().map(|page| page.page.len));
    let pages = || directory.names.iter().flat_map(|name| &name.pages);
    let labels = lens(&mut pages().map(|page| page.page.len));
    let order = lens(&mut directory.order_pages.iter().map(|page| page.len));
    // Postings lie between the label pages and the order pages.
    let ends = pages().map(|page| page.page.offset.saturating_add(u64::from(page.page.len)));
    let labels_end = ends.max().unwrap_or(0);
    let order_start = directory.order_pages.first().map_or(labels_end, |page| page.offset);
    let postings = order_start.saturating_sub(labels_end);
    let known = [columns, series, labels, postings, order];
    let rest = len.saturating_sub(known.into_iter().fold(0, u64::saturating_add));
    let timestamps = columns.saturating_sub(values);
    SectionBytes { values, timestamps, series, labels, postings, order, rest }
}
