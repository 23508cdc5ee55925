//! Outcomes and the answers that they get.

use super::*;

fn outcome(endpoint: Endpoint, written: u64, refused: &[(Refusal, u64)]) -> Outcome<'static> {
    let mut counts = RefusalCounts::default();
    for (reason, samples) in refused {
        counts.add(*reason, *samples);
    }
    Outcome {
        endpoint,
        written,
        refused: counts,
        first_refusal: None,
        failed_lines: 0,
        failed_line_texts: &[],
        body_fault: None,
    }
}

#[test]
fn remote_write() {
    #[track_caller]
    fn check(written: u64, refused: &[(Refusal, u64)], want: (u16, Option<u32>, &str)) {
        let reply = reply_to(&outcome(Endpoint::RemoteWriteV1, written, refused));
        assert_eq!((reply.status, reply.retry_after_seconds, &*reply.body), want);
        assert_eq!(reply.content_type, "text/plain; charset=utf-8");
    }
    use Refusal::*;
    check(5000, &[], (204, None, ""));
    check(0, &[], (204, None, ""));
    check(
        4997,
        &[(TooOld, 3)],
        (
            400,
            None,
            "too_old: 3 of 5000 samples refused; 4997 written (too_old 3); \
             limit: out-of-order-window\n",
        ),
    );
    check(
        0,
        &[(EmptyLabelName, 1), (TooManyLabels, 2), (LabelsTooLong, 2)],
        (
            400,
            None,
            "too_many_labels: 5 of 5 samples refused; 0 written (empty_label_name 1, \
             too_many_labels 2, labels_too_long 2); limit: labels-max, labels-bytes-max\n",
        ),
    );
    // One sample that a retry would save outweighs any number that it would not.
    check(
        1,
        &[(TooFarInFuture, 7), (Overloaded, 1), (DiskFull, 1)],
        (
            503,
            Some(30),
            "overloaded: 9 of 10 samples refused; 1 written (too_far_in_future 7, overloaded 1, \
             disk_full 1); limit: disk-free-min\n",
        ),
    );
    check(
        0,
        &[(HeadFull, 2)],
        (
            503,
            Some(30),
            "head_full: 2 of 2 samples refused; 0 written (head_full 2); limit: head-bytes-max\n",
        ),
    );
    check(
        0,
        &[(Draining, 2)],
        (503, Some(5), "draining: 2 of 2 samples refused; 0 written (draining 2)\n"),
    );
}

#[test]
fn the_first_refusal_is_quoted_last() {
    #[track_caller]
    fn check(position: Position, series: Option<&str>, want: &str) {
        let first =
            FirstRefusal { reason: Refusal::EmptyLabelName, position: Some(position), series };
        let refused = [(Refusal::EmptyLabelName, 1)];
        let reply = reply_to(&Outcome {
            first_refusal: Some(first),
            ..outcome(Endpoint::RemoteWriteV1, 1, &refused)
        });
        let want = format!(
            "empty_label_name: 1 of 2 samples refused; 1 written (empty_label_name 1); \
             first: empty_label_name{want}\n"
        );
        assert_eq!(reply.body, want);
    }
    check(Position::decoded(Endpoint::RemoteWriteV1, 7), None, " at byte 7 of the body");
    check(Position::decoded(Endpoint::VmJson, 7), None, " in line 7");
    check(Position::BodyBytes(7), Some("up{a=\"b\"}"), " at byte 7 of the body of up{a=\"b\"}");
    check(Position::Line(1), Some("a\r\nb"), " in line 1 of a\u{fffd}\u{fffd}b");
    let long = "\u{e9}".repeat(150);
    check(Position::Line(1), Some(&long), &format!(" in line 1 of {}", "\u{e9}".repeat(100)));
}

#[test]
fn all_reasons_and_counts_stand_in_the_first_bytes() {
    let all = Refusal::ALL.map(|reason| (reason, 1_000_000));
    let reply = reply_to(&outcome(Endpoint::RemoteWriteV1, u64::from(u32::MAX), &all));
    let start = &reply.body[..reply.body.len().min(TELLING_BYTES_MAX)];
    for (reason, _) in all.iter().filter(|(reason, _)| *reason != Refusal::BadLine) {
        assert!(start.contains(&format!("{} 1000000", reason.as_str())), "{reason:?} in {start}");
        assert!(limit_flag(*reason).is_none_or(|flag| start.contains(flag)), "{reason:?}");
    }
}

