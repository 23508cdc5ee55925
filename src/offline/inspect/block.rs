//! A block: what it is, where its bytes go, which labels it has, and some of its samples.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{InspectOptions, print_json, print_table};
use crate::background::disk::plain::PlainDisk;
use crate::base::ready::run_ready;
use crate::model::chunk::{timestamp_codec_name, value_codec_name};
use crate::model::labels::{format_labels, iterate};
use crate::model::sample::Sample;
use crate::node::block::reader::{BlockIndex, BlockReader, BlockSource};
use crate::node::block::survey::{BlockSurvey, NameSurvey};
use crate::node::block::{BlockFault, BlockMeta};
use crate::offline::fault::{OfflineFault, errno_fault};
use crate::offline::progress::Progress;
use crate::offline::quantity::{bytes, count, time};
use crate::offline::source::FileSource;

/// Values shown of a name.
const TOP_VALUES: usize = 5;
/// Names shown to people.
const TOP_NAMES: usize = 20;

/// A block, opened.
struct Open<'a> {
    index: &'a BlockIndex,
    len_bytes: u64,
    survey: BlockSurvey,
}

pub(super) fn inspect(
    path: &Path,
    options: InspectOptions,
    out: &mut dyn Write,
) -> Result<bool, OfflineFault> {
    let mut progress = Progress::new("read");
    let source = run_ready(FileSource::open(&PlainDisk, path, &mut progress));
    let source = source.map_err(errno_fault("open", path))?;
    let len_bytes = source.len_bytes();
    let damaged = |fault: BlockFault| OfflineFault::Damaged {
        path: path.to_owned(),
        what: format!("it {fault}"),
    };
    let index = run_ready(BlockIndex::open(&source, len_bytes)).map_err(damaged)?;
    let reader = BlockReader::new(&index, &source);
    let survey = run_ready(reader.survey(len_bytes, TOP_VALUES)).map_err(damaged)?;
    let open = Open { index: &index, len_bytes, survey };
    if options.is_json {
        let mut value = open.to_json();
        if options.series > 0 {
            let mut listed = Vec::new();
            let outcome = run_ready(each_series(&reader, options.series, |labels, samples| {
                listed.push(series_json(labels, samples));
                Ok(())
            }));
            outcome.map_err(|fault| fault.of(path))?;
            value["series_list"] = listed.into();
        }
        print_json(&value, out)?;
        return Ok(true);
    }
    open.print(out)?;
    let outcome = run_ready(each_series(&reader, options.series, |labels, samples| {
        writeln!(out, "\n{}", format_labels(labels))?;
        for sample in samples {
            writeln!(out, "  {}  {}", time(sample.timestamp_ms), sample.value)?;
        }
        Ok(())
    }));
    outcome.map_err(|fault| fault.of(path))?;
    Ok(true)
}

/// Why samples are not shown.
enum ShowFault {
    Block(BlockFault),
    Undecodable(u32),
    Output(io::Error),
}

impl ShowFault {
    fn of(self, path: &Path) -> OfflineFault {
        let what = match self {
            Self::Output(error) => return OfflineFault::Output(error),
            Self::Block(fault) => format!("it {fault}"),
            Self::Undecodable(series) => format!("a chunk of series {series} does not decode"),
        };
        OfflineFault::Damaged { path: path.to_owned(), what }
    }
}

/// Shows the first `count` series, one after the other.
async fn each_series<S: BlockSource>(
    reader: &BlockReader<'_, S>,
    count: u64,
    mut show: impl FnMut(&[u8], &[Sample]) -> io::Result<()>,
) -> Result<(), ShowFault> {
    let wanted = |id: u32| u64::from(id) < count;
    for page in 0..reader.page_count() {
        let series = reader.series_of_page(page, wanted).await.map_err(ShowFault::Block)?;
        if series.is_empty() {
            return Ok(());
        }
        for one in series {
            let chunks = reader.chunks(&one.chunks).await.map_err(ShowFault::Block)?;
            let mut samples = Vec::new();
            for chunk in chunks {
                chunk.decode(&mut samples).map_err(|_| ShowFault::Undecodable(one.id))?;
            }
            show(&one.labels, &samples).map_err(ShowFault::Output)?;
        }
    }
    Ok(())
}

fn series_json(labels: &[u8], samples: &[Sample]) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let metric: Map<_, _> =
        iterate(labels).map(|(name, value)| (text(name), text(value).into())).collect();
    let timestamps: Vec<_> = samples.iter().map(|sample| sample.timestamp_ms).collect();
    // JSON has no NaN.
    let value = |sample: &Sample| {
        let value = sample.value;
        if value.is_finite() { Value::from(value) } else { value.to_string().into() }
    };
    let values: Vec<_> = samples.iter().map(value).collect();
    json!({ "metric": metric, "timestamps": timestamps, "values": values })
}

