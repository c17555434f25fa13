use super::*;
use crate::usage::bucket::{Reading, Snapshot, Source};
use crate::usage::cycle;
use crate::usage::decide::{News, Settings, decide};
use crate::usage::simulate::{Mishaps, simulate};
use crate::usage::source::answer;

fn at(hour: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + hour * 3600).unwrap()
}

/// A week from hour 0 to hour 168, as the endpoint says it.
fn said(hour: i64, kind: &str, percent: f64) -> Snapshot {
    let limit = serde_json::json!({"kind": kind, "percent": percent, "resets_at": at(168).to_string(), "scope": null});
    answer::decode("work", Source::AnthropicOauth, at(hour), None, &serde_json::json!({"limits": [limit]})).unwrap()
}

/// What is decided after these values, and the samples that the store would have.
fn watched(kind: &str, values: &[(i64, f64)]) -> (BucketState, Vec<Sample>) {
    let reading = |snapshot: &Snapshot| -> Reading { snapshot.readings[0].clone() };
    let mut state = BucketState::of(&reading(&said(0, kind, 0.0)));
    let mut samples = Vec::new();
    for (hour, percent) in values {
        let snapshot = said(*hour, kind, *percent);
        let sample = cycle::Sample::of(&snapshot, &reading(&snapshot)).unwrap();
        decide(&mut state, &sample, &[], &Settings::default(), at(*hour));
        samples.push(Sample {
            bucket: state.bucket.to_string(),
            at: at(*hour),
            source: Source::AnthropicOauth.word().to_owned(),
            percent: *percent,
            resets_at: sample.resets_at,
        });
    }
    (state, samples)
}

fn view<'a>(
    state: &'a BucketState,
    samples: &'a [Sample],
    closed: &'a [ClosedWindow],
    estimator: Estimator,
) -> View<'a> {
    let interval = SignedDuration::from_mins(5);
    View { state, title: "Week", samples, closed, estimator, thresholds: &[50.0, 80.0, 100.0], interval }
}

fn draw(view: &View<'_>, now: i64) -> Chart {
    view.chart(SignedDuration::from_hours(72), &TimeZone::UTC, at(now))
}

#[test]
fn a_week_is_drawn_to_its_reset_with_what_is_expected_of_it() {
    let (state, samples) = watched("weekly_all", &[(1, 1.0), (20, 20.0), (40, 40.0), (60, 60.0)]);
    let chart = draw(&view(&state, &samples, &[], Estimator::Shrunken), 60);
    assert_eq!((chart.title.as_str(), chart.label.as_str()), ("Week", "work"));
    assert_eq!((chart.from, chart.to, chart.now), (at(-12), at(168), at(60)));
    assert_eq!(chart.window, Some(Window { start: at(0), end: at(168) }));
    assert!(chart.even_pace);
    // 100 has a line of its own.
    assert_eq!(chart.thresholds, [50.0, 80.0]);
    assert_eq!(chart.points.len(), samples.len());
    let projection = chart.projection.unwrap();
    assert_eq!((projection.from, projection.to), (Point { at: at(60), percent: 60.0 }, at(168)));
    // A point an hour: it runs out in the middle, and the path of much use is full earlier than that of little use.
    let (Outlook::Full(median), Outlook::Full(early)) = (projection.median, projection.high) else {
        panic!("it runs out: {projection:?}")
    };
    assert!(at(60) < early && early < median && median < at(168), "{projection:?}");
    assert!(!matches!(projection.low, Outlook::Full(late) if late < median), "{projection:?}");
}

#[test]
fn a_straight_line_that_lasts_ends_where_it_is() {
    let (state, samples) = watched("weekly_all", &[(1, 1.0), (57, 10.0), (58, 10.0), (59, 10.0), (60, 10.0)]);
    let chart = draw(&view(&state, &samples, &[], Estimator::Ols6h), 60);
    let projection = chart.projection.expect("a forecast");
    for path in [projection.low, projection.median, projection.high] {
        assert!(matches!(path, Outlook::Percent(percent) if percent <= 100.0), "{projection:?}");
    }
}

#[test]
fn a_window_that_is_over_by_now_has_no_end_and_no_forecast() {
    let (state, samples) = watched("weekly_all", &[(1, 1.0), (20, 20.0)]);
    let chart = draw(&view(&state, &samples, &[], Estimator::Shrunken), 169);
    assert_eq!((chart.window, chart.to), (None, at(169)));
    assert_eq!(chart.projection, None);
}

#[test]
fn a_short_window_has_neither_even_pace_nor_forecast() {
    let (state, samples) = watched("session", &[(165, 10.0), (166, 40.0)]);
    let chart = draw(&view(&state, &samples, &[], Estimator::Shrunken), 166);
    assert!(!chart.even_pace && chart.projection.is_none());
    assert_eq!(chart.window.map(|window| window.end), Some(at(168)));
}

#[test]
fn the_freshest_value_is_drawn_even_where_no_sample_of_it_was_stored() {
    let (state, samples) = watched("weekly_all", &[(1, 1.0), (20, 20.0), (40, 40.0)]);
    let chart = draw(&view(&state, &samples[..2], &[], Estimator::Shrunken), 41);
    assert_eq!(chart.points.last(), Some(&Point { at: at(40), percent: 40.0 }));
    assert_eq!(chart.points.len(), 3);
    // Nothing at all is a picture, too.
    let (state, samples) = watched("weekly_all", &[]);
    let chart = draw(&view(&state, &samples, &[], Estimator::Shrunken), 41);
    assert!(chart.points.is_empty() && chart.window.is_none() && chart.to == at(41));
}

#[test]
fn resets_within_the_picture_are_marked_and_earlier_ones_not() {
    let mut state = watched("weekly_all", &[]).0;
    let mut windows = Vec::new();
    let mut latest = None;
    for sample in simulate(1, 3, &Mishaps::NONE).samples {
        latest = Some(sample.at);
        for event in decide(&mut state, &sample, &[], &Settings::default(), sample.at) {
            if let News::Closed(window) = event.news {
                windows.push(window);
            }
        }
    }
    assert!(windows.len() >= 2);
    let now = latest.unwrap();
    let last = windows.last().unwrap().ended_at;
    let chart = view(&state, &[], &windows, Estimator::Shrunken).chart(
        now.duration_since(last) + SignedDuration::from_hours(1),
        &TimeZone::UTC,
        now,
    );
    assert_eq!(chart.resets, [last]);
}

#[test]
fn the_picture_is_of_the_fullest_week_else_of_the_fullest() {
    let of = |kind: &str, percent: f64| watched(kind, &[(160, percent)]).0;
    let states = [of("session", 90.0), of("weekly_all", 20.0), of("weekly_all", 30.0), of("weekly_all", 10.0)];
    assert_eq!(foremost(&states), Some(&states[2]));
    let short = [of("session", 20.0), of("session", 90.0), of("session", 10.0)];
    assert_eq!(foremost(&short), Some(&short[1]));
    assert_eq!(foremost(&[]), None);
}
