//! What is in the picture, read back from its pixels, and what its words say.

mod axis;
mod picture;
mod words;

use jiff::ToSpan as _;

use super::*;

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn zone() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

/// A day of UTC without anything in it.
fn blank() -> Chart {
    Chart {
        title: "Weekly, all models".to_owned(),
        label: "work".to_owned(),
        from: at("2026-09-15T00:00:00Z"),
        to: at("2026-09-16T00:00:00Z"),
        now: at("2026-09-16T00:00:00Z"),
        zone: TimeZone::UTC,
        interval: SignedDuration::from_hours(1),
        points: vec![],
        resets: vec![],
        window: None,
        even_pace: true,
        thresholds: vec![],
        projection: None,
    }
}

/// Samples at these hours of the blank day.
fn sampled(samples: &[(i64, f64)]) -> Chart {
    let point = |&(hour, percent): &(i64, f64)| Point { at: blank().from + hour.hours(), percent };
    Chart { points: samples.iter().map(point).collect(), ..blank() }
}

/// Somebody's week in Berlin with everything that a chart can show: the picture in the documentation.
fn week() -> Chart {
    let (from, reset) = (at("2026-09-09T06:00:00Z"), at("2026-09-10T12:00:00Z"));
    let (now, to) = (at("2026-09-15T07:40:00Z"), at("2026-09-17T12:00:00Z"));
    let missing = at("2026-09-12T15:00:00Z")..at("2026-09-13T06:00:00Z");
    let (mut points, mut used, mut noise, mut time) = (Vec::new(), 66.0_f64, 7_u32, from);
    while time <= now {
        if time >= reset && time - 5.minutes() < reset {
            used = 0.0;
        }
        let local = zone().to_datetime(time);
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if (9..13).contains(&local.hour()) || (14..20).contains(&local.hour()) {
            let weekend = local.weekday().to_monday_zero_offset() >= 5;
            used += if weekend { 0.05 } else { 0.16 } * f64::from(noise >> 24) / 128.0;
        }
        if !missing.contains(&time) {
            points.push(Point { at: time, percent: used.floor() });
        }
        time += 5.minutes();
    }
    let projection = Projection {
        from: *points.last().unwrap(),
        to,
        low: Outlook::Percent(74.0),
        median: Outlook::Percent(92.0),
        high: Outlook::Full(at("2026-09-16T15:00:00Z")),
    };
    Chart {
        from,
        to,
        now,
        zone: zone(),
        interval: SignedDuration::from_mins(5),
        points,
        resets: vec![reset],
        window: Some(Window { start: reset, end: to }),
        thresholds: vec![75.0, 90.0],
        projection: Some(projection),
        ..blank()
    }
}

#[test]
fn a_line_joins_neither_over_a_gap_nor_over_a_reset() {
    let mut chart = sampled(&[(9, 4.0), (0, 1.0), (3, 2.0), (7, 3.0), (10, f64::NAN), (30, 9.0)]);
    let lengths = |chart: &Chart| chart.stretches().iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(lengths(&chart), [2, 2], "in time order; three intervals are joined, four are a gap");
    chart.resets = vec![chart.from + 8.hours()];
    assert_eq!(lengths(&chart), [2, 1, 1]);
    chart.resets = vec![chart.from + 9.hours()];
    assert_eq!(lengths(&chart), [2, 1, 1], "a sample at the time of the reset is the first of the new window");
    chart.resets = vec![chart.from + 7.hours()];
    assert_eq!(lengths(&chart), [2, 2]);
}

#[test]
fn a_path_is_straight_until_it_is_full() {
    let projection = Projection {
        from: Point { at: at("2026-09-15T00:00:00Z"), percent: 50.0 },
        to: at("2026-09-15T10:00:00Z"),
        low: Outlook::Percent(80.0),
        median: Outlook::Percent(150.0),
        high: Outlook::Full(at("2026-09-15T02:00:00Z")),
    };
    let path = |outlook| {
        let hours = |point: &Point| point.at.duration_since(projection.from.at).as_secs_f64() / 3600.0;
        projection.path(outlook).iter().map(|point| (hours(point), point.percent)).collect::<Vec<_>>()
    };
    assert_eq!(path(projection.low), [(0.0, 50.0), (10.0, 80.0)]);
    assert_eq!(path(projection.median), [(0.0, 50.0), (5.0, 100.0), (10.0, 100.0)]);
    assert_eq!(path(projection.high), [(0.0, 50.0), (2.0, 100.0), (10.0, 100.0)]);
    let late = Outlook::Full(at("2026-09-15T20:00:00Z"));
    assert_eq!(path(late), [(0.0, 50.0), (10.0, 75.0)], "full after the end: half of the way is done by then");
    assert_eq!(path(Outlook::Percent(f64::INFINITY)), [(0.0, 50.0), (10.0, 50.0)]);
    let used_up = Projection { from: Point { percent: 104.0, ..projection.from }, ..projection };
    assert_eq!(used_up.path(projection.low).iter().map(|point| point.percent).collect::<Vec<_>>(), [104.0, 104.0]);
    assert!(used_up.end(projection.low) <= FULL);
}

#[test]
fn a_chart_without_time_says_so() {
    let chart = Chart { to: blank().from, ..blank() };
    let error = png(&chart).unwrap_err().to_string();
    assert!(error.contains("its end must come after its beginning"), "{error}");
    assert!(alternative(&chart).contains("no data"));
}
