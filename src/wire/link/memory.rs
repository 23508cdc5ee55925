//! What a node shard remembers of a link while it has no connection: the last frame that it took,
//! and what it said to the frames of the last window.
//!
//! A sender has at most a window of frames in flight, so an answer that is a window old has
//! arrived. Bounded so: answers of one window for each of a limited number of links; of those
//! without a connection the one that was used longest ago goes first. What is forgotten costs the
//! sender a window of frames sent again.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::ConnectionId;
use super::fault::LinkFault;
use crate::wire::ack::{AckPayload, FrameAnswer};
use crate::wire::frame::Memory;

/// An `Ack` frame ends when it says so much; one frame's answer is never cut.
const ACK_BYTES_GATHERED: usize = 128 << 10;

/// Tells a link from all others, also from the same gateway's after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkKey {
    /// The gateway.
    pub gateway: u128,
    /// The gateway shard.
    pub gateway_shard: u32,
    /// Drawn when the link was made.
    pub incarnation: u64,
}

/// Most frames, and bytes of frames, without an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Frames.
    pub frames: u32,
    /// Bytes; one frame always may be.
    pub bytes: u64,
}

/// A link's name within the process: never used again, unlike its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LinkNumber(u64);

/// All links of a node shard.
#[derive(Debug)]
pub(super) struct Links {
    by_number: HashMap<LinkNumber, Link>,
    by_key: HashMap<LinkKey, LinkNumber>,
    next_number: u64,
    count_max: u32,
    window: WindowLimits,
}

/// One link.
#[derive(Debug)]
pub(super) struct Link {
    key: LinkKey,
    pub connection: Option<ConnectionId>,
    /// Rises; the greater, the later a connection of it was opened.
    opened: u64,
    window: WindowLimits,
    /// Frames `applied - answers.len() + 1 ..= applied`.
    answers: VecDeque<Taken>,
    taken_bytes: u64,
    applied: u64,
    /// All up to this one have an answer.
    answered: u64,
    /// All up to this one were told on this connection, or before.
    said: u64,
    unsaid_bytes: u64,
}

#[derive(Debug)]
struct Taken {
    frame_bytes: u32,
    answer: Option<FrameAnswer>,
}

/// What a connection of a link goes on with.
pub(super) struct Opened {
    pub number: LinkNumber,
    /// The last frame that was taken, if the link is known.
    pub applied: Option<u64>,
    /// Where frames go on.
    pub next_sequence: u64,
    /// An older connection of it.
    pub superseded: Option<ConnectionId>,
}

impl Links {
    pub fn new(count_max: u32, window: WindowLimits) -> Self {
        assert!(count_max > 0 && window.frames > 0 && window.bytes > 0);
        let (by_number, by_key) = (HashMap::new(), HashMap::new());
        Self { by_number, by_key, next_number: 1, count_max, window }
    }

    /// A connection of `key` whose sender has no answer to frames from `oldest` on.
    pub fn open(
        &mut self,
        key: LinkKey,
        oldest: u64,
        connection: ConnectionId,
    ) -> Result<Opened, LinkFault> {
        let acked = oldest.saturating_sub(1);
        let known = self.by_key.get(&key).copied();
        // Also of an incarnation before: what it has not read yet is older than what comes now.
        let is_same_shard = |link: &Link| {
            (link.key.gateway, link.key.gateway_shard) == (key.gateway, key.gateway_shard)
        };
        let superseded = self
            .by_number
            .values()
            .find_map(|link| link.connection.filter(|_| is_same_shard(link)));
        if let Some(superseded) = superseded {
            self.leave(superseded);
        }
        let resumed = known.filter(|number| self.by_number[number].remembers(acked));
        let number = match (resumed, known) {
            (Some(number), _) => number,
            (None, Some(forgotten)) => {
                self.forget(forgotten);
                self.insert(key, acked)?
            }
            (None, None) => self.insert(key, acked)?,
        };
        self.next_number += 1;
        let link = self.by_number.get_mut(&number).expect("found or made above");
        link.connection = Some(connection);
        link.opened = self.next_number;
        link.resume(acked);
        Ok(Opened {
            number,
            applied: resumed.map(|_| link.applied),
            next_sequence: link.applied + 1,
            superseded,
        })
    }

    /// A connection is gone.
    pub fn close(&mut self, number: LinkNumber, connection: ConnectionId) {
        if let Some(link) = self.by_number.get_mut(&number)
            && link.connection == Some(connection)
        {
            link.connection = None;
        }
    }

    /// Whatever link has the connection has none.
    fn leave(&mut self, connection: ConnectionId) {
        for link in self.by_number.values_mut() {
            link.connection = link.connection.filter(|open| *open != connection);
        }
    }

