//! The epochs: which document writes follow, which ones a read has to ask, which may go.
//!
//! In: documents as they are heard of, in any order, and times. Out: verdicts and documents.
//! - **A sample follows the epoch of its arrival** at the gateway, not of its timestamp: an owner
//!   that left takes no more samples, however old. So an epoch holds samples from the past
//!   (`behind`) up to a little into the future (`ahead`) of the time that it was in force.
//! - The highest epoch wins. Two different documents of one epoch are a conflict, which agreement
//!   by a majority makes impossible; seen all the same, neither is followed blindly: the first
//!   stays.
//! - **An epoch ends when the last of its nodes learned of the next one**, at the start of that at
//!   the earliest: until then a node takes frames of it. A document may be decided, and told to a
//!   node, long after its start. A node that says nothing has learned it when the others did.
//! - An epoch that is over, and in which everything is older than retention, matters no more; it is
//!   forgotten only when there is no room: a clock that jumped ahead may come back.

use std::fmt;
use std::sync::Arc;

use super::document::NodeId;
use super::table::Placement;

/// Epochs that are kept. Each takes its tables: 100 KiB with three owners and no groups.
pub const EPOCHS_MAX: usize = 128;

/// How far a sample's timestamp may be from its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleBounds {
    /// Later by this at most: what admission allows, and how far gateways' clocks are apart.
    pub ahead_ms: i64,
    /// Earlier by this at most; `i64::MAX` where backfill has no bound but retention.
    pub behind_ms: i64,
}

/// The documents that are known, ascending by epoch.
#[derive(Clone, Debug, Default)]
pub struct History {
    epochs: Vec<Epoch>,
    /// Epochs up to this one were forgotten.
    forgotten_to: u64,
}

#[derive(Clone, Debug)]
struct Epoch {
    content_hash: u128,
    placement: Arc<Placement>,
    /// The latest time at which a node of the epoch before says that it was told; `i64::MIN`: no
    /// word yet.
    learned_ms: i64,
}

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is the highest: followed from its start on.
    Newest,
    /// One that was missed: it counts for reads, and for writes that arrived in its time.
    Filled,
    /// Nothing new.
    Known,
    /// So old that it was forgotten.
    Forgotten,
}

/// Why a document is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryFault {
    /// Another document of this epoch is followed here. The hashes of both, ours first.
    Conflict { epoch: u64, ours: u128, theirs: u128 },
    /// Epochs start one after the other.
    StartsOutOfOrder { epoch: u64, start_ms: i64, neighbour: u64, neighbour_start_ms: i64 },
    /// There is no room before the oldest is past retention.
    TooMany { epoch: u64 },
}

impl Epoch {
    fn number(&self) -> u64 {
        self.placement.document().epoch
    }

    fn start_ms(&self) -> i64 {
        self.placement.document().start_ms
    }

    fn has(&self, node: NodeId) -> bool {
        self.placement.document().nodes.iter().any(|each| each.id == node)
    }
}

impl History {
    /// Takes a placement that was heard of. On a fault nothing has changed.
    pub fn handle_placement(&mut self, new: Arc<Placement>) -> Result<Accepted, HistoryFault> {
        let content_hash = new.document().content_hash();
        let mut new = Epoch { content_hash, placement: new, learned_ms: i64::MIN };
        let number = new.number();
        if number <= self.forgotten_to {
            return Ok(Accepted::Forgotten);
        }
        let index = match self.epochs.binary_search_by_key(&number, Epoch::number) {
            Ok(index) => return self.epochs[index].check_same(&new),
            Err(index) => index,
        };
        let is_newest = index == self.epochs.len();
        self.check_order(index, &new)?;
        if self.epochs.len() >= EPOCHS_MAX {
            return Err(HistoryFault::TooMany { epoch: number });
        }
        // What nodes said of the next one, they may have said as ones that never had this one.
        new.learned_ms = self.epochs.get(index).map_or(i64::MIN, |next| next.learned_ms);
        self.epochs.insert(index, new);
        Ok(if is_newest { Accepted::Newest } else { Accepted::Filled })
    }

    /// A node says that it was told `epoch` at this time by its clock, and none of those between
    /// `after` and it. Who asks has capped the time by his own clock: one that is days ahead must
    /// not make an epoch last for days.
    pub fn handle_learned(&mut self, node: NodeId, (after, epoch): (u64, u64), learned_ms: i64) {
        for index in 0..self.epochs.len() {
            let number = self.epochs[index].number();
            // Of the epoch before only its own nodes have samples.
            let is_owner = index.checked_sub(1).is_none_or(|before| self.epochs[before].has(node));
            if after < number && number <= epoch && is_owner {
                let known = &mut self.epochs[index].learned_ms;
                *known = (*known).max(learned_ms);
            }
        }
    }

    /// How many epochs there are.
    pub fn count(&self) -> usize {
        self.epochs.len()
    }

