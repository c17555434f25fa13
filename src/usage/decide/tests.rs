mod outages;

use proptest::prelude::*;

use super::*;
use crate::usage::bucket::Source;
use crate::usage::simulate::{Mishaps, Recording, simulate};

fn state() -> BucketState {
    BucketState::new("work/weekly_all".parse().unwrap(), Reset::Rolling, None)
}

/// Feeds samples as they come, with a restart after each day of them, and gives the events.
fn told(samples: &[Sample], settings: &Settings) -> Vec<Event> {
    let mut state = state();
    let (mut events, mut closed, mut now) = (Vec::new(), Vec::new(), Timestamp::MIN);
    for (count, sample) in samples.iter().enumerate() {
        if count % 288 == 0 {
            state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        }
        now = now.max(sample.at);
        for event in decide(&mut state, sample, &closed, settings, now) {
            if let News::Closed(window) = &event.news {
                closed.push(window.clone());
            }
            events.push(event);
        }
    }
    events
}

/// Everything that goes wrong in ten weeks, except that the watcher never misses both of two resets.
fn ten_weeks(seed: u64) -> Recording {
    simulate(seed, 10, &Mishaps { refund: 0.3, early: 0.2, drift: 0.3, outage: 0.0, storms: 3.0 })
}

#[test]
fn ten_weeks_give_one_reset_for_each_true_one_at_its_true_time() {
    for seed in 0..3 {
        let recording = ten_weeks(seed);
        let events = told(&recording.samples, &Settings::default());
        let resets: Vec<_> = events
            .iter()
            .filter_map(|event| match &event.news {
                News::Reset { when, confirmed, .. } => Some((*when, *confirmed)),
                _ => None,
            })
            .collect();
        assert_eq!(resets.len(), recording.windows.len(), "seed {seed}: {resets:#?} {:#?}", recording.windows);
        for ((when, confirmed), truth) in resets.iter().zip(&recording.windows) {
            assert!(confirmed);
            match when {
                When::At(at) => assert!(at.duration_since(truth.ended_at).abs() < SignedDuration::from_secs(3)),
                When::Between(after, before) => {
                    assert!(*after <= truth.ended_at && truth.ended_at <= *before, "seed {seed}: {when:?} {truth:?}");
                }
            }
        }
    }
}

#[test]
fn each_name_is_told_once_in_a_cycle_and_alarms_are_few() {
    for estimator in [Estimator::Shrunken, Estimator::Ols6h] {
        for seed in 0..2 {
            let recording = ten_weeks(seed);
            let events = told(&recording.samples, &Settings { estimator, ..Settings::default() });
            let mut names: Vec<_> = events.iter().map(|event| (event.cycle, event.name())).collect();
            let all = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all, "seed {seed}: a name was told twice");
            let alarms = events.iter().filter(|event| matches!(event.news, News::Alarm { .. })).count();
            assert!(alarms <= recording.windows.len() + 1);
        }
    }
}

#[test]
fn windows_are_closed_with_what_they_came_to() {
    let recording = simulate(3, 10, &Mishaps::NONE);
    let events = told(&recording.samples, &Settings::default());
    let closed: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.news {
            News::Closed(window) => Some(window),
            _ => None,
        })
        .collect();
    assert_eq!(closed.len(), 10);
    for (closed, truth) in closed.iter().zip(&recording.windows) {
        assert_eq!(closed.shape, Shape::Scheduled);
        assert_eq!(closed.exhausted_at.is_some(), truth.exhausted_at.is_some());
        assert!((closed.last - truth.demand.min(100.0)).abs() <= 1.5, "{closed:?} {truth:?}");
        assert!(closed.started_at.duration_since(truth.started_at).abs() < SignedDuration::from_secs(3));
    }
}

fn sample(hour: i64, percent: f64) -> Sample {
    let start = Timestamp::from_second(1_800_000_000).unwrap();
    Sample {
        at: start + SignedDuration::from_hours(hour),
        percent,
        resets_at: Some(start + SignedDuration::from_hours(168)),
        source: Source::AnthropicOauth,
        owner: None,
        amount: None,
    }
}

fn names(events: &[Event]) -> Vec<String> {
    events.iter().map(Event::name).filter(|name| !name.starts_with("predicted")).collect()
}

