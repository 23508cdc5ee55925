//! What a node knows to lack, by what gateways say that they keep for it (hints). Pure.
//!
//! In: gateways come, say what they keep, and go; time. Out: [`Lacking`], which every answer to a
//! select says. In memory only: gateways say it again to a node that starts. What one keeps it
//! still keeps when its connection is lost, as hints lie on its disk.

use std::collections::BTreeMap;

use crate::base::time::{Duration, Instant};
use crate::wire::hints::{HintsHeld, Lacking};

/// Gateways that keep something for one node; beyond that the one with the smallest id goes. So
/// many would be a fleet beyond all others.
const KEEPERS_MAX: usize = 4096;

/// What gateways have said.
#[derive(Debug)]
pub struct HeldElsewhere {
    /// How long gateways may take to come, once the first is here: the first time, and later.
    news_within: NewsWithin,
    is_first_time: bool,
    /// Of those who keep or lost something.
    keepers: BTreeMap<u128, Held>,
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
}

impl HeldElsewhere {
    /// Nothing was said yet.
    pub fn new(news_within: NewsWithin) -> Self {
        let (keepers, is_first_time) = (BTreeMap::new(), true);
        Self { news_within, is_first_time, keepers, connections: 0, known_at: None }
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

    /// Such a connection is gone. Without any the node may miss samples that nobody tells it of.
    pub fn handle_lost(&mut self) {
        self.connections = self.connections.saturating_sub(1);
        if self.connections == 0 {
            self.known_at = None;
        }
    }

    /// A gateway says what it keeps. What it lost stays lost, although it forgets the number when
    /// it starts again.
    pub fn handle_held(&mut self, held: &HintsHeld) {
        let before = self.keepers.get(&held.keeper).map_or(0, |held| held.lost_samples);
        let lost_samples = held.lost_samples.max(before);
        let waiting_samples = held.waiting_samples;
        if waiting_samples == 0 && lost_samples == 0 {
            self.keepers.remove(&held.keeper);
            return;
        }
        self.keepers.insert(held.keeper, Held { waiting_samples, lost_samples });
        if self.keepers.len() > KEEPERS_MAX {
            self.keepers.pop_first();
        }
    }

    /// What the node lacks.
    pub fn lacking(&self, now: Instant) -> Lacking {
        let sum = |of: fn(&Held) -> u64| self.keepers.values().map(of).fold(0, u64::saturating_add);
        Lacking {
            waiting_samples: sum(|held| held.waiting_samples),
            lost_samples: sum(|held| held.lost_samples),
            keepers: u32::try_from(self.keepers.len()).unwrap_or(u32::MAX),
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
        elsewhere.handle_held(&held(1, 5, 0));
        elsewhere.handle_held(&held(2, 7, 2));
        let want =
            Lacking { waiting_samples: 12, lost_samples: 2, keepers: 2, is_news_awaited: false };
        assert_eq!(elsewhere.lacking(now), want);
        elsewhere.handle_lost();
        assert_eq!(elsewhere.lacking(now), want);
        elsewhere.handle_held(&held(1, 0, 0));
        elsewhere.handle_held(&held(2, 0, 0));
        let want = Lacking { waiting_samples: 0, keepers: 1, ..want };
        assert_eq!(elsewhere.lacking(now), want);
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
        elsewhere.handle_lost();
        assert!(!awaited(&elsewhere, 3 * SECOND));
        elsewhere.handle_lost();
        assert!(awaited(&elsewhere, 3 * SECOND), "all have gone");
        elsewhere.handle_met(start + 10 * SECOND);
        assert!(awaited(&elsewhere, 13 * SECOND));
        assert!(!awaited(&elsewhere, 14 * SECOND));
    }
}
