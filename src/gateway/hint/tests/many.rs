//! The logs of many nodes, which share the memory for segments that are handed out.

use std::collections::BTreeMap;

use crate::gateway::hint::log::{HintLimits, HintTicket, LogEvent};
use crate::gateway::hint::logs::{HintLogs, LOADED_SEGMENTS_MAX};
use crate::model::placement::NodeId;

use super::part;

const LIMITS: HintLimits = HintLimits {
    node_bytes_max: 1 << 20,
    bytes_max: 64 << 20,
    age_max_ms: 1_000,
    segment_bytes: 32 << 10,
};

/// Logs of `count` nodes with one segment each, which is on the disk.
fn logs(count: u128) -> (HintLogs, BTreeMap<NodeId, Vec<u8>>) {
    let mut logs = HintLogs::new(LIMITS, 1);
    let mut files = BTreeMap::new();
    for node in (1..=count).map(NodeId) {
        let ticket = HintTicket { shard: 0, number: 1 };
        logs.handle_append(0, node, ticket, &part(0, &[1], 1, 1));
        let log = logs.log_mut(node);
        let write = log.poll_write().expect("a group");
        log.handle_written(Ok(()));
        files.insert(node, write.bytes);
    }
    while logs.poll_event().is_some() {}
    (logs, files)
}

/// Red when each node that comes back takes memory for a segment, or the first nodes are served
/// again before the last ones were.
#[test]
fn nodes_that_come_back_together_take_turns() {
    let count = LOADED_SEGMENTS_MAX as u128 + 2;
    let (mut logs, files) = logs(count);
    (1..=count).for_each(|node| logs.log_mut(NodeId(node)).handle_read(0));
    let mut order = Vec::new();
    while order.len() < files.len() {
        while let Some((node, segment)) = logs.poll_load(0) {
            logs.log_mut(node).handle_loaded(0, segment, Ok(files[&node].clone()));
            order.push(node);
        }
        let loaded = (1..=count).filter(|node| logs.log_mut(NodeId(*node)).has_loaded());
        assert_eq!(loaded.count(), LOADED_SEGMENTS_MAX);
        let (node, event) = logs.poll_event().expect("a record");
        let LogEvent::Record { shard, record } = event else { panic!("{event:?}") };
        // More comes for it meanwhile: it waits until every other had its turn.
        let ticket = HintTicket { shard: 0, number: 2 };
        logs.handle_append(0, node, ticket, &part(0, &[1], 1, 2));
        let log = logs.log_mut(node);
        log.poll_write().expect("a group");
        log.handle_written(Ok(()));
        log.handle_delivered(shard, record.number);
        log.poll_remove(0).expect("it is delivered");
        log.handle_removed(0, Ok(()));
        assert!(matches!(logs.poll_event(), Some((_, LogEvent::Appended { .. }))));
    }
    assert!(order.iter().eq(files.keys()), "{order:?}");
}

/// Red when a node that went away in the middle keeps memory from others.
#[test]
fn a_segment_that_nobody_reads_makes_room() {
    let (mut logs, files) = logs(LOADED_SEGMENTS_MAX as u128 + 1);
    let mut nodes: Vec<_> = files.keys().copied().collect();
    let last = nodes.pop().expect("one more than have room");
    for node in nodes {
        logs.log_mut(node).handle_read(0);
        let (loaded, segment) = logs.poll_load(0).expect("there is room");
        logs.log_mut(loaded).handle_loaded(0, segment, Ok(files[&loaded].clone()));
    }
    logs.log_mut(last).handle_read(0);
    assert_eq!(logs.poll_load(0), None);
    logs.log_mut(NodeId(1)).handle_pause(0);
    assert_eq!(logs.poll_load(0), Some((last, 1)));
    logs.log_mut(NodeId(1)).handle_read(0);
    assert_eq!(logs.poll_load(0), None, "it waits for its turn");
}

/// Red when a segment that went out of memory is handed out from its begin again (a node that
/// pauses once a segment never gets to its end), or one stays there for a reader that has all.
#[test]
fn a_segment_goes_on_where_it_was() {
    let mut logs = HintLogs::new(LIMITS, 2);
    let node = NodeId(1);
    for round in 0..4 {
        let ticket = HintTicket { shard: 0, number: round };
        logs.handle_append(0, node, ticket, &part(0, &[1], 1, 1));
    }
    let log = logs.log_mut(node);
    let file = log.poll_write().expect("a group").bytes;
    log.handle_written(Ok(()));
    while log.poll_event().is_some() {}
    let load = |logs: &mut HintLogs| {
        let (node, segment) = logs.poll_load(0).expect("somebody reads");
        logs.log_mut(node).handle_loaded(0, segment, Ok(file.clone()));
    };
    let records = |logs: &mut HintLogs| {
        let events = std::iter::from_fn(|| logs.log_mut(node).poll_event());
        let numbers = events.map(|event| match event {
            LogEvent::Record { shard, record } => (shard, record.number),
            _ => panic!("{event:?}"),
        });
        numbers.collect::<Vec<_>>()
    };
    (0..2).for_each(|shard| logs.log_mut(node).handle_read(shard));
    load(&mut logs);
    let first = records(&mut logs);
    assert_eq!(first.len(), 4, "all of one shard's");
    let (shard, other) = (first[0].0, 1 - first[0].0);
    for (_, number) in &first[..2] {
        logs.log_mut(node).handle_delivered(shard, *number);
    }
    assert!(!logs.log_mut(node).unload_unread(), "two are on their way");
    // The other shard goes on reading, and there is nothing for it.
    logs.log_mut(node).handle_pause(shard);
    assert!(logs.log_mut(node).unload_unread());
    assert_eq!(logs.poll_load(0), None, "shard {other} has all of its share");
    logs.log_mut(node).handle_read(shard);
    load(&mut logs);
    assert_eq!(records(&mut logs), first[2..]);
    for (_, number) in &first[2..] {
        logs.log_mut(node).handle_delivered(shard, *number);
    }
    assert!(logs.log_mut(node).poll_remove(0).is_some());
}
