//! DRIVER: a shard's folder: its log, record by record, and its snapshot of the head.
//!
//! What damage means is decided as replay does (`node/log/mod.rs`): a record that a later one calls
//! durable and that is not there was acknowledged: a fault. What nobody calls durable was part of a
//! last, torn write: a note. So the end of the last write of a crashed process and damage to it
//! look alike: nothing on the disk tells them apart.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Check, list, path_of};
use crate::background::folder::{Manifest, TEMPORARY_SUFFIX};
use crate::background::replay::LogPlace;
use crate::background::snapshot_format::{parse_snapshot_file_name, snapshot_file_name};
use crate::node::log::{
    LogIdentity, LogPosition, ReplayTally, SegmentFault, parse_segment_file_name, segment_file_name,
};
use crate::offline::fault::OfflineFault;
use crate::offline::head::{HeadFile, HeadFlaw};
use crate::offline::quantity::of;
use crate::offline::segment::{RecordFacts, SegmentStep, SegmentWalk, read_header};

/// Old files that wait to be used again.
const RETIRED_PREFIX: &str = "retired-";

/// A hole whose meaning is not known yet.
struct OpenHole {
    place: LogPlace,
    /// The first record that may have been in it.
    sequence: u64,
}

/// The log of a shard while it is read.
struct LogState {
    folder: PathBuf,
    /// From the manifest; else from the first header that can be read.
    identity: Option<LogIdentity>,
    tally: ReplayTally,
    /// Behind the last record.
    next_sequence: u64,
    holes: Vec<OpenHole>,
    /// Acknowledged records that are gone, so far.
    lost: u64,
}

