//! Rust text -> the same text with some of it blanked out, so that rules can search without
//! parsing.
//! In: a path and its text. Out: `code` (no comments, no literals), `live` (no tests either),
//! `comments`.
//! All views keep every newline, so that a line number means the same in each. Not here: the rules
//! (`rules`).

/// A file of the repository, in the views that rules search.
pub struct Source {
    /// Relative to the repository, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Comments, strings and characters are blank. The same as `text` if this is not Rust.
    pub code: String,
    /// `code` without what only tests compile.
    pub live: String,
    /// Everything but comments is blank.
    pub comments: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

impl Source {
    /// Takes a file apart.
    pub fn new(path: &str, text: &str) -> Self {
        let (path, text) = (path.to_owned(), text.to_owned());
        if !has_extension(&path, "rs") {
            let (code, live) = (text.clone(), text.clone());
            return Self { path, text, code, live, comments: String::new() };
        }
        let kinds = classify(&text);
        let code = keep(&text, &kinds, Kind::Code);
        let comments = keep(&text, &kinds, Kind::Comment);
        // A measurement says so itself: its name does not, and who declares it is another file.
        let is_test = is_test_path(&path) || code.contains("#![cfg(test)]");
        let live = if is_test { blank(&code) } else { without_test_items(&code) };
        Self { path, text, code, live, comments }
    }

    /// Whether this is Rust.
    pub fn is_rust(&self) -> bool {
        has_extension(&self.path, "rs")
    }
}

/// Whether `path` ends in `.extension`.
pub fn has_extension(path: &str, extension: &str) -> bool {
    std::path::Path::new(path).extension().is_some_and(|found| found == extension)
}

/// Whether only tests compile the file at `path`.
pub fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// Byte offsets at which `word` stands in `text` with no identifier character beside it.
pub fn find_words<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    let is_name = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let starts_name = word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let ends_name = word.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let before = at.checked_sub(1).and_then(|i| bytes.get(i));
        let after = bytes.get(at + word.len());
        !(starts_name && is_name(before) || ends_name && is_name(after))
    })
}

/// The line, from 1, that holds the byte at `offset`.
pub fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// The offset just behind the brace that closes the one at `open`, or the end of the text.
pub fn matching_brace(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    code.len()
}

fn blank(text: &str) -> String {
    keep(text, &vec![Kind::Literal; text.len()], Kind::Code)
}

/// One kind for each byte.
fn classify(text: &str) -> Vec<Kind> {
    let bytes = text.as_bytes();
    let mut kinds = vec![Kind::Code; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let (kind, end) = token_at(bytes, at);
        kinds[at..end].fill(kind);
        at = end;
    }
    kinds
}

/// The kind of what begins at `at`, and where it ends.
fn token_at(bytes: &[u8], at: usize) -> (Kind, usize) {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        let len = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        return (Kind::Comment, at + len);
    }
    if rest.starts_with(b"/*") {
        return (Kind::Comment, at + block_comment_len(rest));
    }
    if rest[0] == b'"' {
        return (Kind::Literal, at + quoted_len(rest, b'"'));
    }
    if rest[0] == b'\'' {
        // A lifetime has no closing quote behind its first character.
        let first_len = rest.get(1).map_or(1, |first| match first {
            0xf0.. => 4,
            0xe0.. => 3,
            0xc0.. => 2,
            _ => 1,
        });
        let is_char = rest.get(1) == Some(&b'\\') || rest.get(1 + first_len) == Some(&b'\'');
        let len = if is_char { quoted_len(rest, b'\'') } else { 1 };
        return (Kind::Literal, at + len);
    }
    if rest[0].is_ascii_alphanumeric() || rest[0] == b'_' {
        let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let len = rest.iter().position(|b| !is_name(b)).unwrap_or(rest.len());
        if matches!(&rest[..len], b"r" | b"br" | b"cr")
            && let Some(raw_len) = raw_string_len(&rest[len..])
        {
            return (Kind::Literal, at + len + raw_len);
        }
        return (Kind::Code, at + len);
    }
    (Kind::Code, at + 1)
}

fn block_comment_len(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of `#"..."#` at the start of `rest`, with any number of `#`.
fn raw_string_len(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().position(|b| *b != b'#')?;
    if rest[hashes] != b'"' {
        return None;
    }
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    let body = &rest[hashes + 1..];
    let len = body.windows(close.len()).position(|window| window == close);
    Some(len.map_or(rest.len(), |len| hashes + 1 + len + close.len()))
}

/// Blanks by byte, so that offsets stay: a blanked character of three bytes becomes three spaces.
fn keep(text: &str, kinds: &[Kind], kind: Kind) -> String {
    let mut kept = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        if c == '\n' || kinds[at] == kind {
            kept.push(c);
        } else {
            kept.extend(std::iter::repeat_n(' ', c.len_utf8()));
        }
    }
    kept
}

/// Blanks each item behind `#[cfg(test)]` and `#[test]`.
fn without_test_items(code: &str) -> String {
    let mut live = code.to_owned();
    for mark in ["#[cfg(test)]", "#[test]"] {
        let mut from = 0;
        while let Some(found) = live[from..].find(mark) {
            let start = from + found;
            let body = live[start..].find(['{', ';']).map_or(live.len(), |len| start + len);
            let is_block = live.as_bytes().get(body) == Some(&b'{');
            let end = if is_block { matching_brace(&live, body) } else { body };
            let blanked = blank(&live[start..end]);
            live.replace_range(start..end, &blanked);
            from = end;
        }
    }
    live
}
