//! What is said of a disk that refuses hints: once for each node, and once when it takes them
//! again. Clients retry what is refused, so that a line for each write would be thousands a second.
//!
//! In: how each write ended. Out: what is news. Pure; bounded by the nodes.

use std::collections::HashMap;

use crate::model::placement::NodeId;

/// The nodes whose hints cannot be written.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    failing: HashMap<NodeId, Failing>,
}

#[derive(Debug)]
struct Failing {
    errno: i32,
    writes: u64,
}

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It is refused, and was not, or for another reason.
    Refused(i32),
    /// It works again, after so many writes that were refused.
    Works { refused: u64 },
}

impl Complaints {
    /// A write of hints for `node` ended so.
    pub fn handle_write(&mut self, node: NodeId, outcome: Result<(), i32>) -> Option<News> {
        match outcome {
            Ok(()) => {
                let failing = self.failing.remove(&node)?;
                Some(News::Works { refused: failing.writes })
            }
            Err(errno) => {
                let fresh = Failing { errno: 0, writes: 0 };
                let failing = self.failing.entry(node).or_insert(fresh);
                failing.writes += 1;
                let is_news = failing.errno != errno;
                failing.errno = errno;
                is_news.then_some(News::Refused(errno))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_refuses_is_told_once_and_when_it_is_over() {
        // Red if each write is told, if another reason is not, if nodes are one, or if writes that
        // work are news.
        let (one, other) = (NodeId(1), NodeId(2));
        let mut complaints = Complaints::default();
        let mut check = |node, outcome, want| {
            assert_eq!(complaints.handle_write(node, outcome), want, "{node} {outcome:?}");
        };
        check(one, Ok(()), None);
        check(one, Err(libc::ENOSPC), Some(News::Refused(libc::ENOSPC)));
        check(one, Err(libc::ENOSPC), None);
        check(other, Err(libc::ENOSPC), Some(News::Refused(libc::ENOSPC)));
        check(one, Err(libc::EIO), Some(News::Refused(libc::EIO)));
        check(one, Err(libc::EIO), None);
        check(one, Ok(()), Some(News::Works { refused: 4 }));
        check(one, Ok(()), None);
        check(other, Ok(()), Some(News::Works { refused: 1 }));
    }
}
