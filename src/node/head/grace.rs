//! What left the head while selects that began before may still name it: used again only when the
//! last of them is over.
//!
//! A select works in slices and keeps sets of rows, pairs and names between them. Were a row used
//! again meanwhile, it would answer with the samples of one series under the matchers of another.

use std::collections::VecDeque;
use std::sync::Arc;

/// Held by a select for as long as it runs.
#[derive(Clone, Debug)]
pub struct Reader {
    _holds: Arc<()>,
}

/// What waits, oldest first.
pub(super) struct Grace<T> {
    current: Arc<()>,
    waiting: VecDeque<(Arc<()>, T)>,
}

impl<T> Grace<T> {
    pub(super) fn new() -> Self {
        Self { current: Arc::new(()), waiting: VecDeque::new() }
    }

    /// From now on what leaves waits for this reader.
    pub(super) fn reader(&self) -> Reader {
        Reader { _holds: Arc::clone(&self.current) }
    }

    /// `left` left: readers that there are may name it, those that come cannot.
    pub(super) fn push(&mut self, left: T) {
        let holds = std::mem::replace(&mut self.current, Arc::new(()));
        self.waiting.push_back((holds, left));
    }

    /// Whether the oldest can be named by no reader any more.
    pub(super) fn is_ready(&self) -> bool {
        self.waiting.front().is_some_and(|(holds, _)| Arc::strong_count(holds) == 1)
    }

    /// The oldest, if it can be named by no reader any more.
    pub(super) fn poll(&mut self) -> Option<T> {
        let oldest = if self.is_ready() { self.waiting.pop_front() } else { None };
        oldest.map(|(_, left)| left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_waits_for_older_readers_only() {
        let mut grace = Grace::new();
        let early = grace.reader();
        grace.push(1);
        let late = grace.reader();
        grace.push(2);
        assert_eq!(grace.poll(), None);
        drop(early);
        assert_eq!((grace.poll(), grace.poll()), (Some(1), None));
        drop(late);
        assert_eq!((grace.poll(), grace.poll()), (Some(2), None));
    }
}
