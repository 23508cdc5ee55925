//! The rules of the house: each takes a file and pushes `path:line: what is wrong` for each fault.
//! Not here: which files there are, and the proofs that each rule can fail (`tidy.rs`).

use crate::scan::{Source, find_words, has_extension, line_of, matching_brace};

pub const FILE_LINES_MAX: usize = 700;
pub const FUNCTION_LINES_MAX: usize = 70;
pub const LINE_COLUMNS_MAX: usize = 100;

/// What each top-level module of the library may name of the others; itself always. One way only.
const IMPORTS: [(&str, &[&str]); 11] = [
    ("base", &[]),
    ("model", &["base"]),
    ("ring", &["base"]),
    ("http", &["base", "model"]),
    ("wire", &["base", "model"]),
    ("gateway", &["base", "model", "http", "wire"]),
    ("node", &["base", "model", "http", "wire"]),
    ("query", &["base", "model", "http", "wire"]),
    ("control", &["base", "model", "http", "wire", "gateway", "node", "query"]),
    ("background", &["base", "model", "http", "wire", "gateway", "node", "query"]),
    ("offline", &["base", "model", "wire", "node", "control", "background"]),
];

/// Files outside `src/ring` that may hold `unsafe`: decoders whose gain stands in BENCHMARKS.md.
const UNSAFE_DECODERS: [&str; 0] = [];

const FILE_NAMES_BANNED: [&str; 12] = [
    "utils", "util", "common", "helpers", "helper", "manager", "service", "context", "core",
    "types", "misc", "shared",
];
const TYPE_ENDINGS_BANNED: [&str; 5] = ["Utils", "Util", "Helper", "Helpers", "Manager"];

/// In two halves, so that this file passes its own rule.
const WORDS_BANNED: [(&str, &str); 4] =
    [("cla", "ude"), ("anth", "ropic"), ("as an", " ai"), ("/wo", "rk/")];

const IO: [&str; 14] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::os::unix::net",
    "File::open",
    "OpenOptions",
    "thread::spawn",
    "thread::Builder",
    "tokio::",
    "glommio::",
    "io_uring",
    "socket2::",
    "nix::",
    "TcpStream::connect",
];
/// Plain values that live in I/O modules.
const IO_VALUES: [&str; 8] = [
    "std::net::SocketAddr",
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::process::ExitCode",
    "tokio::sync",
    "tokio::task::yield_now",
    "nix::errno::Errno",
];

pub type Rule = fn(&Source, &mut Vec<String>);

fn push(faults: &mut Vec<String>, source: &Source, line: usize, what: &str) {
    faults.push(format!("{}:{line}: {what}", source.path));
}

fn push_words(faults: &mut Vec<String>, source: &Source, view: &str, word: &str, what: &str) {
    for at in find_words(view, word) {
        push(faults, source, line_of(view, at), &format!("`{word}`: {what}"));
    }
}

/// Each Rust file says what it is for.
pub fn has_head(source: &Source, faults: &mut Vec<String>) {
    let text = source.text.strip_prefix("//!").unwrap_or("");
    if source.is_rust() && text.lines().next().unwrap_or("").trim().is_empty() {
        push(faults, source, 1, "the first line is not `//!` with the file's job");
    }
}

/// 700 lines a file, 100 columns a line; a link may be longer.
pub fn is_short(source: &Source, faults: &mut Vec<String>) {
    let is_code = source.is_rust() || has_extension(&source.path, "sh");
    if !is_code && !source.path.starts_with("scripts/") {
        return;
    }
    let line_count = source.text.lines().count();
    if line_count > FILE_LINES_MAX {
        push(faults, source, line_count, &format!("more than {FILE_LINES_MAX} lines"));
    }
    for (index, line) in source.text.lines().enumerate() {
        if line.chars().count() > LINE_COLUMNS_MAX && !line.contains("://") {
            push(faults, source, index + 1, &format!("more than {LINE_COLUMNS_MAX} columns"));
        }
    }
}

/// 70 lines a function, from `fn` to its closing brace.
pub fn has_short_functions(source: &Source, faults: &mut Vec<String>) {
    if !source.is_rust() {
        return;
    }
    for start in find_words(&source.code, "fn") {
        let Some(open) = source.code[start..].find(['{', ';']).map(|len| start + len) else {
            continue;
        };
        // A semicolon first is a declaration, a function pointer, or an array in a signature.
        if source.code.as_bytes()[open] == b'{' {
            let end = matching_brace(&source.code, open);
            let line_count = source.code[start..end].lines().count();
            if line_count > FUNCTION_LINES_MAX {
                let what = format!("a function of {line_count} lines, {FUNCTION_LINES_MAX} are");
                push(faults, source, line_of(&source.code, start), &(what + " the limit"));
            }
        }
    }
}

