use serde_json::json;

use super::*;
use crate::usage::bucket::Source;
use crate::usage::cycle::Sample;
use crate::usage::decide::{Settings, decide};
use crate::usage::source::answer;

const INTERVAL: SignedDuration = SignedDuration::from_mins(5);

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
}

/// An answer of a source at a minute; the week ends three days after the beginning.
fn said(source: Source, minute: i64, percent: f64) -> Snapshot {
    let end = at(3 * 24 * 60).to_string();
    let week = json!({"kind": "weekly_all", "percent": percent, "resets_at": end, "scope": null});
    answer::decode("work", source, at(minute), None, &json!({"limits": [week]})).unwrap()
}

/// What is decided after these answers.
fn decided(answers: &[Snapshot]) -> Vec<BucketState> {
    let mut state = BucketState::of(&answers[0].readings[0]);
    for answer in answers {
        let sample = Sample::of(answer, &answer.readings[0]).unwrap();
        decide(&mut state, &sample, &[], &Settings::default(), answer.at);
    }
    vec![state]
}

fn shown(snapshot: &Snapshot, states: &[BucketState]) -> Watched {
    Watched::new("work", Some(snapshot.clone()), states, &[], (Estimator::Shrunken, INTERVAL))
}

#[test]
fn of_two_sources_of_an_account_the_fresher_value_is_shown_with_its_own_age() {
    let (endpoint, pushed) = (said(Source::AnthropicOauth, 0, 40.0), said(Source::Push, 4, 52.0));
    let states = decided(&[endpoint.clone(), pushed]);
    let watched = shown(&endpoint, &states);
    assert_eq!((watched.buckets[0].reading.used, watched.buckets[0].at), (52.0, at(4)));
    assert_eq!(watched.age(at(5)), Some(SignedDuration::from_mins(1)));
    // And the endpoint's, where it is the fresher one.
    let later = said(Source::AnthropicOauth, 6, 53.0);
    let states = decided(&[endpoint, said(Source::Push, 4, 52.0), later.clone()]);
    let watched = shown(&later, &states);
    assert_eq!((watched.buckets[0].reading.used, watched.buckets[0].at), (53.0, at(6)));
}

#[test]
fn what_is_decided_stands_beside_what_was_said() {
    let answers: Vec<Snapshot> = (0..24)
        .map(|hour| said(Source::AnthropicOauth, hour * 60, 10.0 + 2.0 * f64::from(i32::try_from(hour).unwrap())))
        .collect();
    let watched = shown(answers.last().unwrap(), &decided(&answers));
    let bucket = &watched.buckets[0];
    assert!(bucket.outlook.forecast().is_some(), "{bucket:?}");
    let (pace, burn) = (bucket.pace.unwrap(), bucket.burn.unwrap());
    assert!((pace.used - 56.0).abs() < 0.01 && (pace.even - 71.0).abs() < 1.5, "of 168 hours 119 are over: {pace:?}");
    assert!((burn - 2.0).abs() < 0.01, "{burn}");
    // A bucket of which nothing is decided is shown all the same.
    let bare = shown(answers.last().unwrap(), &[]);
    assert_eq!((bare.buckets[0].reading.used, &bare.buckets[0].outlook), (56.0, &Outlook::NoResetKnown));
    assert!(bare.buckets[0].pace.is_none() && bare.buckets[0].burn.is_none());
}

#[test]
fn numbers_are_stale_after_three_intervals_and_none_are_stale_at_once() {
    let answer = said(Source::AnthropicOauth, 0, 40.0);
    let watched = shown(&answer, &decided(std::slice::from_ref(&answer)));
    assert!(!watched.is_stale(at(15)) && watched.is_stale(at(16)));
    let nothing = Watched::new("work", None, &[], &[], (Estimator::Shrunken, INTERVAL));
    assert!(nothing.is_stale(at(0)) && nothing.age(at(0)).is_none() && nothing.buckets.is_empty());
}

#[test]
fn a_bucket_has_its_own_closed_windows_alone() {
    let of_work: Bucket = "work/weekly_all".parse().unwrap();
    let of_home: Bucket = "home/weekly_all".parse().unwrap();
    let recording = crate::usage::simulate::simulate(1, 2, &crate::usage::simulate::Mishaps::NONE);
    let mut state = BucketState::new(of_work.clone(), crate::usage::bucket::Reset::Rolling, None);
    let mut closed = Vec::new();
    for sample in &recording.samples {
        for event in decide(&mut state, sample, &[], &Settings::default(), sample.at) {
            if let crate::usage::decide::News::Closed(window) = event.news {
                closed.push(ClosedWindow { bucket: of_home.clone(), ..window.clone() });
                closed.push(window);
            }
        }
    }
    assert!(of(&of_work, &closed).iter().all(|window| window.bucket == of_work));
    assert_eq!(of(&of_work, &closed).len() * 2, closed.len());
}

