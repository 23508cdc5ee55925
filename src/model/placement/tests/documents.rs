//! Documents: what is refused, in which words, and what comes back from the text.

use super::{Chance, found};
use crate::model::matcher::{MatchOperator, Matcher};
use crate::model::placement::{
    Cause, DOCUMENT_BYTES_MAX, Field, NodeId, Placement, PlacementDocument, SlotRule, Strategy,
    TagRule,
};

fn good() -> PlacementDocument {
    let mut nodes = Chance::new(40).nodes(4, 2);
    for node in &mut nodes[2..] {
        node.group = Some("hot".into());
    }
    let matchers = vec![
        Matcher::equal("job", "edge"),
        Matcher { name: "dc".into(), operator: MatchOperator::NotRegex, value: "a|b.*\"\n".into() },
    ];
    let rules = vec![TagRule { matchers, group: "hot".into() }];
    let within = SlotRule::ShardBy { labels: vec!["instance".into(), "__name__".into()] };
    PlacementDocument::found(-5, 2, Strategy::Tags { rules, within }, nodes).expect("a good one")
}

#[test]
fn a_document_comes_back_from_its_text() {
    for document in [good(), found(1, Chance::new(41).nodes(3, 0))] {
        let text = document.encode();
        assert_eq!(PlacementDocument::decode(&text), Ok(document.clone()));
        // Spaces and the order of nodes do not matter.
        let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        value["nodes"].as_array_mut().expect("a list").reverse();
        let pretty = serde_json::to_string_pretty(&value).expect("JSON");
        let again = PlacementDocument::decode(&pretty).expect("the same");
        assert_eq!(again.content_hash(), document.content_hash());
    }
}

/// Whatever field differs, the hash does.
#[test]
fn the_content_hash_is_of_all_fields() {
    let base = good();
    let changes: [fn(&mut PlacementDocument); 11] = [
        |document| document.epoch += 1,
        |document| document.start_ms += 1,
        |document| document.replication = 1,
        |document| document.strategy = Strategy::Hash {},
        |document| document.nodes[0].id = NodeId(1),
        |document| document.nodes[0].link = "x:1".into(),
        |document| document.nodes[0].shards += 1,
        |document| document.nodes[0].zone = Some("other".into()),
        |document| document.nodes[0].group = Some("other".into()),
        |document| document.nodes[0].weight += 1,
        |document| document.nodes[0].salt += 1,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut other = base.clone();
        change(&mut other);
        assert_ne!(other.content_hash(), base.content_hash(), "change {index}");
    }
}

/// Red when the check in question is taken out: each names its field, and says what to do.
#[test]
fn faults_name_the_field() {
    #[track_caller]
    fn check(change: impl Fn(&mut PlacementDocument), want: &str) {
        let mut document = good();
        change(&mut document);
        document.sort();
        let fault = document.check().expect_err(want).to_string();
        assert!(fault.starts_with(want), "{fault:?} begins {want:?}");
        assert_eq!(Placement::new(document.clone()).err(), document.check().err());
        assert!(PlacementDocument::decode(&document.encode()).is_err(), "{want}");
    }
    check(|d| d.epoch = 0, "epoch: 0 is not in 1..=");
    check(|d| d.epoch = u64::MAX, "epoch: 18446744073709551615 is not in");
    check(|d| d.replication = 0, "replication: 0 is not in 1..=3: choose one that is");
    check(|d| d.replication = 4, "replication: 4 is not in");
    check(|d| d.replication = 3, "replication: 3 owners for each slot, and a group of 2 nodes");
    check(|d| d.nodes.clear(), "nodes: there is none: give at least one");
    check(|d| d.nodes[1].id = d.nodes[0].id, "nodes[1].id (of ");
    check(|d| d.nodes[1].link = d.nodes[0].link.clone(), "nodes[1].link (of ");
    check(|d| d.nodes[3].shards = 0, "nodes[3].shards (of ");
    check(|d| d.nodes[3].shards = 1025, "nodes[3].shards (of ");
    check(|d| d.nodes[0].weight = 0, "nodes[0].weight (of ");
    check(|d| d.nodes[0].weight = 1001, "nodes[0].weight (of ");
    check(|d| d.nodes[0].pull = 0, "nodes[0].pull (of ");
    check(|d| d.nodes[2].zone = None, "nodes[2].zone (of ");
    check(|d| d.nodes[2].zone = Some("a b".into()), "nodes[2].zone (of ");
    check(|d| d.nodes[2].zone = Some("a".repeat(65)), "nodes[2].zone (of ");
    check(|d| d.nodes[0].group = Some("cold".into()), "nodes[0].group (of ");
    check(|d| d.nodes.iter_mut().for_each(|n| n.group = None), "strategy.rules[0].group: no node");
    check(
        |d| d.nodes.iter_mut().for_each(|n| n.group = Some("hot".into())),
        "nodes: all nodes are in groups",
    );
    let links = ["", "a", "a:", ":1", "a:0", "a:65536", "a:+1", "a:01", "a b:1", "[::1:1", "::1:1"];
    for link in links.into_iter().chain(["[::g]:1", "[127.0.0.1]:1"]) {
        check(|d| d.nodes[0].link = link.into(), "nodes[0].link (of ");
    }
}

