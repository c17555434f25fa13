//! A simulated month, as the room reads it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::*;
use crate::usage::bucket::{Reading, Reset, Source, Unit};
use crate::usage::forecast::Estimator;
use crate::usage::plan::{self, Hours};
use crate::usage::simulate::{Mishaps, simulate};

fn plan() -> Plan {
    Plan {
        accounts: vec!["work".to_owned()],
        armed: true,
        mention: BTreeMap::from([("critical".to_owned(), "@you:example.org".to_owned())]),
        ..plan::tests::bare()
    }
}

/// What the store would have, in memory.
#[derive(Default)]
struct Memory {
    states: Vec<BucketState>,
    closed: Vec<ClosedWindow>,
    told: BTreeMap<(String, i64, String), (String, i64)>,
    stand: BTreeSet<(String, i64, String)>,
    over: BTreeSet<(String, i64, String)>,
    said: Vec<(Timestamp, String)>,
    txns: BTreeSet<String>,
}

impl Memory {
    fn told(&self, bucket: &Bucket) -> Vec<Told> {
        let of = |((name_of, cycle, name), (payload, row)): (&(String, i64, String), &(String, i64))| {
            let key = (name_of.clone(), *cycle, name.clone());
            (*name_of == bucket.to_string() && self.stand.contains(&key) && !self.over.contains(&key)).then(|| Told {
                name: name.clone(),
                cycle: Timestamp::from_millisecond(*cycle).unwrap(),
                payload: payload.clone(),
                outbox: Some(*row),
            })
        };
        self.told.iter().filter_map(of).collect()
    }

    fn take(&mut self, snapshot: &Snapshot, plan: &Plan) {
        let told: Vec<_> = self.states.iter().map(|state| (state.bucket.clone(), self.told(&state.bucket))).collect();
        let before = Before { states: &self.states, closed: &self.closed, told: &told, room: "!room:x", muted: false };
        let after = digest(snapshot, before, plan, snapshot.at);
        self.states = after.states;
        self.closed.extend(after.learned.closed.iter().filter_map(window));
        for alert in after.learned.alerts {
            let key = (alert.bucket, alert.cycle.as_millisecond(), alert.name);
            if alert.stands {
                self.stand.insert(key.clone());
            }
            let row = i64::try_from(self.told.len()).unwrap();
            let draft = alert.draft.expect("there is a room");
            assert!(self.told.insert(key.clone(), (alert.payload, row)).is_none(), "told twice: {key:?}");
            assert!(self.txns.insert(draft.txn), "one id for two events: {key:?}");
            let outgoing: Outgoing = serde_json::from_str(&draft.payload).unwrap();
            self.said.push((snapshot.at, outgoing.plain));
        }
        for over in after.learned.over {
            let key = (over.bucket, over.cycle.as_millisecond(), over.name);
            assert!(self.over.insert(key.clone()), "over twice: {key:?}");
        }
    }
}

fn snapshot(sample: &Sample) -> Snapshot {
    Snapshot {
        account: "work".to_owned(),
        source: Source::AnthropicOauth,
        at: sample.at,
        owner: sample.owner.clone(),
        readings: vec![Reading {
            bucket: Bucket { account: "work".to_owned(), kind: Kind::WeeklyAll, scope: None },
            unit: Unit::Percent,
            used: sample.percent,
            limit: None,
            window: None,
            resets_at: sample.resets_at,
            reset: Reset::Rolling,
            active: true,
            severity: None,
        }],
        shares: vec![],
        plan: None,
        unknown: vec![],
        unreadable: vec![],
    }
}

#[test]
fn a_month_is_told_once_each_and_ends_what_it_began() {
    for seed in 1..4 {
        let recording = simulate(seed, 4, &Mishaps::default());
        let (mut memory, plan) = (Memory::default(), plan());
        for sample in &recording.samples {
            memory.take(&snapshot(sample), &plan);
        }
        let resets = memory.said.iter().filter(|(_, words)| words.contains('🔄')).count();
        let windows = memory.closed.len();
        assert_eq!(resets, windows, "one message for each window that ended: {:#?}", memory.said);
        assert!(windows >= 3, "four weeks have three resets at least");
        assert!(memory.said[0].1.starts_with("👀 Armed"), "{}", memory.said[0].1);
        // Nothing of a window that has ended stands any more.
        let last = memory.states[0].window().unwrap().started_at.as_millisecond();
        let standing = |key: &(String, i64, String)| key.1 < last && memory.stand.contains(key);
        let left: Vec<_> = memory.told.keys().filter(|key| standing(key) && !memory.over.contains(*key)).collect();
        assert!(left.is_empty(), "{left:?}");
        for (at, words) in &memory.said {
            println!("{seed} {at} {words}");
        }
    }
}

