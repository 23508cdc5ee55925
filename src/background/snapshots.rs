//! DRIVER: writes the shards' snapshots, piece by piece, under a temporary name until they are
//! complete.
//!
//! In: begin, pieces, end. Out: a file that is either whole and durable under its name, or not
//! there. Memory: one write buffer per snapshot under way. Not here: what a piece says (the head),
//! reading (`replay`).

use std::io;
use std::path::{Path, PathBuf};

use crate::node::log::{BLOCK_BYTES, LogIdentity, LogPosition};

use super::command::{BackgroundEvent, SNAPSHOT_PIECE_BYTES_MAX, SnapshotCommand};
use super::disk::direct::DirectDisk;
use super::disk::{Disk, DiskFile, WRITE_BYTES_MAX};
use super::executor::Shard;
use super::snapshot_format::{
    PieceTally, SnapshotHeader, parse_snapshot_file_name, snapshot_file_name,
};

/// The job: runs until every sender is gone. A snapshot still open then is dropped.
pub(super) async fn run(shards: &[Shard], commands: flume::Receiver<SnapshotCommand>) {
    let mut open: Vec<Option<OpenSnapshot<DirectDisk>>> = shards.iter().map(|_| None).collect();
    while let Ok(command) = commands.recv_async().await {
        let index = command.shard() as usize;
        let Some(shard) = shards.get(index) else { continue };
        let answer = match command {
            SnapshotCommand::Begin { position, .. } => {
                open[index] = None;
                let created =
                    OpenSnapshot::create(&DirectDisk, &shard.folder, shard.identity, position);
                match created.await {
                    Ok(snapshot) => {
                        open[index] = Some(snapshot);
                        continue;
                    }
                    Err(errno) => BackgroundEvent::SnapshotFailed { errno },
                }
            }
            // After a failure nothing is open, and the pieces on their way go nowhere.
            SnapshotCommand::Piece { bytes, .. } => match &mut open[index] {
                None => continue,
                Some(snapshot) => match snapshot.write_piece(bytes).await {
                    Ok(bytes) => BackgroundEvent::SnapshotPieceWritten { bytes },
                    Err(errno) => fail(open[index].take(), errno).await,
                },
            },
            SnapshotCommand::End { .. } => match open[index].take() {
                None => continue,
                Some(snapshot) => finish(snapshot).await,
            },
        };
        if let BackgroundEvent::SnapshotFailed { errno, .. } = &answer {
            let cause = io::Error::from_raw_os_error(*errno);
            tracing::error!("cannot write a snapshot in {}: {cause}", shard.folder.display());
        }
        // A shard that is gone needs no answer.
        let _ = shard.events.push(answer).await;
    }
}

async fn fail(snapshot: Option<OpenSnapshot<DirectDisk>>, errno: i32) -> BackgroundEvent {
    let snapshot = snapshot.expect("the one whose piece failed");
    snapshot.remove().await;
    BackgroundEvent::SnapshotFailed { errno }
}

async fn finish(snapshot: OpenSnapshot<DirectDisk>) -> BackgroundEvent {
    match snapshot.finish().await {
        Ok(()) => BackgroundEvent::SnapshotDone,
        Err(errno) => BackgroundEvent::SnapshotFailed { errno },
    }
}

/// A snapshot that is being written.
pub struct OpenSnapshot<D: Disk> {
    disk: D,
    folder: PathBuf,
    position: LogPosition,
    temporary: PathBuf,
    file: D::File,
    /// What is not written yet: less than a write's worth between two pieces.
    gathered: Vec<u8>,
    offset_bytes: u64,
    tally: PieceTally,
}

impl<D: Disk> OpenSnapshot<D> {
    /// Makes the temporary file in the folder of the shard that `identity` says.
    pub async fn create(
        disk: &D,
        folder: &Path,
        identity: LogIdentity,
        position: LogPosition,
    ) -> Result<Self, i32> {
        let temporary = folder.join("snapshot.tmp");
        let file = disk.create(&temporary).await?;
        let header = SnapshotHeader { identity, position };
        Ok(Self {
            disk: disk.clone(),
            folder: folder.to_owned(),
            position,
            temporary,
            file,
            gathered: header.encode().to_vec(),
            offset_bytes: 0,
            tally: PieceTally::default(),
        })
    }

    /// Takes a piece; gives its memory back, empty.
    pub async fn write_piece(&mut self, mut bytes: Vec<u8>) -> Result<Vec<u8>, i32> {
        if bytes.len() > SNAPSHOT_PIECE_BYTES_MAX {
            return Err(libc::EFBIG);
        }
        let head = self.tally.encode_head(&bytes);
        self.gathered.extend_from_slice(&head);
        self.gathered.extend_from_slice(&bytes);
        bytes.clear();
        let whole = self.gathered.len() - self.gathered.len() % WRITE_BYTES_MAX;
        self.flush(whole).await?;
        Ok(bytes)
    }

    async fn flush(&mut self, len: usize) -> Result<(), i32> {
        self.file.write_at(&self.gathered[..len], self.offset_bytes).await?;
        self.offset_bytes += len as u64;
        self.gathered.drain(..len);
        Ok(())
    }

    /// Makes it durable under its name, then removes the older ones.
    pub async fn finish(mut self) -> Result<(), i32> {
        match self.complete().await {
            Ok(()) => {
                self.remove_older().await;
                Ok(())
            }
            Err(errno) => {
                self.remove().await;
                Err(errno)
            }
        }
    }

    async fn complete(&mut self) -> Result<(), i32> {
        self.gathered.extend_from_slice(&self.tally.encode_footer());
        self.gathered.resize(self.gathered.len().next_multiple_of(BLOCK_BYTES), 0);
        self.flush(self.gathered.len()).await?;
        self.file.sync().await?;
        let path = self.folder.join(snapshot_file_name(self.position.segment));
        self.disk.rename(&self.temporary, &path).await?;
        self.disk.sync_folder(&self.folder).await
    }

    /// Gives it up.
    pub async fn remove(self) {
        // The next one takes its place otherwise.
        let _ = self.disk.remove(&self.temporary).await;
    }

    /// Removes the snapshots that this one replaces. One that stays is harmless: replay takes the
    /// newest.
    async fn remove_older(&self) {
        let Ok(entries) = self.disk.list(&self.folder).await else { return };
        for entry in entries {
            let segment = parse_snapshot_file_name(&entry.name);
            if segment.is_some_and(|segment| segment < self.position.segment)
                && let Err(errno) = self.disk.remove(&self.folder.join(&entry.name)).await
            {
                let cause = io::Error::from_raw_os_error(errno);
                tracing::warn!(
                    "cannot remove {} in {}: {cause}",
                    entry.name,
                    self.folder.display()
                );
            }
        }
    }
}
