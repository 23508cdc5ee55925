//! A query's question to one node shard, and the pieces of the answer. As values here, as bytes in
//! `codec` and `series`.

mod codec;
mod series;

use rkyv::{Archive, Deserialize, Serialize};

use crate::model::chunk::Chunk;
use crate::model::matcher::Matcher;
use crate::model::sample::Sample;
use crate::model::series::TenantId;

pub use codec::{SELECT_SCHEMA, SelectEnding, StringsView, encode_answer, encode_end};
pub use series::{PieceTooLong, SelectedSeriesPiece, SeriesJoiner, SeriesView};

/// What to look for on one node shard. Both ends of the range are inclusive, Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectRequest {
    /// Whose series.
    pub tenant: TenantId,
    /// All of them must hold. None at all selects every series of the tenant.
    pub matchers: Vec<Matcher>,
    /// Oldest sample that is wanted.
    pub start_ms: i64,
    /// Newest sample that is wanted.
    pub end_ms: i64,
    /// What of the matching series is wanted.
    pub want: SelectWant,
    /// More matching series than this end the select with [`SelectFault::TooManySeries`].
    pub series_max: u32,
}

/// What a select returns of the series that match and have a sample in the range.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum SelectWant {
    /// Labels and samples.
    Samples,
    /// Labels only.
    Labels,
    /// The names of their labels, each once.
    LabelNames,
    /// The values of this label, each once.
    LabelValues(String),
}

/// Where an answer of a node comes from.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectLayer {
    /// The memory of its shards: these samples win.
    Heads,
    /// Its blocks, which are told of after all heads: what came before wins.
    Blocks,
}

/// A piece of the answer to a [`SelectRequest`]. `End` or `Fault` is the last.
#[derive(Debug)]
pub enum SelectAnswer {
    /// Some of the matching series.
    Series(Vec<SelectedSeries>),
    /// Some of the label names or values, in no order, without repeats within one answer of one
    /// shard.
    Strings(Vec<Box<str>>),
    /// All has been said.
    End {
        /// Series that matched.
        series_count: u32,
    },
    /// Nothing more will come.
    Fault(SelectFault),
}

/// A series that matched.
#[derive(Clone, Debug)]
pub struct SelectedSeries {
    /// Canonical label bytes.
    pub labels: Box<[u8]>,
    /// Sealed chunks that overlap the range, whole: the reader cuts. Each is in time order, but
    /// they may overlap, and at equal timestamps the later one in this list wins.
    pub chunks: Vec<Chunk>,
    /// Samples not yet sealed, in write order; at equal timestamps the last wins, and they win over
    /// `chunks`.
    pub samples: Vec<Sample>,
}

/// Why a select ended early.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum SelectFault {
    /// A matcher's regular expression does not compile; the text says why.
    BadRegex(String),
    /// A block could not be read; the text says which and why.
    Disk(String),
    /// More series match than `series_max`.
    TooManySeries {
        /// The limit.
        series_max: u32,
    },
    /// The node cannot answer now; the text says why.
    Unavailable(String),
}
