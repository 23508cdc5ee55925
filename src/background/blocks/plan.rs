//! Which blocks are merged next, and which are too old to keep. Pure.
//!
//! Blocks are merged within aligned windows of 2 h, 8 h, 32 h, 128 h ..., up to a tenth of the
//! retention, once a window is over. A window's blocks are all taken, so that what overlaps is read
//! once; but one large block is not written again for a few late samples. Nor is more than a tenth
//! of `retention_bytes` put into one block: whole blocks go when there is too much.
//!
//! Age is counted from the newest sample in blocks where the clock is far ahead of it: a clock that
//! jumps a month must not take a month of data with it.

use crate::node::block::{BLOCK_RANGE_MS, BlockMeta};

/// Each window is so many times the one below.
pub const LADDER_STEP: i64 = 4;
/// The longest window whatever the retention: three weeks.
const WINDOW_MS_MAX: i64 = 21 * 24 * 3_600_000;
/// A window takes late samples for so long after its end.
const GRACE_MS: i64 = 10 * 60_000;
/// So many blocks in a window are merged though it is not over, as each costs every query a look.
const BLOCKS_CROWDED: usize = 8;
/// A merged block is at most this part of what may be kept.
const RETENTION_PARTS: u64 = 10;
/// Nor is it made of more series, each counted in each of its sources: bounds its label pairs,
/// which are in memory while it is written, and its directory.
const MERGED_SERIES_MAX: u64 = 32 << 20;
/// The newest sample is so far behind the clock at most, as far as deleting for age goes.
const CLOCK_AHEAD_MS: i64 = 24 * 3_600_000;
/// Small ones wait until together they are a tenth of the largest.
const SMALL_FACTOR: u64 = 10;

/// What is kept, and when a window is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreRules {
    /// Blocks that ended before this go; 0 keeps them for ever.
    pub retention_ms: i64,
    /// The oldest go while all together are larger; 0: no limit.
    pub retention_bytes: u64,
    /// How late samples may come.
    pub out_of_order_window_ms: i64,
    /// Below this many free bytes samples are refused, and nothing is merged.
    pub disk_free_min_bytes: u64,
}

/// What the plan knows of a block.
#[derive(Clone, Debug)]
pub struct PlannedBlock {
    /// What it is.
    pub meta: BlockMeta,
    /// Its file's length.
    pub bytes: u64,
}

/// The blocks that are to become one, if any: their ids.
pub fn plan_merge(blocks: &[PlannedBlock], rules: &StoreRules, now_ms: i64) -> Option<Vec<u64>> {
    let mut window_ms = BLOCK_RANGE_MS;
    let window_ms_max = window_ms_max(rules);
    while window_ms <= window_ms_max {
        let mut starts: Vec<_> =
            blocks.iter().filter_map(|block| window_of(&block.meta, window_ms)).collect();
        starts.sort_unstable();
        starts.dedup();
        for start_ms in starts {
            let inside =
                |block: &&PlannedBlock| window_of(&block.meta, window_ms) == Some(start_ms);
            let window = small_enough(blocks.iter().filter(inside).collect(), rules);
            let over_ms = start_ms
                .saturating_add(window_ms)
                .saturating_add(rules.out_of_order_window_ms)
                .saturating_add(GRACE_MS);
            let is_due = now_ms >= over_ms || window.len() >= BLOCKS_CROWDED;
            if is_due && is_worth_it(&window) && is_unambiguous(&window, blocks) {
                return Some(window.iter().map(|block| block.meta.id).collect());
            }
        }
        window_ms *= LADDER_STEP;
    }
    None
}

/// The longest window whose blocks are merged is at most this.
pub fn window_ms_max(rules: &StoreRules) -> i64 {
    match rules.retention_ms {
        0 => WINDOW_MS_MAX,
        retention_ms => (retention_ms / 10).clamp(BLOCK_RANGE_MS, WINDOW_MS_MAX),
    }
}

/// Without the largest while together they are too much for one block.
fn small_enough<'a>(
    mut window: Vec<&'a PlannedBlock>,
    rules: &StoreRules,
) -> Vec<&'a PlannedBlock> {
    let bytes_max = match rules.retention_bytes {
        0 => u64::MAX,
        bytes => bytes / RETENTION_PARTS,
    };
    let mut bytes: u64 = window.iter().map(|block| block.bytes).sum();
    let mut series: u64 = window.iter().map(|block| block.meta.series).sum();
    while (bytes > bytes_max || series > MERGED_SERIES_MAX)
        && let Some(largest) = (0..window.len()).max_by_key(|at| window[*at].bytes)
    {
        let left_out = window.remove(largest);
        bytes -= left_out.bytes;
        series -= left_out.meta.series;
    }
    window
}

