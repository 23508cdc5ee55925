//! What jobs ask of the fake disk: each operation begins (and may fail there), does its work at
//! once, and ends, unless the power was cut meanwhile.

use std::path::Path;

use tidegate::background::disk::{DISK_BLOCK_BYTES, Disk, DiskEntry, DiskFile, DiskSpace};

use super::{FakeDisk, FakeFile, Kind, SECTOR_BYTES, Unsynced, keep_some, put, set_len};
use crate::random::Random;

impl Disk for FakeDisk {
    type File = FakeFile;

    async fn create(&self, path: &Path) -> Result<FakeFile, i32> {
        let begun = self.begin(Kind::Create, || format!("create {}", path.display())).await;
        let made = begun.and_then(|()| self.create_now(path));
        let inode = self.end(made).await?;
        Ok(FakeFile { disk: self.clone(), inode })
    }

    async fn open(&self, path: &Path) -> Result<FakeFile, i32> {
        self.begin(Kind::Look, || format!("open {}", path.display())).await?;
        self.open_now(path)
    }

    async fn open_to_write(&self, path: &Path) -> Result<FakeFile, i32> {
        self.open(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), i32> {
        let what = || format!("rename {} to {}", from.display(), to.display());
        let begun = self.begin(Kind::Rename, what).await;
        self.end(begun.and_then(|()| self.rename_now(from, to))).await
    }

    async fn link(&self, from: &Path, to: &Path) -> Result<(), i32> {
        let what = || format!("link {} to {}", from.display(), to.display());
        let begun = self.begin(Kind::Rename, what).await;
        self.end(begun.and_then(|()| self.link_now(from, to))).await
    }

    async fn remove(&self, path: &Path) -> Result<(), i32> {
        let begun = self.begin(Kind::Remove, || format!("remove {}", path.display())).await;
        self.end(begun.and_then(|()| self.remove_now(path, false))).await
    }

    async fn make_folder(&self, path: &Path) -> Result<(), i32> {
        let begun = self.begin(Kind::Create, || format!("make {}", path.display())).await;
        self.end(begun.and_then(|()| self.make_folder_now(path))).await
    }

    async fn remove_folder(&self, path: &Path) -> Result<(), i32> {
        let begun = self.begin(Kind::Remove, || format!("remove {}", path.display())).await;
        self.end(begun.and_then(|()| self.remove_now(path, true))).await
    }

    async fn list(&self, folder: &Path) -> Result<Vec<DiskEntry>, i32> {
        self.begin(Kind::Look, || format!("list {}", folder.display())).await?;
        self.list_now(folder)
    }

    async fn sync_folder(&self, folder: &Path) -> Result<(), i32> {
        let what = || format!("sync folder {}", folder.display());
        let begun = self.begin(Kind::SyncFolder, what).await;
        let synced = begun.and_then(|()| {
            let state = &mut *self.0.borrow_mut();
            let folder = state.find(folder)?;
            state.sync_names(folder);
            Ok(())
        });
        self.end(synced).await
    }

    async fn space(&self, _path: &Path) -> Result<DiskSpace, i32> {
        self.begin(Kind::Look, || "space".to_owned()).await?;
        let state = self.0.borrow();
        let used = state.used_bytes();
        let total_bytes = state.faults.room_bytes.unwrap_or(u64::MAX / 4);
        Ok(DiskSpace { free_bytes: total_bytes.saturating_sub(used), total_bytes })
    }

    async fn yield_if_needed(&self) {}
}

impl DiskFile for FakeFile {
    async fn len_bytes(&self) -> Result<u64, i32> {
        self.disk.begin(Kind::Look, || format!("length of #{}", self.inode)).await?;
        Ok(self.disk.0.borrow_mut().file(self.inode).live.len() as u64)
    }

    async fn allocate(&self, bytes: u64) -> Result<(), i32> {
        let what = || format!("allocate {bytes} for #{}", self.inode);
        let begun = self.disk.begin(Kind::Create, what).await;
        let done = begun.and_then(|()| {
            let state = &mut *self.disk.0.borrow_mut();
            let more = usize::try_from(bytes).expect("small");
            let more = more.saturating_sub(state.file(self.inode).live.len());
            if state.fitting(more) < more { Err(libc::ENOSPC) } else { Ok(()) }
        });
        self.disk.end(done).await
    }

    async fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), i32> {
        assert!(bytes.len().is_multiple_of(DISK_BLOCK_BYTES), "a write of whole blocks");
        assert!(offset.is_multiple_of(DISK_BLOCK_BYTES as u64), "a write at a block");
        let what = || format!("write {} at {offset} of #{}", bytes.len(), self.inode);
        let begun = self.disk.begin(Kind::Write, what).await;
        let written = {
            let state = &mut *self.disk.0.borrow_mut();
            let offset = usize::try_from(offset).expect("small");
            let len = state.file(self.inode).live.len();
            let more = (offset + bytes.len()).saturating_sub(len);
            let short = more - state.fitting(more);
            // One that fails has done some of its work.
            let fitting = match begun {
                Ok(()) => bytes.len() - short,
                Err(_) => state.random.below(bytes.len() / SECTOR_BYTES + 1) * SECTOR_BYTES,
            };
            let fitting = fitting.min(bytes.len() - short);
            let file = state.file(self.inode);
            put(&mut file.live, offset, &bytes[..fitting]);
            let bytes = bytes[..fitting].to_vec();
            file.unsynced.push(Unsynced::Write { offset, bytes });
            begun.and(if short > 0 { Err(libc::ENOSPC) } else { Ok(()) })
        };
        self.disk.end(written).await
    }

    async fn read_at(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<(), i32> {
        out.clear();
        let what = || format!("read {len} at {offset} of #{}", self.inode);
        self.disk.begin(Kind::Read, what).await?;
        let state = &mut *self.disk.0.borrow_mut();
        let live = &state.file(self.inode).live;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
        out.extend_from_slice(&live[start..start.saturating_add(len).min(live.len())]);
        Ok(())
    }

    async fn set_len(&self, len: u64) -> Result<(), i32> {
        let what = || format!("set length {len} of #{}", self.inode);
        let begun = self.disk.begin(Kind::Write, what).await;
        let done = begun.map(|()| {
            let state = &mut *self.disk.0.borrow_mut();
            let len = usize::try_from(len).expect("small");
            let file = state.file(self.inode);
            set_len(&mut file.live, len);
            file.unsynced.push(Unsynced::Len(len));
        });
        self.disk.end(done).await
    }

    async fn sync(&self) -> Result<(), i32> {
        let begun = self.disk.begin(Kind::Sync, || format!("sync #{}", self.inode)).await;
        let is_cut = self.disk.is_cut();
        {
            let state = &mut *self.disk.0.borrow_mut();
            let mut random = Random::new(state.random.next());
            let file = state.file(self.inode);
            if begun.is_ok() {
                for change in std::mem::take(&mut file.unsynced) {
                    change.apply(&mut file.durable);
                }
            } else if !is_cut {
                // Some arrived; the rest is forgotten, though the process still reads it.
                let kept_of_eight = random.below(9);
                for change in std::mem::take(&mut file.unsynced) {
                    keep_some(&change, &mut file.durable, kept_of_eight, &mut random);
                }
            }
        }
        self.disk.end(begun).await
    }
}