#[test]
fn json_lines() {
    #[track_caller]
    fn check(lines: &[&str], refused: &[(Refusal, u64)], want: (u16, &str)) {
        let texts: Vec<String> = lines.iter().map(ToString::to_string).collect();
        let reply = reply_to(&Outcome {
            failed_lines: lines.len() as u64,
            failed_line_texts: &texts,
            ..outcome(Endpoint::VmJson, 9, refused)
        });
        assert_eq!((reply.status, &*reply.body), want);
    }
    check(&[], &[], (204, ""));
    check(
        &["{\"a\": \u{1}"],
        &[(Refusal::BadLine, 1)],
        (200, r#"{"samples":9,"errors":1,"failed_lines":["{\"a\": \u0001"]}"#),
    );
    check(
        &["1", "2", "3", "4"],
        &[(Refusal::BadLine, 4)],
        (200, r#"{"samples":9,"errors":4,"failed_lines":["1","2","3"]}"#),
    );
    check(
        &["1"],
        &[(Refusal::TooOld, 2), (Refusal::LabelsTooLong, 5), (Refusal::BadLine, 1)],
        (
            200,
            concat!(
                r#"{"samples":9,"errors":8,"failed_lines":["1"],"#,
                r#""refused":{"labels_too_long":5,"too_old":2},"#,
                r#""limits":["labels-bytes-max","out-of-order-window"]}"#,
            ),
        ),
    );
    let long = "x".repeat(201);
    // A limit was counted here without its name: nobody knew which flag to look at.
    let want = concat!(
        r#"{"samples":9,"errors":2,"failed_lines":[],"refused":{"label_value_too_long":2},"#,
        r#""limits":["label-value-bytes-max"]}"#,
    );
    check(&[], &[(Refusal::LabelValueTooLong, 2)], (200, want));
    let want = format!(r#"{{"samples":9,"errors":1,"failed_lines":["{}"]}}"#, &long[..200]);
    check(&[&long], &[], (200, &want));
    check(
        &["1"],
        &[(Refusal::LogFailed, 2)],
        (503, "log_failed: 2 of 11 samples refused; 9 written (log_failed 2); 1 lines failed\n"),
    );
}

#[test]
fn whole_bodies() {
    #[track_caller]
    fn check(reason: Refusal, text: &str, want: (u16, Option<u32>, &str)) {
        for endpoint in [Endpoint::RemoteWriteV1, Endpoint::VmJson] {
            let body_fault = Some(BodyFault { reason, text });
            let reply = reply_to(&Outcome { body_fault, ..outcome(endpoint, 0, &[]) });
            assert_eq!((reply.status, reply.retry_after_seconds, &*reply.body), want);
        }
    }
    let text = "cannot unpack the body: bad checksum";
    let want = "corrupt_body: cannot unpack the body: bad checksum\n";
    check(Refusal::CorruptBody, text, (400, None, want));
    let want = "body_too_large: cannot unpack; limit: body-bytes-max\n";
    check(Refusal::BodyTooLarge, "cannot unpack\n", (413, None, want));
    let text = "cannot unpack: above body-bytes-max (5)";
    let want = "body_too_large: cannot unpack: above body-bytes-max (5)\n";
    check(Refusal::BodyTooLarge, text, (413, None, want));
    let want = "replaying: cannot write yet\n";
    check(Refusal::Replaying, "cannot write yet", (503, Some(5), want));
}

#[test]
fn as_bytes() {
    #[track_caller]
    fn check(reply: &Reply, method: &str, want: &str) {
        let mut out = Vec::new();
        reply.encode(&mut out, method, true);
        assert_eq!(String::from_utf8_lossy(&out), want);
    }
    let end = "connection: keep-alive\r\n\r\n";
    check(&Reply::NO_CONTENT, "POST", &format!("HTTP/1.1 204 No Content\r\n{end}"));
    let allow = "allow: POST, OPTIONS\r\n";
    let options = Reply::of_options("POST, OPTIONS");
    check(&options, "OPTIONS", &format!("HTTP/1.1 204 No Content\r\n{allow}{end}"));
    let plain = "content-type: text/plain; charset=utf-8\r\n";
    let not_allowed = Reply::of_method_not_allowed("POST, OPTIONS");
    let head =
        format!("HTTP/1.1 405 Method Not Allowed\r\n{plain}{allow}content-length: 55\r\n{end}");
    check(&not_allowed, "HEAD", &head);
    let text = "cannot serve the method: this path takes POST, OPTIONS\n";
    check(&not_allowed, "GET", &format!("{head}{text}"));
    let full = reply_to(&outcome(Endpoint::VmJson, 0, &[(Refusal::DiskFull, 1)]));
    let text = "disk_full: 1 of 1 samples refused; 0 written (disk_full 1); \
                limit: disk-free-min\n";
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\n{plain}retry-after: 30\r\ncontent-length: {}\r\n{end}",
        text.len()
    );
    check(&full, "POST", &format!("{head}{text}"));
    let unsupported =
        Reply::of_header_fault(Endpoint::RemoteWriteV1, HeaderFault::UnsupportedContentEncoding);
    assert_eq!((unsupported.status, unsupported.body.is_empty()), (415, false));
}
