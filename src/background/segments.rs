//! DRIVER: makes the segment files of the logs, and takes back the ones that are not needed any
//! more.
//!
//! A new segment takes a retired file if there is one: its blocks are allocated and written, so a
//! sync after a write has no metadata to commit. A file made anew is filled with zeros for the same
//! reason (what that is worth: see `zero_fill_or_not` in `tests`). Under its final name a segment
//! is always complete. Not here: when (`node/log`), reading (`replay`).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::node::log::{SegmentHeader, parse_segment_file_name, segment_file_name};

use super::block_file::{
    BlockFile, OpenHow, WRITE_BYTES_MAX, errno_of, rename_durably, sync_folder,
};
use super::command::{BackgroundEvent, SegmentCommand, SegmentFile};
use super::executor::Shard;

/// Retired files kept for new segments, per shard.
const RECYCLED_MAX: usize = 4;
const RETIRED_PREFIX: &str = "retired-";

/// The job: runs until every sender is gone.
pub(super) async fn run(shards: &[Shard], commands: flume::Receiver<SegmentCommand>) {
    while let Ok(command) = commands.recv_async().await {
        let Some(shard) = shards.get(command.shard() as usize) else { continue };
        match command {
            SegmentCommand::Prepare { segment, bytes, .. } => {
                let outcome = prepare(shard, segment, bytes).await;
                if let Err(errno) = outcome {
                    // The shard asks again every second, and says so once.
                    let cause = io::Error::from_raw_os_error(errno);
                    let folder = shard.folder.display();
                    tracing::debug!("cannot make log segment {segment} in {folder}: {cause}");
                }
                // A shard that is gone needs no answer.
                let event = BackgroundEvent::SegmentReady { segment, outcome };
                let _ = shard.events.push(event).await;
            }
            SegmentCommand::Retire { below_segment, .. } => {
                // What stays is found and retired again with the next snapshot.
                if let Err(errno) = retire(&shard.folder, below_segment).await {
                    let cause = io::Error::from_raw_os_error(errno);
                    let folder = shard.folder.display();
                    tracing::error!("cannot retire log segments in {folder}: {cause}");
                }
            }
        }
    }
}

async fn prepare(shard: &Shard, segment: u64, bytes: u64) -> Result<SegmentFile, i32> {
    let temporary = shard.folder.join("segment.tmp");
    let outcome = prepare_at(shard, &temporary, segment, bytes).await;
    if outcome.is_err() {
        // Gives the room back, so that a full disk is not kept full by the attempt.
        let _ = glommio::io::remove(&temporary).await;
    }
    outcome
}

async fn prepare_at(
    shard: &Shard,
    temporary: &Path,
    segment: u64,
    bytes: u64,
) -> Result<SegmentFile, i32> {
    let retired = find_retired(&shard.folder, bytes).map_err(|error| io_errno(&error))?;
    let file = if let Some(retired) = retired {
        glommio::io::rename(&retired, temporary).await.map_err(errno_of)?;
        BlockFile::open(temporary, OpenHow::Existing).await?
    } else {
        let file = BlockFile::open(temporary, OpenHow::CreateEmpty).await?;
        file.allocate(bytes).await?;
        fill_with_zeros(&file, bytes).await?;
        file
    };
    let header = SegmentHeader { identity: shard.identity, segment, segment_bytes: bytes };
    file.write_all(&header.encode(), 0).await?;
    file.sync().await?;
    file.close().await?;
    let path = shard.folder.join(segment_file_name(segment));
    rename_durably(temporary, &path, &shard.folder).await?;
    open_for_ring(&path).map_err(|error| io_errno(&error))
}

async fn fill_with_zeros(file: &BlockFile, bytes: u64) -> Result<(), i32> {
    let zeros = vec![0; WRITE_BYTES_MAX];
    let mut offset = 0;
    while offset < bytes {
        let left = usize::try_from(bytes - offset).unwrap_or(usize::MAX);
        let piece = &zeros[..left.min(WRITE_BYTES_MAX)];
        file.write_all(piece, offset).await?;
        offset += piece.len() as u64;
    }
    Ok(())
}

/// Opens a segment as the ring wants it: past the page cache where the file system can, and locked.
/// A write that is in flight when the process is killed lands after its end; the kernel keeps the
/// lock as long, and replay waits for it.
fn open_for_ring(path: &Path) -> io::Result<SegmentFile> {
    let (file, is_direct) = open_past_cache(path)?;
    file.try_lock()?;
    Ok(SegmentFile { file: file.into(), is_direct })
}

fn open_past_cache(path: &Path) -> io::Result<(File, bool)> {
    let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path);
    match direct {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Ok((OpenOptions::new().write(true).open(path)?, false))
        }
        Err(error) => Err(error),
    }
}

/// A retired file of the right size.
fn find_retired(folder: &Path, bytes: u64) -> io::Result<Option<PathBuf>> {
    for path in retired_files(folder)? {
        if fs::metadata(&path)?.len() == bytes {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn retired_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(RETIRED_PREFIX.as_bytes()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

async fn retire(folder: &Path, below_segment: u64) -> Result<(), i32> {
    let mut kept = retired_files(folder).map_err(|error| io_errno(&error))?.len();
    let segments = segments_below(folder, below_segment).map_err(|error| io_errno(&error))?;
    for segment in segments {
        let name = segment_file_name(segment);
        let path = folder.join(&name);
        if kept < RECYCLED_MAX {
            let retired = folder.join(format!("{RETIRED_PREFIX}{name}"));
            glommio::io::rename(&path, &retired).await.map_err(errno_of)?;
            kept += 1;
        } else {
            glommio::io::remove(&path).await.map_err(errno_of)?;
        }
    }
    sync_folder(folder).await
}

fn segments_below(folder: &Path, below_segment: u64) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let segment = name.to_str().and_then(parse_segment_file_name);
        found.extend(segment.filter(|segment| *segment < below_segment));
    }
    found.sort_unstable();
    Ok(found)
}

fn io_errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