/// All blocks that share a time with another, or lie in the same finished window: for whoever asks
/// for everything to be merged now.
pub fn plan_merge_now(blocks: &[PlannedBlock], rules: &StoreRules) -> Option<Vec<u64>> {
    plan_merge(blocks, rules, i64::MAX)
}

/// The start of the window that holds all of the block.
fn window_of(meta: &BlockMeta, window_ms: i64) -> Option<i64> {
    let start_ms = meta.min_ms.div_euclid(window_ms).saturating_mul(window_ms);
    (meta.max_ms < start_ms.saturating_add(window_ms)).then_some(start_ms)
}

fn is_worth_it(window: &[&PlannedBlock]) -> bool {
    if window.len() < 2 {
        return false;
    }
    let largest = window.iter().map(|block| block.bytes).max().unwrap_or(0);
    let rest = window.iter().map(|block| block.bytes).sum::<u64>() - largest;
    window.len() >= BLOCKS_CROWDED || rest * SMALL_FACTOR >= largest
}

/// Whether no block outside of the window overlaps it in time with flushes between those inside:
/// the merged block could then neither win nor lose against it.
fn is_unambiguous(window: &[&PlannedBlock], blocks: &[PlannedBlock]) -> bool {
    let oldest = window.iter().map(|block| block.meta.oldest_flush).min().unwrap_or(0);
    let newest = window.iter().map(|block| block.meta.newest_flush).max().unwrap_or(0);
    let min_ms = window.iter().map(|block| block.meta.min_ms).min().unwrap_or(0);
    let max_ms = window.iter().map(|block| block.meta.max_ms).max().unwrap_or(0);
    blocks.iter().all(|block| {
        let meta = &block.meta;
        let is_inside = window.iter().any(|each| each.meta.id == meta.id);
        let is_apart = meta.newest_flush < oldest || newest < meta.oldest_flush;
        is_inside || is_apart || !meta.overlaps(min_ms, max_ms)
    })
}

