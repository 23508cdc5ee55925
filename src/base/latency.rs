//! A histogram of durations with fixed bounds: powers of two from 16 us to 16.8 s. Pure counters,
//! 184 bytes.
//!
//! Fixed bounds, so that every shard of every version adds up; a factor of two is enough to see a
//! slow disk.

use std::time::Duration;

/// The upper bound of the first bucket.
const FIRST_BOUND_NS: u64 = 16_000;
/// Buckets with an upper bound; one more takes what is slower.
const BOUND_COUNT: usize = 21;

/// Durations counted by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencyBuckets {
    /// Not cumulative; the last one has no upper bound.
    counts: [u64; BOUND_COUNT + 1],
    sum_ns: u64,
}

impl LatencyBuckets {
    /// Counts one that took `duration`.
    pub fn observe(&mut self, duration: Duration) {
        let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_index(duration_ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(duration_ns);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All durations together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// `(upper bound, how many took at most that)`, rising; [`LatencyBuckets::count`] is the one
    /// without a bound.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let mut below = 0;
        self.counts[..BOUND_COUNT].iter().enumerate().map(move |(index, count)| {
            below += count;
            (Duration::from_nanos(FIRST_BOUND_NS << index), below)
        })
    }
}

fn bucket_index(duration_ns: u64) -> usize {
    if duration_ns == 0 {
        return 0;
    }
    // A bound belongs to its bucket ("le"), hence the minus one.
    let units = (duration_ns - 1) / FIRST_BOUND_NS;
    ((u64::BITS - units.leading_zeros()) as usize).min(BOUND_COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive() {
        #[track_caller]
        fn check(duration_ns: u64, want_bound_ns: Option<u64>) {
            let mut buckets = LatencyBuckets::default();
            buckets.observe(Duration::from_nanos(duration_ns));
            let bound = buckets.cumulative().find(|(_, count)| *count == 1);
            assert_eq!(bound.map(|(bound, _)| bound), want_bound_ns.map(Duration::from_nanos));
            assert_eq!(buckets.count(), 1);
            assert_eq!(buckets.sum(), Duration::from_nanos(duration_ns));
        }
        check(0, Some(16_000));
        check(16_000, Some(16_000));
        check(16_001, Some(32_000));
        check(32_000, Some(32_000));
        check(32_001, Some(64_000));
        check(16_000 << 20, Some(16_000 << 20));
        check((16_000 << 20) + 1, None);
        check(u64::MAX, None);
    }

    #[test]
    fn what_is_above_the_last_bucket_counts_too() {
        // Red when a bucket is given to the rest, or the rest is not counted.
        let mut buckets = LatencyBuckets::default();
        buckets.observe(Duration::from_micros(10));
        buckets.observe(Duration::from_secs(60));
        assert_eq!(buckets.count(), 2);
        assert_eq!(buckets.cumulative().last().map(|(_, count)| count), Some(1));
    }
}
