//! The Prometheus text format -> series with a sample each. As much of it as exporters write: no
//! exemplars, no OpenMetrics. In: one scrape. Out: labels and values, in its order. O(length).
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>

/// A line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The name first, as `__name__`, then as written.
    pub labels: Vec<(String, String)>,
    /// Any f64.
    pub value: f64,
}

/// Parses a whole scrape; None where a line is none of the format. Timestamps of lines are ignored:
/// node_exporter writes none.
pub fn parse(text: &str) -> Option<Vec<Line>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with('#')).map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let name_end = line.find(['{', ' ', '\t'])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = vec![("__name__".to_owned(), name.to_owned())];
    if let Some(inner) = rest.strip_prefix('{') {
        rest = parse_labels(inner, &mut labels)?;
    }
    let value = parse_value(rest.split_ascii_whitespace().next()?)?;
    Some(Line { labels, value })
}

/// Up to the closing brace; gives what follows it.
fn parse_labels<'a>(mut rest: &'a str, labels: &mut Vec<(String, String)>) -> Option<&'a str> {
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after);
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = parse_string(quoted)?;
        labels.push((name.trim().to_owned(), value));
        rest = after;
    }
}

/// Up to the closing quote; gives what follows it.
fn parse_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, found)) = chars.next() {
        match found {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

fn parse_value(text: &str) -> Option<f64> {
    // Rust knows `inf`, `+Inf` and `NaN` in any case.
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        #[track_caller]
        fn check(text: &str, want: Option<(&[(&str, &str)], f64)>) {
            let found = parse(text).map(|lines| {
                assert_eq!(lines.len(), 1, "{text}");
                (lines[0].labels.clone(), lines[0].value.to_bits())
            });
            let owned = |pairs: &[(&str, &str)]| {
                let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
                pairs.iter().map(pair).collect::<Vec<_>>()
            };
            assert_eq!(found, want.map(|(pairs, value)| (owned(pairs), value.to_bits())), "{text}");
        }
        check("# HELP up Up.\n# TYPE up gauge\nup 1\n", Some((&[("__name__", "up")], 1.0)));
        check("a{} 1.5e-3", Some((&[("__name__", "a")], 1.5e-3)));
        check(
            "a{b=\"x\",c=\"q\\\"\\\\\\n{},é\",} +Inf 123",
            Some((&[("__name__", "a"), ("b", "x"), ("c", "q\"\\\n{},é")], f64::INFINITY)),
        );
        check("a{b=\"x\"} NaN", Some((&[("__name__", "a"), ("b", "x")], f64::NAN)));
        check("a", None);
        check("a{b=\"x} 1", None);
        check("a{b=x} 1", None);
        check("a{b=\"x\"} one", None);
    }
}