#[test]
fn of_a_workstation_that_tells_of_one_limit_the_other_stays_until_its_window_ends() {
    let end = 3 * 24 * 60;
    let (both, one) = (said(Source::Push, 0, 40.0), said(Source::Push, 5, 41.0));
    let mut session = both.readings[0].clone();
    session.bucket = "work/session".parse().unwrap();
    session.resets_at = Some(at(300));
    let both = Snapshot { readings: vec![both.readings[0].clone(), session.clone()], ..both };
    let words = |snapshot: &Snapshot| -> Vec<(String, f64)> {
        snapshot.readings.iter().map(|reading| (reading.bucket.to_string(), reading.used)).collect()
    };
    let decided: Vec<Bucket> = both.readings.iter().map(|reading| reading.bucket.clone()).collect();
    let joined_to = |told: &Snapshot| words(&joined(told, Some(both.clone()), &decided));
    let (week, five_hours) = (|used| ("work/weekly_all".to_owned(), used), ("work/session".to_owned(), 40.0));
    assert_eq!(joined_to(&one), [week(41.0), five_hours.clone()]);
    assert_eq!(joined_to(&both), [week(40.0), five_hours]);
    assert_eq!(joined_to(&said(Source::Push, 301, 42.0)), [week(42.0)], "its window is over");
    assert_eq!(joined_to(&said(Source::AnthropicOauth, 5, 42.0)), [week(42.0)], "the endpoint names every limit");
    assert_eq!(words(&joined(&one, Some(both.clone()), &[])), [week(41.0)], "nobody knows how old it is");
    assert_eq!(words(&joined(&said(Source::Push, end, 0.0), None, &decided)), [week(0.0)]);
}

#[test]
fn programs_read_the_same_facts_as_the_room() {
    let of = |percent: f64| {
        let answer = said(Source::AnthropicOauth, 0, percent);
        let states = decided(std::slice::from_ref(&answer));
        let trouble = Some("the provider is away".to_owned());
        let account =
            Watched { trouble, ..Watched::new("work", Some(answer), &states, &[], (Estimator::Shrunken, INTERVAL)) };
        let accounts = vec![account, Watched::new("desk", None, &[], &[], (Estimator::Shrunken, INTERVAL))];
        Overview { accounts, muted_until: Some(at(60)), zone: TimeZone::UTC, now: at(1) }.json()
    };
    let json = of(64.0);
    assert_eq!((&json["at"], &json["muted_until"]), (&json!(at(1)), &json!(at(60))));
    let work = &json["accounts"][0];
    for (key, value) in [
        ("name", json!("work")),
        ("source", json!("anthropic-oauth")),
        ("at", json!(at(0))),
        ("stale", json!(false)),
        ("used_up", json!(null)),
        ("trouble", json!("the provider is away")),
        ("unknown_keys", json!([])),
    ] {
        assert_eq!(work[key], value, "{key} of {work}");
    }
    let limit = &work["limits"][0];
    assert_eq!((&limit["bucket"], &limit["percent"]), (&json!("work/weekly_all"), &json!(64.0)));
    assert_eq!(limit["resets_at"], json!(at(3 * 24 * 60)));
    let probability = limit["probability"].as_f64().expect("a probability");
    assert!((0.3..0.8).contains(&probability) && limit["forecast"]["probability"] == limit["probability"], "{limit}");
    assert!(limit["percent_at_even_pace"].as_f64().is_some_and(|even| even > 50.0), "{limit}");
    let desk = &json["accounts"][1];
    assert_eq!((&desk["at"], &desk["stale"], &desk["limits"]), (&json!(null), &json!(true), &json!([])));

    let full = of(100.0);
    let work = &full["accounts"][0];
    let until = json!({"by": "work/weekly_all", "until": at(3 * 24 * 60), "paid_by": null});
    assert_eq!((&work["used_up"], &work["limits"][0]["probability"]), (&until, &json!(1.0)));
}

#[tokio::test]
async fn an_answer_that_nobody_has_decided_on_is_shown_with_its_forecast_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store.sqlite3")).unwrap();
    let plan = Plan { accounts: vec!["work".to_owned()], ..crate::usage::plan::tests::bare() };
    let answer = said(Source::AnthropicOauth, 0, 64.0);
    let asked = crate::store::usage::Asked {
        snapshot: Some(serde_json::to_string(&answer).unwrap()),
        ..crate::store::usage::Asked::default()
    };
    store.note_asked("work", asked, at(0)).await.unwrap();
    let shown = async |answers: &[Snapshot]| {
        let overview = read_with(&store, &plan, answers, at(1)).await.unwrap();
        overview.accounts[0].buckets[0].outlook
    };
    assert!(matches!(shown(&[answer]).await, Outlook::Known(_)));
    assert_eq!(shown(&[]).await, Outlook::NoResetKnown);
}

#[test]
fn what_a_newer_version_wrote_counts_as_not_there() {
    assert_eq!(readable::<Snapshot>("{\"another\": \"shape\"}"), None);
    let answer = said(Source::AnthropicOauth, 0, 40.0);
    assert_eq!(readable::<Snapshot>(&serde_json::to_string(&answer).unwrap()), Some(answer));
}
