//! What a node knows to lack, by what gateways say that they keep for it (hints). Pure.
//!
//! In: gateways come, say what they keep, and go; time. Out: [`Lacking`], which every answer to a
//! select says. In memory only: gateways say it again to a node that starts. What one keeps it
//! still keeps when its connection is lost, as hints lie on its disk; but one that does not come
//! back for [`GONE_AFTER`] is taken to be gone for good, and its hints with it.

use std::collections::BTreeMap;

use crate::base::time::{Duration, Instant};
use crate::wire::hints::{HintsHeld, Lacking};

/// Gateways that keep something for one node; beyond that the one with the smallest id goes. So
/// many would be a fleet beyond all others.
const KEEPERS_MAX: usize = 4096;

/// What a gateway said that has no connection for so long is forgotten; it says it again when it
/// comes. Shorter than `hint-age-max` usually is, which is a setting of gateways.
pub const GONE_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What gateways have said.
#[derive(Debug)]
pub struct HeldElsewhere {
    /// How long gateways may take to come, once the first is here: the first time, and later.
    news_within: NewsWithin,
    is_first_time: bool,
    /// Of those who keep or lost something.
    keepers: BTreeMap<u128, Held>,
    /// How many connections of each keeper there are, of those who have one.
    present: BTreeMap<u128, u32>,
    /// Connections over which something was said.
    connections: u32,
    /// When all of them will have spoken.
    known_at: Option<Instant>,
}

/// How long gateways may take to come and say what they keep, once one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewsWithin {
    /// After the start. A node that nobody has placed yet has missed nothing.
    pub first: Duration,
    /// After a time without any of them.
    pub later: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    waiting_samples: u64,
    lost_samples: u64,
    /// When its last connection was lost; `None`: it has one.
    left_at: Option<Instant>,
}

impl Held {
    fn is_gone(&self, now: Instant) -> bool {
        self.left_at.is_some_and(|left_at| left_at + GONE_AFTER <= now)
    }
}

impl HeldElsewhere {
    /// Nothing was said yet.
    pub fn new(news_within: NewsWithin) -> Self {
        Self {
            news_within,
            is_first_time: true,
            keepers: BTreeMap::new(),
            present: BTreeMap::new(),
            connections: 0,
            known_at: None,
        }
    }

    /// A connection is there that will say, or has said, what its gateway keeps.
    pub fn handle_met(&mut self, now: Instant) {
        if self.connections == 0 {
            let is_first = std::mem::take(&mut self.is_first_time);
            let NewsWithin { first, later } = self.news_within;
            self.known_at = Some(now + if is_first { first } else { later });
        }
        self.connections += 1;
    }

    /// Over such a connection this keeper is heard for the first time.
    pub fn handle_named(&mut self, keeper: u128) {
        *self.present.entry(keeper).or_default() += 1;
        if let Some(held) = self.keepers.get_mut(&keeper) {
            held.left_at = None;
        }
    }

    /// Such a connection is gone, and with it one of each of `keepers`, those that were named over
    /// it. Without any connection the node may miss samples that nobody tells it of.
    pub fn handle_lost(&mut self, now: Instant, keepers: impl IntoIterator<Item = u128>) {
        self.connections = self.connections.saturating_sub(1);
        if self.connections == 0 {
            self.known_at = None;
        }
        for keeper in keepers {
            let Some(count) = self.present.get_mut(&keeper) else { continue };
            *count -= 1;
            if *count > 0 {
                continue;
            }
            self.present.remove(&keeper);
            if let Some(held) = self.keepers.get_mut(&keeper) {
                held.left_at = Some(now);
            }
        }
    }

    /// A gateway says what it keeps, over a connection where it was named. What it lost stays lost,
    /// although it forgets the number when it starts again.
    pub fn handle_held(&mut self, now: Instant, held: &HintsHeld) {
        self.keepers.retain(|_, held| !held.is_gone(now));
        let before = self.keepers.get(&held.keeper).map_or(0, |held| held.lost_samples);
        let lost_samples = held.lost_samples.max(before);
        let waiting_samples = held.waiting_samples;
        if waiting_samples == 0 && lost_samples == 0 {
            self.keepers.remove(&held.keeper);
            return;
        }
        let left_at = (!self.present.contains_key(&held.keeper)).then_some(now);
        self.keepers.insert(held.keeper, Held { waiting_samples, lost_samples, left_at });
        if self.keepers.len() > KEEPERS_MAX {
            self.keepers.pop_first();
        }
    }

    /// Who keeps samples that wait, ascending.
    pub fn waiting_keepers(&self, now: Instant) -> impl Iterator<Item = u128> {
        let waits = move |held: &Held| held.waiting_samples > 0 && !held.is_gone(now);
        self.keepers.iter().filter(move |(_, held)| waits(held)).map(|(keeper, _)| *keeper)
    }

