//! For tests of payloads: their bytes are those of `tests/golden`, they are read back, and no
//! change of a bit or of the length makes a decoder panic.

#![cfg(test)]

use std::fmt::Debug;

use crate::wire::frame::{FRAME_HEADER_BYTES, FrameFault, FrameHeader, Memory, check_frame};

/// Checks all of that. With `TIDEGATE_WRITE_GOLDEN` set a golden file that is not there is written.
#[track_caller]
pub fn check_control_frame<T: Debug + PartialEq>(
    name: &str,
    frame: &Memory,
    want: &T,
    decode: impl Fn(&FrameHeader, &[u8]) -> Result<T, FrameFault>,
) {
    let path = format!("tests/golden/{name}_frame_v1.bin");
    if std::env::var_os("TIDEGATE_WRITE_GOLDEN").is_some() && !std::fs::exists(&path).expect("dir")
    {
        std::fs::write(&path, frame).expect("a file");
    }
    let golden = std::fs::read(&path).expect("the golden file");
    assert!(frame[..] == golden[..], "{name}: other bytes need another schema number");
    let header = check_frame(frame).expect("sealed");
    assert_eq!(decode(&header, &frame[FRAME_HEADER_BYTES..]).as_ref(), Ok(want));
    let other = FrameHeader { schema: header.schema + 1, ..header };
    let fault = FrameFault::UnknownSchema { schema: other.schema };
    assert_eq!(decode(&other, &frame[FRAME_HEADER_BYTES..]), Err(fault));
    let mut bad = frame.clone();
    for bit in FRAME_HEADER_BYTES * 8..frame.len() * 8 {
        bad[bit / 8] ^= 1 << (bit % 8);
        let _ = decode(&header, &bad[FRAME_HEADER_BYTES..]);
        bad[bit / 8] ^= 1 << (bit % 8);
    }
    for len in FRAME_HEADER_BYTES..frame.len() {
        let _ = decode(&header, &frame[FRAME_HEADER_BYTES..len]);
    }
}
