//! Blocks written and read back against a naive model; every flipped bit found.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::check_block;
use super::format::PageRef;
use super::reader::{BlockIndex, BlockReader, BlockSource};
use super::writer::{BlockOrigin, BlockWriter};
use super::*;
use crate::base::random::Random;
use crate::base::ready::run_ready;
use crate::model::chunk::BlockEncoder;
use crate::model::labels::{encode_label, iterate};
use crate::model::matcher::{MatchOperator, Matcher};
use crate::model::sample::Sample;

struct Memory(Vec<u8>);

impl BlockSource for Memory {
    async fn page(&self, page: PageRef) -> Result<Arc<[u8]>, BlockFault> {
        let bytes = self.read(page.offset, page.len as usize).await?;
        page.check(&bytes)?;
        Ok(bytes.into())
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, BlockFault> {
        let start = usize::try_from(offset).expect("small");
        let bytes = start.checked_add(len).and_then(|end| self.0.get(start..end));
        bytes.map(<[u8]>::to_vec).ok_or(BlockFault::Truncated { offset: offset + len as u64 })
    }

    async fn yield_if_needed(&self) {}
}

/// Tenant and labels, in the block's order.
type Key = (TenantId, Vec<(Vec<u8>, Vec<u8>)>);
type Model = BTreeMap<Key, Vec<Sample>>;

fn canonical(labels: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in labels {
        encode_label(&mut bytes, name, value);
    }
    bytes
}

fn random_model(random: &mut Random, series: u64) -> Model {
    let mut model = Model::new();
    for _ in 0..series {
        let mut labels = vec![(b"__name__".to_vec(), format!("m{}", random.below(9)).into_bytes())];
        for name in ["host", "job", "zone", "ünï"] {
            if random.below(4) > 0 {
                let value = format!("{name}-{}", random.below(1 + series / 3));
                labels.push((name.into(), value.into_bytes()));
            }
        }
        let tenant = TenantId(u32::from(random.below(5) == 0));
        let mut timestamp_ms = 1_000_000 + i64::try_from(random.below(3)).expect("small") * 7;
        let mut samples = Vec::new();
        for _ in 0..=random.below(200) {
            timestamp_ms += 15_000;
            let value = random.below(1000) as f64 / 10.0;
            samples.push(Sample { timestamp_ms, value });
        }
        model.insert((tenant, labels), samples);
    }
    model
}

fn write(model: &Model) -> (Memory, BlockMeta) {
    let origin = BlockOrigin {
        id: 7,
        node: 1 << 90 | 3,
        level: 2,
        oldest_flush: 3,
        newest_flush: 5,
        tombstones_applied: 4,
        sources: vec![3, 5],
    };
    let mut writer = BlockWriter::new(origin);
    let mut file = Vec::new();
    let mut encoder = BlockEncoder::default();
    for ((tenant, labels), samples) in model {
        let chunks: Vec<_> = samples
            .chunks(64)
            .map(|part| {
                let times: Vec<_> = part.iter().map(|sample| sample.timestamp_ms).collect();
                let values: Vec<_> = part.iter().map(|sample| sample.value).collect();
                Chunk::from_columns(&encoder.encode(&times, &values)).expect("our own columns")
            })
            .collect();
        writer.add_series(*tenant, &canonical(labels), chunks.iter().map(Chunk::columns));
        file.extend(writer.take_output(4096));
    }
    let meta = writer.finish().expect("there are series");
    file.extend(writer.take_output(4096));
    assert!(writer.output_len() == 0 && file.len().is_multiple_of(4096));
    (Memory(file), meta)
}

fn read_all(source: &Memory) -> Result<Model, BlockFault> {
    run_ready(async {
        let index = BlockIndex::open(source, source.0.len() as u64).await?;
        let reader = BlockReader::new(&index, source);
        let mut model = Model::new();
        for page in 0..reader.page_count() {
            for series in reader.series_of_page(page, |_| true).await? {
                let labels = iterate(&series.labels);
                let labels = labels.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
                let mut samples = Vec::new();
                for chunk in reader.chunks(&series.chunks).await? {
                    chunk.decode(&mut samples).expect("checked bytes");
                }
                model.insert((series.tenant, labels), samples);
            }
        }
        Ok(model)
    })
}

fn is_same(one: &Model, other: &Model) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((key, samples), (other_key, other_samples))| {
            key == other_key
                && samples.len() == other_samples.len()
                && samples.iter().zip(other_samples).all(|(a, b)| a.is_identical(*b))
        })
}

#[test]
fn what_was_written_is_read_and_checked() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let model = random_model(&mut random, 1 + seed * 40);
        let (source, meta) = write(&model);
        assert!(is_same(&read_all(&source).expect("a good block"), &model), "seed={seed}");
        let report = run_ready(check_block(&source, source.0.len() as u64)).expect("a good block");
        assert_eq!(report.faults, [], "seed={seed}");
        assert_eq!(report.meta, meta);
        let samples: usize = model.values().map(Vec::len).sum();
        assert_eq!((meta.series, meta.samples), (model.len() as u64, samples as u64));
    }
}

