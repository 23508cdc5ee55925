//! Findings, and how they are shown: a table for people, JSON for programs.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but slower or less evenly than it could.
    Warn,
    /// Does not work, or not under load.
    Fail,
    /// Cannot be told on this host.
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// How it stands.
    pub level: Level,
    /// What it is.
    pub value: String,
    /// What it should be.
    pub wanted: &'static str,
    /// What mends it; empty where nothing is to be mended.
    pub remedy: &'static str,
}

/// A setting that must be so, or at least should.
pub struct Want {
    /// What is looked at.
    pub name: &'static str,
    /// What it should be.
    pub wanted: &'static str,
    /// How bad it is if it is not.
    pub otherwise: Level,
    /// What mends it.
    pub remedy: &'static str,
}

impl Want {
    /// Judges `value`, which is `None` where it cannot be told.
    pub fn judge<T: ToString>(&self, value: Option<T>, is_good: impl Fn(&T) -> bool) -> Finding {
        let level = match &value {
            None => Level::Unknown,
            Some(value) if is_good(value) => Level::Ok,
            Some(_) => self.otherwise,
        };
        let is_mended = matches!(level, Level::Ok | Level::Unknown);
        Finding {
            name: self.name,
            level,
            value: value.map_or_else(|| "cannot be told".into(), |value| value.to_string()),
            wanted: self.wanted,
            remedy: if is_mended { "" } else { self.remedy },
        }
    }
}

/// Columns, and below each finding that is not good what mends it.
pub fn to_table(findings: &[Finding]) -> String {
    let width = |of: fn(&Finding) -> usize| findings.iter().map(of).max().unwrap_or(0);
    let name_width = width(|finding| finding.name.len());
    let value_width = width(|finding| finding.value.chars().count()).min(40);
    let mut table = String::new();
    for finding in findings {
        let level = match finding.level {
            Level::Ok => "OK  ",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
            Level::Unknown => "?   ",
        };
        let Finding { name, value, wanted, remedy, .. } = finding;
        table += &format_args!("{level}  {name:name_width$}  {value:value_width$}  ").to_string();
        table += &["wanted: ", wanted, "\n"].concat();
        if !remedy.is_empty() {
            table += &["      -> ", remedy, "\n"].concat();
        }
    }
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    let (ok, warn, fail) = (count(Level::Ok), count(Level::Warn), count(Level::Fail));
    let unknown = count(Level::Unknown);
    table + &format!("{ok} ok, {warn} to improve, {fail} to mend, {unknown} that cannot be told\n")
}

/// A list of findings.
pub fn to_json(findings: &[Finding]) -> String {
    let json = serde_json::to_string_pretty(findings).expect("strings and enums only");
    json + "\n"
}