/// Red without the check of the whole: it could be written, and not read again.
#[test]
fn a_document_that_is_too_long_is_refused() {
    let matcher = Matcher::equal(&"a".repeat(1024), &"b".repeat(1024));
    let rule = TagRule { matchers: vec![matcher; 16], group: "hot".into() };
    let with = |count| {
        let strategy =
            Strategy::Tags { rules: vec![rule.clone(); count], within: SlotRule::Hash {} };
        PlacementDocument { strategy, ..good() }.check()
    };
    assert_eq!(with(31), Ok(()));
    let fault = with(32).expect_err("longer than a document may be");
    assert_eq!(fault.cause, Cause::TooLong { bytes_max: DOCUMENT_BYTES_MAX });
}

#[test]
fn faults_of_the_strategy_name_the_field() {
    #[track_caller]
    fn check(strategy: Strategy, want: &str) {
        let document = PlacementDocument { strategy, ..good() };
        let fault = document.check().expect_err(want).to_string();
        assert!(fault.starts_with(want), "{fault:?} begins {want:?}");
    }
    let shard_by = |labels: &[&str]| Strategy::ShardBy {
        labels: labels.iter().map(|label| (*label).into()).collect(),
    };
    check(shard_by(&[]), "strategy.labels: there is none");
    check(shard_by(&[""]), "strategy.labels: must be 1 to 1024 bytes");
    check(shard_by(&["a", "a"]), "strategy.labels: stands there twice");
    check(shard_by(&["a", "b", "c", "d", "e", "f", "g", "h", "i"]), "strategy.labels: 9 of them");
    let tags = |matchers: Vec<Matcher>, group: &str| Strategy::Tags {
        rules: vec![TagRule { matchers, group: group.into() }],
        within: SlotRule::Hash {},
    };
    let regex = |value: &str| {
        let (operator, value) = (MatchOperator::Regex, value.into());
        vec![Matcher { name: "a".into(), operator, value }]
    };
    check(tags(vec![], "hot"), "strategy.rules[0].matchers: there is none");
    check(tags(regex("a("), "hot"), "strategy.rules[0].matchers: cannot compile the regular");
    check(tags(regex("a"), ""), "strategy.rules[0].group: must be 1 to 64 letters");
    check(tags(vec![Matcher::equal("", "a")], "hot"), "strategy.rules[0].matchers: must be");
    check(
        tags(vec![Matcher::equal("a", &"b".repeat(1025))], "hot"),
        "strategy.rules[0].matchers: must be",
    );
    let none = Strategy::Tags { rules: vec![], within: SlotRule::Hash {} };
    check(none, "strategy.rules: there is none");
}