/// Imports of the library go one way.
pub fn imports_one_way(source: &Source, faults: &mut Vec<String>) {
    let Some(module) = library_module(&source.path) else { return };
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        if !matches!(module, "server" | "main" | "lib" | "commands") {
            push(faults, source, 1, &format!("module `{module}` is not in the import table"));
        }
        return;
    };
    for (line, name) in crate_paths(&source.code) {
        let is_module = name == "server" || IMPORTS.iter().any(|(known, _)| *known == name);
        if is_module && name != module && !allowed.contains(&name) {
            push(faults, source, line, &format!("`{module}` must not import `{name}`"));
        }
    }
    // The table is only as good as what it sees: no way round it by counting parents.
    push_words(faults, source, &source.code, "super::super", "write `crate::`");
    let is_root = source.path.ends_with(&format!("src/{module}/mod.rs"))
        || source.path == format!("src/{module}.rs");
    if is_root {
        push_words(faults, source, &source.live, "super::", "write `crate::`");
    }
}

/// `src/<module>/...` and `src/<module>.rs`.
fn library_module(path: &str) -> Option<&str> {
    let inner = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    inner.split('/').next()
}

/// The first segment of each `crate::` path, groups too, with its line.
fn crate_paths(code: &str) -> Vec<(usize, &str)> {
    let mut paths = Vec::new();
    for at in find_words(code, "crate::") {
        let rest = &code[at + "crate::".len()..];
        let line = line_of(code, at);
        if rest.starts_with('{') {
            let group = &rest[1..matching_brace(rest, 0).saturating_sub(1)];
            let mut depth = 0;
            let top_level = group.split(|c: char| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                c == ',' && depth == 0
            });
            paths.extend(top_level.map(|part| (line, first_name(part.trim_start()))));
        } else {
            paths.push((line, first_name(rest)));
        }
    }
    paths
}

fn first_name(path: &str) -> &str {
    let end = path.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &path[..end.unwrap_or(path.len())]
}

/// The load generator and the tuner use nothing of the server.
pub fn tools_stand_alone(source: &Source, faults: &mut Vec<String>) {
    let is_tool = source.path.starts_with("loadgen/") || source.path.starts_with("tuning/");
    if is_tool && source.is_rust() {
        push_words(faults, source, &source.code, "tidegate::", "a tool uses nothing of the server");
    }
    if is_tool && source.path.ends_with("Cargo.toml") {
        for (index, line) in source.text.lines().enumerate() {
            let key = line.split(['=', '.']).next().unwrap_or("").trim();
            if key == "tidegate" || line.contains("path = \"..\"") {
                push(faults, source, index + 1, "a tool does not depend on the server");
            }
        }
    }
}

/// `unsafe` stands only where it is measured, and says why it is sound.
pub fn confines_unsafe(source: &Source, faults: &mut Vec<String>) {
    if !source.is_rust() {
        return;
    }
    let path = source.path.as_str();
    let is_allowed = path.starts_with("src/ring/") || UNSAFE_DECODERS.contains(&path);
    let lines: Vec<&str> = source.text.lines().collect();
    for at in find_words(&source.code, "unsafe") {
        let line = line_of(&source.code, at);
        if !is_allowed {
            push(faults, source, line, "`unsafe` outside src/ring");
        }
        if !has_safety_comment(&lines, line - 1) {
            push(faults, source, line, "`unsafe` without `// SAFETY:` above it");
        }
    }
}

/// Walks up from the line at `index` over the rest of its statement and over comments.
fn has_safety_comment(lines: &[&str], index: usize) -> bool {
    if lines[index].contains("// SAFETY:") {
        return true;
    }
    for line in lines[..index].iter().rev().map(|line| line.trim()) {
        if line.contains("// SAFETY:") || line.starts_with("/// # Safety") {
            return true;
        }
        let is_comment = line.starts_with("//") || line.starts_with("#[");
        if !is_comment && (line.is_empty() || line.ends_with([';', '{', '}'])) {
            return false;
        }
    }
    false
}