/// The blocks that are not kept any more.
pub fn plan_retention(blocks: &[PlannedBlock], rules: &StoreRules, now_ms: i64) -> Vec<u64> {
    let mut by_age: Vec<_> = blocks.iter().collect();
    by_age.sort_by_key(|block| block.meta.max_ms);
    let mut bytes: u64 = blocks.iter().map(|block| block.bytes).sum();
    let newest_ms = by_age.last().map_or(now_ms, |block| block.meta.max_ms);
    let now_ms = now_ms.min(newest_ms.saturating_add(CLOCK_AHEAD_MS));
    let mut gone = Vec::new();
    for block in by_age {
        let is_old =
            rules.retention_ms > 0 && block.meta.max_ms < now_ms.saturating_sub(rules.retention_ms);
        let is_too_much = rules.retention_bytes > 0 && bytes > rules.retention_bytes;
        if is_old || is_too_much {
            gone.push(block.meta.id);
            bytes -= block.bytes;
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const RULES: StoreRules = StoreRules {
        retention_ms: 30 * 24 * HOUR_MS,
        retention_bytes: 0,
        out_of_order_window_ms: HOUR_MS,
        disk_free_min_bytes: 0,
    };

    fn block(
        id: u64,
        hours: std::ops::Range<i64>,
        flushes: (u64, u64),
        bytes: u64,
    ) -> PlannedBlock {
        let meta = BlockMeta {
            id,
            node: 0,
            min_ms: hours.start * HOUR_MS,
            max_ms: hours.end * HOUR_MS - 1,
            level: 0,
            oldest_flush: flushes.0,
            newest_flush: flushes.1,
            tombstones_applied: 0,
            series: 1,
            chunks: 1,
            samples: 1,
            sources: Vec::new(),
        };
        PlannedBlock { meta, bytes }
    }

    #[track_caller]
    fn check(blocks: &[PlannedBlock], now_hours: i64, want: Option<&[u64]>) {
        let planned = plan_merge(blocks, &RULES, now_hours * HOUR_MS);
        assert_eq!(planned.as_deref(), want);
    }

    #[test]
    fn windows_are_merged_once_they_are_over() {
        let two = [block(1, 0..2, (1, 1), 10), block(2, 0..2, (2, 2), 10)];
        check(&two, 3, None);
        check(&two, 4, Some(&[1, 2]));
        check(&two[..1], 100, None);
        let four = [
            block(5, 0..2, (1, 2), 10),
            block(6, 2..4, (3, 3), 10),
            block(7, 4..6, (4, 4), 10),
            block(8, 6..8, (6, 6), 10),
        ];
        check(&four, 9, None);
        check(&four, 10, Some(&[5, 6, 7, 8]));
        let apart = [block(1, 0..2, (1, 1), 10), block(2, 8..10, (2, 2), 10)];
        check(&apart, 20, None);
        check(&apart, 34, Some(&[1, 2]));
        let month = [block(1, 0..2, (1, 1), 10), block(2, 200..202, (2, 2), 10)];
        check(&month, 10_000, None);
    }

    #[test]
    fn large_blocks_are_not_written_again_for_little() {
        let mut blocks = vec![block(1, 0..8, (1, 9), 1_000), block(2, 2..4, (10, 10), 10)];
        check(&blocks, 100, None);
        blocks.extend((3..9).map(|id| block(id, 4..6, (id + 8, id + 8), 1)));
        check(&blocks[..7], 100, Some(&[3, 4, 5, 6, 7]));
        check(&[blocks[0].clone(), block(2, 2..4, (10, 10), 100)], 100, Some(&[1, 2]));
    }

    #[test]
    fn the_order_of_writes_stays_known() {
        let blocks = [
            block(1, 0..2, (1, 1), 10),
            block(2, 0..2, (5, 5), 10),
            block(3, 0..40, (2, 3), 1_000_000),
        ];
        check(&blocks, 100, None);
    }

    /// Blocks were merged into ones of five days whatever `retention_bytes` said. Where less than
    /// that was kept, all of it became one block, and the next flush made it too much: everything
    /// was deleted at once.
    ///
    /// Red when a merge takes more than a tenth, or half, of what is kept.
    #[test]
    fn a_limit_on_bytes_keeps_most_of_what_it_allows() {
        let rules = StoreRules { retention_ms: 0, retention_bytes: 1_000, ..RULES };
        let mut blocks: Vec<PlannedBlock> = Vec::new();
        for round in 1..300 {
            // Ten bytes an hour, and late ones in between.
            let id = round * 1_000;
            let hour = i64::try_from(round).expect("small") * 2;
            let late = hour - if round % 5 == 0 { 6 } else { 0 };
            blocks.push(block(id, late..late + 2, (id, id), 20));
            let now_ms = (hour + 4) * HOUR_MS;
            let gone = plan_retention(&blocks, &rules, now_ms);
            blocks.retain(|block| !gone.contains(&block.meta.id));
            let mut merged = id;
            while let Some(sources) = plan_merge(&blocks, &rules, now_ms) {
                let (taken, rest): (Vec<_>, Vec<_>) =
                    blocks.into_iter().partition(|block| sources.contains(&block.meta.id));
                blocks = rest;
                merged += 1;
                let metas = || taken.iter().map(|block| &block.meta);
                let mut child = block(merged, 0..2, (0, 0), 0);
                child.meta.min_ms = metas().map(|meta| meta.min_ms).min().expect("some");
                child.meta.max_ms = metas().map(|meta| meta.max_ms).max().expect("some");
                child.meta.oldest_flush =
                    metas().map(|meta| meta.oldest_flush).min().expect("some");
                child.meta.newest_flush =
                    metas().map(|meta| meta.newest_flush).max().expect("some");
                child.bytes = taken.iter().map(|block| block.bytes).sum();
                blocks.push(child);
            }
            let bytes: u64 = blocks.iter().map(|block| block.bytes).sum();
            assert!(bytes <= 1_000 && bytes >= 850.min(round * 20), "{round}: {bytes}");
            assert!(blocks.len() < 40, "{round}: {} blocks", blocks.len());
        }
    }

    #[test]
    fn what_is_old_or_too_much_goes() {
        let month_hours = 30 * 24;
        let newest = month_hours..month_hours + 2;
        let mut blocks = vec![block(2, 2..4, (2, 2), 10), block(1, 0..2, (1, 1), 10)];
        let old = |blocks: &[PlannedBlock], hours: i64| {
            plan_retention(blocks, &RULES, (month_hours + hours) * HOUR_MS)
        };
        // A clock that jumped, or a node that nobody writes to: it keeps what it has.
        assert_eq!(old(&blocks, 100_000), [0_u64; 0]);
        blocks.push(block(3, newest, (3, 3), 10));
        assert_eq!(old(&blocks, 1), [0_u64; 0]);
        assert_eq!(old(&blocks, 2), [1]);
        assert_eq!(old(&blocks, 4), [1, 2]);
        assert_eq!(old(&blocks, 100_000), [1, 2]);
        let rules = StoreRules { retention_ms: 0, retention_bytes: 25, ..RULES };
        assert_eq!(plan_retention(&blocks, &rules, i64::MAX), [1]);
    }

    /// Red when only bytes are counted.
    #[test]
    fn a_merge_is_bounded_in_series() {
        let mut blocks =
            [block(1, 0..2, (1, 1), 10), block(2, 0..2, (2, 2), 11), block(3, 0..2, (3, 3), 12)];
        for each in &mut blocks {
            each.meta.series = 15 << 20;
        }
        check(&blocks, 100, Some(&[1, 2]));
        blocks[0].meta.series = 1 << 25;
        check(&blocks, 100, None);
    }
}
