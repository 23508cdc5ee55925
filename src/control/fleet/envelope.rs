//! A text with its checksum around it: what files of placement hold. JSON, for people too.
//!
//! ```text
//! {"crc32c":"01234567","content":...}
//! ```
//! One line; the checksum is of the content's bytes.

use crate::base::checksum::crc32c;

const BEFORE: &str = "{\"crc32c\":\"";
const BETWEEN: &str = "\",\"content\":";
const AFTER: &str = "}\n";

/// The file that holds `content`, which is JSON.
pub(super) fn seal_content(content: &str) -> String {
    format!("{BEFORE}{:08x}{BETWEEN}{content}{AFTER}", crc32c(content.as_bytes()))
}

/// What [`seal_content`] was given; `None`: some byte is another one, or missing.
pub(super) fn open_content(file: &str) -> Option<&str> {
    let rest = file.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
    let (checksum, rest) = rest.split_at_checked(8)?;
    let content = rest.strip_prefix(BETWEEN)?;
    (checksum == format!("{:08x}", crc32c(content.as_bytes()))).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_or_missing_byte_is_found() {
        let file = seal_content("{\"epoch\":1}");
        assert_eq!(file, "{\"crc32c\":\"712bdbf2\",\"content\":{\"epoch\":1}}\n");
        assert_eq!(open_content(&file), Some("{\"epoch\":1}"));
        for at in 0..file.len() {
            let mut bad = file.clone().into_bytes();
            bad[at] ^= 1;
            let bad = String::from_utf8(bad).expect("ASCII");
            assert_eq!(open_content(&bad), None, "byte {at}: {bad}");
            assert_eq!(open_content(&file[..at]), None, "cut at {at}");
        }
    }
}
