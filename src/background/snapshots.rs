//! DRIVER: writes the shards' snapshots, piece by piece, under a temporary name until they are
//! complete.
//!
//! In: begin, pieces, end. Out: a file that is either whole and durable under its name, or not
//! there. Memory: one write buffer per snapshot under way. Not here: what a piece says (the head),
//! reading (`replay`).

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::node::log::{BLOCK_BYTES, LogPosition};

use super::block_file::{BlockFile, OpenHow, WRITE_BYTES_MAX, errno_of, rename_durably};
use super::command::{BackgroundEvent, SNAPSHOT_PIECE_BYTES_MAX, SnapshotCommand};
use super::executor::Shard;
use super::snapshot_format::{
    PieceTally, SnapshotHeader, parse_snapshot_file_name, snapshot_file_name,
};

/// The job: runs until every sender is gone. A snapshot still open then is dropped.
pub(super) async fn run(shards: &[Shard], commands: flume::Receiver<SnapshotCommand>) {
    let mut open: Vec<Option<OpenSnapshot>> = shards.iter().map(|_| None).collect();
    while let Ok(command) = commands.recv_async().await {
        let index = command.shard() as usize;
        let Some(shard) = shards.get(index) else { continue };
        let answer = match command {
            SnapshotCommand::Begin { position, .. } => {
                open[index] = None;
                match OpenSnapshot::create(shard, position).await {
                    Ok(snapshot) => {
                        open[index] = Some(snapshot);
                        continue;
                    }
                    Err(errno) => BackgroundEvent::SnapshotFailed { position, errno },
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
                Some(snapshot) => finish(shard, snapshot).await,
            },
            SnapshotCommand::Abandon { .. } => {
                if let Some(snapshot) = open[index].take() {
                    snapshot.remove().await;
                }
                continue;
            }
        };
        if let BackgroundEvent::SnapshotFailed { errno, .. } = &answer {
            let cause = io::Error::from_raw_os_error(*errno);
            tracing::error!("cannot write a snapshot in {}: {cause}", shard.folder.display());
        }
        // A shard that is gone needs no answer.
        let _ = shard.events.push(answer).await;
    }
}

async fn fail(snapshot: Option<OpenSnapshot>, errno: i32) -> BackgroundEvent {
    let snapshot = snapshot.expect("the one whose piece failed");
    let position = snapshot.position;
    snapshot.remove().await;
    BackgroundEvent::SnapshotFailed { position, errno }
}

async fn finish(shard: &Shard, snapshot: OpenSnapshot) -> BackgroundEvent {
    let position = snapshot.position;
    let temporary = snapshot.path.clone();
    match snapshot.complete(shard).await {
        Ok(()) => {
            remove_older(shard, position.segment).await;
            BackgroundEvent::SnapshotDone { position }
        }
        Err(errno) => {
            let _ = glommio::io::remove(&temporary).await;
            BackgroundEvent::SnapshotFailed { position, errno }
        }
    }
}

struct OpenSnapshot {
    position: LogPosition,
    path: PathBuf,
    file: BlockFile,
    /// What is not written yet: less than a write's worth between two pieces.
    gathered: Vec<u8>,
    offset_bytes: u64,
    tally: PieceTally,
}

impl OpenSnapshot {
    async fn create(shard: &Shard, position: LogPosition) -> Result<Self, i32> {
        let path = shard.folder.join("snapshot.tmp");
        let file = BlockFile::open(&path, OpenHow::CreateEmpty).await?;
        let header = SnapshotHeader { identity: shard.identity, position };
        Ok(Self {
            position,
            path,
            file,
            gathered: header.encode().to_vec(),
            offset_bytes: 0,
            tally: PieceTally::default(),
        })
    }

    /// Takes a piece; gives its memory back, empty.
    async fn write_piece(&mut self, mut bytes: Vec<u8>) -> Result<Vec<u8>, i32> {
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
        self.file.write_all(&self.gathered[..len], self.offset_bytes).await?;
        self.offset_bytes += len as u64;
        self.gathered.drain(..len);
        Ok(())
    }

    async fn complete(mut self, shard: &Shard) -> Result<(), i32> {
        self.gathered.extend_from_slice(&self.tally.encode_footer());
        self.gathered.resize(self.gathered.len().next_multiple_of(BLOCK_BYTES), 0);
        self.flush(self.gathered.len()).await?;
        self.file.sync().await?;
        self.file.close().await?;
        let path = shard.folder.join(snapshot_file_name(self.position.segment));
        rename_durably(&self.path, &path, &shard.folder).await
    }

    async fn remove(self) {
        let _ = self.file.close().await;
        let _ = glommio::io::remove(&self.path).await;
    }
}

/// Removes the snapshots that the newest one replaces. One that stays is harmless: replay takes the
/// newest.
async fn remove_older(shard: &Shard, below_segment: u64) {
    let Ok(entries) = fs::read_dir(&shard.folder) else { return };
    for entry in entries.flatten() {
        let segment = entry.file_name().to_str().and_then(parse_snapshot_file_name);
        if segment.is_some_and(|segment| segment < below_segment)
            && let Err(error) = glommio::io::remove(entry.path()).await.map_err(errno_of)
        {
            let cause = io::Error::from_raw_os_error(error);
            tracing::warn!("cannot remove {}: {cause}", entry.path().display());
        }
    }
}
