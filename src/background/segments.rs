//! DRIVER: makes the segment files of the logs, and takes back the ones that are not needed any
//! more.
//!
//! A new segment takes a retired file if there is one: its blocks are allocated and written, so a
//! sync after a write has no metadata to commit. A file made anew is filled with zeros for the same
//! reason (what that is worth: see `zero_fill_or_not` in `tests`). Under its final name a segment
//! is always complete. Not here: when (`node/log`), reading (`replay`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::node::log::{SegmentHeader, parse_segment_file_name, segment_file_name};

use super::command::{BackgroundEvent, SegmentCommand, SegmentFile};
use super::disk::direct::DirectDisk;
use super::disk::{Disk, DiskEntry, DiskFile, WRITE_BYTES_MAX};
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
                if let Err(errno) = retire(&DirectDisk, &shard.folder, below_segment).await {
                    let cause = io::Error::from_raw_os_error(errno);
                    let folder = shard.folder.display();
                    tracing::error!("cannot retire log segments in {folder}: {cause}");
                }
            }
        }
    }
}

async fn prepare(shard: &Shard, segment: u64, bytes: u64) -> Result<SegmentFile, i32> {
    let header = SegmentHeader { identity: shard.identity, segment, segment_bytes: bytes };
    let path = make(&DirectDisk, &shard.folder, header).await?;
    open_for_ring(&path).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// Makes the segment file that `header` says, durable under its name; returns its path.
pub async fn make<D: Disk>(disk: &D, folder: &Path, header: SegmentHeader) -> Result<PathBuf, i32> {
    let temporary = folder.join("segment.tmp");
    let outcome = make_at(disk, folder, &temporary, header).await;
    if outcome.is_err() {
        // Gives the room back, so that a full disk is not kept full by the attempt.
        let _ = disk.remove(&temporary).await;
    }
    outcome
}

async fn make_at<D: Disk>(
    disk: &D,
    folder: &Path,
    temporary: &Path,
    header: SegmentHeader,
) -> Result<PathBuf, i32> {
    let bytes = header.segment_bytes;
    let retired = retired_files(disk, folder).await?;
    let file = if let Some(retired) = retired.iter().find(|entry| entry.len_bytes == bytes) {
        disk.rename(&folder.join(&retired.name), temporary).await?;
        disk.open_to_write(temporary).await?
    } else {
        let file = disk.create(temporary).await?;
        file.allocate(bytes).await?;
        fill_with_zeros(&file, bytes).await?;
        file
    };
    file.write_at(&header.encode(), 0).await?;
    file.sync().await?;
    let path = folder.join(segment_file_name(header.segment));
    disk.rename(temporary, &path).await?;
    disk.sync_folder(folder).await?;
    Ok(path)
}

async fn fill_with_zeros(file: &impl DiskFile, bytes: u64) -> Result<(), i32> {
    let zeros = vec![0; WRITE_BYTES_MAX];
    let mut offset = 0;
    while offset < bytes {
        let left = usize::try_from(bytes - offset).unwrap_or(usize::MAX);
        let piece = &zeros[..left.min(WRITE_BYTES_MAX)];
        file.write_at(piece, offset).await?;
        offset += piece.len() as u64;
    }
    Ok(())
}

/// Opens a segment as the ring wants it: past the page cache where the file system can, and locked.
/// A write that is in flight when the process is killed lands after its end; the kernel keeps the
/// lock as long, and replay waits for it.
fn open_for_ring(path: &Path) -> io::Result<SegmentFile> {
    let file = open_past_cache(path)?;
    file.try_lock()?;
    Ok(SegmentFile { file: file.into() })
}

fn open_past_cache(path: &Path) -> io::Result<File> {
    let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path);
    match direct {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            OpenOptions::new().write(true).open(path)
        }
        opened => opened,
    }
}

async fn retired_files<D: Disk>(disk: &D, folder: &Path) -> Result<Vec<DiskEntry>, i32> {
    let mut entries = disk.list(folder).await?;
    entries.retain(|entry| entry.name.starts_with(RETIRED_PREFIX));
    Ok(entries)
}

/// Keeps the files of the segments below for new ones, or removes them.
pub async fn retire<D: Disk>(disk: &D, folder: &Path, below_segment: u64) -> Result<(), i32> {
    let mut kept = retired_files(disk, folder).await?.len();
    let entries = disk.list(folder).await?;
    let segments = entries.iter().filter_map(|entry| parse_segment_file_name(&entry.name));
    let mut segments: Vec<_> = segments.filter(|segment| *segment < below_segment).collect();
    segments.sort_unstable();
    for segment in segments {
        let name = segment_file_name(segment);
        let path = folder.join(&name);
        if kept < RECYCLED_MAX {
            let retired = folder.join(format!("{RETIRED_PREFIX}{name}"));
            disk.rename(&path, &retired).await?;
            kept += 1;
        } else {
            disk.remove(&path).await?;
        }
    }
    disk.sync_folder(folder).await
}
