//! Any bytes of a connection, whole and in pieces of as many bytes as the first byte says: the
//! reader sees the same requests either way, and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::http::reader::{HttpLimits, ReadEvent, RequestReader};
use tidegate_fuzz::write_seeds;

fn seeds() -> Vec<Vec<u8>> {
    [
        "\x05POST /write HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n",
        "\x03POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\na\r\n0\r\nx: y\r\n\r\n",
        "\x03POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "\x03HEAD /a?b=c HTTP/1.0\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Everything that the reader says about `input` when it comes in pieces of `piece_bytes`.
fn read(input: &[u8], piece_bytes: usize) -> Vec<String> {
    let limits = HttpLimits { head_bytes_max: 1024, headers_max: 8, body_bytes_max: 4096 };
    let mut reader = RequestReader::new(limits);
    let mut said = Vec::new();
    let mut body = Vec::new();
    for piece in input.chunks(piece_bytes) {
        let mut rest = piece;
        let mut idle_calls = 0;
        loop {
            let (taken, event) = reader.read(rest);
            rest = &rest[taken..];
            idle_calls = if taken == 0 { idle_calls + 1 } else { 0 };
            assert!(idle_calls < 8, "the reader goes on without taking anything");
            match event {
                ReadEvent::NeedMore => {
                    assert!(rest.is_empty());
                    break;
                }
                ReadEvent::Head => {
                    let head = reader.head();
                    said.push(format!("{} {:?}", head.method, head.headers().collect::<Vec<_>>()));
                }
                ReadEvent::Body(bytes) => body.extend_from_slice(bytes),
                ReadEvent::End => said.push(format!("{:?}", std::mem::take(&mut body))),
                ReadEvent::Fault(fault) => {
                    said.push(format!("{:?} {fault:?}", std::mem::take(&mut body)));
                    return said;
                }
            }
        }
    }
    said.push(format!("{body:?}"));
    said
}

fuzz_target!(init: write_seeds(&seeds()), |data: &[u8]| {
    let Some((piece_bytes, input)) = data.split_first() else { return };
    let whole = read(input, input.len().max(1));
    assert_eq!(read(input, usize::from(*piece_bytes) % 16 + 1), whole);
});
