//! PromQL text -> the expressions that are evaluated. In: text from a client. Out: a small closed
//! enum.
//!
//! The syntax and its type rules are `promql-parser`'s. What it accepts and we do not evaluate yet
//! is refused by name. Not here: what an expression means at a time (`evaluate`).

use std::time::Duration;

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::{AtModifier, Expr, Offset, VectorSelector};

use crate::base::time::unix_ms_of;
use crate::model::matcher::{MatchOperator, Matcher};

/// Longest text of a query or selector. The parser recurses; this bounds its stack together with
/// [`NESTING_MAX`].
pub const QUERY_BYTES_MAX: usize = 16 << 10;
/// Deepest nesting, and longest chain of operators: far beyond what people write, far below the
/// stack's end.
pub const NESTING_MAX: usize = 200;

/// What a query asks for, parentheses resolved.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// A number.
    Scalar(f64),
    /// A string.
    Text(String),
    /// `metric{...}`: one value per series and instant.
    Vector(Selector),
    /// `metric{...}[5m]`: the samples of a range.
    Matrix(Selector, i64),
    /// `-vector`: values negated, metric names dropped.
    Negated(Selector),
}

/// Which series, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// A series is selected if it matches all of any one group. Never empty.
    pub groups: Vec<Vec<Matcher>>,
    /// Looks this far back; negative looks ahead.
    pub offset_ms: i64,
    /// Evaluates at this time, whatever the query's.
    pub at: Option<At>,
}

/// The time of an `@` modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
    /// `@ 1609746000`
    Time(i64),
}

/// Why a text is not evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpressionFault {
    /// Not PromQL; the text says why.
    Syntax(String),
    /// PromQL, but not evaluated yet: what of it.
    NotEvaluated(String),
}

impl Expression {
    /// Reads a query.
    pub fn parse(text: &str) -> Result<Self, ExpressionFault> {
        expression_of(parse_bounded(text)?)
    }

    /// The series that it reads, if any.
    pub fn selector(&self) -> Option<&Selector> {
        match self {
            Self::Vector(selector) | Self::Matrix(selector, _) | Self::Negated(selector) => {
                Some(selector)
            }
            Self::Scalar(_) | Self::Text(_) => None,
        }
    }
}

/// Reads a `match[]` parameter: a bare selector, whose groups of matchers are returned.
pub fn parse_match(text: &str) -> Result<Vec<Vec<Matcher>>, ExpressionFault> {
    match parse_bounded(text)? {
        Expr::VectorSelector(selector) if selector.offset.is_none() && selector.at.is_none() => {
            Ok(groups_of(&selector))
        }
        _ => Err(ExpressionFault::Syntax(format!("{text:?} is not a series selector"))),
    }
}

fn parse_bounded(text: &str) -> Result<Expr, ExpressionFault> {
    if text.trim().is_empty() {
        return Err(ExpressionFault::Syntax("no expression found in input".into()));
    }
    if text.len() > QUERY_BYTES_MAX {
        return Err(ExpressionFault::Syntax(format!("longer than {QUERY_BYTES_MAX} bytes")));
    }
    if !is_shallow(text) {
        return Err(ExpressionFault::Syntax(format!("nested deeper than {NESTING_MAX}")));
    }
    promql_parser::parser::parse(text).map_err(ExpressionFault::Syntax)
}

/// Bounds brackets and operators outside of strings and braces: each of them may deepen the syntax
/// tree by one.
fn is_shallow(text: &str) -> bool {
    let mut depth_max = 0;
    let mut is_in_braces = false;
    let mut quote = None;
    let mut is_escaped = false;
    for byte in text.bytes() {
        match quote {
            Some(_) if is_escaped => is_escaped = false,
            // Back-quoted strings know no escapes.
            Some(b'"' | b'\'') if byte == b'\\' => is_escaped = true,
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None => match byte {
                b'"' | b'\'' | b'`' => quote = Some(byte),
                b'{' => is_in_braces = true,
                b'}' => is_in_braces = false,
                // Matchers are written with the operators' bytes, but do not nest.
                _ if is_in_braces => {}
                _ => depth_max += usize::from(b"([+-*/%^<>=!".contains(&byte)),
            },
        }
    }
    depth_max <= NESTING_MAX
}

