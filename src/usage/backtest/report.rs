//! The figures of a back-test, as a table for people and as JSON.

use std::fmt;

use serde::Serialize;

use super::Weeks;
use super::tally::Tally;

/// A figure and its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure; NaN (`null` in JSON) where nothing was counted.
    pub value: f64,
    /// One standard error of it.
    pub error: f64,
}

impl Estimate {
    /// So many of so many, as a part of 1.
    #[must_use]
    pub fn share(count: u32, of: u32) -> Self {
        let value = f64::from(count) / f64::from(of);
        Self { value, error: (value * (1.0 - value) / f64::from(of)).sqrt() }
    }

    fn percent(self) -> String {
        if self.value.is_nan() {
            return "–".to_owned();
        }
        format!("{:.1} ± {:.1}", self.value * 100.0, self.error * 100.0)
    }

    fn plain(self, places: usize) -> String {
        if self.value.is_nan() {
            return "–".to_owned();
        }
        format!("{:.places$} ± {:.places$}", self.value, self.error)
    }
}

/// One estimator at one threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The estimator.
    pub name: String,
    /// The probability at which it raises its alarm; none for what only knows yes and no.
    pub threshold: Option<f64>,
    /// Part of the weeks that lasted in which an alarm was raised.
    pub false_alarms: Estimate,
    /// Part of the weeks that ran out in which the alarm came 2 hours before or sooner.
    pub caught: Estimate,
    /// Part of the weeks that ran out in which it came 24 hours before or sooner.
    pub day_ahead: Estimate,
    /// How often in a week the alarm would have gone off again, were it allowed to come back.
    pub flaps: Estimate,
    /// Mean squared error of what was said each hour, until the week ran out: 0 is perfect.
    pub brier: Estimate,
}

/// What was said in one tenth of the probabilities, and what came.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decile {
    /// The estimator.
    pub name: String,
    /// Mean of what was said.
    pub predicted: f64,
    /// Part of it that came true.
    pub observed: Estimate,
    /// How many hours it was said in.
    pub points: f64,
}

/// Everything that a back-test found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was tested on.
    pub on: String,
    /// Weeks that were scored.
    pub weeks: u32,
    /// Weeks left out, because they were reset before they could end either way.
    pub cut_short: u32,
    /// Part of the scored weeks that ran out.
    pub base_rate: Estimate,
    /// One line for each estimator and threshold.
    pub rows: Vec<Row>,
    /// Reliability of those that give probabilities.
    pub reliability: Vec<Decile>,
}

impl Report {
    pub(super) fn new(on: String, weeks: &Weeks, tallies: &[Tally]) -> Self {
        let (rows, deciles): (Vec<_>, Vec<_>) = tallies.iter().map(Tally::report).unzip();
        Self {
            on,
            weeks: weeks.scored,
            cut_short: weeks.cut_short,
            base_rate: Estimate::share(weeks.ran_out, weeks.scored),
            rows: rows.into_iter().flatten().collect(),
            reliability: deciles.into_iter().flatten().collect(),
        }
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// None that a report can cause: its keys are texts.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.base_rate.percent();
        writeln!(f, "{}: {} weeks scored, {base} % of them ran out;", self.on, self.weeks)?;
        writeln!(
            f,
            "{} more were reset before their time and are left out. ± is one standard error.\n",
            self.cut_short
        )?;
        let columns = ["false-alarm weeks %", "caught %", "≥ 24 h ahead %", "flaps/week", "Brier"];
        write!(f, "{:<20} {:>4}", "estimator", "P ≥")?;
        columns.iter().try_for_each(|column| write!(f, "  {column:>19}"))?;
        writeln!(f)?;
        for row in &self.rows {
            let threshold = row.threshold.map_or_else(String::new, |threshold| format!("{threshold:.2}"));
            write!(f, "{:<20} {threshold:>4}", row.name)?;
            let figures =
                [row.false_alarms.percent(), row.caught.percent(), row.day_ahead.percent(), row.flaps.plain(2)];
            figures.iter().try_for_each(|figure| write!(f, "  {figure:>19}"))?;
            writeln!(f, "  {:>19}", row.brier.plain(3))?;
        }
        writeln!(f, "\nReliability: what was said, and how often it came true")?;
        for decile in &self.reliability {
            let gap = decile.observed.value - decile.predicted;
            let observed = decile.observed.plain(2);
            writeln!(f, "{:<20} {:.2} → {observed} ({gap:+.2}, {} h)", decile.name, decile.predicted, decile.points)?;
        }
        Ok(())
    }
}
