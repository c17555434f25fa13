//! The picture of one bucket: its history, the even pace, what the forecast expects, and the same in words.
//!
//! ```text
//!  Chart ──▶ picture ──▶ canvas, lettering ──▶ PNG
//!    │          └── axis: where times and per cents lie
//!    └─────▶ words: the text alternative
//! ```
//!
//! Everything here is pure: both come from the same [`Chart`], the same data give the same bytes, and no clock is read.
//! The picture has a background of its own, so that it reads alike in light and dark clients, and letters that can still
//! be read when a phone shows it 380 px wide.

mod axis;
mod canvas;
mod lettering;
mod picture;
mod words;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

pub use picture::{HEIGHT, WIDTH};

/// How full a bucket was at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When it was measured.
    pub at: Timestamp,
    /// Used part in per cent, from 0 to 999; may be over 100. What is not finite is left out.
    pub percent: f64,
}

/// The window that runs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// When it began.
    pub start: Timestamp,
    /// When it resets.
    pub end: Timestamp,
}

/// Where one path of the forecast ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outlook {
    /// So much is used, in per cent, when the projection ends. Over 100: it is full before, at the time where a straight
    /// line gets there.
    Percent(f64),
    /// The bucket is full at this time. After the end of the projection: it lasts, and is on the way there.
    Full(Timestamp),
}

/// What the forecast expects: three paths through the same fan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Projection {
    /// Where it starts: the last sample.
    pub from: Point,
    /// Where it ends: the reset.
    pub to: Timestamp,
    /// The path that 10 % of the futures stay below: little use, full late or never.
    pub low: Outlook,
    /// The path in the middle.
    pub median: Outlook,
    /// The path that 10 % of the futures go above: much use, full early.
    pub high: Outlook,
}

/// Everything that the picture and its words show of one bucket.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What is limited, in words: "Weekly, all models". Cut where it is too long for the picture, never in the words.
    pub title: String,
    /// Whose it is: the name of the account. May be empty.
    pub label: String,
    /// Left edge.
    pub from: Timestamp,
    /// Right edge; after [`Self::from`]. With a projection, its end is a good one.
    pub to: Timestamp,
    /// The time that is marked as now.
    pub now: Timestamp,
    /// Where the reader's clock hangs.
    pub zone: TimeZone,
    /// Distance of two samples where nothing is missing; more than three times as much without a sample is a gap.
    pub interval: SignedDuration,
    /// The history, in any order. What lies outside of the edges is left out.
    pub points: Vec<Point>,
    /// Resets that happened, each at its true time. The line of the history stops there and starts again.
    pub resets: Vec<Timestamp>,
    /// The window that runs now, for the coming reset and the even pace. `None`: not known, or nothing resets.
    pub window: Option<Window>,
    /// Whether the even pace of the window is drawn and told.
    pub even_pace: bool,
    /// Per cents at which people are alerted. 100 has its own line and is left out.
    pub thresholds: Vec<f64>,
    /// What the forecast expects, where there is one.
    pub projection: Option<Projection>,
}

/// Draws the chart as a PNG of [`WIDTH`] × [`HEIGHT`] pixels, without any transparency.
///
/// # Errors
///
/// When the chart ends before it begins, or the picture cannot be encoded.
pub fn png(chart: &Chart) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(
        chart.from < chart.to,
        "a chart from {} to {} shows no time: its end must come after its beginning",
        chart.from,
        chart.to
    );
    picture::draw(chart)
}

/// Says in a few sentences and a line of bars what the picture shows: for people who do not see it, and for clients
/// that do not show it. Plain text of two or three lines, not escaped for HTML.
#[must_use]
pub fn alternative(chart: &Chart) -> String {
    words::alternative(chart)
}

/// Used up.
const FULL: f64 = 100.0;
/// No bucket is more than so full: a greater value is a fault of its source, and is shown as this one.
const MOST: f64 = 999.0;