fn expression_of(expr: Expr) -> Result<Expression, ExpressionFault> {
    let refuse = |what: String| Err(ExpressionFault::NotEvaluated(what));
    match expr {
        Expr::NumberLiteral(number) => Ok(Expression::Scalar(number.val)),
        Expr::StringLiteral(string) => Ok(Expression::Text(string.val)),
        Expr::Paren(paren) => expression_of(*paren.expr),
        Expr::VectorSelector(selector) => Ok(Expression::Vector(selector_of(&selector))),
        Expr::MatrixSelector(matrix) => {
            Ok(Expression::Matrix(selector_of(&matrix.vs), duration_ms(matrix.range)))
        }
        Expr::Unary(unary) => match expression_of(*unary.expr)? {
            Expression::Scalar(value) => Ok(Expression::Scalar(-value)),
            Expression::Vector(selector) => Ok(Expression::Negated(selector)),
            // Twice negated is not the vector itself: its metric name is gone.
            _ => refuse("unary minus of this expression".into()),
        },
        Expr::Call(call) => refuse(format!("function {:?}", call.func.name)),
        Expr::Aggregate(aggregate) => refuse(format!("aggregation {:?}", aggregate.op.to_string())),
        Expr::Binary(binary) => refuse(format!("operator {:?}", binary.op.to_string())),
        Expr::Subquery(_) => refuse("subquery".into()),
        Expr::Extension(_) => refuse("extension".into()),
    }
}

fn selector_of(selector: &VectorSelector) -> Selector {
    Selector {
        groups: groups_of(selector),
        offset_ms: match &selector.offset {
            None => 0,
            Some(Offset::Pos(offset)) => duration_ms(*offset),
            Some(Offset::Neg(offset)) => -duration_ms(*offset),
        },
        at: selector.at.as_ref().map(|at| match at {
            AtModifier::Start => At::Start,
            AtModifier::End => At::End,
            AtModifier::At(time) => At::Time(unix_ms_of(*time)),
        }),
    }
}

/// `name{a="b" or c="d"}` -> the groups `[name, a="b"]` and `[name, c="d"]`.
fn groups_of(selector: &VectorSelector) -> Vec<Vec<Matcher>> {
    let Matchers { matchers, or_matchers } = &selector.matchers;
    let name = selector.name.as_deref().map(|name| Matcher::equal("__name__", name));
    let group_of = |matchers: &[promql_parser::label::Matcher]| {
        let mut group: Vec<_> =
            name.iter().cloned().chain(matchers.iter().map(matcher_of)).collect();
        group.dedup();
        group
    };
    if or_matchers.is_empty() {
        vec![group_of(matchers)]
    } else {
        or_matchers.iter().map(|matchers| group_of(matchers)).collect()
    }
}

fn matcher_of(matcher: &promql_parser::label::Matcher) -> Matcher {
    Matcher {
        name: matcher.name.clone(),
        operator: match matcher.op {
            MatchOp::Equal => MatchOperator::Equal,
            MatchOp::NotEqual => MatchOperator::NotEqual,
            MatchOp::Re(_) => MatchOperator::Regex,
            MatchOp::NotRe(_) => MatchOperator::NotRegex,
        },
        value: matcher.value.clone(),
    }
}

