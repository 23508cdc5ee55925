//! Any body: the one-pass reader and simd-json say the same about every line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::gateway::decode::vm_json::{LineReader, VmJsonDecoder};
use tidegate::gateway::request::{DecodedRequest, RequestBytes};
use tidegate_fuzz::{RULES, check_request, json_seeds, write_seeds};

fuzz_target!(init: write_seeds(&json_seeds()), |data: &[u8]| {
    let [both, simd_json] = [LineReader::Both, LineReader::SimdJson].map(|reader| {
        let mut decoder = VmJsonDecoder::new(reader);
        let mut bytes = RequestBytes { body: data.to_vec(), labels: Vec::new() };
        let mut request = DecodedRequest::new(2);
        let result = decoder.decode(&RULES, &mut bytes, &mut request);
        let all = check_request(&bytes, &request);
        let refused = (request.refused, request.first_refusal);
        (result, all, refused, request.failed_lines, request.failed_line_texts)
    });
    assert_eq!(both, simd_json);
});
