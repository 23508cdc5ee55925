//! The series that simulations write, and the samples: few of each, so that they meet often.

use tidegate::model::labels::{self, encode_label};
use tidegate::model::matcher::{MatchOperator, Matcher};
use tidegate::model::series::{SeriesHash, TenantId};
use tidegate::node::block::{BLOCK_RANGE_MS, Tombstone};

use crate::random::Random;

/// The start of an aligned range.
pub const EPOCH_MS: i64 = 1_699_999_200_000 / BLOCK_RANGE_MS * BLOCK_RANGE_MS;
/// Times of samples are multiples of this from the epoch, or one more or less.
const GRID_MS: i64 = 60_000;

/// A series.
pub struct Series {
    pub tenant: TenantId,
    /// Canonical label bytes.
    pub labels: Box<[u8]>,
    pub hash: SeriesHash,
}

/// All series.
pub struct Pool {
    pub series: Vec<Series>,
}

impl Pool {
    pub fn new(count: usize) -> Self {
        let make = |index: usize| {
            let mut bytes = Vec::new();
            let name = format!("metric_{}", index % 3);
            encode_label(&mut bytes, b"__name__", name.as_bytes());
            encode_label(&mut bytes, b"instance", format!("host-{}", index / 2).as_bytes());
            if index.is_multiple_of(4) {
                encode_label(&mut bytes, b"job", b"a");
            }
            let tenant = TenantId([0, 7][index % 2]);
            let hash = SeriesHash::of(tenant, &bytes);
            Series { tenant, labels: bytes.into(), hash }
        };
        Self { series: (0..count).map(make).collect() }
    }

    /// The series of `tenant` with these labels.
    pub fn find(&self, tenant: TenantId, labels: &[u8]) -> Option<usize> {
        self.series.iter().position(|each| each.tenant == tenant && *each.labels == *labels)
    }

    /// The shard that a series belongs to.
    pub fn shard_of(&self, series: usize, shard_count: usize) -> usize {
        let shard_count = u32::try_from(shard_count).expect("few");
        self.series[series].hash.slot().shard(shard_count) as usize
    }

    /// Some series of a shard.
    pub fn series_of(&self, shard: usize, shard_count: usize) -> usize {
        let is_own = |series: &usize| self.shard_of(*series, shard_count) == shard;
        (0..self.series.len()).find(is_own).expect("each shard has some")
    }

    /// Whether a deletion names the sample.
    pub fn is_hit(&self, series: usize, timestamp_ms: i64, tombstone: &Tombstone) -> bool {
        let one = &self.series[series];
        one.tenant == tombstone.tenant
            && tombstone.start_ms <= timestamp_ms
            && timestamp_ms <= tombstone.end_ms
            && tombstone.matchers.iter().all(|matcher| does_match(&one.labels, matcher))
    }
}

/// Some deletion, of what lies around `now_ms`; its id is 0.
pub fn random_tombstone(now_ms: i64, random: &mut Random) -> Tombstone {
    let tenant = TenantId([0, 7][random.below(2)]);
    let name = Matcher::equal("__name__", &format!("metric_{}", random.below(3)));
    let matchers = match random.below(4) {
        0 => vec![name],
        1 => vec![Matcher {
            name: "job".into(),
            operator: MatchOperator::NotEqual,
            value: "a".into(),
        }],
        2 => vec![Matcher {
            name: "instance".into(),
            operator: MatchOperator::Regex,
            value: "host-[0-2]|host-4".into(),
        }],
        _ => vec![name, Matcher::equal("job", "a")],
    };
    let (start_ms, end_ms) = match random.below(4) {
        0 => (i64::MIN, i64::MAX),
        1 => (i64::MIN, time_near(now_ms, random)),
        _ => {
            let start_ms = time_near(now_ms, random);
            let hours = i64::try_from(random.below(6)).expect("small");
            (start_ms, start_ms + hours * BLOCK_RANGE_MS / 2)
        }
    };
    Tombstone { id: 0, tenant, matchers, start_ms, end_ms }
}

fn does_match(series: &[u8], matcher: &Matcher) -> bool {
    let value = labels::find(series, matcher.name.as_bytes()).unwrap_or_default();
    match matcher.operator {
        MatchOperator::Equal => value == matcher.value.as_bytes(),
        MatchOperator::NotEqual => value != matcher.value.as_bytes(),
        // The only one that is used.
        MatchOperator::Regex => [&b"host-0"[..], b"host-1", b"host-2", b"host-4"].contains(&value),
        MatchOperator::NotRegex => unreachable!("not used"),
    }
}

/// The time of a sample: mostly within the ranges before `now_ms`, often one that was given before.
pub fn time_near(now_ms: i64, random: &mut Random) -> i64 {
    let back = match random.below(10) {
        0..5 => random.below(30),
        5..8 => random.below(240),
        _ => random.below(900),
    };
    let jitter = [0, 0, 0, 0, -1, 1][random.below(6)];
    let back = i64::try_from(back).expect("small");
    now_ms.div_euclid(GRID_MS) * GRID_MS - back * GRID_MS + jitter
}

/// Some value, as bits: NaNs with payloads too.
pub fn random_value(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => 0x7ff0_0000_0000_0002, // Stale.
        1 => 0x7ff8_0000_0000_0000 | random.next() >> 16,
        2 => (-0.0f64).to_bits(),
        3 => random.next(),
        4 => f64::INFINITY.to_bits(),
        _ => {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let number = random.below(10_000) as f64 / 4.0;
            number.to_bits()
        }
    }
}
