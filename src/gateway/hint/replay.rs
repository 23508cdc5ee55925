//! Handing out a loaded segment: each gateway shard gets its share of each record, in order,
//! several at a time; in which order they are delivered does not matter.

use std::collections::BTreeMap;

use super::HintPart;
use super::segment::LoadedSegment;

/// Records that a shard may have without having delivered them.
pub const RECORDS_OUT_MAX: usize = 8;

/// A record's share of one shard.
#[derive(Debug)]
pub struct HintRecord {
    /// To be said when it is delivered.
    pub number: HintNumber,
    /// Its samples.
    pub part: HintPart,
}

/// Names a record of a node's hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HintNumber {
    /// The segment it lies in.
    pub segment: u64,
    /// Its place there.
    pub index: u32,
}

/// A segment that is being handed out.
#[derive(Debug)]
pub struct Replay {
    segment: u64,
    loaded: LoadedSegment,
    shards: Vec<ShardCursor>,
}

/// How far a segment was handed out that is not in memory any more.
#[derive(Debug)]
pub struct Place {
    segment: u64,
    record_count: usize,
    shards: Vec<ShardCursor>,
}

impl Place {
    /// Whether it is in `segment`.
    pub fn is_of(&self, segment: u64) -> bool {
        self.segment == segment
    }

    /// Whether there is something for `shard` in `segment`, as far as is known.
    pub fn has_more(place: Option<&Self>, segment: u64, shard: u32) -> bool {
        let Some(place) = place.filter(|place| place.segment == segment) else { return true };
        let next = place.shards.get(shard as usize).map_or(0, |cursor| cursor.next);
        (next as usize) < place.record_count
    }
}

/// How far one shard is.
#[derive(Clone, Debug, Default)]
struct ShardCursor {
    /// The next record to look at.
    next: u32,
    /// Handed out and not delivered, with its samples.
    out: BTreeMap<u32, u64>,
    /// Handed out before a pause, from `next` on: its samples, and whether it was delivered since.
    /// What lies before the first that was not need not be handed out again; all else is, so that
    /// nothing comes behind what followed it.
    paused: BTreeMap<u32, (u64, bool)>,
}

impl Replay {
    /// Everything of `loaded` is to be handed out to `shard_count` shards.
    pub fn new(segment: u64, loaded: LoadedSegment, shard_count: u32) -> Self {
        let shards = vec![ShardCursor::default(); shard_count as usize];
        Self { segment, loaded, shards }
    }

    /// The rest of `loaded`, behind what was delivered before it went out of memory.
    pub fn resume(place: Place, loaded: LoadedSegment) -> Self {
        Self { segment: place.segment, loaded, shards: place.shards }
    }

    /// How far it is: what was not delivered is to be handed out again.
    pub fn into_place(mut self) -> Place {
        (0u32..).zip(0..self.shards.len()).for_each(|(shard, _)| self.handle_pause(shard));
        let record_count = self.loaded.record_count();
        Place { segment: self.segment, record_count, shards: self.shards }
    }

    /// Whether `shard` has something to deliver, or to be handed out.
    pub fn has_more(&mut self, shard: u32) -> bool {
        let count = self.loaded.record_count();
        let Some(cursor) = self.shards.get_mut(shard as usize) else { return false };
        // The rest of the segment may be other shards' alone.
        while (cursor.next as usize) < count && !self.loaded.has_share(cursor.next as usize, shard)
        {
            cursor.next += 1;
        }
        (cursor.next as usize) < count || !cursor.out.is_empty()
    }

    /// The next record of which `shard` owns something, if it may have one more.
    pub fn poll_record(&mut self, shard: u32) -> Option<HintRecord> {
        let cursor = self.shards.get_mut(shard as usize)?;
        while cursor.out.len() < RECORDS_OUT_MAX
            && (cursor.next as usize) < self.loaded.record_count()
        {
            let index = cursor.next;
            cursor.next += 1;
            // They follow again: an older value of theirs must not have the last word.
            cursor.paused.clear();
            if let Some(part) = self.loaded.part(index as usize, shard) {
                cursor.out.insert(index, part.sample_count());
                let number = HintNumber { segment: self.segment, index };
                return Some(HintRecord { number, part });
            }
        }
        None
    }

    /// `shard` delivered its share: how many samples these were, 0 if it does not have it.
    pub fn handle_delivered(&mut self, shard: u32, number: HintNumber) -> u64 {
        let Some(cursor) = self.shards.get_mut(shard as usize) else { return 0 };
        if number.segment != self.segment {
            return 0;
        }
        if let Some(samples) = cursor.out.remove(&number.index) {
            return samples;
        }
        let Some((samples, is_delivered)) = cursor.paused.get_mut(&number.index) else { return 0 };
        *is_delivered = true;
        let samples = *samples;
        while let Some(first) = cursor.paused.first_entry()
            && first.get().1
        {
            cursor.next = first.remove_entry().0 + 1;
        }
        samples
    }

    /// What `shard` has not delivered is to be handed out again, in order; what is delivered from
    /// now on counts if nothing before it is missing.
    pub fn handle_pause(&mut self, shard: u32) {
        let Some(cursor) = self.shards.get_mut(shard as usize) else { return };
        let Some((&first, _)) = cursor.out.first_key_value() else { return };
        cursor.next = first;
        let out = std::mem::take(&mut cursor.out).into_iter();
        cursor.paused.extend(out.map(|(index, samples)| (index, (samples, false))));
    }

    /// When the oldest record was made that some shard has not delivered.
    pub fn oldest_ms(&self) -> Option<i64> {
        let starts = self.shards.iter().map(|it| it.out.keys().next().copied().unwrap_or(it.next));
        let oldest = starts.min().unwrap_or(0) as usize;
        (oldest < self.loaded.record_count()).then(|| self.loaded.made_ms(oldest))
    }

    /// Whether every shard delivered all of its share.
    pub fn is_done(&mut self) -> bool {
        let shards = (0u32..).take(self.shards.len());
        shards.into_iter().all(|shard| !self.has_more(shard))
    }
}
