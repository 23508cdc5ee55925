//! Rules of groups as people write them: `{team="payments"} -> payments`.
//! In: text. Out: rules; it reads back what it prints.
//! What a rule does, and its limits: `model/placement`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use crate::control::config::units::ListVisitor;
use crate::model::placement::TagRule;
use crate::query::expression::{ExpressionFault, parse_match};

const ARROW: &str = "->";

/// Asked in this order; the first that matches counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRules(pub Vec<TagRule>);

/// Reads one rule.
///
/// # Errors
/// What is wrong with it, and how one looks.
pub fn parse_group_rule(text: &str) -> Result<TagRule, String> {
    let fault = |cause: &str| {
        format!(
            "`{}` is no rule: {cause}; write SELECTOR -> GROUP, as in {{team=\"payments\"}} -> \
             payments",
            text.trim()
        )
    };
    let (selector, group) = text.rsplit_once(ARROW).ok_or_else(|| fault("it has no `->`"))?;
    let group = group.trim();
    if group.is_empty() {
        return Err(fault("it names no group"));
    }
    let found = parse_match(selector.trim()).map_err(|what| match what {
        ExpressionFault::Syntax(what) | ExpressionFault::NotEvaluated(what) => fault(&what),
    })?;
    let Ok([matchers]) = <[_; 1]>::try_from(found) else {
        return Err(fault("`or` is not for rules: write a rule for each side"));
    };
    Ok(TagRule { matchers, group: group.into() })
}

/// Splits at semicolons and line ends that are not within quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quote, mut is_escaped) = (None, false);
    for (at, byte) in text.bytes().enumerate() {
        match quote {
            Some(_) if is_escaped => is_escaped = false,
            // Back-quoted strings know no escapes.
            Some(b'"' | b'\'') if byte == b'\\' => is_escaped = true,
            Some(open) if byte == open => quote = None,
            None if matches!(byte, b'"' | b'\'' | b'`') => quote = Some(byte),
            None if matches!(byte, b';' | b'\n') => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

impl FromStr for GroupRules {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rules = split(text).into_iter().filter(|rule| !rule.trim().is_empty());
        rules.map(parse_group_rule).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for GroupRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join("; "))
    }
}

impl Serialize for GroupRules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl<'de> Deserialize<'de> for GroupRules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = deserializer.deserialize_any(ListVisitor("a rule, or a list of them"))?;
        texts.join("\n").parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red if a semicolon or an arrow in a value ends a rule, or if a value is not written as it
    /// was read.
    #[test]
    fn rules_read_back_what_they_print() {
        #[track_caller]
        fn check(text: &str, want: &[&str]) {
            let rules: GroupRules = text.parse().expect("good rules");
            let texts: Vec<String> = rules.0.iter().map(ToString::to_string).collect();
            assert_eq!(texts, want, "{text}");
            assert_eq!(rules.to_string().parse(), Ok(rules));
        }
        check("", &[]);
        check("{team=\"pay\"}->p", &["{team=\"pay\"} -> p"]);
        check(
            "{a=\"1\",b!~`x;y`} -> p-1 ;\n up{c=~\"->;\\\"\"} -> q\n",
            &[
                "{a=\"1\", b!~\"x;y\"} -> p-1",
                // The name of a metric is a label like others.
                "{__name__=\"up\", c=~\"->;\\\"\"} -> q",
            ],
        );
    }

    #[test]
    fn what_is_no_rule_says_how_one_looks() {
        #[track_caller]
        fn check(text: &str, want: &str) {
            let fault = text.parse::<GroupRules>().expect_err("no rule");
            assert!(fault.contains(want) && fault.contains("write SELECTOR -> GROUP"), "{fault}");
        }
        check("{team=\"pay\"}", "it has no `->`");
        check("{team=\"pay\"} -> ", "it names no group");
        check("{team=} -> p", "`{team=} -> p` is no rule");
        check("{a=\"1\" or b=\"2\"} -> p", "write a rule for each side");
        check("rate(a[5m]) -> p", "is not a series selector");
    }
}
