//! Where times and per cents lie in the picture, and which of them are written beside it.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::canvas::Area;

/// Narrowest stretch that one label of the time axis may have, in pixels.
const ROOM: f64 = 120.0;
/// Narrowest day that has a label of its own: the name of the day alone.
const NARROW: f64 = 90.0;
/// Steps of the time axis below a day, in minutes. Each divides the day.
const STEPS: [u16; 9] = [1, 5, 15, 30, 60, 120, 180, 360, 720];
const DAY: f64 = 86_400.0;

/// Maps times and per cents to pixels.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    from: Timestamp,
    to: Timestamp,
    /// Where 0 % at [`Self::from`] and [`Self::ceiling`] at [`Self::to`] are.
    area: Area,
    /// Per cent at the upper edge.
    ceiling: f64,
}

/// One label of the time axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    /// Where the line is that belongs to it; `None`: the day began before the picture.
    pub(super) line: Option<f32>,
    /// The middle of the label.
    pub(super) middle: f32,
    /// Width that it may have.
    pub(super) room: f32,
    pub(super) label: String,
}

impl Scale {
    pub(super) fn new((from, to): (Timestamp, Timestamp), area: Area, ceiling: f64) -> Self {
        Self { from, to, area, ceiling }
    }

    pub(super) fn x(&self, at: Timestamp) -> f32 {
        let part = at.duration_since(self.from).as_secs_f64() / self.seconds();
        pixels(f64::from(self.area.left) + part * self.width())
    }

    pub(super) fn y(&self, percent: f64) -> f32 {
        let part = percent / self.ceiling;
        pixels(f64::from(self.area.bottom) - part * f64::from(self.area.bottom - self.area.top))
    }

    /// Says whether a time lies between the edges.
    pub(super) fn shows(&self, at: Timestamp) -> bool {
        (self.from..=self.to).contains(&at)
    }

    /// Labels of the time axis in local time: the finest that have room. Where each day has one, it stands in the middle of
    /// its day.
    pub(super) fn ticks(&self, zone: &TimeZone) -> Vec<Tick> {
        let day = DAY / self.seconds() * self.width();
        match STEPS.iter().find(|&&step| day * f64::from(step) / 1440.0 >= ROOM) {
            Some(&step) => self.clock(zone, step, pixels(day * f64::from(step) / 1440.0)),
            None if day >= NARROW => self.days(zone, if day >= ROOM { "%a %-d" } else { "%a" }),
            None => {
                let mut steps = [2, 4].into_iter().chain((0..).map(|doubled| 7 << doubled));
                let step = steps.find(|&step| day * f64::from(step) >= ROOM).unwrap_or(7);
                self.dates(zone, step, pixels(day * f64::from(step)))
            }
        }
    }

    fn seconds(&self) -> f64 {
        self.to.duration_since(self.from).as_secs_f64()
    }

    fn width(&self) -> f64 {
        f64::from(self.area.right - self.area.left)
    }

    /// Times of the day. A time that the change to summer time leaves out has no label, one that comes twice has one.
    fn clock(&self, zone: &TimeZone, step: u16, room: f32) -> Vec<Tick> {
        let marks = self.midnights(zone, 1).into_iter().flat_map(|midnight| {
            let date = zone.to_datetime(midnight).date();
            (0..1440).step_by(usize::from(step)).filter_map(move |minute| {
                let (hour, minute) = (i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?);
                let local = date.at(hour, minute, 0, 0);
                zone.to_timestamp(local).ok().filter(|&at| zone.to_datetime(at) == local)
            })
        });
        marks
            .filter(|&at| self.shows(at))
            .map(|at| {
                let local = zone.to_datetime(at);
                let label = local.strftime(if local.hour() == 0 && local.minute() == 0 { "%a %-d" } else { "%H:%M" });
                Tick { line: Some(self.x(at)), middle: self.x(at), room, label: label.to_string() }
            })
            .collect()
    }

    /// Each day with its label in the middle of what is shown of it: 23 or 25 hours are as wide as they are long.
    fn days(&self, zone: &TimeZone, form: &str) -> Vec<Tick> {
        let midnights = self.midnights(zone, 1);
        let shown = midnights.iter().zip(midnights.iter().skip(1)).filter(|(_, end)| **end > self.from);
        shown
            .map(|(&start, &end)| {
                let (left, right) = (self.x(start.max(self.from)), self.x(end.min(self.to)));
                Tick {
                    line: self.shows(start).then(|| self.x(start)),
                    middle: left.midpoint(right),
                    room: right - left,
                    label: zone.to_datetime(start).strftime(form).to_string(),
                }
            })
            .collect()
    }

    /// One day of several.
    fn dates(&self, zone: &TimeZone, step: i32, room: f32) -> Vec<Tick> {
        self.midnights(zone, step)
            .into_iter()
            .filter(|&at| self.shows(at))
            .map(|at| {
                let label = zone.to_datetime(at).strftime("%-d %b").to_string();
                Tick { line: Some(self.x(at)), middle: self.x(at), room, label }
            })
            .collect()
    }

    /// Beginnings of local days, from the one that holds the left edge to the first after the right one.
    fn midnights(&self, zone: &TimeZone, step: i32) -> Vec<Timestamp> {
        let mut midnights = Vec::new();
        let mut day = Some(zone.to_datetime(self.from).date());
        while let Some(date) = day {
            let Ok(midnight) = zone.to_timestamp(date.at(0, 0, 0, 0)) else { break };
            midnights.push(midnight);
            day = if midnight < self.to { date.checked_add(step.days()).ok() } else { None };
        }
        midnights
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a place in the picture needs no more than single precision")]
fn pixels(value: f64) -> f32 {
    value as f32
}
