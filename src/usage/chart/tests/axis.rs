use super::super::axis::{Scale, Tick};
use super::super::canvas::Area;
use super::*;

/// Ticks on an axis of 960 pixels.
fn ticks(from: &str, to: &str, zone: &TimeZone) -> Vec<Tick> {
    let area = Area { left: 100.0, top: 0.0, right: 1060.0, bottom: 100.0 };
    Scale::new((at(from), at(to)), area, 100.0).ticks(zone)
}

fn labels(ticks: &[Tick]) -> Vec<&str> {
    ticks.iter().map(|tick| tick.label.as_str()).collect()
}

#[test]
fn labels_are_in_local_time_and_as_fine_as_there_is_room() {
    let zone = zone();
    let five_hours = ticks("2026-09-15T04:10:00Z", "2026-09-15T09:10:00Z", &zone);
    assert_eq!(labels(&five_hours), ["07:00", "08:00", "09:00", "10:00", "11:00"]);
    let two_days = ticks("2026-09-15T04:10:00Z", "2026-09-17T04:10:00Z", &zone);
    assert_eq!(
        labels(&two_days),
        ["12:00", "18:00", "Wed 16", "06:00", "12:00", "18:00", "Thu 17", "06:00"],
        "midnight has the name of the day that begins"
    );
    let week = ticks("2026-09-10T12:00:00Z", "2026-09-17T12:00:00Z", &zone);
    assert_eq!(labels(&week), ["Thu 10", "Fri 11", "Sat 12", "Sun 13", "Mon 14", "Tue 15", "Wed 16", "Thu 17"]);
    assert_eq!(week[0].line, None, "this day began before the picture");
    let ten_days = ticks("2026-09-06T22:00:00Z", "2026-09-16T22:00:00Z", &zone);
    assert_eq!(labels(&ten_days)[..3], ["Mon", "Tue", "Wed"]);
    let month = ticks("2026-08-16T00:00:00Z", "2026-09-15T00:00:00Z", &zone);
    assert_eq!(labels(&month)[..3], ["20 Aug", "24 Aug", "28 Aug"]);
    let years = ticks("2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z", &zone);
    assert!((2..=8).contains(&years.len()), "{years:?}");
    let minutes = ticks("2026-09-15T04:10:00Z", "2026-09-15T04:12:00Z", &zone);
    assert_eq!(labels(&minutes), ["06:10", "06:11", "06:12"]);
}

#[test]
fn a_day_is_as_wide_as_it_is_long() {
    let zone = zone();
    let widths = |from, to| {
        let lines: Vec<f32> = ticks(from, to, &zone).iter().filter_map(|tick| tick.line).collect();
        lines.windows(2).map(|pair| (pair[1] - pair[0]) / 960.0 * 7.0 * 24.0).map(f32::round).collect::<Vec<_>>()
    };
    let spring = widths("2026-03-26T12:00:00Z", "2026-04-02T12:00:00Z");
    assert_eq!(spring, [24.0, 24.0, 23.0, 24.0, 24.0, 24.0], "summer time begins on Sunday the 29th");
    let autumn = widths("2026-10-22T12:00:00Z", "2026-10-29T12:00:00Z");
    assert_eq!(autumn, [24.0, 24.0, 25.0, 24.0, 24.0, 24.0], "and ends on Sunday the 25th of October");
}

#[test]
fn the_hour_that_is_left_out_has_no_label_and_the_one_that_comes_twice_has_one() {
    let zone = zone();
    let spring = ticks("2026-03-28T23:00:00Z", "2026-03-29T03:00:00Z", &zone);
    assert_eq!(labels(&spring), ["Sun 29", "00:30", "01:00", "01:30", "03:00", "03:30", "04:00", "04:30", "05:00"]);
    let steps: Vec<f32> = spring.windows(2).map(|pair| pair[1].middle - pair[0].middle).collect();
    assert!(steps.iter().all(|step| (step - 120.0).abs() < 0.01), "{steps:?}");
    let autumn = ticks("2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z", &zone);
    assert_eq!(labels(&autumn), ["01:00", "01:30", "02:00", "02:30", "03:00", "03:30", "04:00"]);
    assert!((autumn[4].middle - autumn[3].middle - 360.0).abs() < 0.01, "an hour and a half from 02:30 to 03:00");
}

#[test]
fn a_day_that_begins_at_one_has_its_line_there() {
    let zone = TimeZone::get("Africa/Cairo").unwrap();
    let days = ticks("2026-04-20T22:00:00Z", "2026-04-27T21:00:00Z", &zone);
    assert_eq!(labels(&days), ["Tue 21", "Wed 22", "Thu 23", "Fri 24", "Sat 25", "Sun 26", "Mon 27"]);
}
