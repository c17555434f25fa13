//! What alarms would have been worth: estimators held against weeks whose end is known, simulated or recorded.
//!
//! It walks forward: at each sample an estimator knows that sample and those before it, nothing else. A week that runs
//! out is scored until then, because what would have come after is not known. A week that was reset before its time
//! counts only if it had run out, because nobody knows whether it would have. Weeks are counted, not samples.

pub mod report;
mod tally;

use std::ops::Range;

use jiff::{SignedDuration, Timestamp};

use self::report::Report;
use self::tally::Tally;
use super::bucket::Bucket;
use super::cycle::{ClosedWindow, Cycle, Frame, Point, Sample, Step, Window};
use super::forecast::alarm::{Alarm, Change, Rule};
use super::forecast::{Estimator, Forecast, Law, Prior, Progress, burn};
use super::history::{self, Row};
use super::simulate::{Mishaps, WEEK, simulate};

/// Closed weeks that a simulated person has before the week that counts.
const PAST: usize = 4;
/// Probabilities are held against the outcome once an hour.
const HOURLY: SignedDuration = SignedDuration::from_hours(1);

/// A way to foretell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Method {
    /// So many per cent are used.
    Static(f64),
    /// The window's mean rate, drawn on, meets 100 % before the reset.
    WindowMean,
    /// So many percentage points ahead of even use, after the first day.
    Pace(f64),
    /// The line through the last six hours meets 100 % before the reset.
    Ols6h,
    /// The law of [`forecast`](super::forecast), with or without the closed windows.
    Shrunken {
        /// Its numbers.
        law: Law,
        /// Says whether it knows the closed windows.
        learned: bool,
    },
}

impl Method {
    /// What it says at a sample: a probability, or 0 and 1 for what only knows yes and no. `None`: nothing yet.
    fn says(&self, progress: &Progress, burn: &[Point], ends_at: Timestamp, closed: &[ClosedWindow]) -> Option<f64> {
        let certain = |yes: bool| Some(if yes { 1.0 } else { 0.0 });
        match self {
            Self::Static(percent) => certain(progress.used >= *percent),
            Self::WindowMean => {
                let rate = progress.burned / progress.elapsed.max(1.0);
                certain(progress.used + rate * progress.remaining >= 100.0)
            }
            Self::Pace(ahead) => certain(progress.elapsed >= 24.0 && progress.used - progress.even() >= *ahead),
            Self::Ols6h => Some(burn::forecast(burn, ends_at)?.probability),
            Self::Shrunken { law, learned } => {
                if progress.used < 1.0 && progress.elapsed < 12.0 {
                    return None;
                }
                let closed = if *learned { closed } else { &[] };
                let prior = Prior::learned(closed, progress.length);
                // Somebody new to the watcher has nothing to learn from yet.
                let law = if *learned && prior.weeks == 0 { &Law::COLD } else { law };
                Some(law.runs_out_within(progress, &prior, progress.remaining))
            }
        }
    }

    /// Says whether it gives probabilities, so that they can be held against what came.
    fn is_graded(&self) -> bool {
        matches!(self, Self::Shrunken { .. })
    }
}

/// A method under a name, and the thresholds at which it raises its alarm.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// How the report names it.
    pub name: String,
    /// How it foretells.
    pub method: Method,
    /// Raise at this probability; one line of the report each.
    pub thresholds: Vec<f64>,
    /// Raise when it held so long.
    pub holds: SignedDuration,
}

impl Contender {
    fn new(name: &str, method: Method, thresholds: &[f64]) -> Self {
        Self { name: name.to_owned(), method, thresholds: thresholds.to_vec(), holds: Rule::default().holds }
    }

    /// The estimator that is used, what it would be with an hour's wait, and what it has to be better than.
    #[must_use]
    pub fn usual() -> Vec<Self> {
        let thresholds = [0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9];
        let hour = |contender: Self| Self { holds: SignedDuration::from_hours(1), ..contender };
        let cold = Method::Shrunken { law: Law::COLD, learned: false };
        let learned = Method::Shrunken { law: Law::LEARNED, learned: true };
        vec![
            Self::new("static 80 %", Method::Static(80.0), &[1.0]),
            Self::new("window mean", Method::WindowMean, &[1.0]),
            Self::new("pace +15 pp", Method::Pace(15.0), &[1.0]),
            Self::new("ols6h", Method::Ols6h, &[1.0]),
            hour(Self::new("cold, held 1 h", cold, &[0.65, 0.7, 0.8])),
            hour(Self::new("learned, held 1 h", learned, &[0.65, 0.7, 0.8])),
            Self::new("shrunken, cold", cold, &thresholds),
            Self::new("shrunken, learned", learned, &thresholds),
        ]
    }
}

/// Simulates one person for each seed and scores the fifth week of each.
#[must_use]
pub fn run(seeds: Range<u64>, mishaps: &Mishaps, contenders: &[Contender]) -> Report {
    let mut tallies = Tally::of(contenders);
    let mut weeks = Weeks::default();
    for seed in seeds.clone() {
        let weeks_wanted = u32::try_from(PAST + 1).unwrap_or(u32::MAX);
        let recording = simulate(seed, weeks_wanted, mishaps);
        weeks.add(walk(&recording.samples, &simulated_bucket(), WEEK, PAST, contenders, &mut tallies));
    }
    Report::new(format!("simulated weeks, seeds {} to {}", seeds.start, seeds.end.saturating_sub(1)), &weeks, &tallies)
}