#[test]
fn a_critical_alert_notifies_whom_the_configuration_names_and_silence_still_counts_as_told() {
    let at = |hour: i64| Timestamp::from_second(1_800_000_000 + hour * 3600).unwrap();
    let sample = |hour: i64, percent: f64| Sample {
        at: at(hour),
        percent,
        resets_at: Some(at(168)),
        source: Source::AnthropicOauth,
        owner: None,
        amount: None,
    };
    let plan = plan();
    let states = digest(&snapshot(&sample(1, 60.0)), empty(false), &plan, at(1)).states;
    for muted in [false, true] {
        let before = Before { states: &states, ..empty(muted) };
        let learned = digest(&snapshot(&sample(2, 96.0)), before, &plan, at(2)).learned;
        let crossed = learned.alerts.iter().find(|alert| alert.name == "crossed-95").expect("it is crossed");
        assert_eq!(crossed.draft.is_none(), muted);
        if let Some(draft) = &crossed.draft {
            let outgoing: Outgoing = serde_json::from_str(&draft.payload).unwrap();
            assert_eq!(outgoing.mentions, ["@you:example.org"]);
            assert!(outgoing.html.contains("data-mx-color") && !outgoing.plain.contains('<'), "{outgoing:?}");
        }
    }
}

#[test]
fn a_switch_is_told_once_and_ends_what_was_told_of_the_account_before() {
    let at = |hour: i64| Timestamp::from_second(1_800_000_000 + hour * 3600).unwrap();
    let answer = |hour: i64, owner: &str, percent: f64| {
        let sample = Sample {
            at: at(hour),
            percent,
            resets_at: Some(at(168)),
            source: Source::AnthropicOauth,
            owner: Some(owner.to_owned()),
            amount: None,
        };
        let mut snapshot = snapshot(&sample);
        let week = snapshot.readings[0].clone();
        let bucket =
            |kind, scope: Option<&str>| Bucket { kind, scope: scope.map(str::to_owned), ..week.bucket.clone() };
        snapshot.readings.insert(0, Reading { bucket: bucket(Kind::Session, None), used: 10.0, ..week.clone() });
        if owner == "a" {
            let opus = bucket(Kind::WeeklyScoped, Some("Opus"));
            snapshot.readings.push(Reading { bucket: opus, ..week });
        }
        snapshot
    };
    let (mut memory, plan) = (Memory::default(), Plan { armed: false, ..plan() });
    for answer in [answer(1, "a", 60.0), answer(2, "a", 96.0), answer(3, "b", 82.0), answer(4, "b", 83.0)] {
        memory.take(&answer, &plan);
    }
    let said: Vec<&str> = memory.said.iter().map(|(_, words)| words.as_str()).collect();
    let of_switch: Vec<_> = said.iter().filter(|words| words.contains("another account")).collect();
    let [switched] = of_switch[..] else { panic!("{said:#?}") };
    assert!(
        switched.starts_with(
            "🔄 🟡 work belongs to another account now, and no limit was reset: its week is at ▓▓▓▓▓▓▓▓░░ 83 %."
        ),
        "{switched}"
    );
    assert!(said.last().unwrap().contains("week is over 80 %"), "of the new account nothing was told yet: {said:#?}");
    assert!(
        !said.iter().any(|words| words.contains("week has been reset") || words.contains("week was reset")),
        "{said:#?}"
    );
    let over: Vec<_> = memory.over.iter().map(|(bucket, _, name)| format!("{bucket} {name}")).collect();
    for alert in ["crossed-50", "crossed-95"]
        .into_iter()
        .flat_map(|name| ["work/weekly_all", "work/weekly_scoped/Opus"].map(|bucket| format!("{bucket} {name}")))
    {
        assert!(over.contains(&alert), "{alert} still stands: {over:#?}");
    }
    let opus = memory.states.iter().find(|state| state.bucket.scope.is_some()).unwrap();
    assert_eq!(opus.window(), None, "the new account has no such limit");
    assert!(memory.closed.iter().all(|window| window.shape == Shape::Switched && !window.tells_rate()));
}

