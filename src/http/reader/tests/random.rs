//! Seeded chance: random requests survive random splits, and random damage is never worse than a
//! fault.

use super::*;
use crate::base::random::Random;

fn random_bytes(random: &mut Random, len_max: usize) -> Vec<u8> {
    (0..random.index(len_max + 1)).map(|_| random.next().to_le_bytes()[0]).collect()
}

/// A valid request as bytes, and what must be seen of it.
fn random_request(random: &mut Random) -> (Vec<u8>, Vec<Seen>) {
    let method = random.pick(&["GET", "POST", "PUT", "OPTIONS", "x-custom"]);
    let path = random.pick(&["/", "/api/v1/write", "/a//b/", "/%00"]);
    let query = random.pick(&["", " ?", " ?a=b&c=%20", " ?match[]={a=\"b\"}"]).trim_end();
    let target = format!("{path}{}", query.trim_start().replace(' ', "+"));
    let mut head = format!("{method} {path}{query} 1.1");
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n").into_bytes();
    for _ in 0..random.index(4) {
        let name = random.pick(&["x-a", "Accept", "User-Agent", "Content-Typ"]);
        let value = random.pick(&["", "a", "text/html, b;q=0.1", " \t spaced \t"]);
        bytes.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
    }
    let body = random_bytes(random, 60);
    let mut seen = Vec::new();
    match random.index(3) {
        0 => bytes.extend_from_slice(b"\r\n"),
        1 => {
            head.extend([" length=", &body.len().to_string()]);
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(&body);
            seen.push(Seen::Body(body));
        }
        _ => {
            head.push_str(" chunked");
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            extend_chunked(&mut bytes, &body, random);
            seen.push(Seen::Body(body));
        }
    }
    seen.retain(|seen| *seen != Seen::Body(Vec::new()));
    seen.insert(0, Seen::Head(head));
    seen.push(Seen::End);
    (bytes, seen)
}

fn extend_chunked(bytes: &mut Vec<u8>, body: &[u8], random: &mut Random) {
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(1 + random.index(rest.len()));
        let extension = random.pick(&["", ";", ";a=b", "; a=\"b\""]);
        bytes.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = behind;
    }
    let trailer = random.pick(&["", "A: b\r\n", "A:\r\nB: c\r\n"]);
    bytes.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
}

/// A few requests behind one another.
fn random_pipeline(random: &mut Random) -> (Vec<u8>, Vec<Seen>) {
    let (mut bytes, mut seen) = (Vec::new(), Vec::new());
    for _ in 0..=random.index(4) {
        let (more_bytes, more_seen) = random_request(random);
        bytes.extend(more_bytes);
        seen.extend(more_seen);
    }
    (bytes, seen)
}

/// `input` in pieces of random length, empty ones among them.
fn random_pieces<'a>(input: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let piece_bytes_max = [1, 3, 20, 200][random.index(4)];
    let mut pieces = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let len = random.index(piece_bytes_max + 1).min(rest.len());
        pieces.push(&rest[..len]);
        rest = &rest[len..];
    }
    pieces
}

fn limits() -> HttpLimits {
    HttpLimits { body_bytes_max: 100, ..HttpLimits::default() }
}

#[test]
fn random_pipelines_survive_random_splits() {
    for seed in 0..3_000 {
        let random = &mut Random(seed);
        let (bytes, want) = random_pipeline(random);
        let pieces = random_pieces(&bytes, random);
        assert_eq!(read_pieces(limits(), pieces), want, "seed {seed}");
    }
}

#[test]
fn random_damage_is_a_fault_at_worst() {
    const BYTES: &[u8] = b"\r\n\0 \t:;,0aF+-x\x7f\xff";
    let mut fault_count = 0;
    for seed in 0..20_000 {
        let random = &mut Random(seed);
        let (mut bytes, _) = random_pipeline(random);
        for _ in 0..=random.index(4) {
            let at = random.index(bytes.len());
            let byte = BYTES[random.index(BYTES.len())];
            match random.index(4) {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes[at] ^= 1 << random.index(8),
            }
        }
        // read_pieces loops for ever if the reader neither takes, nor speaks, nor asks for more.
        let whole = read_pieces(limits(), [bytes.as_slice()]);
        let pieces = random_pieces(&bytes, random);
        assert_eq!(read_pieces(limits(), pieces), whole, "seed {seed}");
        fault_count += usize::from(matches!(whole.last(), Some(Seen::Fault(_))));
    }
    assert!(fault_count > 5_000, "the damage must hit: {fault_count}");
}
