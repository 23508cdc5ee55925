//! Files of the blocks that are changed, cut, removed and added between two runs.

use std::path::{Path, PathBuf};

use tidegate::background::blocks::block::block_file_name;
use tidegate::background::blocks::store::OpenReport;
use tidegate::node::block::BlockFault;

use super::{DATA, World};

impl World {
    fn block_files(&self) -> Vec<PathBuf> {
        let blocks = Path::new(DATA).join("blocks");
        let mut files = self.disk.files(&blocks);
        files.retain(|path| path.parent() == Some(&blocks));
        files
    }

    /// Some of the files change behind everybody's back.
    pub fn damage(&mut self) {
        self.is_damaged = true;
        for _ in 0..=self.random.below(2) {
            let files = self.block_files();
            if files.len() < 2 {
                // Without any file it looks like a first start, and nobody can tell.
                return;
            }
            let path = &files[self.random.below(files.len())];
            // Only the list knows what is missing; a start that is cut short may be the one that
            // says that it was damaged.
            self.told += u64::from(path.file_name().is_some_and(|name| name == "BLOCKS"));
            let random = &mut self.random;
            match random.below(4) {
                0 => self.disk.uproot(path),
                1 => self.disk.tamper(path, |bytes| bytes.truncate(random.below(bytes.len() + 1))),
                2 => {
                    let bytes = self.disk.contents(path).expect("a file");
                    let name = block_file_name(random.below(40) as u64);
                    let copy = path.with_file_name(name);
                    if self.disk.contents(&copy).is_none() {
                        self.disk.plant(&copy, bytes);
                    }
                }
                _ => self.disk.tamper(path, |bytes| {
                    if !bytes.is_empty() {
                        let at = random.below(bytes.len());
                        bytes[at] ^= 1 << random.below(8);
                    }
                }),
            }
        }
    }

    /// A file that is none of ours, now and then; its name.
    pub fn plant_foreign(&mut self) -> Option<String> {
        let blocks = Path::new(DATA).join("blocks");
        if !self.random.once_in(6) || self.disk.files(&blocks).is_empty() {
            return None;
        }
        let name = match self.random.below(3) {
            0 => "notes.txt".to_owned(),
            1 => "block-1.blk".to_owned(),
            _ => block_file_name(1_000_000 + self.random.below(100) as u64),
        };
        let path = blocks.join(&name);
        if self.disk.contents(&path).is_some() {
            return None;
        }
        self.disk.plant(&path, b"not ours".to_vec());
        Some(name)
    }

    /// What a start said.
    pub fn note_opened(&mut self, report: &OpenReport, foreign: Option<&str>) {
        if let Some(name) = foreign {
            let is_named = report.set_aside.iter().any(|(each, _)| each == name);
            // An attempt before, which did not come to its end, may have put it there.
            let aside = self.disk.files(&Path::new(DATA).join("blocks/aside"));
            let has_it = |path: &PathBuf| {
                path.file_name().is_some_and(|each| each.to_string_lossy().starts_with(name))
                    && self.disk.contents(path).as_deref() == Some(b"not ours")
            };
            assert!(aside.iter().any(has_it), "{name} is not in aside; named: {is_named}");
        }
        let ours = report.set_aside.iter().filter(|(name, fault)| {
            Some(name.as_str()) != foreign && !(*fault == BlockFault::NotABlock && self.is_damaged)
        });
        let lost = ours.count() + report.missing.len() + usize::from(report.list_rebuilt);
        let aside = report.set_aside.len();
        self.told += if self.is_damaged { lost + aside } else { lost } as u64;
    }
}
