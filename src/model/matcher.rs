//! Label matchers, as PromQL and `match[]` have them. Regular expressions are anchored at both
//! ends.

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
