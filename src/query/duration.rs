//! Durations as Prometheus writes them (`1h30m`, `15s`, `500ms`) <-> milliseconds.

/// Units from the longest, as the grammar wants them ordered; a year has 365 days.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Milliseconds of `text`: digits and unit, units falling, each at most once; or a plain `0`.
///
/// `None` if it is not in the grammar or does not fit an `i64`.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total_ms = 0u64;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = &rest[..unit_len];
        // Taking from the iterator is what refuses a unit that comes twice or too late.
        let (_, unit_ms) = units.find(|(name, _)| *name == unit)?;
        rest = &rest[unit_len..];
        total_ms = total_ms.checked_add(count.checked_mul(*unit_ms)?)?;
    }
    i64::try_from(total_ms).ok()
}

/// The shortest text that [`parse_duration_ms`] reads back; weeks and years are written in days.
pub fn format_duration_ms(duration_ms: u64) -> String {
    if duration_ms == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    let mut rest_ms = duration_ms;
    for (name, unit_ms) in &UNITS[2..] {
        let count = rest_ms / unit_ms;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(name);
            rest_ms %= unit_ms;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_durations() {
        #[track_caller]
        fn check(text: &str, want_ms: Option<i64>) {
            assert_eq!(parse_duration_ms(text), want_ms, "text={text:?}");
        }
        check("5m", Some(300_000));
        check("1h30m", Some(5_400_000));
        check("1s500ms", Some(1_500));
        check("1y", Some(31_536_000_000));
        check("0", Some(0));
        check("0s", Some(0));
        check("", None);
        check("5", None);
        check("m", None);
        check("1m1h", None);
        check("1m1m", None);
        check("1.5h", None);
        check("-1h", None);
        check("1é", None);
        check("99999999999999999999s", None);
        check("999999999999y", None);
    }

    #[test]
    fn what_is_written_reads_back() {
        for duration_ms in [0u64, 1, 999, 1_000, 90_000, 3_600_000, 86_400_000 * 400 + 61_001] {
            let text = format_duration_ms(duration_ms);
            assert_eq!(parse_duration_ms(&text), i64::try_from(duration_ms).ok(), "{text}");
        }
    }
}