    pub fn get_mut(&mut self, number: LinkNumber) -> Option<&mut Link> {
        self.by_number.get_mut(&number)
    }

    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Bytes of answers that are remembered, about.
    pub fn memory_bytes(&self) -> usize {
        let of_link = |link: &Link| {
            let answers = link.answers.iter().filter_map(|taken| taken.answer.as_ref());
            let answers = answers.map(FrameAnswer::len_bytes).sum::<usize>();
            size_of::<Link>() + link.answers.capacity() * size_of::<Taken>() + answers
        };
        self.by_number.values().map(of_link).sum()
    }

    fn insert(&mut self, key: LinkKey, acked: u64) -> Result<LinkNumber, LinkFault> {
        // The same gateway shard under an earlier incarnation is no more.
        let is_earlier = |link: &Link| {
            (link.key.gateway, link.key.gateway_shard) == (key.gateway, key.gateway_shard)
                && link.connection.is_none()
        };
        let earlier = self.by_number.iter().find(|(_, link)| is_earlier(link));
        if let Some((&number, _)) = earlier {
            self.forget(number);
        }
        if self.by_number.len() >= self.count_max as usize {
            let idle = self.by_number.iter().filter(|(_, link)| link.connection.is_none());
            let oldest = idle.min_by_key(|(_, link)| link.opened).map(|(&number, _)| number);
            let links_max = self.count_max;
            self.forget(oldest.ok_or(LinkFault::TooManyLinks { links_max })?);
        }
        let number = LinkNumber(self.next_number);
        self.next_number += 1;
        self.by_key.insert(key, number);
        self.by_number.insert(number, Link::new(key, self.window, acked));
        Ok(number)
    }

    fn forget(&mut self, number: LinkNumber) {
        let link = self.by_number.remove(&number).expect("the caller found it");
        self.by_key.remove(&link.key);
    }
}

impl Link {
    fn new(key: LinkKey, window: WindowLimits, acked: u64) -> Self {
        Self {
            key,
            connection: None,
            opened: 0,
            window,
            answers: VecDeque::new(),
            taken_bytes: 0,
            applied: acked,
            answered: acked,
            said: acked,
            unsaid_bytes: 0,
        }
    }

    /// Whether it can go on with a sender that has the answers up to `acked`: it has all later
    /// ones, or will have.
    fn remembers(&self, acked: u64) -> bool {
        let first = self.applied - self.answers.len() as u64;
        first <= acked && acked <= self.answered
    }

    /// Answers behind `acked` are to be said, again if they were before.
    fn resume(&mut self, acked: u64) {
        self.said = acked;
        while self.applied - (self.answers.len() as u64) < acked {
            self.drop_first();
        }
        self.unsaid_bytes = self.taken_bytes;
    }

    /// Whether a frame fits into the window that is not taken yet, behind `waiting` ones of
    /// `waiting_bytes`.
    pub fn has_room(&self, waiting: usize, waiting_bytes: u64, frame_bytes: u64) -> bool {
        let frames = self.applied - self.said + waiting as u64;
        let bytes = self.unsaid_bytes + waiting_bytes;
        let fits =
            frames < u64::from(self.window.frames) && bytes + frame_bytes <= self.window.bytes;
        fits || frames == 0
    }

    /// Of the frame that is to be taken next.
    pub fn next_sequence(&self) -> u64 {
        self.applied + 1
    }

    /// The next frame was taken, or refused at once.
    pub fn take(&mut self, frame_bytes: u32, refused: Option<FrameAnswer>) {
        self.applied += 1;
        self.taken_bytes += u64::from(frame_bytes);
        self.unsaid_bytes += u64::from(frame_bytes);
        self.answers.push_back(Taken { frame_bytes, answer: refused });
        self.count_answered();
        self.drop_arrived();
    }

    /// What is said to a frame that was taken.
    pub fn answer(&mut self, answer: FrameAnswer) {
        let first = self.applied - self.answers.len() as u64 + 1;
        let sequence = answer.sequence();
        assert!(self.answered < sequence && sequence <= self.applied, "frames that were taken");
        let index = usize::try_from(sequence - first).expect("a window of frames");
        self.answers[index].answer = Some(answer);
        self.count_answered();
    }

    /// Whether there are answers to tell.
    pub fn has_answers(&self) -> bool {
        self.said < self.answered
    }

