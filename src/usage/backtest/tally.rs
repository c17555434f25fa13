//! Adding up weeks.

use jiff::{SignedDuration, Timestamp};

use super::report::{Decile, Estimate, Row};
use super::{Contender, Run};
use crate::usage::forecast::alarm::Rule;

/// An alarm that comes later than this before the end helps nobody.
const IN_TIME: SignedDuration = SignedDuration::from_hours(2);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What one contender has done so far.
pub(crate) struct Tally {
    contender: Contender,
    lines: Vec<Line>,
    brier: Ratio,
    deciles: Vec<(Ratio, Ratio)>,
}

#[derive(Clone, Default)]
struct Line {
    lasted: u32,
    false_alarms: u32,
    ran_out: u32,
    caught: u32,
    day_ahead: u32,
    flaps: Ratio,
}

impl Tally {
    pub(crate) fn of(contenders: &[Contender]) -> Vec<Self> {
        contenders
            .iter()
            .map(|contender| Self {
                contender: contender.clone(),
                lines: vec![Line::default(); contender.thresholds.len()],
                brier: Ratio::default(),
                deciles: vec![Default::default(); 10],
            })
            .collect()
    }

    /// Adds one week.
    pub(crate) fn add(&mut self, run: &Run, exhausted_at: Option<Timestamp>) {
        for (line, (_, _, raised, flaps)) in self.lines.iter_mut().zip(&run.alarms) {
            line.flaps.add(f64::from(*flaps), 1.0);
            if let Some(end) = exhausted_at {
                let ahead = |span| raised.is_some_and(|raised| end.duration_since(raised) >= span);
                line.ran_out += 1;
                line.caught += u32::from(ahead(IN_TIME));
                line.day_ahead += u32::from(ahead(DAY));
            } else {
                line.lasted += 1;
                line.false_alarms += u32::from(raised.is_some());
            }
        }
        let outcome = if exhausted_at.is_some() { 1.0 } else { 0.0 };
        let (mut squares, mut points) = (0.0, 0.0);
        let mut deciles = [(0.0, 0.0); 10];
        for said in &run.said {
            squares += (said - outcome) * (said - outcome);
            points += 1.0;
            if let Some((sum, count)) = deciles.get_mut(decile(*said)) {
                *sum += said;
                *count += 1.0;
            }
        }
        self.brier.add(squares, points);
        for ((predicted, observed), (sum, count)) in self.deciles.iter_mut().zip(deciles) {
            predicted.add(sum, count);
            observed.add(outcome * count, count);
        }
    }

    /// Lines and reliability of the report.
    pub(crate) fn report(&self) -> (Vec<Row>, Vec<Decile>) {
        let many = self.lines.len() > 1;
        let rows = self.lines.iter().zip(&self.contender.thresholds).map(|(line, threshold)| Row {
            name: self.contender.name.clone(),
            threshold: many.then_some(*threshold),
            false_alarms: Estimate::share(line.false_alarms, line.lasted),
            caught: Estimate::share(line.caught, line.ran_out),
            day_ahead: Estimate::share(line.day_ahead, line.ran_out),
            flaps: line.flaps.estimate(),
            brier: self.brier.estimate(),
        });
        let deciles =
            self.deciles.iter().filter(|(predicted, _)| predicted.below > 0.0).map(|(predicted, observed)| {
                let (predicted, points) = (predicted.estimate().value, predicted.below);
                Decile { name: self.contender.name.clone(), predicted, observed: observed.estimate(), points }
            });
        // An hour's wait changes the alarm and not what is said.
        let graded = self.contender.method.is_graded() && self.contender.holds == Rule::default().holds;
        (rows.collect(), if graded { deciles.collect() } else { Vec::new() })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a probability, times ten")]
fn decile(probability: f64) -> usize {
    ((probability * 10.0) as usize).min(9)
}

/// Σa / Σb over weeks, with the standard error that takes each week as one draw.
#[derive(Clone, Default)]
struct Ratio {
    above: f64,
    below: f64,
    above_squared: f64,
    below_squared: f64,
    product: f64,
}

impl Ratio {
    fn add(&mut self, above: f64, below: f64) {
        self.above += above;
        self.below += below;
        self.above_squared += above * above;
        self.below_squared += below * below;
        self.product += above * below;
    }

    fn estimate(&self) -> Estimate {
        if self.below <= 0.0 {
            return Estimate { value: f64::NAN, error: f64::NAN };
        }
        let value = self.above / self.below;
        let scatter = self.above_squared - 2.0 * value * self.product + value * value * self.below_squared;
        Estimate { value, error: scatter.max(0.0).sqrt() / self.below }
    }
}