    /// Whether both lead to the same reads.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |(ours, theirs): (&Epoch, &Epoch)| {
            ours.content_hash == theirs.content_hash && ours.learned_ms == theirs.learned_ms
        };
        self.count() == other.count() && self.epochs.iter().zip(&other.epochs).all(same)
    }

    /// The highest epoch that is known, whether it started or not.
    pub fn newest(&self) -> Option<&Arc<Placement>> {
        self.epochs.last().map(|epoch| &epoch.placement)
    }

    /// What samples that arrive at `now_ms` follow: the highest epoch that has started. Before
    /// any has, the lowest: a clock that is behind must not stop a fleet.
    pub fn current(&self, now_ms: i64) -> Option<&Arc<Placement>> {
        let started = self.epochs.iter().rev().find(|epoch| epoch.start_ms() <= now_ms);
        started.or(self.epochs.first()).map(|epoch| &epoch.placement)
    }

    /// The epochs whose owners may hold samples from `start_ms` to `end_ms`, both included;
    /// ascending.
    pub fn overlapping(
        &self,
        (start_ms, end_ms): (i64, i64),
        bounds: SampleBounds,
    ) -> impl Iterator<Item = &Arc<Placement>> {
        let holds = move |index: &usize| {
            // Whoever is first was in force since ever: see `current`.
            let earliest = match index {
                0 => i64::MIN,
                _ => self.epochs[*index].start_ms().saturating_sub(bounds.behind_ms),
            };
            earliest <= end_ms && self.latest_ms(*index, bounds) >= start_ms
        };
        (0..self.epochs.len()).filter(holds).map(|index| &self.epochs[index].placement)
    }

    /// Epochs that are missing between those that are known, first and last: what a gateway that
    /// was away asks a node for. A read of their time is incomplete until then.
    pub fn missing(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let gap = |pair: &[Epoch]| (pair[0].number() + 1, pair[1].number() - 1);
        self.epochs.windows(2).map(gap).filter(|(first, last)| first <= last)
    }

    /// What of it matters: not the oldest epochs in which every sample is older than
    /// `oldest_ms`. What is followed now or later does.
    pub fn since(&self, oldest_ms: i64, bounds: SampleBounds) -> Self {
        let over = self.count_over(oldest_ms, bounds);
        Self { epochs: self.epochs[over..].to_vec(), forgotten_to: self.forgotten_to }
    }

    /// Forgets the oldest epoch if there is no room for another one, and every sample in it is
    /// older than `oldest_ms`.
    pub fn make_room(&mut self, oldest_ms: i64, bounds: SampleBounds) {
        if self.epochs.len() >= EPOCHS_MAX && self.count_over(oldest_ms, bounds) > 0 {
            self.forgotten_to = self.epochs.remove(0).number();
        }
    }

    fn count_over(&self, oldest_ms: i64, bounds: SampleBounds) -> usize {
        let last = self.epochs.len().saturating_sub(1);
        let is_over = |index: &usize| self.latest_ms(*index, bounds) < oldest_ms;
        (0..last).take_while(is_over).count()
    }

    /// The latest timestamp that a sample of this epoch can have.
    fn latest_ms(&self, index: usize, bounds: SampleBounds) -> i64 {
        let end_ms = |next: &Epoch| next.start_ms().max(next.learned_ms);
        let next = self.epochs.get(index + 1);
        next.map_or(i64::MAX, |next| end_ms(next).saturating_add(bounds.ahead_ms))
    }

    /// Whether the new epoch's start is not before that of its predecessor, nor behind that of
    /// its successor.
    fn check_order(&self, index: usize, new: &Epoch) -> Result<(), HistoryFault> {
        let before = index.checked_sub(1).and_then(|index| self.epochs.get(index));
        let after = self.epochs.get(index);
        let is_early = before.filter(|before| before.start_ms() > new.start_ms());
        let is_late = after.filter(|after| after.start_ms() < new.start_ms());
        match is_early.or(is_late) {
            None => Ok(()),
            Some(neighbour) => Err(HistoryFault::StartsOutOfOrder {
                epoch: new.number(),
                start_ms: new.start_ms(),
                neighbour: neighbour.number(),
                neighbour_start_ms: neighbour.start_ms(),
            }),
        }
    }
}

impl Epoch {
    fn check_same(&self, new: &Self) -> Result<Accepted, HistoryFault> {
        if self.content_hash == new.content_hash {
            return Ok(Accepted::Known);
        }
        Err(HistoryFault::Conflict {
            epoch: self.number(),
            ours: self.content_hash,
            theirs: new.content_hash,
        })
    }
}

impl fmt::Display for HistoryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { epoch, ours, theirs } => write!(
                f,
                "cannot follow placement epoch {epoch}: two documents have it, {ours:032x} here \
                 and {theirs:032x} there; two fleets were mixed up, or one was restored from a \
                 backup. Look at `tidegate cluster status` of both, and write a higher epoch"
            ),
            Self::StartsOutOfOrder { epoch, start_ms, neighbour, neighbour_start_ms } => write!(
                f,
                "cannot follow placement epoch {epoch}: it starts at {start_ms} ms, epoch \
                 {neighbour} at {neighbour_start_ms} ms; epochs start in their order. Write a \
                 higher epoch with a later start"
            ),
            Self::TooMany { epoch } => write!(
                f,
                "cannot follow placement epoch {epoch}: {EPOCHS_MAX} epochs are within retention. \
                 Wait until the oldest is past it, or lower the retention"
            ),
        }
    }
}

impl std::error::Error for HistoryFault {}