impl Check<'_> {
    /// Checks the folder of a shard.
    pub(super) fn check_shard(
        &mut self,
        folder: &Path,
        shard: u32,
        manifest: Option<Manifest>,
    ) -> Result<(), OfflineFault> {
        let (mut snapshots, mut segments) = (Vec::new(), Vec::new());
        for entry in list(folder)? {
            let path = folder.join(&entry.name);
            if let Some(segment) = parse_snapshot_file_name(&entry.name) {
                snapshots.push(segment);
            } else if let Some(segment) = parse_segment_file_name(&entry.name) {
                segments.push(segment);
            } else if entry.name.ends_with(TEMPORARY_SUFFIX) {
                self.note(&path, "unfinished; the next start removes it");
            } else if !entry.name.starts_with(RETIRED_PREFIX) {
                self.note(&path, "not ours; left alone");
            }
        }
        let identity = manifest.map(|manifest| LogIdentity {
            node: manifest.node,
            incarnation: manifest.incarnation,
            shard,
        });
        // Names sort by age.
        let newest = snapshots.pop();
        for segment in snapshots {
            let path = folder.join(snapshot_file_name(segment));
            self.note(&path, "older than the snapshot that counts; not checked");
        }
        let mut start = LogPosition { segment: 0, sequence: 1 };
        if let Some(segment) = newest {
            let path = folder.join(snapshot_file_name(segment));
            start = LogPosition { segment, sequence: 1 };
            if let Some(position) = self.check_head(&path, identity, segment) {
                start = position;
            }
        }
        let mut log = LogState {
            folder: folder.to_owned(),
            identity,
            tally: ReplayTally::new(start.sequence),
            next_sequence: start.sequence,
            holes: Vec::new(),
            lost: 0,
        };
        let mut expected = newest.unwrap_or(1);
        for segment in segments {
            if segment < start.segment {
                let path = folder.join(segment_file_name(segment));
                self.note(&path, "older than the snapshot; not needed, not checked");
                continue;
            }
            for missing in expected..segment.min(expected.saturating_add(100)) {
                self.fault(&folder.join(segment_file_name(missing)), 0, "missing between others");
            }
            expected = segment + 1;
            self.check_segment(&mut log, segment);
        }
        for hole in log.holes {
            self.note_torn(folder, hole.place);
        }
        Ok(())
    }

    /// Checks a snapshot of the head; the log position that it stands for, if it is whole.
    fn check_head(
        &mut self,
        path: &Path,
        identity: Option<LogIdentity>,
        segment: u64,
    ) -> Option<LogPosition> {
        self.count_file(path);
        match self.read_head(path, identity, segment) {
            Ok(position) => Some(position),
            Err(HeadFlaw { offset, what }) => {
                self.fault(path, offset, what);
                None
            }
        }
    }

    fn read_head(
        &mut self,
        path: &Path,
        identity: Option<LogIdentity>,
        segment: u64,
    ) -> Result<LogPosition, HeadFlaw> {
        let io = |error| HeadFlaw { offset: 0, what: format!("cannot read: {error}") };
        let (mut head, header) = HeadFile::open(File::open(path).map_err(io)?)?;
        let is_ours = identity.is_none_or(|identity| identity == header.identity);
        if !is_ours || header.position.segment != segment {
            let what = format!("it belongs elsewhere: {:?}", header.identity);
            return Err(HeadFlaw { offset: 0, what });
        }
        while let Some(piece) = head.next_piece(&mut |_| ())? {
            self.report.samples += piece.samples;
            self.progress.add(piece.len_bytes);
        }
        Ok(header.position)
    }

    fn check_segment(&mut self, log: &mut LogState, segment: u64) {
        let path = log.folder.join(segment_file_name(segment));
        self.count_file(&path);
        if let Err(error) = self.read_segment(log, &path, segment) {
            self.fault(&path, 0, format!("cannot read: {error}"));
        }
    }

    fn read_segment(
        &mut self,
        log: &mut LogState,
        path: &Path,
        segment: u64,
    ) -> std::io::Result<()> {
        let mut file = File::open(path)?;
        // The last write of a process that was killed may still be on its way.
        file.lock_shared()?;
        let len_bytes = file.metadata()?.len();
        match read_header(&mut file)? {
            Ok(header) => {
                let identity = *log.identity.get_or_insert(header.identity);
                if header.identity != identity || header.segment != segment {
                    let what = format!("it belongs elsewhere: {header:?}");
                    self.fault(path, 0, what);
                    return Ok(());
                }
                if header.segment_bytes != len_bytes {
                    let said = header.segment_bytes;
                    self.fault(path, len_bytes, format!("the file should have {said} bytes"));
                }
            }
            Err(fault @ SegmentFault::UnknownVersion { .. }) => {
                self.fault(path, 0, fault.to_string());
                return Ok(());
            }
            // The records say themselves where they belong.
            Err(fault) => self.fault(path, 0, fault.to_string()),
        }
        let Some(identity) = log.identity else { return Ok(()) };
        let mut walk = SegmentWalk::new(&mut file, &identity, segment);
        loop {
            let progress = &mut *self.progress;
            let step = walk.next_step(&mut log.tally, &mut |bytes| progress.add(bytes))?;
            match step {
                None => break,
                Some(SegmentStep::Record(facts)) => self.handle_record(log, path, &facts),
                Some(SegmentStep::Hole { offset, .. }) => log.open_hole(segment, offset),
            }
        }
        if let Some(offset) = walk.end().torn_offset_bytes {
            log.open_hole(segment, offset);
        }
        Ok(())
    }

    /// Judges what is open by what this record says of the ones before it.
    fn handle_record(&mut self, log: &mut LogState, path: &Path, facts: &RecordFacts) {
        self.report.samples += facts.samples.saturating_sub(facts.refused);
        if let Some(problem) = facts.problem {
            let what = format!("record {} contradicts itself: {problem}", facts.sequence);
            self.fault(path, facts.offset, what);
        }
        let lost = log.tally.records_lost() - log.lost;
        log.lost += lost;
        log.next_sequence = facts.sequence + 1;
        let is_settled = |hole: &mut OpenHole| {
            facts.run_sequence > hole.sequence || facts.durable_sequence >= hole.sequence
        };
        let settled: Vec<_> = log.holes.extract_if(.., is_settled).collect();
        let what = format!("{} lost", of(lost, "acknowledged record"));
        match settled.first() {
            None if lost > 0 => {
                self.fault(path, facts.offset, format!("{what} before this one"));
            }
            _ if lost > 0 => {
                for hole in settled {
                    let path = path_of(&log.folder, hole.place);
                    self.fault(&path, hole.place.offset_bytes, format!("damaged: {what}"));
                }
            }
            _ => {
                for hole in settled {
                    self.note_torn(&log.folder, hole.place);
                }
            }
        }
    }

    fn note_torn(&mut self, folder: &Path, place: LogPlace) {
        let LogPlace { offset_bytes, .. } = place;
        let what = format!(
            "a torn write at byte {offset_bytes}, as a crash leaves it: nothing in it is known to \
             have been acknowledged"
        );
        self.note(&path_of(folder, place), what);
    }
}

impl LogState {
    fn open_hole(&mut self, segment: u64, offset_bytes: u64) {
        let place = LogPlace { segment, offset_bytes };
        self.holes.push(OpenHole { place, sequence: self.next_sequence });
    }
}