impl Open<'_> {
    fn to_json(&self) -> Value {
        let meta = self.index.meta();
        let sections = self.survey.sections;
        let names: Vec<_> = self.survey.names.iter().map(name_json).collect();
        json!({
            "kind": "block",
            "id": meta.id,
            "node": format!("{:032x}", meta.node),
            "level": meta.level,
            "min_ms": meta.min_ms,
            "max_ms": meta.max_ms,
            "oldest_flush": meta.oldest_flush,
            "newest_flush": meta.newest_flush,
            "tombstones_applied": meta.tombstones_applied,
            "sources": meta.sources,
            "series": meta.series,
            "chunks": meta.chunks,
            "samples": meta.samples,
            "bytes": self.len_bytes,
            "index_bytes": sections.index(),
            "sections": {
                "values": sections.values,
                "timestamps": sections.timestamps,
                "series": sections.series,
                "labels": sections.labels,
                "postings": sections.postings,
                "order": sections.order,
                "rest": sections.rest,
            },
            "timestamp_codecs": codecs_json(&self.survey.timestamp_codecs, timestamp_codec_name),
            "value_codecs": codecs_json(&self.survey.value_codecs, value_codec_name),
            "names": names,
        })
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let meta = self.index.meta();
        print_table(&format!("block {}", meta.id), &self.lines(meta), out)?;
        let sections = self.survey.sections;
        let parts = [
            ("values", sections.values),
            ("timestamps", sections.timestamps),
            ("series", sections.series),
            ("labels", sections.labels),
            ("postings", sections.postings),
            ("order", sections.order),
            ("rest", sections.rest),
        ];
        writeln!(out, "\nbytes by section")?;
        for (name, part) in parts {
            let (a_sample, share) = (self.a_sample(part), self.share(part));
            writeln!(
                out,
                "  {name:10}  {:>10}  {share:>5.1} %  {a_sample:.3} a sample",
                bytes(part)
            )?;
        }
        writeln!(out, "\ncodecs")?;
        print_codecs("times", &self.survey.timestamp_codecs, timestamp_codec_name, out)?;
        print_codecs("values", &self.survey.value_codecs, value_codec_name, out)?;
        print_names(&self.survey.names, out)
    }

    fn lines(&self, meta: &BlockMeta) -> Vec<(&'static str, String)> {
        let index = self.survey.sections.index();
        let flushes = match (meta.oldest_flush, meta.newest_flush) {
            (oldest, newest) if oldest == newest => newest.to_string(),
            (oldest, newest) => format!("{oldest} to {newest}"),
        };
        let sources: Vec<_> = meta.sources.iter().map(u64::to_string).collect();
        let sources = if sources.is_empty() { "none".into() } else { sources.join(", ") };
        let level = match meta.level {
            0 => "0 (flushed from a head)".to_owned(),
            level => format!("{level} (merged)"),
        };
        let (len, a_sample) = (bytes(self.len_bytes), self.a_sample(self.len_bytes));
        let index_a_series = index as f64 / meta.series.max(1) as f64;
        vec![
            ("node", format!("{:032x}", meta.node)),
            ("level", level),
            ("times", format!("{} to {}", time(meta.min_ms), time(meta.max_ms))),
            ("flushes", flushes),
            ("replaces", sources),
            ("deletions", format!("applied up to {}", meta.tombstones_applied)),
            ("series", count(meta.series)),
            ("chunks", count(meta.chunks)),
            ("samples", count(meta.samples)),
            ("size", format!("{len}, {a_sample:.3} B a sample")),
            ("index", format!("{}, {index_a_series:.1} B a series", bytes(index))),
        ]
    }

    fn a_sample(&self, part: u64) -> f64 {
        part as f64 / self.index.meta().samples.max(1) as f64
    }

    fn share(&self, part: u64) -> f64 {
        part as f64 * 100.0 / self.len_bytes.max(1) as f64
    }
}

fn name_json(name: &NameSurvey) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let top: Vec<_> = name
        .top
        .iter()
        .map(|(value, series)| json!({ "value": text(value), "series": series }))
        .collect();
    json!({
        "tenant": name.tenant.0, "name": text(&name.name), "series": name.series,
        "values": name.values, "top": top,
    })
}

fn codecs_json(codecs: &BTreeMap<u8, (u64, u64)>, name: fn(u8) -> &'static str) -> Value {
    let entry = |(codec, (chunks, bytes)): (&u8, &(u64, u64))| {
        let value = json!({ "codec": codec, "chunks": chunks, "bytes": bytes });
        (name(*codec).to_owned(), value)
    };
    Value::Object(codecs.iter().map(entry).collect())
}

fn print_codecs(
    column: &str,
    codecs: &BTreeMap<u8, (u64, u64)>,
    name: fn(u8) -> &'static str,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (codec, (chunks, len)) in codecs {
        let (name, chunks, len) = (name(*codec), count(*chunks), bytes(*len));
        writeln!(out, "  {column:6}  {name:14}  {chunks:>12} chunks  {len:>10}")?;
    }
    Ok(())
}

fn print_names(names: &[NameSurvey], out: &mut dyn Write) -> io::Result<()> {
    let mut sorted: Vec<_> = names.iter().collect();
    sorted.sort_by_key(|name| std::cmp::Reverse((name.values, name.series)));
    writeln!(out, "\nlabels, those with the most values first")?;
    for name in sorted.iter().take(TOP_NAMES) {
        let text = String::from_utf8_lossy(&name.name);
        let tenant = match name.tenant.0 {
            0 => String::new(),
            tenant => format!(" of tenant {tenant}"),
        };
        let (values, series) = (count(name.values), count(name.series));
        writeln!(out, "  {text}{tenant}: {values} values in {series} series")?;
        let top: Vec<_> = name
            .top
            .iter()
            .map(|(value, series)| {
                format!("{:?} {}", String::from_utf8_lossy(value), count(*series))
            })
            .collect();
        writeln!(out, "    {}", top.join(", "))?;
    }
    match sorted.len().saturating_sub(TOP_NAMES) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more; --json has them all"),
    }
}
