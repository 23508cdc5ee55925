//! The name of a folder of hints: by it a node knows, over restarts of gateways, whose hints it
//! waits for. It is that of an empty file, `keeper-<32 hex digits>`, so that it cannot be torn.

use std::path::Path;

use crate::background::disk::Disk;

const PREFIX: &str = "keeper-";

/// The name of `folder`, which is there; `drawn` becomes it if there is none.
///
/// # Errors
/// The disk's (errno).
pub async fn keeper_of<D: Disk>(disk: &D, folder: &Path, drawn: u128) -> Result<u128, i32> {
    let entries = disk.list(folder).await?;
    let found = entries.iter().filter_map(|entry| parse(&entry.name)).min();
    if let Some(keeper) = found {
        return Ok(keeper);
    }
    disk.create(&folder.join(format!("{PREFIX}{drawn:032x}"))).await?;
    disk.sync_folder(folder).await?;
    Ok(drawn)
}

fn parse(name: &str) -> Option<u128> {
    let digits = name.strip_prefix(PREFIX)?;
    if digits.len() != 32 {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::background::disk::plain::PlainDisk;
    use crate::base::ready::run_ready;

    #[test]
    fn a_folder_is_named_once() {
        // Red if a restart gives another name, or takes another file for it.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let of = |drawn| run_ready(keeper_of(&PlainDisk, folder.path(), drawn));
        std::fs::write(folder.path().join("keeper-12"), "").expect("a file");
        assert_eq!(of(7 << 100), Ok(7 << 100));
        assert_eq!(of(8), Ok(7 << 100));
        assert_eq!(of(9), Ok(7 << 100));
    }
}
