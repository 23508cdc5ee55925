//! Frozen: a document, its text, and its owners. If one of these fails, series of running fleets
//! would be looked for where they are not: never mend the test, make a new version.

use xxhash_rust::xxh3::xxh3_128;

use super::{canonical_of, ready};
use crate::model::placement::{GroupIndex, PlacementDocument};
use crate::model::series::{SLOT_COUNT, SeriesHash, Slot, TenantId};

const DOCUMENT: &str = include_str!("../../../../tests/golden/placement_v1.json");
/// One line a slot and group: group, slot, the owners' indices.
const OWNERS: &str = include_str!("../../../../tests/golden/placement_owners_v1.txt");
/// Of all owners of all slots of all groups, as little-endian u16.
const OWNERS_HASH: u128 = 0x7e87_1ac4_a68b_7bd8_58d9_a10f_b083_9a41;
const CONTENT_HASH: u128 = 0x6169_55ec_971d_98e2_d2a4_ea61_d2a4_d6f2;

fn document() -> PlacementDocument {
    PlacementDocument::decode(DOCUMENT.trim_end()).expect("a good document")
}

#[test]
fn the_text_is_frozen() {
    assert_eq!(document().encode(), DOCUMENT.trim_end());
    assert_eq!(document().content_hash(), CONTENT_HASH, "{:#034x}", document().content_hash());
}

#[test]
fn the_owners_are_frozen() {
    let placement = ready(&document());
    let mut bytes = Vec::new();
    let mut lines = Vec::new();
    for group in (0..3).map(GroupIndex) {
        for slot in (0..SLOT_COUNT).map(Slot) {
            let owners = placement.table(group).owners(slot);
            bytes.extend(owners.iter().flat_map(|owner| owner.to_le_bytes()));
            if slot.0 % 1024 == 77 {
                lines.push(format!("{} {} {owners:?}\n", group.0, slot.0));
            }
        }
    }
    assert_eq!(lines.concat(), OWNERS);
    assert_eq!(xxh3_128(&bytes), OWNERS_HASH, "{:#034x}", xxh3_128(&bytes));
}

/// Where series go by chosen labels.
#[test]
fn the_places_are_frozen() {
    #[track_caller]
    fn check(placement: &crate::model::placement::Placement, job: &str, want: (u16, u16)) {
        let canonical = canonical_of(&[("__name__", "up"), ("instance", "h:1"), ("job", job)]);
        let hash = SeriesHash::of(TenantId(7), &canonical);
        let place = placement.router().place(TenantId(7), hash, &canonical);
        assert_eq!((place.group.0, place.slot.0), want, "job={job}");
    }
    let placement = ready(&document());
    check(&placement, "edge-1", (2, 8210));
    check(&placement, "batch", (1, 8210));
    check(&placement, "", (0, 8210));
}