/// Scores every week of recorded history. Its samples count as those of a source that sees the whole account, whoever
/// recorded them; each bucket learns from its own closed windows alone.
#[must_use]
pub fn replay(rows: &[Row], contenders: &[Contender]) -> Report {
    let mut tallies = Tally::of(contenders);
    let mut weeks = Weeks::default();
    let mut count = 0;
    for (bucket, samples) in history::by_bucket(rows).into_iter().filter(|(bucket, _)| bucket.kind.is_weekly()) {
        let length = bucket.kind.window().unwrap_or(WEEK);
        weeks.add(walk(&samples, &bucket, length, 0, contenders, &mut tallies));
        count += 1;
    }
    let buckets = if count == 1 { "bucket" } else { "buckets" };
    Report::new(format!("recorded history of {count} weekly {buckets}"), &weeks, &tallies)
}

/// How many windows were seen and how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Weeks {
    pub(crate) scored: u32,
    pub(crate) ran_out: u32,
    pub(crate) cut_short: u32,
}

impl Weeks {
    fn add(&mut self, other: Self) {
        self.scored += other.scored;
        self.ran_out += other.ran_out;
        self.cut_short += other.cut_short;
    }
}

fn simulated_bucket() -> Bucket {
    Bucket { account: "simulated".to_owned(), kind: super::bucket::Kind::WeeklyAll, scope: None }
}

/// Walks forward through one bucket's samples and scores its windows from the `past`th on.
fn walk(
    samples: &[Sample],
    bucket: &Bucket,
    length: SignedDuration,
    past: usize,
    contenders: &[Contender],
    tallies: &mut [Tally],
) -> Weeks {
    let frame = Frame { length: Some(length), ..Frame::default() };
    let mut weeks = Weeks::default();
    let mut closed: Vec<ClosedWindow> = Vec::new();
    let mut samples = samples.iter();
    let Some(first) = samples.next() else { return weeks };
    let mut cycle = Cycle::found(first, &frame);
    let mut burn = Vec::new();
    let mut runs = Run::of(contenders);
    let mut graded: Option<Timestamp> = None;
    for sample in samples {
        match cycle.take(sample, &frame) {
            Step::Ignored | Step::Waits(_) => continue,
            Step::GoesOn(_) | Step::Confirmed => {}
            Step::Turned { old, turn, .. } => {
                let window = old.close(bucket.clone(), &turn);
                if closed.len() >= past {
                    let counts = !turn.shape.cuts_short() || window.exhausted_at.is_some();
                    weeks.scored += u32::from(counts);
                    weeks.cut_short += u32::from(!counts);
                    weeks.ran_out += u32::from(window.exhausted_at.is_some());
                    if counts {
                        tallies.iter_mut().zip(&runs).for_each(|(tally, run)| tally.add(run, window.exhausted_at));
                    }
                }
                closed.push(window);
                runs = Run::of(contenders);
                burn.clear();
                graded = None;
            }
        }
        let window = &cycle.window;
        if closed.len() < past || window.exhausted_at.is_some() {
            continue;
        }
        burn::remember(&mut burn, window.latest());
        let (Some(progress), Some(ends_at)) = (Progress::of(window, Some(length)), window.ends_at) else { continue };
        let now = window.latest().at;
        let grade = progress.elapsed >= 12.0 && graded.is_none_or(|last| now.duration_since(last) >= HOURLY);
        if grade {
            graded = Some(now);
        }
        for (run, contender) in runs.iter_mut().zip(contenders) {
            if let Some(said) = contender.method.says(&progress, &burn, ends_at, &closed) {
                run.step(said, now, window, grade);
            }
        }
    }
    weeks
}

/// One contender in one window.
pub(crate) struct Run {
    /// For each threshold: the alarm, when it was first raised, and how often it went off again.
    pub(crate) alarms: Vec<(Rule, Alarm, Option<Timestamp>, u32)>,
    /// What was said, once an hour.
    pub(crate) said: Vec<f64>,
}

impl Run {
    fn of(contenders: &[Contender]) -> Vec<Self> {
        let run = |contender: &Contender| {
            let rule = |threshold: f64| Rule { threshold, holds: contender.holds, ..Rule::default() };
            let alarms = contender.thresholds.iter().map(|p| (rule(*p), Alarm::default(), None, 0));
            Self { alarms: alarms.collect(), said: Vec::new() }
        };
        contenders.iter().map(run).collect()
    }

    fn step(&mut self, probability: f64, now: Timestamp, window: &Window, grade: bool) {
        if grade {
            self.said.push(probability);
        }
        let elapsed = now.duration_since(window.started_at);
        let forecast = Forecast { estimator: Estimator::Shrunken, probability, low: None, median: None, high: None };
        for (rule, alarm, raised, flaps) in &mut self.alarms {
            match alarm.step(&forecast, now, elapsed, rule) {
                Some(Change::Raised) => {
                    raised.get_or_insert(now);
                }
                Some(Change::Cleared) => {
                    // Here it may come back, so that it can be counted how often it would.
                    *flaps += 1;
                    *alarm = Alarm::default();
                }
                Some(Change::Escalated(_)) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
