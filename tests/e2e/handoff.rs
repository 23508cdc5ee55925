//! Shards share nothing on the way of a sample but one message per request and owner.
//!
//! Catches: a handoff per series or per sample, an answer per sample, a part that is sent twice. To
//! see it red, send each series as a part of its own in `server/ingest.rs`.

use crate::body::{REMOTE_WRITE_HEADERS, REMOTE_WRITE_PATHS, Series, now_ms, remote_write};
use crate::server::Server;

const REQUESTS: u32 = 50;
const SERIES: u32 = 1000;

#[test]
fn one_message_and_one_answer_per_request() {
    let server = Server::start(2);
    let mut client = server.client();
    let time_ms = now_ms() - 60_000;
    for round in 0..REQUESTS {
        let series: Vec<_> = (0..SERIES)
            .map(|index| {
                let labels = [("__name__", "handoff"), ("index", &*index.to_string())];
                Series::new(&labels, &[(time_ms + i64::from(round), 1.0)])
            })
            .collect();
        let body = remote_write(&series);
        let path = REMOTE_WRITE_PATHS[0];
        let response = client.request("POST", path, &REMOTE_WRITE_HEADERS, &body);
        assert_eq!(response.expect("an answer").status, 204);
    }
    // One connection is one shard's: about half of each request belongs to the other one.
    let sent = server.metric_sum("tidegate_handoffs_sent_total").expect("a metric");
    assert!((sent - f64::from(2 * REQUESTS)).abs() < 0.5, "{sent} messages, want part and answer");
    let samples = server.metric_sum("tidegate_head_samples").expect("a metric");
    assert!((samples - f64::from(REQUESTS * SERIES)).abs() < 0.5, "{samples} samples");
}
