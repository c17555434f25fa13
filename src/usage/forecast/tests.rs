use proptest::prelude::*;

use super::*;
use crate::usage::cycle::Shape;

const COLD: Prior = Prior { rate: 100.0 / 168.0, weeks: 0 };
/// The law as it was first written down, without the correction.
const PLAIN: Law = Law { weight: 36.0, spread: 1.0, lead: 0.7, grain: 6.0, least: 1.0, slope: 1.0, shift: 0.0 };

fn at_hour(elapsed: f64, used: f64) -> Progress {
    Progress { used, burned: used, elapsed, remaining: 168.0 - elapsed, length: 168.0 }
}

fn probability(law: &Law, progress: &Progress, prior: &Prior) -> f64 {
    law.runs_out_within(progress, prior, progress.remaining)
}

#[test]
fn the_law_is_what_it_says() {
    // Worked out by hand: m = (50 + ½ + 36·100/168) / (60 + 36) · 108 = 80.92, s² = 1 / (2.5 + 0.7) + 6 / m = 0.3866.
    let p = probability(&PLAIN, &at_hour(60.0, 50.0), &COLD);
    let (mean, variance) = ((50.5 + 36.0 * 100.0 / 168.0) / 96.0 * 108.0_f64, 1.0 / 3.2);
    let variance = variance + 6.0 / mean;
    let distance = ((50.0 / mean).ln() + variance / 2.0) / variance.sqrt();
    assert!((p - (1.0 - normal(distance))).abs() < 1e-12);
    assert!((0.6..0.7).contains(&p), "{p}");
}

#[test]
fn what_is_used_up_has_run_out() {
    for used in [100.0, 104.2] {
        assert!((probability(&Law::COLD, &at_hour(30.0, used), &COLD) - 1.0).abs() < 1e-12);
    }
}

#[test]
fn a_young_window_is_not_certain_of_anything() {
    let young = probability(&Law::COLD, &at_hour(12.0, 0.0), &COLD);
    assert!((0.1..0.6).contains(&young), "{young}");
}

fn closed(last: f64, hours: i64, exhausted: Option<i64>, shape: Shape) -> ClosedWindow {
    let start = Timestamp::from_second(1_800_000_000).unwrap();
    ClosedWindow {
        bucket: "a/weekly_all".parse().unwrap(),
        started_at: start,
        ended_at: start + SignedDuration::from_hours(hours),
        last,
        exhausted_at: exhausted.map(|hour| start + SignedDuration::from_hours(hour)),
        shape,
    }
}

#[test]
fn a_week_that_ran_out_teaches_its_true_rate() {
    let weeks = [
        closed(84.0, 168, None, Shape::Scheduled),
        closed(100.0, 168, Some(50), Shape::Scheduled),
        closed(90.0, 168, None, Shape::Switched),
        closed(30.0, 12, None, Shape::EarlyMoved),
    ];
    let prior = Prior::learned(&weeks, 168.0);
    assert_eq!(prior.weeks, 2);
    assert!((prior.rate - f64::midpoint(0.5, 2.0)).abs() < 1e-9);
    assert_eq!(Prior::learned(&[], 168.0), COLD);
}

fn window(hours: i64, percent: f64) -> Window {
    let start = Timestamp::from_second(1_800_000_000).unwrap();
    let sample = crate::usage::cycle::Sample {
        at: start + SignedDuration::from_hours(hours),
        percent,
        resets_at: Some(start + SignedDuration::from_hours(168)),
        source: crate::usage::Source::AnthropicOauth,
        owner: None,
        amount: None,
    };
    let frame = crate::usage::cycle::Frame { length: Some(SignedDuration::from_hours(168)), ..Default::default() };
    crate::usage::cycle::Cycle::found(&sample, &frame).window
}

#[test]
fn the_outlook_says_when_there_is_none() {
    let week = Some(SignedDuration::from_hours(168));
    assert_eq!(outlook(&window(5, 0.0), week, &[]), Outlook::TooEarly);
    assert_eq!(outlook(&window(5, 100.0), week, &[]), Outlook::Exhausted);
    assert_eq!(outlook(&window(30, 50.0), None, &[]), Outlook::NoResetKnown);
    let endless = Window { ends_at: None, ..window(30, 50.0) };
    assert_eq!(outlook(&endless, week, &[]), Outlook::NoResetKnown);
    let over = Window { ends_at: Some(window(30, 50.0).latest().at), ..window(30, 50.0) };
    assert_eq!(outlook(&over, week, &[]), Outlook::NoResetKnown);
}

#[test]
fn the_range_is_in_order_and_its_far_end_may_lie_after_the_reset() {
    let week = Some(SignedDuration::from_hours(168));
    let heavy = window(48, 80.0);
    let Outlook::Known(forecast) = outlook(&heavy, week, &[]) else { panic!() };
    let (low, median) = (forecast.low.unwrap(), forecast.median.unwrap());
    assert!(heavy.latest().at < low && low < median);
    assert!(forecast.high.is_none_or(|high| median < high));
    let Outlook::Known(light) = outlook(&window(120, 30.0), week, &[]) else { panic!() };
    assert_eq!((light.median, light.high), (None, None));
}

proptest! {
    #[test]
    fn probability_is_one_and_grows_with_use(
        elapsed in 0.0..167.0_f64, used in 0.0..100.0_f64, more in 0.0..50.0_f64, rate in 0.01..3.0_f64, weeks in 0..5_u32,
    ) {
        let prior = Prior { rate, weeks };
        let law = Law::for_prior(&prior);
        let less = probability(law, &at_hour(elapsed, used), &prior);
        let more = probability(law, &at_hour(elapsed, (used + more).min(100.0)), &prior);
        prop_assert!((0.0..=1.0).contains(&less), "{less}");
        prop_assert!(more >= less - 1e-9, "{more} < {less}");
    }

    #[test]
    fn probability_grows_with_the_horizon(
        elapsed in 0.0..160.0_f64, used in 0.0..100.0_f64, near in 0.0..1.0_f64, rate in 0.01..3.0_f64, weeks in 0..5_u32,
    ) {
        let prior = Prior { rate, weeks };
        let progress = at_hour(elapsed, used);
        let law = Law::for_prior(&prior);
        let sooner = law.runs_out_within(&progress, &prior, progress.remaining * near);
        prop_assert!(sooner <= probability(law, &progress, &prior) + 1e-9);
    }

    #[test]
    fn ranges_are_in_order(elapsed in 12.0..167.0_f64, used in 0.0..100.0_f64, rate in 0.01..3.0_f64, weeks in 0..5_u32) {
        let prior = Prior { rate, weeks };
        let progress = at_hour(elapsed, used);
        let law = Law::for_prior(&prior);
        let times: Vec<f64> = [0.1, 0.5, 0.9].iter().filter_map(|share| law.passage(&progress, &prior, *share)).collect();
        prop_assert!(times.windows(2).all(|pair| pair[0] <= pair[1] + 1e-6), "{times:?}");
        prop_assert_eq!(times.len() > 1, probability(law, &progress, &prior) >= 0.5);
    }
}
