//! The style and import rules as a test: one test a rule, over every file of the repository.
//! In: the working tree. Out: `path:line: what is wrong` for each fault. A text scan: no parser, no
//! dependency.
//! Each rule is first shown snippets that it must refuse and must pass, so that none passes by
//! being blind.

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/scan.rs"]
mod scan;

use rules::Rule;
use scan::Source;
use std::path::Path;

/// Folders without sources of ours.
const SKIPPED: [&str; 5] = ["target", "tidegate-data", "corpus", "artifacts", "results"];

/// Every readable text file of the repository.
fn repository() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository") {
            let entry = entry.expect("an entry of a folder");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("a file type");
            if kind.is_dir() && name != ".git" && !SKIPPED.contains(&name.as_str()) {
                folders.push(entry.path());
            } else if kind.is_file() && name != ".git" {
                let path = entry.path();
                let relative = path.strip_prefix(root).expect("inside the root");
                if let Ok(text) = std::fs::read_to_string(&path) {
                    sources.push(Source::new(&relative.to_string_lossy(), &text));
                }
            }
        }
    }
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the walk finds nothing");
    sources
}

#[track_caller]
fn check_repository(rule: Rule) {
    let mut faults = Vec::new();
    for source in repository() {
        rule(&source, &mut faults);
    }
    faults.sort();
    assert!(faults.is_empty(), "{} faults:\n{}\n", faults.len(), faults.join("\n"));
}

fn fault_count(rule: Rule, path: &str, text: &str) -> usize {
    let mut faults = Vec::new();
    rule(&Source::new(path, text), &mut faults);
    faults.len()
}

#[track_caller]
fn refuses(rule: Rule, path: &str, text: &str) {
    assert_ne!(fault_count(rule, path, text), 0, "{path} passes, but must not:\n{text}");
}

#[track_caller]
fn passes(rule: Rule, path: &str, text: &str) {
    assert_eq!(fault_count(rule, path, text), 0, "{path} fails, but must not:\n{text}");
}

#[test]
fn files_say_what_they_are_for() {
    let rule = rules::has_head;
    refuses(rule, "src/base/a.rs", "use std::fmt;\n");
    refuses(rule, "src/base/a.rs", "//!\nfn a() {}\n");
    refuses(rule, "src/base/a.rs", "");
    passes(rule, "src/base/a.rs", "//! Bytes.\n");
    passes(rule, "README.md", "# tidegate\n");
    check_repository(rule);
}

#[test]
fn files_and_lines_are_short() {
    let rule = rules::is_short;
    refuses(rule, "src/a.rs", &"\n".repeat(rules::FILE_LINES_MAX + 1));
    refuses(rule, "src/a.rs", &"x".repeat(rules::LINE_COLUMNS_MAX + 1));
    refuses(rule, "scripts/run", &"x".repeat(rules::LINE_COLUMNS_MAX + 1));
    passes(rule, "src/a.rs", &"é".repeat(rules::LINE_COLUMNS_MAX));
    passes(rule, "src/a.rs", &format!("// https://{}", "x".repeat(rules::LINE_COLUMNS_MAX)));
    passes(rule, "src/a.rs", &"\n".repeat(rules::FILE_LINES_MAX));
    check_repository(rule);
}

#[test]
fn functions_are_short() {
    let rule = rules::has_short_functions;
    let function = |line_count: usize, line: &str| {
        format!("fn a(b: impl Fn() -> u8) {{\n{}}}\n", format!("{line}\n").repeat(line_count))
    };
    let room = rules::FUNCTION_LINES_MAX - 2;
    refuses(rule, "src/a.rs", &function(room + 1, "b();"));
    refuses(rule, "src/a.rs", &function(room + 1, "let c = \"}\"; let d = '}'; // }"));
    refuses(rule, "src/a.rs", &function(room + 1, "let c = r#\"\"}\"#; /* } /* } */ */"));
    passes(rule, "src/a.rs", &function(room, "let c = \"{\"; let d: &'static str = b'{';"));
    passes(rule, "src/a.rs", &format!("fn a();\n{}", function(room, "b();")));
    check_repository(rule);
}

