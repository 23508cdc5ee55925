//! Why a sample does not make it: the closed list of reasons, each with its metric label and who is
//! to blame.

/// Why samples were refused. The order is that of the counters; append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// The body is not what its content type promises; nothing of it was written.
    CorruptBody,
    /// A line of a text or JSON body cannot be decoded.
    BadLine,
    /// The body is larger than `body-bytes-max` allows.
    BodyTooLarge,
    /// A label's name is empty.
    EmptyLabelName,
    /// A label's name is not in the grammar.
    InvalidLabelName,
    /// A label's value, or name, is not UTF-8.
    InvalidUtf8,
    /// Two labels of a series have the same name.
    DuplicateLabel,
    /// The series has no `__name__`, or an empty one.
    MissingMetricName,
    /// More labels than `labels-max`.
    TooManyLabels,
    /// A label name longer than `label-name-bytes-max`.
    LabelNameTooLong,
    /// A label value longer than `label-value-bytes-max`.
    LabelValueTooLong,
    /// All labels together are longer than `labels-bytes-max`.
    LabelsTooLong,
    /// Older than the newest sample of its series by more than the out-of-order window.
    TooOld,
    /// Further in the future than the host's clock allows (10 minutes).
    TooFarInFuture,
    /// The shard's queues or buffers are at their limit.
    Overloaded,
    /// The head is at `head-bytes-max`.
    HeadFull,
    /// Less room on the disk than `disk-free-min`, or none for the next log segment.
    DiskFull,
    /// The log of the shard failed and takes nothing until a restart.
    LogFailed,
    /// The node is replaying its log.
    Replaying,
    /// The process is shutting down.
    Draining,
    /// A request's method, content type or coding is none that its path takes.
    WrongHeaders,
    /// The node no longer knows the series by its id; a retry sends its labels.
    UnknownSeries,
    /// Older than `retention`: nothing would show it.
    OlderThanRetention,
    /// No owner of the series is heard, or not all of those that must have it are.
    NodeDown,
    /// What is kept for owners that are down is at `hint-bytes-max` or `hint-age-max`.
    HintsFull,
    /// The placement that was followed is no longer in force, and the newer one is not known yet.
    StaleEpoch,
    /// The gateway has not learned yet which nodes there are.
    NoPlacement,
    /// This process is a node: clients send to gateways.
    NotAGateway,
}

/// Whose fault a refusal is, which decides the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// 4xx: a retry cannot mend it.
    Client,
    /// 503 with Retry-After: a retry can.
    Server,
}

impl Refusal {
    /// Every reason, in counter order.
    pub const ALL: [Self; 28] = [
        Self::CorruptBody,
        Self::BadLine,
        Self::BodyTooLarge,
        Self::EmptyLabelName,
        Self::InvalidLabelName,
        Self::InvalidUtf8,
        Self::DuplicateLabel,
        Self::MissingMetricName,
        Self::TooManyLabels,
        Self::LabelNameTooLong,
        Self::LabelValueTooLong,
        Self::LabelsTooLong,
        Self::TooOld,
        Self::TooFarInFuture,
        Self::Overloaded,
        Self::HeadFull,
        Self::DiskFull,
        Self::LogFailed,
        Self::Replaying,
        Self::Draining,
        Self::WrongHeaders,
        Self::UnknownSeries,
        Self::OlderThanRetention,
        Self::NodeDown,
        Self::HintsFull,
        Self::StaleEpoch,
        Self::NoPlacement,
        Self::NotAGateway,
    ];

    /// Counters that are indexed by a reason have this many places.
    pub const COUNT: usize = Self::ALL.len();

    /// The `reason` label of `tidegate_refused_samples_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CorruptBody => "corrupt_body",
            Self::BadLine => "bad_line",
            Self::BodyTooLarge => "body_too_large",
            Self::EmptyLabelName => "empty_label_name",
            Self::InvalidLabelName => "invalid_label_name",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::DuplicateLabel => "duplicate_label",
            Self::MissingMetricName => "missing_metric_name",
            Self::TooManyLabels => "too_many_labels",
            Self::LabelNameTooLong => "label_name_too_long",
            Self::LabelValueTooLong => "label_value_too_long",
            Self::LabelsTooLong => "labels_too_long",
            Self::TooOld => "too_old",
            Self::TooFarInFuture => "too_far_in_future",
            Self::Overloaded => "overloaded",
            Self::HeadFull => "head_full",
            Self::DiskFull => "disk_full",
            Self::LogFailed => "log_failed",
            Self::Replaying => "replaying",
            Self::Draining => "draining",
            Self::WrongHeaders => "wrong_headers",
            Self::UnknownSeries => "unknown_series",
            Self::OlderThanRetention => "older_than_retention",
            Self::NodeDown => "node_down",
            Self::HintsFull => "hints_full",
            Self::StaleEpoch => "stale_epoch",
            Self::NoPlacement => "no_placement",
            Self::NotAGateway => "not_a_gateway",
        }
    }

    /// Who is to blame.
    pub fn blame(self) -> Blame {
        match self {
            Self::Overloaded
            | Self::HeadFull
            | Self::DiskFull
            | Self::LogFailed
            | Self::Replaying
            | Self::Draining
            | Self::UnknownSeries
            | Self::NodeDown
            | Self::HintsFull
            | Self::StaleEpoch
            | Self::NoPlacement => Blame::Server,
            _ => Blame::Client,
        }
    }
}

/// How many samples were refused for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusalCounts([u64; Refusal::COUNT]);

impl RefusalCounts {
    /// Counts `samples` more under `reason`.
    pub fn add(&mut self, reason: Refusal, samples: u64) {
        self.0[reason as usize] += samples;
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// The count under `reason`.
    pub fn get(&self, reason: Refusal) -> u64 {
        self.0[reason as usize]
    }

    /// All reasons together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that have a count, in counter order.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.into_iter().map(|reason| (reason, self.get(reason))).filter(|(_, n)| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_order_is_the_enum_order() {
        for (index, reason) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
