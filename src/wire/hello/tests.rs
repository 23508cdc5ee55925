//! The handshake's payloads: round trips, frozen bytes, proofs, versions.

use super::*;
use crate::wire::frame::check_frame;
use crate::wire::golden::check_control_frame;

fn secret(text: &str) -> LinkSecret {
    LinkSecret::new(text.as_bytes()).expect("long enough")
}

fn challenge() -> Challenge {
    Challenge { versions: VERSIONS, nonce: [1; 32] }
}

fn hello() -> Hello {
    Hello {
        gateway: 1 << 100 | 7,
        node_expected: 3,
        link_incarnation: 11,
        oldest_sequence: 5,
        placement_epoch: 2,
        nonce: [2; 32],
        gateway_shard: 1,
        gateway_shard_count: 4,
        node_shard: 2,
        versions: Versions { min: 1, max: 3 },
        purpose: LinkPurpose::Write,
    }
}

fn welcome() -> Welcome {
    Welcome {
        node: 3,
        incarnation: 8,
        placement_epoch: 2,
        window_bytes: 4 << 20,
        credit_bytes: 1 << 20,
        window_frames: 64,
        frame_bytes_max: 4 << 20,
        applied_sequence: Some(6),
        shard: 2,
        shard_count: 3,
        link_ports: vec![9001, 9002, 9003, 9004],
        version: 1,
        state: NodeState::Ready,
    }
}

#[test]
fn round_trips_and_frozen_bytes() {
    let secret = secret("a secret of a fleet");
    let said = challenge().encode_frame();
    check_control_frame("challenge", &said, &challenge(), Challenge::decode);
    let said = &said[FRAME_HEADER_BYTES..];
    let frame = hello().encode_frame(&secret, said);
    assert!(frame.len() <= STRANGER_BYTES_MAX);
    let read = |header: &_, payload: &_| Hello::decode(header, payload, (&secret, said));
    check_control_frame("hello", &frame, &Some(hello()), read);
    let answered = &frame[FRAME_HEADER_BYTES..];
    let frame = welcome().encode_frame(&secret, said, answered);
    let read =
        |header: &_, payload: &_| Welcome::decode(header, payload, (&secret, said, answered));
    check_control_frame("welcome", &frame, &Some(welcome()), read);
    let refused = Refused::new("cannot take this link: its shard is 9 of 3".into());
    check_control_frame("refused", &refused.encode_frame(), &refused, Refused::decode);
    assert_eq!(welcome().read_port(), Some(9004));
    let many = Welcome { link_ports: vec![1; LINK_PORTS_MAX], ..welcome() };
    assert!(many.encode_frame(&secret, said, answered).len() <= WELCOME_BYTES_MAX);
}

#[test]
fn ports_are_those_of_the_shards_and_at_most_one_for_reads() {
    // Red if `decode` takes any number of ports, or a shard that has none: dialling it would be an
    // index out of bounds.
    #[track_caller]
    fn check(shard: u32, shard_count: u32, ports: usize, want: bool) {
        let secret = secret("a secret of a fleet");
        let welcome = Welcome { shard, shard_count, link_ports: vec![1; ports], ..welcome() };
        let frame = welcome.encode_frame(&secret, b"said", b"hello");
        let header = check_frame(&frame).expect("sealed");
        let payload = &frame[FRAME_HEADER_BYTES..];
        let read = Welcome::decode(&header, payload, (&secret, b"said", b"hello"));
        assert_eq!(read.is_ok(), want, "{shard} {shard_count} {ports}");
    }
    check(2, 3, 3, true);
    check(2, 3, 4, true);
    check(3, 3, 4, true);
    check(3, 3, 3, false);
    check(4, 3, 4, false);
    check(2, 3, 2, false);
    check(2, 3, 5, false);
    check(0, 0, 0, false);
}

#[test]
fn a_proof_covers_every_bit_that_was_said() {
    // Red if the challenge, the hello or a body is left out of the proof: a change of it, versions
    // included, would go unseen.
    let secret = secret("a secret of a fleet");
    let said = challenge().encode_frame()[FRAME_HEADER_BYTES..].to_vec();
    let hello = hello().encode_frame(&secret, &said);
    let welcome = welcome().encode_frame(&secret, &said, &hello[FRAME_HEADER_BYTES..]);
    let hello_header = check_frame(&hello).expect("sealed");
    let welcome_header = check_frame(&welcome).expect("sealed");
    for bit in 0..8 * said.len() {
        let mut said = said.clone();
        said[bit / 8] ^= 1 << (bit % 8);
        let payload = &hello[FRAME_HEADER_BYTES..];
        assert_eq!(Hello::decode(&hello_header, payload, (&secret, &said)), Ok(None));
        let before = (&secret, &said[..], payload);
        let read = Welcome::decode(&welcome_header, &welcome[FRAME_HEADER_BYTES..], before);
        assert_eq!(read, Ok(None));
    }
    for bit in 8 * FRAME_HEADER_BYTES..8 * hello.len() {
        let mut hello = hello.clone();
        hello[bit / 8] ^= 1 << (bit % 8);
        let payload = &hello[FRAME_HEADER_BYTES..];
        assert_eq!(Hello::decode(&hello_header, payload, (&secret, &said)), Ok(None));
        let before = (&secret, &said[..], payload);
        let read = Welcome::decode(&welcome_header, &welcome[FRAME_HEADER_BYTES..], before);
        assert_eq!(read, Ok(None));
    }
    for bit in 8 * FRAME_HEADER_BYTES..8 * welcome.len() {
        let mut welcome = welcome.clone();
        welcome[bit / 8] ^= 1 << (bit % 8);
        let before = (&secret, &said[..], &hello[FRAME_HEADER_BYTES..]);
        let read = Welcome::decode(&welcome_header, &welcome[FRAME_HEADER_BYTES..], before);
        assert_eq!(read, Ok(None));
    }
}

#[test]
fn versions_agree_on_the_newest_of_both() {
    #[track_caller]
    fn check(mine: (u16, u16), theirs: (u16, u16), want: Option<u16>) {
        let versions = |(min, max)| Versions { min, max };
        assert_eq!(versions(mine).agree(versions(theirs)), want);
        assert_eq!(versions(theirs).agree(versions(mine)), want);
    }
    check((1, 1), (1, 1), Some(1));
    check((1, 3), (2, 5), Some(3));
    check((1, 2), (3, 4), None);
    check((2, 2), (1, 9), Some(2));
}

#[test]
fn id_spaces_differ_by_node_incarnation_and_shard() {
    // Frozen: it stands in headers. Red if one of the three is left out.
    assert_ne!(id_space(1, 1, 0), id_space(2, 1, 0));
    assert_ne!(id_space(1, 1, 0), id_space(1, 2, 0));
    assert_ne!(id_space(1, 1, 0), id_space(1, 1, 1));
    assert_eq!(id_space(3, 8, 2), 9_233_017_171_600_237_600);
}