#[test]
fn imports_go_one_way() {
    let rule = rules::imports_one_way;
    refuses(rule, "src/base/a.rs", "use crate::model::series::SeriesHash;");
    refuses(rule, "src/gateway/a.rs", "fn a() { crate::node::b() }");
    refuses(rule, "src/node/log/mod.rs", "use crate::{base::queue, gateway::{batch, reply}};");
    refuses(rule, "src/query/mod.rs", "use crate::gateway::request::RequestBytes;");
    refuses(rule, "src/wire/a.rs", "use crate::http::Request;");
    refuses(rule, "src/control/a.rs", "use crate::ring::Ring;");
    refuses(rule, "src/ring/a.rs", "use crate::model::sample::Sample;");
    refuses(rule, "src/http/mod.rs", "use super::node;");
    refuses(rule, "src/gateway/admit/a.rs", "use super::super::super::node::head;");
    refuses(rule, "src/newcomer/mod.rs", "//! Not in the table.");
    passes(rule, "src/gateway/a.rs", "use crate::{base::queue, wire::{frame, ack}, gateway::b};");
    passes(rule, "src/node/mod.rs", "// crate::gateway\n#[cfg(test)]\nmod tests { use super::*; }");
    refuses(rule, "src/offline/a.rs", "use crate::server::start;");
    refuses(rule, "src/background/a.rs", "use crate::offline::check;");
    passes(rule, "src/offline/a.rs", "use crate::{background::folder, node::block};");
    passes(rule, "src/server/a.rs", "use crate::{ring::Ring, gateway::a, node::b, query::c};");
    check_repository(rule);
}

#[test]
fn tools_do_not_use_the_server() {
    let rule = rules::tools_stand_alone;
    refuses(rule, "loadgen/src/main.rs", "use tidegate::model;");
    refuses(rule, "tuning/Cargo.toml", "[dependencies]\ntidegate = { path = \"..\" }\n");
    refuses(rule, "loadgen/Cargo.toml", "[dependencies]\ntidegate.workspace = true\n");
    passes(rule, "loadgen/Cargo.toml", "name = \"tidegate-loadgen\"\n");
    passes(rule, "bench/src/main.rs", "use tidegate::model;");
    check_repository(rule);
}

#[test]
fn unsafe_is_confined_and_explained() {
    let rule = rules::confines_unsafe;
    let explained =
        "//! Ring.\nfn a() {\n    // SAFETY: the buffer is ours.\n    unsafe { b() }\n}\n";
    let bare = "//! Ring.\nfn a() {\n    unsafe { b() }\n}\n";
    let stale = "// SAFETY: the buffer is ours.\nlet a = 1;\nlet b = unsafe { c() };\n";
    refuses(rule, "src/node/log.rs", explained);
    refuses(rule, "tests/a.rs", explained);
    refuses(rule, "src/ring/a.rs", bare);
    refuses(rule, "src/ring/a.rs", stale);
    passes(rule, "src/ring/a.rs", explained);
    passes(
        rule,
        "src/ring/a.rs",
        "// SAFETY: plain old data,\n// all of it.\nlet a =\n  unsafe { b() };",
    );
    passes(rule, "src/node/log.rs", "// no unsafe\nlet a = \"unsafe\"; let unsafe_code = 1;");
    check_repository(rule);
}

#[test]
fn clocks_are_confined() {
    let rule = rules::confines_clocks;
    refuses(rule, "src/node/a.rs", "let now = std::time::Instant::now();");
    refuses(rule, "src/node/a.rs", "use std::time::SystemTime;");
    refuses(rule, "src/server/a.rs", "let took = start.elapsed();");
    passes(rule, "src/base/time.rs", "let now = Instant::now();");
    passes(rule, "loadgen/src/main.rs", "let now = Instant::now();");
    passes(rule, "src/node/a.rs", "#[cfg(test)]\nmod tests {\n fn a() { Instant::now(); }\n}\n");
    passes(rule, "src/node/a.rs", "fn a(now: Instant) -> Instant { now + DELAY }");
    check_repository(rule);
}

