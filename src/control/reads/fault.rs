//! Why a node did not answer a question.

use std::fmt;

use crate::wire::frame::FrameFault;
use crate::wire::link::LinkFault;
use crate::wire::select::SelectFault;

/// Why there is no answer, or not a whole one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// Nobody listens there, or the way is closed; the system's words.
    Unreachable(String),
    /// Nothing was heard for the health timeout.
    Silent,
    /// The connection broke with the question under way.
    Broken(String),
    /// The conversation went wrong.
    Link(LinkFault),
    /// The node closed the link, and said why.
    Refused(String),
    /// What it answered cannot be read.
    Frame(FrameFault),
    /// It took the question, and cannot answer it.
    Select(SelectFault),
    /// So many questions wait for this node already.
    TooMany {
        /// The limit.
        questions_max: u32,
    },
    /// The client was stopped.
    Stopped,
}

impl fmt::Display for ReadFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(text) => {
                write!(out, "cannot connect: {text}; check that the node runs and its address")
            }
            Self::Silent => out.write_str("cannot hear it: it is stopped, or the network is cut"),
            Self::Broken(text) => write!(out, "cannot go on: the connection broke ({text})"),
            Self::Link(fault) => fault.fmt(out),
            Self::Refused(text) => write!(out, "it refuses: {text}"),
            Self::Frame(fault) => write!(
                out,
                "cannot read its answer ({fault:?}); run releases that are next to each other"
            ),
            Self::Select(SelectFault::Disk(text)) => write!(out, "cannot read {text}"),
            Self::Select(SelectFault::Unavailable(text)) => out.write_str(text),
            Self::Select(SelectFault::BadRegex(text)) => {
                write!(out, "cannot compile a regular expression: {text}")
            }
            Self::Select(SelectFault::TooManySeries { series_max }) => {
                write!(out, "cannot select more than {series_max} series")
            }
            Self::TooMany { questions_max } => {
                write!(out, "cannot ask it more than {questions_max} questions at a time")
            }
            Self::Stopped => out.write_str("cannot ask: the process ends"),
        }
    }
}

impl std::error::Error for ReadFault {}
