//! One point of a series.

/// The bits of Prometheus' stale marker: a NaN that says "this series ended here". Kept as they
/// are, everywhere.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The stale marker as a value. Compare with [`is_stale`]: like any NaN it does not equal itself.
pub const STALE_NAN: f64 = f64::from_bits(STALE_NAN_BITS);

/// The NaN that Prometheus stores for every NaN but the stale marker: Go's `math.NaN()`.
pub const NORMAL_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

/// A value at a time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Unix milliseconds.
    pub timestamp_ms: i64,
    /// Any f64; NaN payloads are kept.
    pub value: f64,
}

impl Sample {
    /// Equal to the bit: a NaN equals itself, 0.0 does not equal -0.0.
    pub fn is_identical(self, other: Self) -> bool {
        self.timestamp_ms == other.timestamp_ms && self.value.to_bits() == other.value.to_bits()
    }
}

/// Whether `value` is the stale marker.
#[inline]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// Sorts `run` by time and keeps the last of equal timestamps. O(n) where it is in order already.
pub fn order_by_time(run: &mut Vec<Sample>) {
    if run.is_sorted_by(|one, next| one.timestamp_ms < next.timestamp_ms) {
        return;
    }
    // Stable: among equal timestamps the order is that of the writes.
    run.sort_by_key(|sample| sample.timestamp_ms);
    run.dedup_by(|next, kept| {
        let is_same_time = next.timestamp_ms == kept.timestamp_ms;
        if is_same_time {
            *kept = *next;
        }
        is_same_time
    });
}
