//! Who a series is: tenant, `SeriesHash`, slot, dense id.
//!
//! `SeriesHash` is frozen: XXH3-128, seeded with the tenant id, of the canonical label bytes
//! (`model/labels.rs`). The same on every host and version; the golden test below must never be
//! edited to pass.

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Slots that the hash space is cut into; the unit of placement.
pub const SLOT_COUNT: u16 = 1 << SLOT_BITS;
const SLOT_BITS: u32 = 14;

/// Who a series belongs to. 0 is the tenant of requests that name none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(pub u32);

/// The identity of a series on every host: 128 bits of its tenant and canonical labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesHash(pub u128);

/// A 1/16384 of the hash space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u16);

/// A series on one node shard: ascending from 0, never given twice within an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId(pub u32);

impl SeriesHash {
    /// The identity of `canonical_labels` (see `model/labels.rs`) under `tenant`.
    #[inline]
    pub fn of(tenant: TenantId, canonical_labels: &[u8]) -> Self {
        // The tenant is the seed, not a prefix, so that a sender's label bytes are hashed where
        // they lie.
        Self(xxh3_128_with_seed(canonical_labels, u64::from(tenant.0)))
    }

    /// The top 14 bits.
    #[inline]
    pub fn slot(self) -> Slot {
        Slot((self.0 >> (128 - SLOT_BITS)) as u16)
    }

    /// 64 bits for hash tables, disjoint from the slot's, which are alike within a shard.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is asked for")]
    pub fn table_hash(self) -> u64 {
        self.0 as u64
    }
}

impl Slot {
    /// The shard of `shard_count` that owns this slot: the same rule for gateway shards and node
    /// shards.
    #[inline]
    pub fn shard(self, shard_count: u32) -> u32 {
        u32::from(self.0) % shard_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_hash_is_frozen() {
        let labels = b"\x0a\x0e\x0a\x08__name__\x12\x02up";
        assert_eq!(SeriesHash::of(TenantId(0), labels).0, GOLDEN_TENANT_0);
        assert_eq!(SeriesHash::of(TenantId(7), labels).0, GOLDEN_TENANT_7);
        assert_eq!(SeriesHash::of(TenantId(0), &[0x55; 300]).0, GOLDEN_LONG);
    }

    const GOLDEN_TENANT_0: u128 = 278_116_151_845_109_108_367_812_049_446_504_069_997;
    const GOLDEN_TENANT_7: u128 = 236_059_205_950_711_572_831_345_268_739_046_531_443;
    const GOLDEN_LONG: u128 = 122_702_305_933_843_459_382_083_238_478_368_347_024;

    #[test]
    fn slot_is_the_top_bits() {
        assert_eq!(SeriesHash(u128::MAX).slot(), Slot(SLOT_COUNT - 1));
        assert_eq!(SeriesHash(1 << 114).slot(), Slot(1));
        assert_eq!(SeriesHash(u128::from(u64::MAX)).slot(), Slot(0));
    }
}
