//! Precedence, faults that name their place, and that what is printed reads back.

use clap::{CommandFactory, Parser};

use super::command::{Command, CommandLine, ServeArguments};
use super::load::{ConfigFault, load, parse_file};
use super::*;

const HOST: HostFacts = HostFacts { memory_bytes: 8 << 30, cpu_count: 4 };

fn arguments(flags: &[&str]) -> ServeArguments {
    let line = ["tidegate", "serve"].iter().chain(flags);
    let command = CommandLine::try_parse_from(line).expect("flags").command;
    let Command::Serve(arguments) = command else { panic!("another command") };
    *arguments
}

fn no_environment(_: &str) -> Option<String> {
    None
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("written");
    file
}

#[test]
fn command_line_is_sound() {
    CommandLine::command().debug_assert();
}

#[test]
fn defaults() {
    let config =
        load((Role::Standalone, &arguments(&[])), &no_environment, &HOST).expect("defaults");
    assert_eq!(config.listen, "127.0.0.1:8428".parse().expect("an address"));
    assert_eq!((config.shards, config.no_pin), (4, false));
    assert_eq!(config.head_bytes_max, ByteSize(4 << 30));
    assert_eq!(config.out_of_order_window, Period::from_secs(3600));
    // A small host still has defaults that hold together.
    let small = HostFacts { memory_bytes: 256 << 20, cpu_count: 1 };
    load((Role::Standalone, &arguments(&[])), &no_environment, &small)
        .expect("defaults for a small host");
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = file("shards: 2\nlabels_max: 22\nfuture_window: 22m\nno_pin: true\n");
    let environment = |name: &str| match name {
        "TIDEGATE_SHARDS" => Some("3".to_owned()),
        "TIDEGATE_LABELS_MAX" => Some("33".to_owned()),
        // As good as not set.
        "TIDEGATE_FUTURE_WINDOW" => Some(String::new()),
        "TIDEGATE_CONFIG" => Some(file.path().display().to_string()),
        _ => None,
    };
    let config = load((Role::Standalone, &arguments(&["--shards", "1"])), &environment, &HOST)
        .expect("good");
    assert_eq!((config.shards, config.labels_max), (1, 33));
    assert_eq!(config.future_window, "22m".parse().expect("a period"));
    assert!(config.no_pin);
    assert_eq!(config.query_concurrency_max, 20);
    let config = load((Role::Standalone, &arguments(&["--no-pin=false"])), &environment, &HOST)
        .expect("good");
    assert_eq!((config.shards, config.no_pin), (3, false));
    assert!(
        load((Role::Standalone, &arguments(&["--no-pin"])), &no_environment, &HOST)
            .expect("good")
            .no_pin
    );
}

#[test]
fn file_formats() {
    #[track_caller]
    fn check(text: &str, want: &Settings) {
        assert_eq!(parse_file(text).as_ref(), Ok(want), "{text}");
    }
    check("", &Settings::default());
    check("# only a comment\n", &Settings::default());
    let two: Listen = "127.0.0.1:1,[::1]:2".parse().expect("two");
    let listen = Settings { listen: Some(two), ..Settings::default() };
    check("listen: 127.0.0.1:1,[::1]:2\n", &listen);
    check("listen: ['127.0.0.1:1', '[::1]:2']\n", &listen);
    check("listen:\n  - 127.0.0.1:1\n  - \"[::1]:2\"\n", &listen);
    let size = Settings { body_bytes_max: Some(ByteSize(4096)), ..Settings::default() };
    check("body_bytes_max: 4096\n", &size);
    check("body_bytes_max: 4KiB\n", &size);
    let never = Settings { retention: Some(Period::from_secs(0)), ..Settings::default() };
    check("retention: 0\n", &never);
}

#[test]
fn file_faults_name_the_line() {
    #[track_caller]
    fn check(text: &str, wants: &[&str]) {
        let fault = parse_file(text).expect_err(text);
        for want in wants {
            assert!(fault.contains(want), "{text:?}: no {want:?} in {fault:?}");
        }
    }
    check("shards: 1\nshard: 2\n", &["shard", "line 2"]);
    check("shards: 1\n\nbody_bytes_max: much\n", &["much", "line 3"]);
    check("shards: two\n", &["line 1"]);
    check("shards: 1\nshards: 2\n", &["shards", "line 2"]);
}

#[test]
fn other_faults_say_where_to_look() {
    #[track_caller]
    fn check(flags: &[&str], want: &str) {
        match load((Role::Standalone, &arguments(flags)), &no_environment, &HOST) {
            Err(ConfigFault::Field { name, .. }) => assert_eq!(name, want),
            other => panic!("{flags:?}: {other:?}"),
        }
    }
    let bad_variable = |name: &str| (name == "TIDEGATE_SHARDS").then(|| "many".to_owned());
    let fault =
        load((Role::Standalone, &arguments(&[])), &bad_variable, &HOST).expect_err("not a number");
    assert!(fault.to_string().starts_with("cannot use TIDEGATE_SHARDS: "), "{fault}");
    let fault = load(
        (Role::Standalone, &arguments(&["--config", "/nonexistent.yaml"])),
        &no_environment,
        &HOST,
    );
    assert!(matches!(fault, Err(ConfigFault::Unreadable { .. })));
    check(&["--shards", "0"], "shards");
    check(&["--shards", "1025"], "shards");
    // 2 GiB less a byte was let through, and a body above 1 GiB then ended the process.
    check(&["--body-bytes-max", "1025MiB"], "body_bytes_max");
    // Labels that fit no frame made the owner look for room for ever.
    check(&["--labels-bytes-max", "2MiB"], "labels_bytes_max");
    check(&["--request-bytes-max", "1MiB"], "request_bytes_max");
    check(&["--log-segment-bytes", "1MiB"], "log_segment_bytes");
    check(&["--log-segment-bytes", "10000001"], "log_segment_bytes");
    check(&["--log-bytes-max", "32MiB"], "log_bytes_max");
    check(&["--query-lookback", "0"], "query_lookback");
}

#[test]
fn what_is_printed_reads_back_and_says_the_default() {
    let flags = ["--listen", "127.0.0.1:1,[::1]:2", "--data", "/tmp/a: \"b\"", "--shards", "3"];
    let config =
        load((Role::Standalone, &arguments(&flags)), &no_environment, &HOST).expect("good");
    let yaml = config.to_yaml(Role::Standalone);
    let read_back = parse_file(&yaml).expect("its own output").into_config(&HOST);
    assert_eq!(read_back, config, "{yaml}");
    assert!(yaml.contains("# Size of a log file."), "{yaml}");
    // The text of a plain default is that of the value.
    let defaults = Settings::default().into_config(&HOST).to_yaml(Role::Standalone);
    let mut checked = 0;
    for (comment, line) in defaults.lines().zip(defaults.lines().skip(1)) {
        if let Some((_, default)) = comment.rsplit_once("Default: ")
            && default.trim_end_matches('.').split(' ').count() == 1
            && let Some((name, value)) = line.split_once(": ")
        {
            let default = default.trim_end_matches('.');
            assert!(
                value.contains(default) || (default == "0" && value == "\"0s\""),
                "{name}: said {default}, is {value}"
            );
            checked += 1;
        }
    }
    assert!(checked > 15, "{checked}");
}