#[test]
fn selects_as_a_naive_walk_does() {
    let mut random = Random(99);
    let model = random_model(&mut random, 600);
    let (source, _) = write(&model);
    let index = run_ready(BlockIndex::open(&source, source.0.len() as u64)).expect("a good block");
    let reader = BlockReader::new(&index, &source);
    let values = ["", "host-1", "host-1|host-2|job-3", "host-1.*", ".*", ".+", "m[0-4]", "a|", "x"];
    let operators = [
        MatchOperator::Equal,
        MatchOperator::NotEqual,
        MatchOperator::Regex,
        MatchOperator::NotRegex,
    ];
    for round in 0..600 {
        let matchers: Vec<_> = (0..=random.below(3))
            .map(|_| {
                let name = ["__name__", "host", "job", "ünï", "none"];
                let name = name[usize::try_from(random.below(5)).expect("small")].to_owned();
                let operator = operators[usize::try_from(random.below(4)).expect("small")];
                let value = values[usize::try_from(random.below(9)).expect("small")].to_owned();
                Matcher { name, operator, value }
            })
            .collect();
        let tenant = TenantId(u32::try_from(random.below(3)).expect("small"));
        let want: Vec<u32> = (0..)
            .zip(model.keys())
            .filter(|(_, key)| key.0 == tenant && matchers.iter().all(|each| holds(each, &key.1)))
            .map(|(id, _)| id)
            .collect();
        let got = run_ready(reader.select(tenant, &matchers)).expect("good matchers");
        assert!(got.iter().eq(want.iter().copied()), "round={round} {matchers:?}");
        let names = run_ready(reader.label_names(tenant, &got)).expect("a good block");
        let hosts = run_ready(reader.label_values(tenant, b"host", &got)).expect("a good block");
        let keys: Vec<_> = model.keys().collect();
        let selected = || want.iter().map(|id| keys[*id as usize]).flat_map(|key| &key.1);
        let mut want_names: Vec<_> = selected().map(|(name, _)| name.clone()).collect();
        want_names.sort();
        want_names.dedup();
        assert!(names.iter().map(|name| &**name).eq(want_names.iter().map(|name| &**name)));
        let is_host = |label: &&(Vec<u8>, Vec<u8>)| label.0 == b"host";
        let mut want_hosts: Vec<_> = selected().filter(is_host).map(|(_, v)| v.clone()).collect();
        want_hosts.sort();
        want_hosts.dedup();
        assert!(hosts.iter().map(|host| &**host).eq(want_hosts.iter().map(|host| &**host)));
    }
}

fn holds(matcher: &Matcher, labels: &[(Vec<u8>, Vec<u8>)]) -> bool {
    let value = labels.iter().find(|(name, _)| *name == matcher.name.as_bytes());
    let value = value.map_or(&[][..], |(_, value)| value);
    let is_match = || {
        let pattern = format!("^(?:{})$", matcher.value);
        regex_automata::meta::Regex::new(&pattern).expect("a good pattern").is_match(value)
    };
    match matcher.operator {
        MatchOperator::Equal => value == matcher.value.as_bytes(),
        MatchOperator::NotEqual => value != matcher.value.as_bytes(),
        MatchOperator::Regex => is_match(),
        MatchOperator::NotRegex => !is_match(),
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_is_found() {
    let model = random_model(&mut Random(5), 12);
    let (source, _) = write(&model);
    let is_found = |bytes: Vec<u8>| {
        let len = bytes.len() as u64;
        match run_ready(check_block(&Memory(bytes), len)) {
            Ok(report) => !report.faults.is_empty(),
            Err(_) => true,
        }
    };
    for at in 0..source.0.len() {
        let mut bytes = source.0.clone();
        bytes[at] ^= 1 << (at % 8);
        // Reading never panics, whatever it finds.
        let _ = read_all(&Memory(bytes.clone()));
        assert!(is_found(bytes), "byte {at}");
    }
    for len in (0..source.0.len()).step_by(97) {
        assert!(is_found(source.0[..len].to_vec()), "{len} bytes");
    }
}

#[test]
fn bytes_are_frozen() {
    let (source, _) = write(&random_model(&mut Random(1), 3));
    let path = "tests/golden/block_v1.bin";
    if std::env::var_os("TIDEGATE_WRITE_GOLDEN").is_some() {
        std::fs::write(path, &source.0).expect("a file");
    }
    // Disks hold these bytes: a change needs a new version.
    assert!(source.0 == std::fs::read(path).expect("the golden file"));
}

/// `cargo test --release --lib node::block -- --ignored --nocapture`
#[test]
#[ignore = "a measurement; meaningful in release only"]
fn measure_bytes_of_the_index() {
    let mut model = Model::new();
    for host in 0..200_u32 {
        for metric in 0..100_u32 {
            let mut labels =
                vec![(b"__name__".to_vec(), format!("cpu_usage_{metric}").into_bytes())];
            for tag in 0..10_u32 {
                let value = format!("value-{tag}-{}", host % (1 << tag));
                labels.push((format!("tag_{tag}").into_bytes(), value.into_bytes()));
            }
            labels.push((b"zhost".to_vec(), format!("host_{host}").into_bytes()));
            let sample = Sample { timestamp_ms: 5, value: f64::from(metric) };
            model.insert((TenantId(0), labels), vec![sample]);
        }
    }
    let start = crate::base::time::monotonic_now();
    let (source, meta) = write(&model);
    let ns = start.elapsed().as_nanos() as f64 / meta.series as f64;
    let len = source.0.len() as u64;
    let index = run_ready(BlockIndex::open(&source, len)).expect("a good block");
    let bytes = index.sections(len).index as f64 / meta.series as f64;
    println!("{bytes:.1} B and {ns:.0} ns a series of 12 labels");
}
