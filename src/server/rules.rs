//! The configuration of the process -> what each part of it is given. The place where "all shards
//! together" is divided.

use crate::background::blocks::plan::StoreRules;
use crate::control::api::QueryLimits;
use crate::control::config::Config;
use crate::control::config::units::AckMode;
use crate::gateway::decode::DecodeRules;
use crate::gateway::owner::AckPolicy;
use crate::model::labels::LabelLimits;
use crate::model::placement::SampleBounds;
use crate::node::head::HeadLimits;

/// How far clocks of gateways may be apart.
const CLOCKS_APART_MS: i64 = 60_000;

/// What the ingest of a shard takes.
#[derive(Clone, Copy, Debug)]
pub struct IngestLimits {
    /// Longest body, packed and unpacked.
    pub body_bytes_max: u64,
    /// How far ahead of the clock a sample may be.
    pub future_window_ms: i64,
    /// Whether imports may be however late.
    pub allow_backfill: bool,
    /// Samples of one request.
    pub samples_max: u32,
}

/// What the node shards are made with.
#[derive(Clone, Copy, Debug)]
pub struct NodeRules {
    /// How many of them.
    pub shard_count: u32,
    /// Of each shard's head.
    pub head: HeadLimits,
    /// Of each shard's log.
    pub segment_bytes: u64,
    /// A snapshot is begun when a shard's log has grown by this.
    pub log_bytes_max: u64,
    /// Samples older than this are refused; 0 takes all.
    pub retention_ms: i64,
    /// Of the node's blocks.
    pub store: StoreRules,
    /// For pages of blocks.
    pub block_cache_bytes: u64,
    /// The newest deletion; known once the blocks are open.
    pub tombstones_applied: u64,
}

/// What the ingest of each shard takes.
pub fn ingest_limits(config: &Config) -> IngestLimits {
    IngestLimits {
        body_bytes_max: config.body_bytes_max.0,
        future_window_ms: config.future_window.as_ms(),
        allow_backfill: config.allow_backfill,
        samples_max: DecodeRules::SAMPLES_MAX_DEFAULT,
    }
}

/// How much a series may be called.
pub fn label_limits(config: &Config) -> LabelLimits {
    let bytes = |size: u64| u32::try_from(size).unwrap_or(u32::MAX);
    LabelLimits {
        labels_max: config.labels_max,
        label_name_bytes_max: bytes(config.label_name_bytes_max.0),
        label_value_bytes_max: bytes(config.label_value_bytes_max.0),
        labels_bytes_max: bytes(config.labels_bytes_max.0),
    }
}

/// How many bytes of frames one node shard may keep a gateway shard waiting with: a sample takes
/// 20 of them, and up to sixteen times as much in its request; half of the requests' memory stays
/// for samples that live elsewhere.
pub fn lane_bytes_max(config: &Config) -> u64 {
    config.request_bytes_max.0 / u64::from(config.shards) / 32
}

/// How far a sample's time may be from its arrival: whom reads of a fleet have to ask.
pub fn sample_bounds(config: &Config) -> SampleBounds {
    let retention_ms = config.retention.as_ms();
    // An owner that is new takes what is as old as retention allows; 0 is for ever.
    let is_unbounded = config.allow_backfill || retention_ms == 0;
    SampleBounds {
        ahead_ms: config.future_window.as_ms() + CLOCKS_APART_MS,
        behind_ms: if is_unbounded { i64::MAX } else { retention_ms },
    }
}

/// When a gateway answers.
pub fn ack_policy(config: &Config) -> AckPolicy {
    match config.ack {
        AckMode::All => AckPolicy::All,
        AckMode::One => AckPolicy::One,
    }
}

/// What the node shards are made with.
pub fn node_rules(config: &Config) -> NodeRules {
    NodeRules {
        shard_count: config.shards,
        head: HeadLimits {
            out_of_order_window_ms: config.out_of_order_window.as_ms(),
            bytes_max: config.head_bytes_max.0 / u64::from(config.shards),
        },
        segment_bytes: config.log_segment_bytes.0,
        log_bytes_max: config.log_bytes_max.0,
        retention_ms: config.retention.as_ms(),
        store: StoreRules {
            retention_ms: config.retention.as_ms(),
            retention_bytes: config.retention_bytes.0,
            out_of_order_window_ms: config.out_of_order_window.as_ms(),
            disk_free_min_bytes: config.disk_free_min.0,
        },
        block_cache_bytes: config.block_cache_bytes.0,
        tombstones_applied: 0,
    }
}

/// What bounds queries.
pub fn query_limits(config: &Config) -> QueryLimits {
    QueryLimits {
        series_max: config.query_series_max,
        samples_max: config.query_samples_max,
        concurrency_max: config.query_concurrency_max,
        wait_max: config.query_wait_max.duration(),
        timeout: config.query_timeout.duration(),
        lookback: config.query_lookback.duration(),
        retention: config.retention.duration(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::Settings;
    use crate::control::config::units::Period;
    use crate::control::host::HostFacts;

    /// With `--retention 0` what came late after a change of the fleet was stored by its new owner,
    /// and asked of the old ones only: queries left it out without a word.
    #[test]
    fn without_retention_samples_may_be_however_late() {
        // Red if 0, for ever, is taken for no time at all, or if backfill has a bound.
        #[track_caller]
        fn check(retention_secs: u64, allow_backfill: bool, behind_ms: i64) {
            let settings = Settings {
                retention: Some(Period::from_secs(retention_secs)),
                allow_backfill: Some(allow_backfill),
                future_window: Some(Period::from_secs(1)),
                ..Settings::default()
            };
            let config = settings.into_config(&HostFacts { memory_bytes: 1 << 30, cpu_count: 1 });
            assert_eq!(sample_bounds(&config), SampleBounds { ahead_ms: 61_000, behind_ms });
        }
        check(60, false, 60_000);
        check(60, true, i64::MAX);
        check(0, false, i64::MAX);
    }
}