/// Red without `deny_unknown_fields` at any of the levels.
#[test]
fn texts_that_are_refused() {
    #[track_caller]
    fn check(text: &str, want: &str) {
        let fault = PlacementDocument::decode(text).expect_err(want);
        assert_eq!(fault.field, Field::Document);
        assert!(fault.to_string().contains(want), "{fault} has {want:?}");
    }
    let good = good().encode();
    assert!(PlacementDocument::decode(&good).is_ok());
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} in {good}");
        good.replacen(from, to, 1)
    };
    check("", "cannot be read");
    check("{}", "missing field `version`");
    // Of another version nothing else is looked at.
    check(r#"{"version":2,"shape":"other"}"#, "version 2, and this program knows 1");
    check(&with("\"epoch\"", "\"colour\":1,\"epoch\""), "unknown field `colour`");
    check(&with("\"link\"", "\"colour\":1,\"link\""), "unknown field `colour`");
    check(&with("\"rules\"", "\"colour\":1,\"rules\""), "unknown field `colour`");
    check(&with("\"group\":\"hot\"}", "\"group\":\"hot\",\"colour\":1}"), "unknown field `colour`");
    check(&with("\"labels\"", "\"colour\":1,\"labels\""), "unknown field `colour`");
    check(&with("\"!~\"", "\"~\""), "`~` is none of = != =~ !~");
    check(&with("\"id\":\"", "\"id\":\"0"), "is no id: 32 lower-case hex digits");
    check(&with("\"epoch\":1", "\"epoch\":-1"), "cannot be read");
    check(&with("\"epoch\":1", "\"epoch\":1,\"epoch\":1"), "duplicate field");
    check(&good[..good.len() - 1], "cannot be read");
    check(&" ".repeat(DOCUMENT_BYTES_MAX + 1), "longer than 1048576 bytes");
}

/// Cut and bent texts: refused or read, never a panic.
#[test]
fn bent_texts_do_not_panic() {
    let good = good().encode();
    let mut chance = Chance::new(42);
    for _ in 0..2000 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..=chance.below(3) {
            let at = chance.below(bytes.len() as u64) as usize;
            bytes[at] = b"0123456789\"{}[],:-ab"[chance.below(20) as usize];
        }
        bytes.truncate(1 + chance.below(2 * bytes.len() as u64) as usize);
        if let Ok(document) = PlacementDocument::decode(&String::from_utf8_lossy(&bytes)) {
            assert_eq!(PlacementDocument::decode(&document.encode()), Ok(document));
        }
    }
}

#[test]
fn ids_are_32_hex_digits() {
    let id = NodeId(0x00ab_cdef);
    assert_eq!(id.to_string(), "00000000000000000000000000abcdef");
    assert_eq!(NodeId::parse(&id.to_string()), Some(id));
    for text in ["", "ab", &"A".repeat(32), &"g".repeat(32), &"0".repeat(33), "+0000000000000001"] {
        assert_eq!(NodeId::parse(text), None, "{text}");
    }
}

#[test]
fn changes_that_cannot_be() {
    let document = good();
    let stranger = NodeId(5);
    let unknown = document.without_node(0, stranger).expect_err("no such node");
    assert_eq!(unknown.cause, Cause::UnknownNode(stranger));
    let early = document.evened(-6).expect_err("it starts before");
    assert_eq!(early.cause, Cause::StartsBefore { start_ms: -5 });
    let last = document.without_node(0, document.nodes[0].id).expect_err("two owners are needed");
    assert_eq!(last.field, Field::Top("replication"));
    let twice = document.with_node(0, document.nodes[0].clone()).expect_err("it is there");
    assert_eq!(twice.cause, Cause::Duplicate);
    assert_eq!(document.check_next(&document).expect_err("no progress").field, Field::Top("epoch"));
}
