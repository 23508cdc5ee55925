//! A matcher made ready to be asked about many values: `=` and plain alternations become a list of
//! values to look up, other regular expressions an automaton.
//!
//! Regular expressions are anchored at both ends and `.` matches a newline, as in Prometheus 3. The
//! syntax is that of the `regex` crate, which accepts nearly all of RE2.

use regex_automata::meta::Regex;

use crate::model::matcher::{MatchOperator, Matcher, compile_regex, plain_alternatives};

/// One matcher, ready.
pub(in crate::node) struct Condition {
    /// The label's name.
    pub(in crate::node) name: Box<[u8]>,
    /// Which non-empty values match, before `invert`.
    pub(in crate::node) test: Test,
    /// With [`Test::Regex`]: what every matching value begins with; empty if nothing is known.
    pub(in crate::node) prefix: Box<[u8]>,
    /// Whether the empty value, so an absent label, matches, before `invert`.
    pub(in crate::node) matches_empty: bool,
    /// Whether to keep the series that do not match: `!=` and `!~`.
    pub(in crate::node) invert: bool,
}

/// Which non-empty values match.
pub(in crate::node) enum Test {
    /// All of them.
    All,
    /// These.
    Values(Vec<Box<[u8]>>),
    /// Those that the expression matches as a whole.
    Regex(Box<Regex>),
}

impl Test {
    /// Whether `value`, not empty, matches.
    pub(in crate::node) fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Values(values) => values.iter().any(|each| **each == *value),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

impl Condition {
    /// Makes `matcher` ready; the error is the text of what is wrong with its regular expression.
    pub(in crate::node) fn compile(matcher: &Matcher) -> Result<Self, String> {
        let (invert, is_regex) = match matcher.operator {
            MatchOperator::Equal => (false, false),
            MatchOperator::NotEqual => (true, false),
            MatchOperator::Regex => (false, true),
            MatchOperator::NotRegex => (true, true),
        };
        let pattern = matcher.value.as_str();
        let (test, matches_empty) = match pattern {
            value if !is_regex => from_values(vec![value.into()]),
            ".*" => (Test::All, true),
            ".+" => (Test::All, false),
            pattern => match plain_alternatives(pattern) {
                Some(values) => from_values(values),
                None => from_regex(pattern)?,
            },
        };
        let prefix = match &test {
            Test::Regex(_) => literal_prefix(pattern),
            Test::All | Test::Values(_) => "",
        };
        let (name, prefix) = (matcher.name.as_bytes().into(), prefix.as_bytes().into());
        Ok(Self { name, test, prefix, matches_empty, invert })
    }
}

fn from_values(mut values: Vec<String>) -> (Test, bool) {
    let count = values.len();
    values.retain(|value| !value.is_empty());
    let matches_empty = values.len() < count;
    (
        Test::Values(values.into_iter().map(|value| value.into_bytes().into()).collect()),
        matches_empty,
    )
}

/// What every match of `pattern` begins with, as far as that is plain to see.
fn literal_prefix(pattern: &str) -> &str {
    let is_special = |character: char| r"\.+*?()|[]{}^$".contains(character);
    let end = pattern.find(is_special).unwrap_or(pattern.len());
    // A quantifier speaks of the character before it; another alternative, of none of this.
    let is_quantified = pattern[end..].starts_with(['*', '?', '{']);
    let end = match pattern[..end].char_indices().next_back() {
        Some((last, _)) if is_quantified => last,
        _ => end,
    };
    if pattern.contains('|') { "" } else { &pattern[..end] }
}

fn from_regex(pattern: &str) -> Result<(Test, bool), String> {
    let regex = compile_regex(pattern)?;
    let matches_empty = regex.is_match("");
    Ok((Test::Regex(Box::new(regex)), matches_empty))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(operator: MatchOperator, value: &str) -> Result<Condition, String> {
        Condition::compile(&Matcher { name: "a".into(), operator, value: value.into() })
    }

    #[test]
    fn anchored_whole_values() {
        #[track_caller]
        fn check(pattern: &str, value: &str, want: bool) {
            let condition = compile(MatchOperator::Regex, pattern).expect("a good pattern");
            assert_eq!(condition.test.matches(value.as_bytes()), want, "{pattern} on {value}");
        }
        check("a|ab", "ab", true);
        check("a.*", "ba", false);
        check("a.*|b.c", "bxc", true);
        check("a.*|b.c", "bxcd", false);
        check("a.c", "a\nc", true);
        check(".*", "x", true);
        check("[0-9]{1,3}ms", "250ms", true);
        check("(?i)abc", "AbC", true);
        check("(?i)abc", "AbCd", false);
    }

    #[test]
    fn bad_patterns_are_said() {
        for pattern in ["a(", "a)|(b", "*a", r"(?:\w{500}){500}", &"a.".repeat(40_000)] {
            assert!(compile(MatchOperator::Regex, pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn prefixes_are_what_every_match_begins_with() {
        #[track_caller]
        fn check(pattern: &str, want: &str) {
            assert_eq!(literal_prefix(pattern), want, "pattern={pattern}");
        }
        check("host_1.*", "host_1");
        check("hosts?", "host");
        check("ab*c", "a");
        check("a{2}", "");
        check("ab+", "ab");
        check("abc|abd.*", "");
        check("(?i)abc", "");
        check("ä*", "");
        check(r"10\.0.*", "10");
    }

    #[test]
    fn what_matches_the_empty_value() {
        #[track_caller]
        fn check(operator: MatchOperator, value: &str, want: bool) {
            let condition = compile(operator, value).expect("a good pattern");
            assert_eq!(condition.matches_empty, want, "{operator:?} {value}");
        }
        check(MatchOperator::Equal, "", true);
        check(MatchOperator::Equal, "x", false);
        check(MatchOperator::Regex, "", true);
        check(MatchOperator::Regex, "a|", true);
        check(MatchOperator::Regex, "a?.*", true);
        check(MatchOperator::Regex, ".+", false);
    }
}
