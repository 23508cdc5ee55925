//! What a process is, and which fields of the configuration that leaves it with.

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `tidegate serve`: takes in and stores.
    Standalone,
    /// `tidegate gateway`: takes in, and forwards to nodes.
    Gateway,
    /// `tidegate node`: stores what gateways bring.
    Node,
}

impl Role {
    /// Its command.
    pub fn command(self) -> &'static str {
        match self {
            Self::Standalone => "serve",
            Self::Gateway => "gateway",
            Self::Node => "node",
        }
    }

    /// Whether `field` means something to it. Fields that are not named here do to all.
    pub fn has(self, field: &str) -> bool {
        match field {
            "listen" => self != Self::Node,
            "http" | "link" | "zone" | "group" => self == Self::Node,
            "nodes" | "dns_server" | "auto_join" | "replication" | "shard_by" | "group_rules"
            | "ack" | "health_timeout" | "hint_bytes_max" | "hint_age_max" => self == Self::Gateway,
            "link_secret_file" => self != Self::Standalone,
            "head_bytes_max"
            | "log_segment_bytes"
            | "log_bytes_max"
            | "block_cache_bytes"
            | "retention_bytes"
            | "out_of_order_window" => self != Self::Gateway,
            _ => true,
        }
    }
}