    /// An `Ack` frame with the next answers.
    pub fn encode_ack(&mut self, credit_bytes: u64) -> Memory {
        let mut payload = AckPayload::default();
        let mut len_bytes = 0;
        while self.said < self.answered && len_bytes < ACK_BYTES_GATHERED {
            let first = self.applied - self.answers.len() as u64 + 1;
            let index = usize::try_from(self.said + 1 - first).expect("a window of frames");
            let taken = &self.answers[index];
            let answer = taken.answer.as_ref().expect("answered");
            payload.push(answer);
            len_bytes += answer.len_bytes();
            self.unsaid_bytes -= u64::from(taken.frame_bytes);
            self.said += 1;
        }
        payload.encode_frame(self.said, credit_bytes)
    }

    fn count_answered(&mut self) {
        let first = self.applied - self.answers.len() as u64 + 1;
        let index = usize::try_from(self.answered + 1 - first).expect("a window of frames");
        let ready = self.answers.range(index..).take_while(|taken| taken.answer.is_some());
        self.answered += ready.count() as u64;
    }

    /// Forgets answers that are a window old. The sender has them: it sent what came since.
    fn drop_arrived(&mut self) {
        while self.answers.len() > self.window.frames as usize
            || (self.answers.len() > 1 && self.taken_bytes > self.window.bytes)
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        let taken = self.answers.pop_front().expect("not empty");
        self.taken_bytes -= u64::from(taken.frame_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ack::Ack;

    const WINDOW: WindowLimits = WindowLimits { frames: 3, bytes: 1000 };

    fn links() -> (Links, LinkKey) {
        (Links::new(4, WINDOW), LinkKey { gateway: 1, gateway_shard: 2, incarnation: 3 })
    }

    fn durable(sequence: u64) -> FrameAnswer {
        FrameAnswer::Durable(Ack { sequence, ..Ack::default() })
    }

    #[test]
    fn a_sender_that_knows_other_answers_begins_anew() {
        // Red if `remembers` lets one pass whose frames were forgotten, or who has answers that
        // were never given: the receiver would count on what is not there.
        #[track_caller]
        fn check(oldest: u64, applied: Option<u64>, next_sequence: u64) {
            let (mut links, key) = links();
            let number = links.open(key, 1, ConnectionId(1)).map(|opened| opened.number);
            let link = links.get_mut(number.expect("room")).expect("opened");
            for sequence in 1..=6 {
                link.take(10, None);
                if sequence <= 5 {
                    link.answer(durable(sequence));
                    link.encode_ack(0);
                }
            }
            let opened = links.open(key, oldest, ConnectionId(2)).expect("room");
            assert_eq!((opened.applied, opened.next_sequence), (applied, next_sequence));
            assert_eq!(opened.superseded, Some(ConnectionId(1)));
        }
        check(4, Some(6), 7);
        check(6, Some(6), 7);
        // Answers to 3 and before are a window old; 6 has none yet.
        check(3, None, 3);
        check(7, None, 7);
        check(100, None, 100);
    }

    #[test]
    fn answers_are_kept_for_a_window_of_frames_and_bytes() {
        // Red if one of the two limits is not looked at.
        #[track_caller]
        fn check(frame_bytes: u32, want: usize) {
            let (mut links, key) = links();
            let number = links.open(key, 1, ConnectionId(1)).map(|opened| opened.number);
            let link = links.get_mut(number.expect("room")).expect("opened");
            for sequence in 1..=9 {
                link.take(frame_bytes, None);
                link.answer(durable(sequence));
                link.encode_ack(0);
            }
            assert_eq!(link.answers.len(), want);
        }
        check(10, 3);
        check(500, 2);
        check(501, 1);
        check(5000, 1);
    }

    /// Red if only a connection of the same incarnation is superseded: what the older one has not
    /// read yet would be written over what is newer.
    #[test]
    fn an_earlier_incarnation_is_superseded_too() {
        let (mut links, key) = links();
        links.open(key, 1, ConnectionId(1)).expect("room");
        let later = LinkKey { incarnation: 4, ..key };
        let opened = links.open(later, 1, ConnectionId(2)).expect("room");
        assert_eq!(opened.superseded, Some(ConnectionId(1)));
        assert_eq!(links.len(), 1, "and it is forgotten");
        let other = LinkKey { gateway_shard: 3, ..key };
        let opened = links.open(other, 1, ConnectionId(3)).expect("room");
        assert_eq!(opened.superseded, None);
    }

    #[test]
    fn a_gateway_that_restarted_leaves_no_second_memory() {
        // Red if the link of an earlier incarnation is kept until the limit.
        let (mut links, key) = links();
        let number = links.open(key, 1, ConnectionId(1)).expect("room").number;
        links.close(number, ConnectionId(1));
        links.open(LinkKey { incarnation: 4, ..key }, 1, ConnectionId(2)).expect("room");
        assert_eq!(links.len(), 1);
    }
}