#[test]
fn a_week_reads_as_a_story() {
    let weeks = [(1, 3.0), (20, 20.0), (30, 51.0), (31, 55.0), (40, 81.0), (50, 96.0), (60, 100.0), (61, 100.0)];
    let samples: Vec<_> = weeks.iter().map(|(hour, percent)| sample(*hour, *percent)).collect();
    let events = told(&samples, &Settings::default());
    assert_eq!(
        names(&events),
        ["armed", "crossed-50", "alarm", "crossed-80", "escalated-24h", "crossed-95", "escalated-6h", "crossed-100"]
    );
    assert!(events.iter().all(|event| event.cycle == events[0].cycle));
}

#[test]
fn a_watch_that_begins_just_below_a_threshold_tells_it() {
    let samples = [sample(160, 79.0), sample(161, 81.0)];
    assert_eq!(names(&told(&samples, &Settings::default())), ["armed", "crossed-50", "crossed-80"]);
}

#[test]
fn a_watch_that_begins_above_thresholds_tells_the_highest_once() {
    let samples = [sample(160, 96.0), sample(161, 96.0), sample(162, 97.0), sample(163, 100.0)];
    assert_eq!(names(&told(&samples, &Settings::default())), ["armed", "crossed-95", "crossed-100"]);
    let mut state = BucketState::new("work/session".parse().unwrap(), Reset::Rolling, None);
    let events = decide(&mut state, &sample(160, 96.0), &[], &Settings::default(), sample(160, 0.0).at);
    assert_eq!(names(&events), ["armed"], "a session is quiet until it is full");
}

#[test]
fn a_first_push_of_a_window_that_is_over_begins_nothing() {
    let mut state = state();
    let old = Sample { source: Source::Push, ..sample(170, 96.0) };
    assert_eq!(decide(&mut state, &old, &[], &Settings::default(), old.at), []);
    assert_eq!(state.cycle, None);
}

#[test]
fn a_raised_limit_is_no_reset_and_its_thresholds_are_told_anew() {
    let mut state = BucketState::new("work/extra".parse().unwrap(), Reset::Calendar, None);
    let mut events = Vec::new();
    for (hour, amount, limit) in [(1, 10.0, 50.0), (2, 42.0, 50.0), (3, 42.0, 100.0), (4, 85.0, 100.0)] {
        let percent = amount / limit * 100.0;
        let sample = Sample { resets_at: None, amount: Some(amount), ..sample(hour, percent) };
        events.extend(decide(&mut state, &sample, &[], &Settings::default(), sample.at));
    }
    assert_eq!(names(&events), ["armed", "crossed-80", "raised-1", "crossed-80-raised-1"]);
}

#[test]
fn what_a_raised_limit_leaves_over_a_threshold_is_told_again() {
    let mut state = BucketState::new("work/extra".parse().unwrap(), Reset::Calendar, None);
    let mut events = Vec::new();
    for (hour, limit) in [(1, 50.0), (2, 50.0), (3, 60.0), (4, 60.0)] {
        let sample = Sample { resets_at: None, amount: Some(50.0), ..sample(hour, 50.0 / limit * 100.0) };
        events.extend(decide(&mut state, &sample, &[], &Settings::default(), sample.at));
    }
    assert_eq!(names(&events), ["armed", "crossed-100", "raised-1", "crossed-80-raised-1"]);
}

#[test]
fn a_state_of_an_earlier_version_is_read() {
    let mut now = state();
    decide(&mut now, &sample(1, 60.0), &[], &Settings::default(), sample(1, 0.0).at);
    let mut earlier = serde_json::to_value(&now).unwrap();
    let window = earlier["cycle"]["window"].as_object_mut().unwrap();
    for later in ["switched", "given_back", "amount", "owner", "baseline"] {
        window.remove(later).expect("it is kept");
    }
    earlier.as_object_mut().unwrap().remove("raises").expect("it is kept");
    let alarm = earlier["alarm"].as_object_mut().unwrap();
    alarm.remove("steps").expect("it is kept");
    assert_eq!(serde_json::from_value::<BucketState>(earlier).unwrap(), now);
}

