//! Any run of bytes as label messages: the check, the encoder and the walk agree on what is
//! canonical.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::model::labels::{
    LabelLimits, LabelsEncoder, canonicalize, check_grammar, encode_label, format_labels, iterate,
    scan_canonical,
};
use tidegate_fuzz::{encode_labels, write_seeds};

fn seeds() -> Vec<Vec<u8>> {
    let long = "n".repeat(200);
    vec![
        encode_labels(&[("__name__", "up"), ("instance", "a:1"), ("job", "x")]),
        encode_labels(&[("job", "x"), ("__name__", "up"), ("gone", "")]),
        encode_labels(&[("container", "1"), ("container_id", "2"), (&long, &long)]),
    ]
}

fuzz_target!(init: write_seeds(&seeds()), |data: &[u8]| {
    let is_canonical = scan_canonical(data, 0, data.len()) == Some(data.len());
    let walked = iterate(data).count();
    format_labels(data);
    let grammar = check_grammar(data, &LabelLimits::default());
    // What lies behind the labels must not matter.
    let mut padded = data.to_vec();
    padded.extend_from_slice(&[0x0a; 16]);
    let scanned = scan_canonical(&padded, 0, data.len());
    assert_eq!(scanned == Some(data.len()), is_canonical);

    let mut out = Vec::new();
    let result = canonicalize(data, &mut LabelsEncoder::default(), &mut out);
    if is_canonical {
        assert!(result.is_ok());
    }
    let Ok(Ok(range)) = result else {
        // Only the number of labels can be against canonical bytes here.
        assert!(!is_canonical || (walked > 1024 && grammar.is_err()));
        return;
    };
    assert_eq!(range, 0..out.len());
    assert_eq!(scan_canonical(&out, 0, out.len()), Some(out.len()));
    assert_eq!(is_canonical, out == data && (data.is_empty() || data[0] == 0x0a));
    let mut again = Vec::new();
    for (name, value) in iterate(&out) {
        encode_label(&mut again, name, value);
    }
    assert_eq!(again, out);
});
