//! Samples into the head: the hot path. One cache line of state and one of points for a sample in
//! order.

use super::buffer::{Buffer, Put};
use super::points::SLOT_POINTS_MAX;
use super::{Head, Hot};
use crate::model::refusal::Refusal;
use crate::model::sample::Sample;
use crate::wire::ack::RefusedSample;

/// Samples whose cache lines are fetched together before the first of them is written. At a million
/// series each sample misses the cache twice; the loads of a block overlap, where sample by sample
/// they would queue behind the stores.
const BLOCK_SAMPLES: usize = 32;

/// From this many samples of one series in a row they are copied as a run.
const RUN_SAMPLES_MIN: usize = 4;

/// Columns of one batch; all of the same length.
#[derive(Clone, Copy)]
struct Columns<'a> {
    series: &'a [u32],
    timestamp_ms: &'a [i64],
    value: &'a [f64],
}

impl<'a> Columns<'a> {
    fn new(series: &'a [u32], timestamp_ms: &'a [i64], value: &'a [f64]) -> Self {
        assert!(series.len() == timestamp_ms.len() && series.len() == value.len());
        Self { series, timestamp_ms, value }
    }

    fn cut(self, start: usize, end: usize) -> Self {
        Self {
            series: &self.series[start..end],
            timestamp_ms: &self.timestamp_ms[start..end],
            value: &self.value[start..end],
        }
    }

    fn sample(self, index: usize) -> Sample {
        Sample { timestamp_ms: self.timestamp_ms[index], value: self.value[index] }
    }
}

/// Who writes: a client, whose late samples may be refused and are counted, or the log, whose were
/// accepted before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Client,
    /// A client that may write samples however late.
    Backfill,
    Replay,
}

impl Head {
    /// Appends samples to the series in the rows `series`, which are there; the caller looked them
    /// up. Those that are refused are pushed to `refused`, by ascending index; all others are in.
    ///
    /// A sample newer than all of its series is appended. One with the timestamp of another
    /// overwrites it; one older than the newest goes into its place while it is inside the
    /// out-of-order window, else it is [`Refusal::TooOld`]. A head at its limit refuses whole
    /// batches as [`Refusal::HeadFull`], so it may be over by what one batch takes.
    pub fn append(
        &mut self,
        series: &[u32],
        timestamp_ms: &[i64],
        value: &[f64],
        refused: &mut Vec<RefusedSample>,
    ) {
        let columns = Columns::new(series, timestamp_ms, value);
        self.take(columns, Writer::Client, refused);
    }

    fn take(&mut self, columns: Columns, writer: Writer, refused: &mut Vec<RefusedSample>) {
        if self.is_full() {
            let all = 0..index_u32(columns.series.len());
            let reason = Refusal::HeadFull;
            refused.extend(all.map(|index| RefusedSample { index, reason }));
            return;
        }
        let oldest_ms = columns.timestamp_ms.iter().copied().min().unwrap_or(i64::MAX);
        if oldest_ms < self.oldest_kept_ms {
            self.take_kept(columns, writer, refused);
        } else {
            self.write(columns, writer, refused);
        }
    }

    /// The rare way: some samples are older than what is kept at all.
    fn take_kept(&mut self, columns: Columns, writer: Writer, refused: &mut Vec<RefusedSample>) {
        for index in 0..columns.series.len() {
            let place = index_u32(index);
            if columns.timestamp_ms[index] < self.oldest_kept_ms {
                let reason = Refusal::OlderThanRetention;
                refused.push(RefusedSample { index: place, reason });
                continue;
            }
            let before = refused.len();
            self.write(columns.cut(index, index + 1), writer, refused);
            refused[before..].iter_mut().for_each(|sample| sample.index = place);
        }
    }

    /// Samples older than this are [`Refusal::OlderThanRetention`] from now on, Unix milliseconds.
    pub fn set_oldest_kept_ms(&mut self, oldest_ms: i64) {
        self.oldest_kept_ms = oldest_ms;
    }

    /// As [`Head::append`], but however late a sample is, it is taken.
    pub fn backfill(
        &mut self,
        series: &[u32],
        timestamp_ms: &[i64],
        value: &[f64],
        refused: &mut Vec<RefusedSample>,
    ) {
        let columns = Columns::new(series, timestamp_ms, value);
        self.take(columns, Writer::Backfill, refused);
    }

    /// Appends what the log holds of a batch that [`Head::append`] took before: all but the samples
    /// at the indices `skip` (ascending), which were refused then. Nothing is refused now, and
    /// nothing counted.
    pub fn replay(&mut self, series: &[u32], timestamp_ms: &[i64], value: &[f64], skip: &[u32]) {
        let columns = Columns::new(series, timestamp_ms, value);
        let mut none = Vec::new();
        let mut start = 0;
        for skipped in skip {
            let skipped = (*skipped as usize).clamp(start, series.len());
            self.write(columns.cut(start, skipped), Writer::Replay, &mut none);
            start = (skipped + 1).min(series.len());
        }
        self.write(columns.cut(start, series.len()), Writer::Replay, &mut none);
    }

    fn write(&mut self, columns: Columns, writer: Writer, refused: &mut Vec<RefusedSample>) {
        let count = columns.series.len();
        let mut fetched = 0;
        let mut at = 0;
        while at < count {
            let run = run_len(&columns.series[at..]);
            if run >= RUN_SAMPLES_MIN {
                let part = columns.cut(at, at + run);
                let taken = self.write_run(part);
                at += taken;
                if taken == run {
                    continue;
                }
            } else if at >= fetched {
                fetched = (at + BLOCK_SAMPLES).min(count);
                self.fetch(&columns.series[at..fetched]);
            }
            if let Err(reason) = self.write_one(columns.series[at], columns.sample(at), writer) {
                refused.push(RefusedSample { index: index_u32(at), reason });
            }
            at += 1;
        }
    }

