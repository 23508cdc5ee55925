//! What a scenario came to: figures with their aims, over all repeats. For people, for
//! BENCHMARKS.md and as JSON.

use std::fmt;
use std::fmt::Write as _;

use loadgen::report::grouped_f64;
use serde::{Deserialize, Serialize};

/// The head of the table that `markdown` makes rows for.
pub const MARKDOWN_HEAD: &str = "\
| scenario | figure | aim | median | range | machine | command |
|---|---|---|---|---|---|---|";

/// What is wanted of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Of what costs.
    AtMost(f64),
    /// Of what is gained.
    AtLeast(f64),
}

impl Aim {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => f.pad(&number(*limit)),
            Self::AtLeast(limit) => f.pad(&format!(">{}", number(*limit))),
        }
    }
}

/// One figure of one round.
pub struct Figure {
    /// What is measured, with its unit.
    pub name: &'static str,
    /// What is wanted.
    pub aim: Option<Aim>,
    /// Measured.
    pub value: f64,
}

impl Figure {
    /// A figure without an aim.
    pub fn new(name: &'static str, value: f64) -> Self {
        Self { name, aim: None, value }
    }

    /// With an aim.
    pub fn at_most(self, limit: f64) -> Self {
        Self { aim: Some(Aim::AtMost(limit)), ..self }
    }

    /// With an aim.
    pub fn at_least(self, limit: f64) -> Self {
        Self { aim: Some(Aim::AtLeast(limit)), ..self }
    }
}

/// A figure over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// See `Figure`.
    pub name: String,
    /// See `Figure`.
    pub aim: Option<Aim>,
    /// One a round.
    pub values: Vec<f64>,
}

impl Series {
    /// The middle value; of an even number the lower one of the two.
    pub fn median(&self) -> f64 {
        self.sorted().get((self.values.len().max(1) - 1) / 2).copied().unwrap_or(f64::NAN)
    }

    fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let at = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        (at(sorted.first()), at(sorted.last()))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// A scenario's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub scenario: String,
    /// What it ran on.
    pub machine: String,
    /// What repeats it.
    pub command: String,
    /// In the order of the scenario.
    pub figures: Vec<Series>,
}

impl Outcome {
    /// Without figures yet.
    pub fn new(scenario: &str, machine: &str, command: &str) -> Self {
        let (scenario, machine, command) = (scenario.into(), machine.into(), command.into());
        Self { scenario, machine, command, figures: Vec::new() }
    }

    /// Adds a round.
    pub fn add(&mut self, round: Vec<Figure>) {
        for figure in round {
            match self.figures.iter_mut().find(|series| series.name == figure.name) {
                Some(series) => series.values.push(figure.value),
                None => self.figures.push(Series {
                    name: figure.name.to_owned(),
                    aim: figure.aim,
                    values: vec![figure.value],
                }),
            }
        }
    }

    /// Rows under `MARKDOWN_HEAD`.
    pub fn markdown(&self) -> String {
        let mut rows = String::new();
        for series in &self.figures {
            let (low, high) = series.range();
            writeln!(
                rows,
                "| {} | {} | {} | {} | {} to {} | {} | `{}` |",
                self.scenario,
                series.name,
                aim_text(series.aim),
                number(series.median()),
                number(low),
                number(high),
                self.machine,
                self.command
            )
            .expect("a String takes every write");
        }
        rows
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.scenario)?;
        writeln!(f, "  {:58} {:>8} {:>12}  range", "figure", "aim", "median")?;
        for series in &self.figures {
            let (low, high) = series.range();
            let median = series.median();
            let verdict = match series.aim {
                Some(aim) if aim.is_met(median) => "  within the aim",
                Some(_) => "  MISSES the aim",
                None => "",
            };
            writeln!(
                f,
                "  {:58} {:>8} {:>12}  {} to {}{verdict}",
                series.name,
                aim_text(series.aim),
                number(median),
                number(low),
                number(high)
            )?;
        }
        Ok(())
    }
}

fn aim_text(aim: Option<Aim>) -> String {
    aim.map_or_else(|| "-".to_owned(), |aim| aim.to_string())
}

fn number(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.2}") } else { grouped_f64(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_counts() {
        let mut outcome = Outcome::new("s", "m", "c");
        for value in [300.0, 100.0, 251.0] {
            outcome.add(vec![
                Figure::new("ns", value).at_most(250.0),
                Figure::new("points/s", 4e6).at_least(3e6),
            ]);
        }
        assert!((outcome.figures[0].median() - 251.0).abs() < 1e-9);
        let text = outcome.to_string();
        assert!(text.contains("MISSES the aim") && text.contains("100 to 300"), "{text}");
        assert!(text.contains(">3,000,000") && text.contains("within the aim"), "{text}");
        assert!(outcome.markdown().starts_with("| s | ns | 250 | 251 | 100 to 300 | m | `c` |\n"));
    }
}
