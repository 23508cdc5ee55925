//! Points in time as clients write them: Unix seconds with a fraction, RFC 3339, and
//! VictoriaMetrics' looser forms -> Unix ms.

use crate::query::duration::parse_duration_ms;

/// The oldest and newest times that are asked for anywhere; room is left so that offsets cannot
/// overflow.
pub const TIME_MS_MIN: i64 = -TIME_MS_MAX;
/// See [`TIME_MS_MIN`]. Year 285,616.
pub const TIME_MS_MAX: i64 = 1 << 53;

/// What Prometheus' clients send for "since ever" and "for ever".
const PROMETHEUS_MIN: &str = "-292273086-05-16T16:47:06Z";
const PROMETHEUS_MAX: &str = "292277025-08-18T07:12:54.999999999Z";

/// From here a bare number means milliseconds to VictoriaMetrics' endpoints: as seconds it would be
/// the year 5138.
const MILLISECONDS_FROM: f64 = 1e11;

/// Reads a time as Prometheus' API does: Unix seconds as a decimal, or RFC 3339.
pub fn parse_prometheus_time_ms(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds_to_ms(seconds);
    }
    match text {
        PROMETHEUS_MIN => Some(TIME_MS_MIN),
        PROMETHEUS_MAX => Some(TIME_MS_MAX),
        _ => parse_rfc3339_ms(text),
    }
}

/// Reads a time as VictoriaMetrics' export does: as Prometheus, and Unix milliseconds, `now`,
/// `now-1h`, `-1h`, `1h` (ago).
pub fn parse_export_time_ms(text: &str, now_ms: i64) -> Option<i64> {
    if let Ok(number) = text.parse::<f64>() {
        let is_ms = number.abs() >= MILLISECONDS_FROM;
        return seconds_to_ms(if is_ms { number / 1000.0 } else { number });
    }
    if text == "now" {
        return Some(now_ms);
    }
    let ago = text.strip_prefix("now").unwrap_or(text);
    if let Some(ago_ms) = parse_duration_ms(ago.strip_prefix('-').unwrap_or(ago)) {
        return Some(now_ms.saturating_sub(ago_ms).max(TIME_MS_MIN));
    }
    parse_prometheus_time_ms(text)
}

/// Reads a length of time as Prometheus' API does: seconds as a decimal, or `1h30m`.
pub fn parse_prometheus_duration_ms(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds_to_ms(seconds);
    }
    parse_duration_ms(text)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "checked against the range, which is exact in f64"
)]
fn seconds_to_ms(seconds: f64) -> Option<i64> {
    let ms = (seconds * 1000.0).round();
    // Also refuses NaN.
    (ms.abs() <= TIME_MS_MAX as f64).then_some(ms as i64)
}

/// `2015-07-01T20:10:51.781Z`, `2015-07-01T22:10:51+02:00`; digits below a millisecond are cut.
fn parse_rfc3339_ms(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 20 {
        return None;
    }
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, want)| bytes[at].to_ascii_uppercase() != want) {
        return None;
    }
    let (year, month, day) = (digits(&text[0..4])?, digits(&text[5..7])?, digits(&text[8..10])?);
    let (hour, minute, second) =
        (digits(&text[11..13])?, digits(&text[14..16])?, digits(&text[17..19])?);
    let days_of_month = days_in_month(year, month)?;
    if day < 1 || day > days_of_month || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction_ms, zone) = split_fraction(&text[19..])?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some((seconds - zone_seconds(zone)?) * 1000 + fraction_ms)
}

fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn split_fraction(rest: &str) -> Option<(i64, &str)> {
    let Some(after_point) = rest.strip_prefix('.') else {
        return Some((0, rest));
    };
    let len = after_point.bytes().take_while(u8::is_ascii_digit).count();
    if len == 0 {
        return None;
    }
    let first_three: String = after_point[..len].chars().chain("00".chars()).take(3).collect();
    Some((digits(&first_three)?, &after_point[len..]))
}

fn zone_seconds(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    if zone.len() != 6 || zone.as_bytes()[3] != b':' {
        return None;
    }
    let (hours, minutes) = (digits(&zone[1..3])?, digits(&zone[4..6])?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

fn days_in_month(year: i64, month: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if is_leap { 29 } else { 28 }),
        _ => None,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar
/// (<https://howardhinnant.github.io/date_algorithms.html#days_from_civil>).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_times() {
        #[track_caller]
        fn check(text: &str, want_ms: Option<i64>) {
            assert_eq!(parse_prometheus_time_ms(text), want_ms, "text={text:?}");
        }
        check("1435781451.781", Some(1_435_781_451_781));
        check("0", Some(0));
        check("-1.5", Some(-1_500));
        check("1e3", Some(1_000_000));
        check("2015-07-01T20:10:51.781Z", Some(1_435_781_451_781));
        check("2015-07-01T22:10:51.781+02:00", Some(1_435_781_451_781));
        check("2015-07-01t20:10:51z", Some(1_435_781_451_000));
        check("2015-07-01T20:10:51.7Z", Some(1_435_781_451_700));
        check("2015-07-01T20:10:51.781999999Z", Some(1_435_781_451_781));
        check("1969-12-31T23:59:59Z", Some(-1_000));
        check("2024-02-29T00:00:00Z", Some(1_709_164_800_000));
        check("2023-02-29T00:00:00Z", None);
        check("2015-13-01T20:10:51Z", None);
        check("2015-07-01T24:10:51Z", None);
        check("2015-07-01T20:10:51", None);
        check("2015-07-01T20:10:51.Z", None);
        check("2015-07-01T20:10:51+2:00", None);
        check("2015-07-01T20:10:5éZ", None);
        check("", None);
        check("foo", None);
        check("NaN", None);
        check("Inf", None);
        check("1e300", None);
        check(PROMETHEUS_MIN, Some(TIME_MS_MIN));
        check(PROMETHEUS_MAX, Some(TIME_MS_MAX));
    }

    #[test]
    fn export_times() {
        #[track_caller]
        fn check(text: &str, want_ms: Option<i64>) {
            assert_eq!(parse_export_time_ms(text, 10_000_000), want_ms, "text={text:?}");
        }
        check("1435781451", Some(1_435_781_451_000));
        check("1435781451781", Some(1_435_781_451_781));
        check("100000000000", Some(100_000_000_000));
        check("99999999999", Some(99_999_999_999_000));
        check("now", Some(10_000_000));
        check("now-1m", Some(9_940_000));
        check("-1m", Some(9_940_000));
        check("1m", Some(9_940_000));
        check("2015-07-01T20:10:51Z", Some(1_435_781_451_000));
        check("yesterday", None);
    }

    #[test]
    fn durations() {
        assert_eq!(parse_prometheus_duration_ms("15"), Some(15_000));
        assert_eq!(parse_prometheus_duration_ms("0.5"), Some(500));
        assert_eq!(parse_prometheus_duration_ms("1m30s"), Some(90_000));
        assert_eq!(parse_prometheus_duration_ms("-5"), Some(-5_000));
        assert_eq!(parse_prometheus_duration_ms("x"), None);
    }
}