#[test]
fn what_a_client_pushes_of_a_window_that_is_over_is_not_kept() {
    let at = |hour: i64| Timestamp::from_second(1_800_000_000 + hour * 3600).unwrap();
    let sample = |hour: i64, percent: f64, end: i64| Sample {
        at: at(hour),
        percent,
        resets_at: Some(at(end)),
        source: Source::Push,
        owner: None,
        amount: None,
    };
    let pushed = |sample: &Sample| Snapshot { source: Source::Push, ..snapshot(sample) };
    let (mut memory, plan) = (Memory::default(), Plan { armed: false, ..plan() });
    memory.take(&pushed(&sample(200, 96.0, 168)), &plan);
    memory.take(&pushed(&sample(201, 5.0, 336)), &plan);
    memory.take(&pushed(&sample(202, 96.0, 168)), &plan);
    assert!(memory.said.is_empty(), "{:#?}", memory.said);
    let stale = pushed(&sample(203, 96.0, 168));
    let learned = digest(&stale, Before { states: &memory.states, ..empty(false) }, &plan, at(203)).learned;
    assert_eq!(learned.samples, []);
    // What is shown is what is decided, with its own age.
    let shown = overview::Watched::new("work", Some(stale), &memory.states, &[], (Estimator::Shrunken, plan.interval));
    assert!((shown.buckets[0].reading.used - 5.0).abs() < 1e-9);
    assert_eq!((shown.buckets[0].at, shown.buckets[0].reading.resets_at), (at(201), Some(at(336))));
}

#[test]
fn what_is_watched_is_said_before_what_is_over_a_threshold_already() {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let end = Some(now + jiff::SignedDuration::from_hours(90));
    let sample =
        Sample { at: now, percent: 81.0, resets_at: end, source: Source::AnthropicOauth, owner: None, amount: None };
    let alerts = digest(&snapshot(&sample), empty(false), &plan(), now).learned.alerts;
    let names: Vec<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    assert_eq!(names.first(), Some(&"armed"), "{names:?}");
    assert!(names.contains(&"crossed-80"), "{names:?}");
}

/// `in 2 h`, read when the night is over, would be wrong by the night.
#[test]
fn what_waits_for_the_morning_is_written_for_the_morning() {
    let now: Timestamp = "2026-11-20T23:30:00Z".parse().unwrap();
    let night = Hours::of("22:00-07:00");
    let said = |percent: f64, quiet| {
        let end = Some("2026-11-21T09:00:00Z".parse().unwrap());
        let source = Source::AnthropicOauth;
        let sample = Sample { at: now, percent, resets_at: end, source, owner: None, amount: None };
        let plan = Plan { quiet, armed: false, ..plan() };
        let alerts = digest(&snapshot(&sample), empty(false), &plan, now).learned.alerts;
        let alert = alerts.into_iter().find(|alert| alert.name.starts_with("crossed")).expect("an alert");
        let outgoing: Outgoing = serde_json::from_str(&alert.draft.expect("there is a room").payload).unwrap();
        (outgoing.plain, alert.not_before)
    };
    let (plain, not_before) = said(81.0, night);
    assert!(plain.ends_with("It resets 09:00 (in 2 h)."), "{plain}");
    assert_eq!(not_before, Some("2026-11-21T07:00:00Z".parse().unwrap()));
    assert!(said(81.0, None).0.ends_with("It resets Sat 09:00 (in 9 h 30 min)."));
    let (plain, not_before) = said(96.0, night);
    assert!(plain.ends_with("It resets Sat 09:00 (in 9 h 30 min).") && not_before.is_none(), "{plain}");
}

fn empty(muted: bool) -> Before<'static> {
    Before { states: &[], closed: &[], told: &[], room: "!room:x", muted }
}