impl Chart {
    /// The history in time order, in stretches that a line may join: none crosses a gap or a reset.
    fn stretches(&self) -> Vec<Vec<Point>> {
        let shown = self.from..=self.to;
        let points = self.points.iter().filter(|point| point.percent.is_finite() && shown.contains(&point.at));
        let mut points: Vec<Point> =
            points.map(|point| Point { percent: point.percent.clamp(0.0, MOST), ..*point }).collect();
        points.sort_by_key(|point| point.at);
        points.chunk_by(|before, after| self.joins(before.at, after.at)).map(<[Point]>::to_vec).collect()
    }

    /// Says whether the history is known all the way between two neighbouring samples.
    fn joins(&self, before: Timestamp, after: Timestamp) -> bool {
        let gap = after.duration_since(before) > self.interval * 3;
        !gap && !self.resets.iter().any(|&reset| before < reset && reset <= after)
    }

    /// The newest sample.
    fn last(&self) -> Option<Point> {
        self.stretches().last().and_then(|stretch| stretch.last().copied())
    }

    /// Says whether a sample is too old to speak for now.
    fn is_stale(&self, point: Point) -> bool {
        !self.joins(point.at, self.now.max(point.at))
    }

    /// The coming reset.
    fn coming(&self) -> Option<Timestamp> {
        self.window.map(|window| window.end).filter(|&end| end > self.now)
    }

    /// The window, where an even pace can be told from it.
    fn paced(&self) -> Option<Window> {
        self.window.filter(|window| self.even_pace && window.start < window.end)
    }

    /// The projection, where it has any length.
    fn projected(&self) -> Option<Projection> {
        let told = |projection: &Projection| {
            projection.from.at < projection.to && (0.0..=MOST).contains(&projection.from.percent)
        };
        self.projection.filter(told)
    }

    /// Alert thresholds from the lowest to the highest, each once, 100 left out.
    fn alerts(&self) -> Vec<f64> {
        let mut alerts: Vec<f64> = self.thresholds.iter().copied().filter(|&p| p > 0.0 && p < FULL).collect();
        alerts.sort_by(f64::total_cmp);
        alerts.dedup();
        alerts
    }
}

impl Window {
    /// Per cent that an even pace has used at this time, from 0 to 100.
    fn pace(self, at: Timestamp) -> f64 {
        let part = at.duration_since(self.start).as_secs_f64() / self.end.duration_since(self.start).as_secs_f64();
        (part * FULL).clamp(0.0, FULL)
    }
}

impl Projection {
    /// Corners of one path: straight to where it is full, then flat; or straight to the end.
    fn path(&self, outlook: Outlook) -> Vec<Point> {
        let Point { at, percent } = self.from;
        let end = |percent| Point { at: self.to, percent };
        if percent >= FULL {
            return vec![self.from, end(percent)];
        }
        match (outlook, self.full(outlook)) {
            (_, Some(full)) => vec![self.from, Point { at: full, percent: FULL }, end(FULL)],
            (Outlook::Percent(last), None) => {
                vec![self.from, end(if last.is_finite() { last.max(0.0) } else { percent })]
            }
            (Outlook::Full(full), None) => {
                let part = self.to.duration_since(at).as_secs_f64() / full.duration_since(at).as_secs_f64();
                vec![self.from, end(percent + (FULL - percent) * part)]
            }
        }
    }

    /// When a path is full, if that is before the end.
    fn full(&self, outlook: Outlook) -> Option<Timestamp> {
        let Point { at, percent } = self.from;
        let full = match outlook {
            _ if percent >= FULL => at,
            Outlook::Full(full) => full.max(at),
            Outlook::Percent(last) if last > FULL && last.is_finite() => {
                let way = self.to.duration_since(at);
                at.checked_add(way.mul_f64((FULL - percent) / (last - percent))).ok()?
            }
            Outlook::Percent(_) => return None,
        };
        (full < self.to).then_some(full)
    }

    /// Per cent that a path has reached at the end, at most 100.
    fn end(&self, outlook: Outlook) -> f64 {
        self.path(outlook).last().map_or(self.from.percent, |point| point.percent.min(FULL))
    }
}

#[cfg(test)]
mod tests;