#[test]
fn a_part_given_back_closes_the_window_and_tells_nothing_twice() {
    let values = [(150, 60.0), (151, 82.0), (152, 79.0), (153, 74.5), (154, 74.5), (155, 81.0)];
    let samples: Vec<_> = values.iter().map(|(hour, percent)| sample(*hour, *percent)).collect();
    let events = told(&samples, &Settings::default());
    assert_eq!(
        names(&events),
        ["armed", "crossed-50", "crossed-80"],
        "79 and 74.5 are each a correction of less than 5 points"
    );
    let values = [(150, 60.0), (151, 82.0), (153, 76.0), (154, 76.0), (155, 81.0)];
    let samples: Vec<_> = values.iter().map(|(hour, percent)| sample(*hour, *percent)).collect();
    let events = told(&samples, &Settings::default());
    let reset = events.iter().find_map(|event| match &event.news {
        News::Reset { shape, when, before, .. } => Some((*shape, *when, *before)),
        _ => None,
    });
    let between = When::Between(sample(151, 0.0).at, sample(153, 0.0).at);
    assert_eq!(reset, Some((Shape::EarlyUnchanged, between, 82.0)));
}

#[test]
fn a_session_is_quiet_until_it_blocks_and_nothing_is_foretold() {
    let mut state = BucketState::new("work/session".parse().unwrap(), Reset::Rolling, None);
    let mut events = Vec::new();
    for (minute, percent) in [(1, 3.0), (60, 60.0), (90, 90.0), (120, 100.0)] {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let at = start + SignedDuration::from_mins(minute);
        let sample = Sample { at, resets_at: Some(start + SignedDuration::from_hours(5)), ..sample(0, percent) };
        events.extend(decide(&mut state, &sample, &[], &Settings::default(), at));
    }
    assert_eq!(events.iter().map(Event::name).collect::<Vec<_>>(), ["armed", "crossed-100"]);
}

#[test]
fn another_account_is_told_and_is_no_reset() {
    let owned = |owner: &str, sample: Sample| Sample { owner: Some(owner.to_owned()), ..sample };
    let samples = [
        owned("a", sample(1, 60.0)),
        owned("a", sample(2, 60.0)),
        owned("b", sample(3, 82.0)),
        owned("b", sample(4, 82.0)),
    ];
    let events = told(&samples, &Settings::default());
    assert_eq!(names(&events), ["armed", "crossed-50", "closed", "switched", "crossed-80"]);
}

#[test]
fn an_account_that_comes_back_is_told_anew() {
    let owned = |owner: &str, hour: i64| Sample { owner: Some(owner.to_owned()), ..sample(hour, 82.0) };
    let turns = ["a", "a", "b", "b", "a", "a", "b", "b", "a", "a"];
    let samples: Vec<_> = (1..).zip(turns).map(|(hour, owner)| owned(owner, hour)).collect();
    let events = told(&samples, &Settings::default());
    let crossed: Vec<_> = events.iter().filter(|event| event.name() == "crossed-80").map(|event| event.cycle).collect();
    assert_eq!(crossed.len(), 5);
    let distinct: std::collections::BTreeSet<_> = crossed.iter().collect();
    assert_eq!(distinct.len(), 5, "what is told of one cycle is told once: {crossed:?}");
}

#[test]
fn samples_from_the_future_are_not_believed() {
    let mut state = state();
    let now = sample(10, 0.0).at;
    assert_eq!(decide(&mut state, &sample(11, 50.0), &[], &Settings::default(), now), []);
    assert_eq!(state.cycle, None);
    decide(&mut state, &sample(11, 50.0), &[], &Settings::default(), sample(11, 0.0).at);
    // The clock is set right again: what comes now counts.
    let events = decide(&mut state, &sample(10, 80.0), &[], &Settings::default(), now);
    assert_eq!(names(&events), ["crossed-80"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn samples_said_again_later_change_nothing(seed in 0..1000_u64, picks in prop::collection::vec((0..2000_usize, 1..300_usize), 0..40)) {
        let recording = simulate(seed, 1, &Mishaps { refund: 0.5, early: 0.5, drift: 0.5, outage: 0.0, storms: 2.0 });
        let mut repeated: Vec<(usize, &Sample)> = recording.samples.iter().enumerate().collect();
        repeated.extend(picks.iter().filter_map(|(at, later)| Some((at + later, recording.samples.get(*at)?))));
        repeated.sort_by_key(|(place, _)| *place);
        let repeated: Vec<Sample> = repeated.into_iter().map(|(_, sample)| sample.clone()).collect();
        let settings = Settings::default();
        prop_assert_eq!(told(&recording.samples, &settings), told(&repeated, &settings));
    }
}
