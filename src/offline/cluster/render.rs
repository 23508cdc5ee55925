//! What a gateway says of its fleet, for people. Pure: reports in, text out.

use std::fmt::Write;

use crate::control::fleet::report::{
    GroupPlanReport, GroupReport, NodePlanReport, NodeReport, PlanReport, StatusReport,
};
use crate::offline::quantity;

/// Digits of an id that people are shown; enough to tell nodes apart, and to name them by.
const ID_DIGITS: usize = 8;

/// Load that deviates by more is pointed out.
const DEVIATION_SHOWN: f64 = 0.05;

/// Columns, each as wide as its widest cell; the first ones are text, `numbers` are to the right.
struct Table {
    rows: Vec<Vec<String>>,
    numbers: std::ops::Range<usize>,
}

impl Table {
    fn new(names: &[&str], numbers: std::ops::Range<usize>) -> Self {
        Self { rows: vec![names.iter().map(|name| (*name).to_owned()).collect()], numbers }
    }

    fn write(&self, text: &mut String) {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                let _never_fails = if self.numbers.contains(&column) {
                    write!(line, "  {cell:>width$}")
                } else {
                    write!(line, "  {cell:<width$}")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
}

/// Whether nothing needs a look.
pub(super) fn is_well(report: &StatusReport) -> bool {
    let is_fine = |node: &NodeReport| node.is_reachable && node.fault.is_none();
    report.epoch > 0
        && report.faults.is_empty()
        && report.nodes.iter().all(is_fine)
        && report.silent.is_empty()
}

/// `tidegate cluster status`.
pub(super) fn status(report: &StatusReport) -> String {
    let mut text = String::new();
    if report.epoch == 0 {
        text.push_str("There is no fleet yet: it is founded once all nodes answer.\n");
    } else {
        let start = quantity::time(report.start_ms);
        let state = if report.epoch_in_force >= report.epoch { "since" } else { "starts at" };
        let (epoch, replication) = (report.epoch, report.replication);
        let nodes = quantity::of(report.nodes.len() as u64, "node");
        line(&mut text, &format!("Placement epoch {epoch}, {state} {start}"));
        let owners = quantity::of(replication.into(), "owner");
        let strategy = &report.strategy;
        line(&mut text, &format!("{nodes}, {owners} of each slot, placed by {strategy}"));
        for rule in &report.rules {
            line(&mut text, &format!("  {rule}"));
        }
        for group in &report.groups {
            line(&mut text, &evenness(group));
        }
        text.push('\n');
        node_table(&report.nodes).write(&mut text);
    }
    section(&mut text, "Not in the fleet (`tidegate cluster add ADDRESS`):", || {
        let mut table = Table::new(&["node", "address", "zone", ""], 0..0);
        for node in &report.others {
            table.rows.push(vec![
                short(&node.id),
                node.address.clone(),
                node.zone.clone().unwrap_or_else(|| "-".into()),
                node.fault.clone().unwrap_or_default(),
            ]);
        }
        table
    });
    section(&mut text, "Nobody answers at:", || {
        let mut table = Table::new(&["address", ""], 0..0);
        for silent in &report.silent {
            let fault = silent.fault.clone().unwrap_or_else(|| "is being dialled".into());
            table.rows.push(vec![silent.address.clone(), fault]);
        }
        table
    });
    if !report.faults.is_empty() {
        text.push_str("\nNeeds a look:\n");
        for fault in &report.faults {
            line(&mut text, &format!("  {fault}"));
        }
    }
    if report.epochs_known * 10 >= report.epochs_max * 9 {
        let (known, max) = (report.epochs_known, report.epochs_max);
        let advice = "no more changes until retention has let the oldest go";
        line(&mut text, &format!("\n{known} of {max} epochs are within retention: {advice}"));
    }
    text
}

/// `tidegate cluster plan`, and what the others did.
pub(super) fn plan(report: &PlanReport) -> String {
    let mut text = String::new();
    let (before, after) = (report.epoch_before, report.epoch_after);
    if before == after {
        line(&mut text, &format!("Nothing to change: epoch {before} is like that already."));
        return text;
    }
    let start = quantity::time(report.start_ms);
    if report.is_done {
        line(&mut text, &format!("Done: placement epoch {after}, from {start}"));
    } else {
        let would = format!("Placement epoch {before} would become {after}; nothing was done.");
        line(&mut text, &would);
    }
    if report.is_resharded {
        text.push_str("Series find their slots in another way: most of them move.\n");
    }
    for group in &report.groups {
        if let Some(name) = &group.group {
            line(&mut text, &format!("\nGroup {name}"));
        }
        moves(&mut text, group);
        text.push('\n');
        plan_table(&group.nodes).write(&mut text);
    }
    text
}

fn moves(text: &mut String, group: &GroupPlanReport) {
    let (moved, owned) = (u64::from(group.slots_moved), u64::from(group.slots_owned));
    let share = percent(moved as f64 / (owned as f64).max(1.0));
    let moved = quantity::count(moved);
    line(
        text,
        &format!(
            "Moves {moved} of {} slots ({share}); {} had to",
            quantity::count(owned),
            quantity::count(whole(group.slots_moved_fair)),
        ),
    );
    let of = |deviation: Option<f64>| deviation.map_or_else(|| "none".into(), percent);
    let (before, after) = (of(group.deviation_before), of(group.deviation_after));
    line(text, &format!("Deviation of load between nodes: {before} before, {after} after"));
    let is_uneven = |deviation: Option<f64>| deviation.is_some_and(|of| of > DEVIATION_SHOWN);
    if is_uneven(group.deviation_after) {
        line(
            text,
            "Uneven: see what `tidegate cluster plan --even` would make of it, once it is so",
        );
    }
}

fn plan_table(nodes: &[NodePlanReport]) -> Table {
    let names = ["node", "address", "slots", "becomes", "gains", "loses", "should own", ""];
    let mut table = Table::new(&names, 2..7);
    for node in nodes {
        let note = match (node.slots_before, node.slots_after) {
            (0, _) => "comes",
            (_, 0) => "goes",
            _ => "",
        };
        let count = |slots: u32| quantity::count(slots.into());
        table.rows.push(vec![
            short(&node.id),
            node.address.clone(),
            count(node.slots_before),
            count(node.slots_after),
            count(node.slots_gained),
            count(node.slots_lost),
            quantity::count(whole(node.slots_fair)),
            note.into(),
        ]);
    }
    table
}

fn node_table(nodes: &[NodeReport]) -> Table {
    // Where no node has a group nobody needs the column.
    let has_groups = nodes.iter().any(|node| node.group.is_some());
    let mut names =
        vec!["node", "address", "zone", "weight", "shards", "slots", "share", "epoch", ""];
    if has_groups {
        names.insert(3, "group");
    }
    let first_number = if has_groups { 4 } else { 3 };
    let mut table = Table::new(&names, first_number..names.len() - 1);
    for node in nodes {
        let state = match (&node.fault, node.is_reachable) {
            (Some(fault), _) => fault.clone(),
            (None, true) => "answers".into(),
            (None, false) => "does not answer".into(),
        };
        let share = f64::from(node.slots) / node.slots_fair.max(1.0);
        let mut row = vec![
            short(&node.id),
            node.address.clone(),
            node.zone.clone().unwrap_or_else(|| "-".into()),
            node.weight.to_string(),
            node.shards.to_string(),
            quantity::count(node.slots.into()),
            percent(share),
            node.epoch.map_or_else(|| "-".into(), |epoch| epoch.to_string()),
            state,
        ];
        if has_groups {
            row.insert(3, node.group.clone().unwrap_or_else(|| "-".into()));
        }
        table.rows.push(row);
    }
    table
}

fn evenness(group: &GroupReport) -> String {
    let (deviation, maximum) = (percent(group.deviation), percent(group.maximum));
    let name = group.group.as_ref().map_or(String::new(), |name| format!("Group {name}: "));
    format!(
        "{name}load deviates by {deviation} between nodes, the fullest has {maximum} of its share"
    )
}

/// A heading and a table, if the table has rows.
fn section(text: &mut String, heading: &str, table: impl Fn() -> Table) {
    let table = table();
    if table.rows.len() > 1 {
        text.push('\n');
        line(text, heading);
        table.write(text);
    }
}

fn line(text: &mut String, words: &str) {
    text.push_str(words);
    text.push('\n');
}

fn percent(ratio: f64) -> String {
    format!("{:.2} %", ratio * 100.0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "slots: small")]
fn whole(slots: f64) -> u64 {
    slots.max(0.0).round() as u64
}

fn short(id: &str) -> String {
    id.chars().take(ID_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fleet::report::SilentReport;

    fn node(id: &str, port: u16, slots: u32) -> NodeReport {
        NodeReport {
            id: id.repeat(4),
            address: format!("10.0.0.1:{port}"),
            zone: None,
            group: None,
            weight: 100,
            shards: 2,
            slots,
            slots_fair: 8192.0,
            is_reachable: true,
            epoch: Some(3),
            fault: None,
        }
    }

    fn report() -> StatusReport {
        StatusReport {
            epoch: 3,
            epoch_in_force: 2,
            start_ms: 0,
            replication: 1,
            strategy: "hash".into(),
            rules: Vec::new(),
            groups: vec![GroupReport { group: None, deviation: 0.0012, maximum: 1.01 }],
            nodes: vec![node("3f2a0001", 9500, 8192), node("a0b1c2d3", 9600, 8191)],
            others: Vec::new(),
            silent: Vec::new(),
            epochs_known: 3,
            epochs_max: 128,
            faults: Vec::new(),
            document: None,
        }
    }

    #[test]
    fn a_fleet_that_is_well() {
        // Red if a column slips, or a number is another one.
        let want = "\
Placement epoch 3, starts at 1970-01-01T00:00:00.000Z
2 nodes, 1 owner of each slot, placed by hash
load deviates by 0.12 % between nodes, the fullest has 101.00 % of its share

  node      address        zone  weight  shards  slots     share  epoch
  3f2a0001  10.0.0.1:9500  -        100       2  8,192  100.00 %      3  answers
  a0b1c2d3  10.0.0.1:9600  -        100       2  8,191   99.99 %      3  answers
";
        assert_eq!(status(&report()), want);
        assert!(is_well(&report()));
    }

    #[test]
    fn what_needs_a_look_is_shown_and_told() {
        let mut bad = report();
        bad.nodes[1].is_reachable = false;
        bad.nodes[1].epoch = None;
        bad.others.push(node("beefbeef", 9700, 0));
        let address = "10.0.0.9:9500".to_owned();
        bad.silent.push(SilentReport { address, fault: Some("cannot connect".into()) });
        bad.faults.push("two fleets were mixed up".into());
        let text = status(&bad);
        for part in [
            "8,191   99.99 %      -  does not answer\n",
            "\nNot in the fleet (`tidegate cluster add ADDRESS`):\n  node      address  ",
            "  beefbeef  10.0.0.1:9700  -\n",
            "\nNobody answers at:\n  address\n  10.0.0.9:9500  cannot connect\n",
            "\nNeeds a look:\n  two fleets were mixed up\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        // Red if the exit code does not know of one of them.
        assert!(!is_well(&bad));
        let mut silent = report();
        silent.nodes[0].is_reachable = false;
        assert!(!is_well(&silent));
        assert!(!is_well(&StatusReport { epoch: 0, ..report() }));
        assert!(
            status(&StatusReport { epoch: 0, ..report() }).starts_with("There is no fleet yet")
        );
    }

    #[test]
    fn a_plan_and_what_was_done() {
        let change = |id: &str, port: u16, (before, after): (u32, u32)| NodePlanReport {
            id: id.repeat(4),
            address: format!("10.0.0.1:{port}"),
            slots_before: before,
            slots_after: after,
            slots_fair: f64::from(after),
            slots_gained: after.saturating_sub(before),
            slots_lost: before.saturating_sub(after),
        };
        let nodes =
            vec![change("3f2a0001", 9500, (16384, 8190)), change("a0b1c2d3", 9600, (0, 8194))];
        let group = GroupPlanReport {
            group: None,
            nodes,
            deviation_before: Some(0.0),
            deviation_after: Some(0.0002),
            slots_owned: 16384,
            slots_moved: 8194,
            slots_moved_fair: 8192.0,
        };
        let mut report = PlanReport {
            epoch_before: 1,
            epoch_after: 2,
            start_ms: 0,
            is_done: false,
            is_resharded: false,
            groups: vec![group],
        };
        let want = "\
Placement epoch 1 would become 2; nothing was done.
Moves 8,194 of 16,384 slots (50.01 %); 8,192 had to
Deviation of load between nodes: 0.00 % before, 0.02 % after

  node      address         slots  becomes  gains  loses  should own
  3f2a0001  10.0.0.1:9500  16,384    8,190      0  8,194       8,190
  a0b1c2d3  10.0.0.1:9600       0    8,194  8,194      0       8,194  comes
";
        assert_eq!(plan(&report), want);
        report.is_done = true;
        assert!(plan(&report).starts_with("Done: placement epoch 2, from 1970-01-01T00:00:00"));
        report.epoch_after = 1;
        assert_eq!(plan(&report), "Nothing to change: epoch 1 is like that already.\n");
    }
}