    /// Loads the cache lines that writing one sample to each of `series` will touch.
    #[inline]
    fn fetch(&self, series: &[u32]) {
        let mut touched = 0;
        for id in series {
            let open = self.hot[*id as usize].open;
            if open.len < open.capacity {
                touched ^= self.points.point(open.line, open.len).timestamp_ms;
            }
        }
        // The loads are wanted, not their sum.
        std::hint::black_box(touched);
    }

    #[inline]
    fn write_one(&mut self, id: u32, sample: Sample, writer: Writer) -> Result<(), Refusal> {
        let hot = &mut self.hot[id as usize];
        if sample.timestamp_ms > hot.newest_ms && hot.open.len < hot.open.capacity {
            let Hot { newest_ms, open } = hot;
            *newest_ms = sample.timestamp_ms;
            open.len += 1;
            self.points.slot_mut(open.line, open.len)[open.len as usize - 1] = sample;
            self.counts.samples += 1;
            return Ok(());
        }
        self.write_rare(id, sample, writer)
    }

    /// A sample that needs room, or is not newer than all others.
    #[inline(never)]
    fn write_rare(&mut self, id: u32, sample: Sample, writer: Writer) -> Result<(), Refusal> {
        let Hot { newest_ms, open } = self.hot[id as usize];
        if sample.timestamp_ms > newest_ms || sample.timestamp_ms == newest_ms && open.len == 0 {
            self.make_room(id, 1);
            self.hot[id as usize].newest_ms = sample.timestamp_ms;
            let put = self.hot[id as usize].open.put(&mut self.points, sample);
            assert!(put == Put::Added);
            self.counts.samples += 1;
            return Ok(());
        }
        let is_late = sample.timestamp_ms < newest_ms;
        if writer == Writer::Client {
            // Two far ends of time may be further apart than an i64 says.
            let oldest_ms = newest_ms.saturating_sub(self.limits.out_of_order_window_ms);
            if is_late && sample.timestamp_ms < oldest_ms {
                return Err(Refusal::TooOld);
            }
        }
        let put = self.write_late(id, sample);
        self.counts.samples += u64::from(put == Put::Added);
        if writer != Writer::Replay {
            self.counts.duplicates += u64::from(put == Put::Replaced);
            self.counts.out_of_order += u64::from(is_late);
        }
        Ok(())
    }

    /// Puts a sample not newer than the newest into its place.
    fn write_late(&mut self, id: u32, sample: Sample) -> Put {
        let mut open = self.hot[id as usize].open;
        let oldest_open = open.points(&self.points).first().map(|point| point.timestamp_ms);
        if oldest_open.is_some_and(|oldest_ms| sample.timestamp_ms >= oldest_ms) {
            let put = open.put(&mut self.points, sample);
            if put != Put::Full {
                self.hot[id as usize].open = open;
                return put;
            }
            // All but the newest point go, so that it stays open and this sample may follow what is
            // sealed now.
            self.seal(id, &mut open, SLOT_POINTS_MAX - 1);
            self.hot[id as usize].open = open;
        }
        let mut side = self.side.get(&id).copied().unwrap_or_default();
        let mut put = side.put(&mut self.points, sample);
        if put == Put::Full {
            self.seal(id, &mut side, SLOT_POINTS_MAX);
            put = side.put(&mut self.points, sample);
        }
        self.side.insert(id, side);
        put
    }

    /// Appends the samples of one series up to the first that is not newer than all before; returns
    /// how many.
    fn write_run(&mut self, run: Columns) -> usize {
        let id = run.series[0];
        let count = run.series.len();
        let mut done = 0;
        while done < count {
            let Hot { newest_ms, open } = self.hot[id as usize];
            if run.timestamp_ms[done] <= newest_ms {
                break;
            }
            if open.len == open.capacity {
                self.make_room(id, count - done);
            }
            let hot = &mut self.hot[id as usize];
            let free = &mut self.points.slot_mut(hot.open.line, hot.open.capacity);
            let free = &mut free[hot.open.len as usize..];
            let mut taken = 0;
            for (point, index) in free.iter_mut().zip(done..count) {
                let sample = run.sample(index);
                if sample.timestamp_ms <= hot.newest_ms {
                    break;
                }
                hot.newest_ms = sample.timestamp_ms;
                *point = sample;
                taken += 1;
            }
            hot.open.len += taken;
            done += taken as usize;
        }
        self.counts.samples += done as u64;
        done
    }

    /// Makes room in `open` for at least one more of `wanted` points: by growth, or by sealing when
    /// it is full.
    fn make_room(&mut self, id: u32, wanted: usize) {
        let mut open: Buffer = self.hot[id as usize].open;
        if open.len == SLOT_POINTS_MAX {
            self.seal(id, &mut open, SLOT_POINTS_MAX);
        }
        let room = SLOT_POINTS_MAX - open.len;
        let wanted = u8::try_from(wanted).unwrap_or(u8::MAX).min(room);
        open.grow(&mut self.points, open.len + wanted);
        self.hot[id as usize].open = open;
    }
}

/// How many of the first ids are the same.
#[inline]
fn run_len(series: &[u32]) -> usize {
    let first = series[0];
    if series.get(1) != Some(&first) {
        return 1;
    }
    series.iter().position(|id| *id != first).unwrap_or(series.len())
}

/// A batch is one frame, far below 2^32 samples.
fn index_u32(index: usize) -> u32 {
    u32::try_from(index).expect("a batch is one frame")
}