fn duration_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(name: &str, operator: MatchOperator, value: &str) -> Matcher {
        Matcher { name: name.into(), operator, value: value.into() }
    }

    fn selector(groups: Vec<Vec<Matcher>>) -> Selector {
        Selector { groups, offset_ms: 0, at: None }
    }

    #[test]
    fn what_is_evaluated() {
        #[track_caller]
        fn check(text: &str, want: &Expression) {
            assert_eq!(Expression::parse(text).as_ref(), Ok(want), "text={text:?}");
        }
        let up = || selector(vec![vec![Matcher::equal("__name__", "up")]]);
        check("up", &Expression::Vector(up()));
        check("((up))", &Expression::Vector(up()));
        check("{__name__=\"up\"}", &Expression::Vector(up()));
        check("-up", &Expression::Negated(up()));
        check("up[5m]", &Expression::Matrix(up(), 300_000));
        check("1.5", &Expression::Scalar(1.5));
        check("-1", &Expression::Scalar(-1.0));
        check("-(1)", &Expression::Scalar(-1.0));
        check("0x1F", &Expression::Scalar(31.0));
        check("\"a\\nb\"", &Expression::Text("a\nb".into()));
        check("up offset 1m", &Expression::Vector(Selector { offset_ms: 60_000, ..up() }));
        check("up offset -1m", &Expression::Vector(Selector { offset_ms: -60_000, ..up() }));
        check("up @ 12.5", &Expression::Vector(Selector { at: Some(At::Time(12_500)), ..up() }));
        check("up @ start()", &Expression::Vector(Selector { at: Some(At::Start), ..up() }));
        let all = selector(vec![vec![
            Matcher::equal("__name__", "up"),
            Matcher::equal("a", "1"),
            matcher("b", MatchOperator::NotEqual, "2"),
            matcher("c", MatchOperator::Regex, "x.*"),
            matcher("d", MatchOperator::NotRegex, "y|z"),
        ]]);
        check("up{a=\"1\",b!=\"2\",c=~\"x.*\",d!~\"y|z\"}", &Expression::Vector(all));
        let either = selector(vec![
            vec![Matcher::equal("__name__", "up"), Matcher::equal("a", "1")],
            vec![Matcher::equal("__name__", "up"), Matcher::equal("b", "2")],
        ]);
        check("up{a=\"1\" or b=\"2\"}", &Expression::Vector(either));
    }

    #[test]
    fn what_is_not_evaluated_is_named() {
        #[track_caller]
        fn check(text: &str, want: &str) {
            let want = Err(ExpressionFault::NotEvaluated(want.into()));
            assert_eq!(Expression::parse(text), want, "text={text:?}");
        }
        check("rate(up[5m])", "function \"rate\"");
        check("sum by (job) (up)", "aggregation \"sum\"");
        check("up + 1", "operator \"+\"");
        check("up[5m:1m]", "subquery");
    }

    #[test]
    fn what_is_not_promql_is_refused() {
        #[track_caller]
        fn check(text: &str) {
            let fault = Expression::parse(text).expect_err(text);
            assert!(matches!(fault, ExpressionFault::Syntax(_)), "{text:?}: {fault:?}");
        }
        check("");
        check("  ");
        check("up{");
        check("{}");
        check("{a=~\".*\"}");
        check("up{a=~\"(\"}");
        check(&"(".repeat(8000));
        check(&format!("{}1{}", "(".repeat(201), ")".repeat(201)));
        check(&format!("{}1", "-".repeat(10_000)));
        check(&format!("1{}", "+1".repeat(5_000)));
        check(&format!("up{{a=\"{}\"}}", "x".repeat(QUERY_BYTES_MAX)));
    }

    #[test]
    fn many_matchers_are_not_deep() {
        let matchers: Vec<_> = (0..500).map(|i| format!("l{i}!~\"a|(b)\"")).collect();
        let text = format!("up{{{}}}", matchers.join(","));
        let expression = Expression::parse(&text).expect("a selector");
        assert_eq!(expression.selector().map(|selector| selector.groups[0].len()), Some(501));
    }

    #[test]
    fn match_parameters() {
        assert_eq!(parse_match("up"), Ok(vec![vec![Matcher::equal("__name__", "up")]]));
        assert!(parse_match("{__name__!=\"\"}").is_ok());
        for text in ["up[5m]", "up offset 5m", "1", "sum(up)", "{}", ""] {
            assert!(matches!(parse_match(text), Err(ExpressionFault::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn mangled_queries_never_panic() {
        let seeds =
            ["up{a=\"b\"}[5m:1m] @ 1 offset -1h", "sum by (a) (rate(x[5m])) / on(b) y ^ -2"];
        let mut state = 7u64;
        for round in 0..4_000 {
            let mut text = seeds[round % 2].as_bytes().to_vec();
            for _ in 0..=round % 4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let [byte, at, ..] = (state >> 32).to_le_bytes();
                let at = usize::from(at) % text.len();
                text[at] = byte % 128;
            }
            let text = String::from_utf8(text).expect("ASCII");
            let _either_way = Expression::parse(&text);
        }
    }
}
