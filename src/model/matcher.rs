//! Label matchers, as PromQL and `match[]` have them. Regular expressions are anchored at both
//! ends.

use regex_automata::meta::{self, Regex};
use regex_automata::util::syntax;

/// Larger automatons are refused: they take milliseconds to build.
const NFA_BYTES_MAX: usize = 1 << 20;
/// The lazy automaton's cache while it runs.
const LAZY_CACHE_BYTES: usize = 256 << 10;
/// Longer patterns are refused before they are parsed.
const PATTERN_BYTES_MAX: usize = 64 << 10;

/// How a label's value is compared. A series without the label has the empty value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOperator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matcher {
    /// The label's name; `__name__` for the metric.
    pub name: String,
    /// How.
    pub operator: MatchOperator,
    /// The value, or the regular expression (RE2 syntax, not yet anchored).
    pub value: String,
}

impl Matcher {
    /// `name="value"`.
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: name.into(), operator: MatchOperator::Equal, value: value.into() }
    }
}

impl MatchOperator {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }

    /// Reads what [`MatchOperator::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Equal, Self::NotEqual, Self::Regex, Self::NotRegex];
        all.into_iter().find(|operator| operator.as_str() == text)
    }
}

/// Builds `pattern`, anchored at both ends, `.` matching a newline, as in Prometheus 3.
///
/// # Errors
/// The text of what is wrong with it. Bounded by the automaton's size, not by steps.
pub fn compile_regex(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("longer than {PATTERN_BYTES_MAX} bytes"));
    }
    let config = syntax::Config::new().dot_matches_new_line(true);
    // On its own first, so that a stray parenthesis cannot pair with those put around it.
    syntax::parse_with(pattern, &config).map_err(|fault| fault.to_string())?;
    // Full automatons cost more to build than most queries run.
    let engines = meta::Config::new()
        .nfa_size_limit(Some(NFA_BYTES_MAX))
        .hybrid_cache_capacity(LAZY_CACHE_BYTES)
        .onepass(false)
        .dfa(false);
    let anchored = format!("^(?:{pattern})$");
    let built = Regex::builder().configure(engines).syntax(config).build(&anchored);
    built.map_err(|fault| match fault.size_limit() {
        Some(limit) => format!("needs an automaton of more than {limit} bytes"),
        None => fault.to_string(),
    })
}

/// The values of a pattern like `a|b\.c|d`, with or without parentheses around it; `None` if it is
/// more than that.
pub fn plain_alternatives(pattern: &str) -> Option<Vec<String>> {
    let stripped = pattern.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let inner = stripped.map_or(pattern, |rest| rest.strip_prefix("?:").unwrap_or(rest));
    let mut values = vec![String::new()];
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        let literal = match character {
            '|' => {
                values.push(String::new());
                continue;
            }
            // An escaped punctuation mark is itself; an escaped letter is a class, an anchor or an
            // error.
            '\\' => characters.next().filter(char::is_ascii_punctuation)?,
            '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            literal => literal,
        };
        values.last_mut()?.push(literal);
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_alternations_become_values() {
        #[track_caller]
        fn check(pattern: &str, want: Option<&[&str]>) {
            let want = want.map(|values| values.iter().map(ToString::to_string).collect());
            assert_eq!(plain_alternatives(pattern), want, "pattern={pattern}");
        }
        check("a", Some(&["a"]));
        check("a|b|c", Some(&["a", "b", "c"]));
        check("(a|b)", Some(&["a", "b"]));
        check("(?:a|)", Some(&["a", ""]));
        check(r"10\.0\.0\.1:9100|x\-y", Some(&["10.0.0.1:9100", "x-y"]));
        check(r"\d", None);
        check("a.", None);
        check("(a)|(b)", None);
        check("a|b*", None);
        check(r"a\", None);
    }
}