/// Clocks are read in one file and handed down.
pub fn confines_clocks(source: &Source, faults: &mut Vec<String>) {
    if !source.path.starts_with("src/") || source.path == "src/base/time.rs" {
        return;
    }
    for word in ["Instant::now", "SystemTime", ".elapsed()", "UNIX_EPOCH", "clock_gettime"] {
        push_words(faults, source, &source.live, word, "clocks are read in base/time.rs only");
    }
}

/// What touches the world says so in its first line.
pub fn confines_io(source: &Source, faults: &mut Vec<String>) {
    let is_driver = source.text.starts_with("//! DRIVER:");
    let is_command = source.path == "src/main.rs" || source.path.starts_with("src/commands");
    if !source.path.starts_with("src/") || is_driver || is_command {
        return;
    }
    let mut live = source.live.clone();
    for value in IO_VALUES {
        live = live.replace(value, &" ".repeat(value.len()));
    }
    for word in IO {
        push_words(faults, source, &live, word, "I/O stands in files that begin `//! DRIVER:`");
    }
    for at in find_words(&live, "std::{") {
        let group = &live[at..matching_brace(&live, at + "std::".len())];
        for word in ["fs", "net", "process"] {
            if find_words(group, word).next().is_some() {
                let what = format!("`std::{{{word}}}`: I/O stands in `//! DRIVER:` files");
                push(faults, source, line_of(&live, at), &what);
            }
        }
    }
}

/// Names say what a thing is.
pub fn names_say_something(source: &Source, faults: &mut Vec<String>) {
    if !source.is_rust() {
        return;
    }
    for part in source.path.split('/') {
        if FILE_NAMES_BANNED.contains(&part.strip_suffix(".rs").unwrap_or(part)) {
            push(faults, source, 1, &format!("`{part}` says nothing: banned as a name"));
        }
    }
    for keyword in ["struct", "enum", "trait", "type", "mod", "union"] {
        for at in find_words(&source.code, keyword) {
            let name = first_name(source.code[at + keyword.len()..].trim_start());
            let is_banned = FILE_NAMES_BANNED.contains(&name.to_ascii_lowercase().as_str())
                || TYPE_ENDINGS_BANNED.iter().any(|ending| name.ends_with(ending));
            if is_banned {
                let line = line_of(&source.code, at);
                push(faults, source, line, &format!("`{name}` says nothing: banned as a name"));
            }
        }
    }
}

/// Nothing half done, nothing that prints past the log, nothing that panics on a whim.
pub fn is_finished(source: &Source, faults: &mut Vec<String>) {
    if !source.is_rust() {
        return;
    }
    for word in ["todo!", "unimplemented!", "dbg!"] {
        push_words(faults, source, &source.code, word, "unfinished");
    }
    push_words(faults, source, &source.live, ".unwrap()", "say why it cannot fail: `expect`");
    let is_command = source.path == "src/main.rs" || source.path.starts_with("src/commands");
    if source.path.starts_with("src/") && !is_command {
        for word in ["println!", "eprintln!", "print!", "eprint!"] {
            push_words(faults, source, &source.live, word, "events go through `tracing`");
        }
    }
}

/// `TODO(owner): ... when|once|until <condition>`, or not at all.
pub fn todos_have_owners(source: &Source, faults: &mut Vec<String>) {
    let is_script = ["toml", "sh", "yml", "yaml"].iter().any(|e| has_extension(&source.path, e));
    let view = match source.is_rust() {
        true => &source.comments,
        false if is_script || source.path.starts_with("scripts/") => &source.text,
        false => return,
    };
    for (index, line) in view.lines().enumerate() {
        for word in ["TODO", "FIXME", "XXX", "HACK"] {
            for at in find_words(line, word) {
                let rest = &line[at + word.len()..];
                let has_owner =
                    rest.starts_with('(') && rest[1..].find("):").is_some_and(|n| n > 0);
                let has_condition = ["when", "once", "until"]
                    .iter()
                    .any(|condition| find_words(rest, condition).next().is_some());
                if !has_owner || !has_condition {
                    push(faults, source, index + 1, "a TODO needs an owner and a condition");
                }
            }
        }
    }
}

/// Words that stand nowhere.
pub fn avoids_banned_words(source: &Source, faults: &mut Vec<String>) {
    let text = source.text.to_ascii_lowercase();
    for (front, back) in WORDS_BANNED {
        let word = format!("{front}{back}");
        for (at, _) in text.match_indices(&word) {
            push(faults, source, line_of(&text, at), &format!("the word `{word}`"));
        }
        if source.path.to_ascii_lowercase().contains(&word) {
            push(faults, source, 1, &format!("the word `{word}` in the path"));
        }
    }
}
