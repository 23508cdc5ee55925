//! Any body: decoded without a panic; what was taken is decoded the same from a body written anew;
//! shards lose nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::gateway::decode::remote_write_v1::RemoteWriteDecoder;
use tidegate::gateway::request::{DecodedRequest, RequestBytes};
use tidegate_fuzz::{RULES, check_request, encode_write_request, write_request_seeds, write_seeds};

fuzz_target!(init: write_seeds(&write_request_seeds()), |data: &[u8]| {
    let mut decoder = RemoteWriteDecoder::default();
    let mut bytes = RequestBytes { body: data.to_vec(), labels: Vec::new() };
    let mut request = DecodedRequest::new(1);
    let result = decoder.decode(&RULES, &mut bytes, &mut request);
    let all = check_request(&bytes, &request);
    assert!(result.is_ok() || all.is_empty());
    let (refused, ignored) = (request.refused, request.ignored);

    let mut sharded = DecodedRequest::new(3);
    assert_eq!(decoder.decode(&RULES, &mut bytes, &mut sharded), result);
    assert_eq!(check_request(&bytes, &sharded), all);
    assert_eq!((sharded.refused, sharded.ignored), (refused, ignored));

    bytes.body = encode_write_request(&all);
    decoder.decode(&RULES, &mut bytes, &mut request).expect("a body of the usual shape");
    assert_eq!(check_request(&bytes, &request), all);
    assert!(bytes.labels.is_empty(), "canonical labels are taken where they lie");
    assert_eq!(request.refused.total(), 0);
});
