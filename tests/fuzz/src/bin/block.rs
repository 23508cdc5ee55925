//! Any bytes as a block whose checksums all hold: opened, checked, selected from and read without a
//! panic, a hang or memory beyond its size.
#![no_main]

use std::sync::Arc;

use crc32c::crc32c;
use libfuzzer_sys::fuzz_target;
use tidegate::base::ready::run_ready;
use tidegate::model::chunk::BlockEncoder;
use tidegate::model::labels::encode_label;
use tidegate::model::matcher::{MatchOperator, Matcher};
use tidegate::model::series::TenantId;
use tidegate::node::block::BlockFault;
use tidegate::node::block::check::check_block;
use tidegate::node::block::format::{BLOCK_EDGE_BYTES, PageRef};
use tidegate::node::block::reader::{BlockIndex, BlockReader, BlockSource};
use tidegate::node::block::writer::{BlockOrigin, BlockWriter};
use tidegate_fuzz::write_seeds;

/// Gives pages out without looking at their checksums.
struct Trusting<'a>(&'a [u8]);

impl BlockSource for Trusting<'_> {
    async fn page(&self, page: PageRef) -> Result<Arc<[u8]>, BlockFault> {
        self.read(page.offset, page.len as usize).await.map(Into::into)
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, BlockFault> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = start.checked_add(len).and_then(|end| self.0.get(start..end));
        bytes.map(<[u8]>::to_vec).ok_or(BlockFault::Truncated { offset })
    }

    async fn yield_if_needed(&self) {}
}

fn block(series: u32) -> Vec<u8> {
    let mut writer = BlockWriter::new(BlockOrigin {
        id: 3,
        node: 7,
        level: 1,
        oldest_flush: 1,
        newest_flush: 2,
        tombstones_applied: 0,
        sources: vec![1, 2],
    });
    let mut encoder = BlockEncoder::default();
    for number in 0..series {
        let mut labels = Vec::new();
        encode_label(&mut labels, b"__name__", b"up");
        encode_label(&mut labels, b"host", format!("host-{number:04}").as_bytes());
        let times: Vec<_> = (0..40).map(|step| 1_700_000_000_000 + step * 15_000).collect();
        let values: Vec<_> = (0..40).map(|step| f64::from(number * step)).collect();
        let columns = encoder.encode(&times, &values);
        writer.add_series(TenantId(0), &labels, std::iter::once(columns));
    }
    writer.finish().expect("series");
    writer.take_output(1)
}

fn seeds() -> Vec<Vec<u8>> {
    vec![block(1), block(20), block(120)]
}

async fn read_all(source: &Trusting<'_>, len: u64) -> Result<(), BlockFault> {
    let index = BlockIndex::open(source, len).await?;
    let reader = BlockReader::new(&index, source);
    let matcher = |operator, value: &str| Matcher { operator, ..Matcher::equal("host", value) };
    for matchers in [
        vec![],
        vec![Matcher::equal("host", "host-0003")],
        vec![matcher(MatchOperator::Regex, "host-00.*"), matcher(MatchOperator::NotEqual, "x")],
        vec![matcher(MatchOperator::NotRegex, "host-000[1-5]")],
    ] {
        let _ = reader.select(TenantId(0), &matchers).await;
    }
    for page in 0..reader.page_count() {
        for series in reader.series_of_page(page, |_| true).await? {
            let _ = reader.chunks(&series.chunks).await;
        }
    }
    Ok(())
}

fuzz_target!(init: write_seeds(&seeds()), |data: &[u8]| {
    if data.len() < 2 * BLOCK_EDGE_BYTES {
        return;
    }
    let mut bytes = data.to_vec();
    let last = bytes.len() - BLOCK_EDGE_BYTES;
    for edge in [0, last] {
        let crc = crc32c(&bytes[edge..edge + BLOCK_EDGE_BYTES - 4]);
        bytes[edge + BLOCK_EDGE_BYTES - 4..edge + BLOCK_EDGE_BYTES]
            .copy_from_slice(&crc.to_le_bytes());
    }
    let (source, len) = (Trusting(&bytes), bytes.len() as u64);
    let _ = run_ready(check_block(&source, len));
    let _ = run_ready(read_all(&source, len));
});
