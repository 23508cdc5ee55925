//! The part of `/metrics` that is about how a gateway finds its nodes by name.

use crate::control::discovery::schedule::DiscoveryCounts;
use crate::control::exposition::{Exposition, FamilyKind};

/// Writes it.
pub(super) fn render(page: &mut Exposition, counts: &DiscoveryCounts) {
    use FamilyKind::{Counter, Gauge};
    page.family("tidegate_discovery_answers_total", Counter, "Answers of name servers");
    let good = counts.replies.saturating_sub(counts.failures);
    page.sample(&[("result", "success")], good);
    page.sample(&[("result", "error")], counts.failures);
    let numbers = [
        ("tidegate_discovery_names_failing", Gauge, "Questions that fail", counts.names_failing),
        ("tidegate_discovery_addresses", Gauge, "Addresses of seeds known", counts.addresses),
        ("tidegate_discovery_changes_total", Counter, "Changes of addresses", counts.changes),
    ];
    for (name, kind, help, value) in numbers {
        page.family(name, kind, help);
        page.sample(&[], value);
    }
}