#[test]
fn io_is_confined_to_drivers() {
    let rule = rules::confines_io;
    for text in [
        "use std::fs::File;",
        "use std::{fmt, fs};",
        "let stream = std::net::TcpStream::connect(a);",
        "tokio::spawn(a);",
        "use io_uring::opcode;",
        "std::thread::spawn(a);",
        "use glommio::io::DmaFile;",
    ] {
        refuses(rule, "src/node/a.rs", &format!("//! Pure.\n{text}\n"));
        passes(rule, "src/node/a.rs", &format!("//! DRIVER: the disk.\n{text}\n"));
        passes(rule, "src/node/tests.rs", &format!("//! Pure.\n{text}\n"));
    }
    passes(rule, "src/main.rs", "//! Commands.\nuse std::fs;\n");
    passes(rule, "src/control/a.rs", "//! Pure.\nuse std::net::SocketAddr;\n");
    passes(rule, "src/control/a.rs", "//! Pure.\nuse tokio::sync::mpsc;\n");
    refuses(rule, "src/control/a.rs", "//! Pure.\nuse tokio::{sync::mpsc, time};\n");
    refuses(rule, "src/control/a.rs", "//! Pure.\ntokio::time::timeout(a, b);\n");
    passes(rule, "src/node/a.rs", "//! Pure.\nuse std::{fmt, mem};\nlet offset = 1;\n");
    check_repository(rule);
}

#[test]
fn names_say_what_things_are() {
    let rule = rules::names_say_something;
    refuses(rule, "src/node/utils.rs", "//! Odds and ends.");
    refuses(rule, "src/common/mod.rs", "//! Odds and ends.");
    refuses(rule, "src/node/a.rs", "struct Context { a: u8 }");
    refuses(rule, "src/node/a.rs", "pub enum SegmentManager {}");
    refuses(rule, "src/node/a.rs", "mod helpers;");
    passes(rule, "src/node/a.rs", "struct Segment; impl tower::Service<R> for Segment {}");
    passes(rule, "src/node/a.rs", "// mod utils\nfn core() {}");
    check_repository(rule);
}

#[test]
fn nothing_is_unfinished() {
    let rule = rules::is_finished;
    refuses(rule, "src/a.rs", "fn a() { todo!() }");
    refuses(rule, "loadgen/src/a.rs", "fn a() { unimplemented!(\"later\") }");
    refuses(rule, "tests/a.rs", "fn a() { dbg!(1); }");
    refuses(rule, "src/a.rs", "fn a() { println!(\"a\"); }");
    refuses(rule, "src/a.rs", "fn a() { b().unwrap(); }");
    passes(rule, "src/a.rs", "fn a() { b().unwrap_or(1); }\n#[test]\nfn c() { b().unwrap(); }");
    passes(rule, "src/main.rs", "fn a() { println!(\"todo!()\"); }");
    passes(rule, "src/measure.rs", "//! A.\n#![cfg(test)]\nfn a() { println!(\"a\"); }");
    refuses(rule, "src/measure.rs", "//! #![cfg(test)]\nfn a() { println!(\"a\"); }");
    check_repository(rule);
}

#[test]
fn todos_have_owners_and_conditions() {
    let rule = rules::todos_have_owners;
    refuses(rule, "src/a.rs", "// TODO: mend this\n");
    refuses(rule, "src/a.rs", "// TODO(ada): mend this\n");
    refuses(rule, "scripts/run", "# FIXME when it rains\n");
    passes(rule, "src/a.rs", "// TODO(ada): drop this once Debian 14 is out\nlet a = \"TODO\";\n");
    check_repository(rule);
}

#[test]
fn banned_words_stand_nowhere() {
    let rule = rules::avoids_banned_words;
    refuses(rule, "README.md", &format!("Speaking {}{}.", "AS AN", " AI"));
    refuses(rule, "src/a.rs", &format!("// See {}{}notes.\n", "/wo", "rk/"));
    passes(rule, "README.md", "The paths of a network/kernel.");
    check_repository(rule);
}
