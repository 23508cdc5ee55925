//! What a follower says: whether a view is news, and why nothing comes of a command.

use std::sync::Arc;

use super::{COMMAND_WITHIN, COMMANDS_MAX, CommandFault, FleetView};

impl FleetView {
    /// Whether nobody who goes by the other one needs to hear of this one.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same_fleet = match (&self.fleet, &other.fleet) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => true,
            _ => false,
        };
        is_same_fleet && self.reads == other.reads && self.history.is_same(&other.history)
    }
}

impl std::fmt::Display for CommandFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Change(fault) => write!(f, "{fault}"),
            Self::NotFounded(why) if why.is_empty() => {
                write!(f, "there is no fleet yet: it is founded once all nodes answer; ask again")
            }
            Self::NotFounded(why) => write!(f, "there is no fleet yet: {}", why.join("; ")),
            Self::NoMajority(missing) => {
                write!(
                    f,
                    "cannot reach agreement in {} s: too few nodes answered. It may have happened \
                     all the same: look at `tidegate cluster status`",
                    COMMAND_WITHIN.as_secs()
                )?;
                for (id, text) in missing {
                    write!(f, "; node {id}: {}", text.as_deref().unwrap_or("no answer"))?;
                }
                Ok(())
            }
            Self::Busy => write!(f, "{COMMANDS_MAX} changes are under way: ask again later"),
        }
    }
}

impl std::error::Error for CommandFault {}