    /// What the node lacks.
    pub fn lacking(&self, now: Instant) -> Lacking {
        let keepers = || self.keepers.values().filter(|held| !held.is_gone(now));
        let sum = |of: fn(&Held) -> u64| keepers().map(of).fold(0, u64::saturating_add);
        Lacking {
            waiting_samples: sum(|held| held.waiting_samples),
            lost_samples: sum(|held| held.lost_samples),
            keepers: u32::try_from(keepers().count()).unwrap_or(u32::MAX),
            lost_blocks: 0,
            is_news_awaited: self.known_at.is_none_or(|known_at| now < known_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::monotonic_now;

    const SECOND: Duration = Duration::from_secs(1);

    fn elsewhere(first: Duration, later: Duration) -> HeldElsewhere {
        HeldElsewhere::new(NewsWithin { first, later })
    }

    fn held(keeper: u128, waiting_samples: u64, lost_samples: u64) -> HintsHeld {
        HintsHeld { keeper, waiting_samples, lost_samples }
    }

    #[test]
    fn what_gateways_keep_is_lacking_until_they_keep_nothing() {
        // Red if what a second gateway says replaces the first one's, if what is drained is not
        // forgotten, if a connection that is lost takes what was said along, or if what is lost
        // for good is forgotten by a gateway's restart.
        let now = monotonic_now();
        let mut elsewhere = elsewhere(Duration::ZERO, Duration::ZERO);
        elsewhere.handle_met(now);
        assert!(elsewhere.lacking(now).is_nothing());
        elsewhere.handle_met(now);
        elsewhere.handle_held(now, &held(1, 5, 0));
        elsewhere.handle_held(now, &held(2, 7, 2));
        let want =
            Lacking { waiting_samples: 12, lost_samples: 2, keepers: 2, ..Lacking::default() };
        assert_eq!(elsewhere.lacking(now), want);
        elsewhere.handle_lost(now, []);
        assert_eq!(elsewhere.lacking(now), want);
        elsewhere.handle_held(now, &held(1, 0, 0));
        elsewhere.handle_held(now, &held(2, 0, 0));
        let want = Lacking { waiting_samples: 0, keepers: 1, ..want };
        assert_eq!(elsewhere.lacking(now), want);
    }

    /// A gateway that was thrown away left its word behind: nothing could be deleted on the node
    /// any more until it was started again.
    #[test]
    fn what_a_gateway_said_that_is_gone_for_good_is_forgotten() {
        // Red if it is never forgotten, if it is although its gateway is there and merely has no
        // news, if one lost connection of two counts, or if it is not true again when the gateway
        // comes back.
        let start = monotonic_now();
        let mut elsewhere = elsewhere(Duration::ZERO, Duration::ZERO);
        let waiting = |elsewhere: &HeldElsewhere, after| {
            let Lacking { waiting_samples, keepers, .. } = elsewhere.lacking(start + after);
            assert_eq!(keepers as usize, elsewhere.waiting_keepers(start + after).count());
            waiting_samples
        };
        for keeper in [1, 2, 2] {
            elsewhere.handle_met(start);
            elsewhere.handle_named(keeper);
            elsewhere.handle_held(start, &held(keeper, 5, 0));
        }
        assert_eq!(waiting(&elsewhere, 9 * GONE_AFTER), 10);
        let lost_at = start + SECOND;
        elsewhere.handle_lost(lost_at, [1]);
        elsewhere.handle_lost(lost_at, [2]);
        assert_eq!(waiting(&elsewhere, GONE_AFTER), 10);
        assert_eq!(waiting(&elsewhere, GONE_AFTER + SECOND), 5);
        assert_eq!(elsewhere.waiting_keepers(lost_at + GONE_AFTER).collect::<Vec<_>>(), [2]);
        // In time, and without a word yet.
        elsewhere.handle_named(1);
        assert_eq!(waiting(&elsewhere, 9 * GONE_AFTER), 10);
        elsewhere.handle_lost(lost_at, [1]);
        let later = lost_at + GONE_AFTER;
        elsewhere.handle_held(later, &held(2, 6, 0));
        assert_eq!((elsewhere.keepers.len(), waiting(&elsewhere, GONE_AFTER + SECOND)), (1, 6));
        elsewhere.handle_named(1);
        elsewhere.handle_held(later, &held(1, 5, 0));
        assert_eq!(waiting(&elsewhere, GONE_AFTER + SECOND), 11);
    }

    #[test]
    fn others_may_come_for_a_while_after_the_first() {
        // Red if a node that has just started, or that nobody reached for a while, takes the first
        // gateway's word for all, or if each newcomer begins the waiting anew.
        let start = monotonic_now();
        let mut elsewhere = elsewhere(3 * SECOND, 4 * SECOND);
        let awaited = |elsewhere: &HeldElsewhere, after: Duration| {
            elsewhere.lacking(start + after).is_news_awaited
        };
        assert!(awaited(&elsewhere, 100 * SECOND), "nobody has come");
        elsewhere.handle_met(start);
        assert!(awaited(&elsewhere, 2 * SECOND));
        elsewhere.handle_met(start + 2 * SECOND);
        assert!(!awaited(&elsewhere, 3 * SECOND));
        elsewhere.handle_lost(start, []);
        assert!(!awaited(&elsewhere, 3 * SECOND));
        elsewhere.handle_lost(start, []);
        assert!(awaited(&elsewhere, 3 * SECOND), "all have gone");
        elsewhere.handle_met(start + 10 * SECOND);
        assert!(awaited(&elsewhere, 13 * SECOND));
        assert!(!awaited(&elsewhere, 14 * SECOND));
    }
}
