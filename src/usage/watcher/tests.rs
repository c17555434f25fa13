//! The watcher's own turns, on a real store, with a program as the source; the time is the test's.

use jiff::SignedDuration;

use crate::chat::LAST_ROOM;
use crate::message::Outgoing;
use crate::store::samples::Learned;
use crate::store::usage::Asked;
use crate::usage::bucket::{Bucket, Reading, Reset, Unit};
use crate::usage::credential::{self, Layout, Login, directory};
use crate::usage::cycle::Sample;
use crate::usage::decide::decide;
use crate::usage::plan::{self, Hours};
use crate::usage::source::{anthropic, command};
use crate::usage::wire;

use super::*;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

struct Place {
    folder: tempfile::TempDir,
    plan: Plan,
}

impl Place {
    fn new() -> Self {
        let plan = Plan { accounts: vec!["work".to_owned(), "desk".to_owned()], ..plan::tests::bare() };
        Self { folder: tempfile::tempdir().unwrap(), plan }
    }

    fn store(&self) -> Store {
        Store::open(&self.folder.path().join("store.sqlite3")).unwrap()
    }

    async fn watcher(&self) -> Watcher {
        let settings = command::Settings {
            account: "work".to_owned(),
            argv: vec!["true".to_owned()],
            environment: vec![],
            timeout: std::time::Duration::from_secs(1),
        };
        self.asking(Adapter::Command(command::Program::new(settings).unwrap())).await
    }

    /// One that asks the endpoint, with a login in a folder that has none.
    async fn of_the_endpoint(&self) -> Watcher {
        let (account, user_agent) = ("work".to_owned(), wire::USER_AGENT.to_owned());
        let url: url::Url = "http://127.0.0.1:9/".parse().unwrap();
        let http = wire::client(anthropic::TIMEOUT, None).unwrap();
        let folder = directory::Settings { path: self.folder.path().to_owned(), layout: Layout::default() };
        let settings = credential::Settings {
            account: account.clone(),
            token_url: url.clone(),
            client_id: credential::refresh::CLIENT_ID.to_owned(),
            user_agent: user_agent.clone(),
        };
        let login = Login::new(settings, http.clone(), directory::Place::new(folder).into(), self.store());
        let settings = anthropic::Settings { account, url, user_agent };
        self.asking(Adapter::Anthropic(anthropic::Anthropic::new(settings, http, login))).await
    }

    async fn asking(&self, adapter: Adapter) -> Watcher {
        let plan = watch::channel(Arc::new(self.plan.clone())).1;
        let wakes = (Arc::default(), Arc::default());
        Watcher::begin(self.store(), plan, vec![adapter], wakes, Metrics::default()).await.unwrap()
    }
}

fn snapshot(at: Timestamp, percent: f64) -> Snapshot {
    let reading = Reading {
        bucket: Bucket { account: "work".to_owned(), kind: crate::usage::Kind::WeeklyAll, scope: None },
        unit: Unit::Percent,
        used: percent,
        limit: None,
        window: None,
        resets_at: Some(at + HOUR * 72),
        reset: Reset::Rolling,
        active: true,
        severity: None,
    };
    Snapshot {
        account: "work".to_owned(),
        source: Source::Command,
        at,
        owner: None,
        readings: vec![reading],
        shares: vec![],
        plan: None,
        unknown: vec![],
        unreadable: vec![],
    }
}

fn failed() -> Result<Snapshot, SourceError> {
    Err(SourceError::Transient("no such host".to_owned()))
}

async fn said(store: &Store, now: Timestamp) -> Vec<String> {
    let parcels = store.outgoing(now, 100).await.unwrap();
    parcels.into_iter().map(|parcel| serde_json::from_str::<Outgoing>(&parcel.payload).unwrap().plain).collect()
}

fn has(metrics: &Metrics, line: &str) {
    let text = metrics.text();
    assert!(text.lines().any(|found| found == format!("pilothouse_usage_{line}")), "{line} is not in\n{text}");
}

#[tokio::test]
async fn a_restart_shows_what_was_known_before_it() {
    let place = Place::new();
    let begun = now();
    let watcher = place.watcher().await;
    let since = watcher.since.as_second();
    has(&watcher.metrics, &format!("last_good_timestamp_seconds{{account=\"work\",source=\"command\"}} {since}"));
    drop(watcher);

    let (store, good) = (place.store(), begun - HOUR * 5);
    let snapshot = snapshot(good, 42.0);
    let mut state = BucketState::of(&snapshot.readings[0]);
    let sample = Sample::of(&snapshot, &snapshot.readings[0]).unwrap();
    decide(&mut state, &sample, &[], &place.plan.settings, good);
    let states = vec![(state.bucket.to_string(), serde_json::to_string(&state).unwrap())];
    store.learn(Learned { states, ..Learned::default() }, good).await.unwrap();
    let answer = Asked { snapshot: serde_json::to_string(&snapshot).ok(), ..Asked::default() };
    store.note_asked("work#command", answer, good).await.unwrap();
    let until = begun + HOUR;
    let refused = Asked { blocked_until: Some(until), failures: 1, ..Asked::default() };
    store.note_asked("work#command", refused, begun).await.unwrap();
    let pushed = begun - HOUR * 7;
    store.note_pushed("desk", pushed, SignedDuration::ZERO).await.unwrap();

    let metrics = place.watcher().await.metrics;
    for line in [
        format!("last_good_timestamp_seconds{{account=\"work\",source=\"command\"}} {}", good.as_second()),
        format!("last_good_timestamp_seconds{{account=\"desk\",source=\"push\"}} {}", pushed.as_second()),
        format!("blocked_until_timestamp_seconds{{account=\"work\",source=\"command\"}} {}", until.as_second()),
        "percent{bucket=\"work/weekly_all\"} 42.0".to_owned(),
        format!("reset_timestamp_seconds{{bucket=\"work/weekly_all\"}} {}", (good + HOUR * 72).as_second()),
    ] {
        has(&metrics, &line);
    }
}

#[tokio::test]
async fn what_a_workstation_tells_is_no_answer_of_the_endpoint_and_hides_none_of_its_limits() {
    let mut place = Place::new();
    place.plan.endpoints = vec!["work".to_owned()];
    let mut watcher = place.of_the_endpoint().await;
    let (store, start) = (place.store(), watcher.since);
    let good = start - HOUR * 5;
    let of = |source, at, percent| {
        let mut answer = Snapshot { source, ..snapshot(at, percent) };
        answer.readings[0].resets_at = Some(good + HOUR * 72);
        answer
    };
    let mut answer = of(Source::AnthropicOauth, good, 42.0);
    let fable = "work/weekly_scoped/Fable";
    answer.readings.push(Reading { bucket: fable.parse().unwrap(), used: 100.0, ..answer.readings[0].clone() });
    watcher.answered(0, Ok(answer), good).await;
    watcher.take(of(Source::Push, start, 57.0), start).await.unwrap();

    // What `check` reads, and what the alert on old numbers reads after a restart.
    let second = good.as_second();
    assert_eq!(store.account("work").await.unwrap().good_at.unwrap().as_second(), second);
    let metrics = place.of_the_endpoint().await.metrics;
    has(&metrics, &format!("last_good_timestamp_seconds{{account=\"work\",source=\"anthropic-oauth\"}} {second}"));
    // What `usage` shows: each limit with its own age.
    let overview = overview::read(&store, &place.plan, start).await.unwrap();
    let shown = overview.accounts[0].buckets.iter();
    let shown: Vec<_> = shown.map(|shown| (shown.reading.bucket.to_string(), shown.reading.used, shown.at)).collect();
    assert_eq!(shown, [("work/weekly_all".to_owned(), 57.0, start), (fable.to_owned(), 100.0, good)]);
}

#[tokio::test]
async fn an_outage_is_told_once_with_its_cause_and_after_the_next_answer_again() {
    let place = Place::new();
    let mut watcher = place.watcher().await;
    let store = place.store();
    store.set_cursor(LAST_ROOM, "!room:hs").await.unwrap();
    let start = watcher.since;
    for hour in [1, 5] {
        watcher.answered(0, failed(), start + HOUR * hour).await;
    }
    assert!(said(&store, start + HOUR * 5).await.is_empty());
    for hour in [6, 7, 30] {
        watcher.answered(0, failed(), start + HOUR * hour).await;
    }
    let told = said(&store, start + HOUR * 30).await;
    assert_eq!(
        told,
        [
            "⚠️ work: the subscription cannot be read for 6 h: no such host; it is asked again later. The last numbers stay, \
          and nothing is stopped or started by them."
        ]
    );
    // A new process knows the last answer, and the next outage is another one.
    watcher.answered(0, Ok(snapshot(start + HOUR * 31, 10.0)), start + HOUR * 31).await;
    let mut watcher = place.watcher().await;
    watcher.answered(0, failed(), start + HOUR * 36).await;
    assert_eq!(said(&store, start + HOUR * 36).await.len(), 1);
    store.note_pushed("work", start + HOUR * 33, SignedDuration::ZERO).await.unwrap();
    watcher.answered(0, failed(), start + HOUR * 38).await;
    assert_eq!(said(&store, start + HOUR * 38).await.len(), 1, "a workstation was heard since");
    watcher.answered(0, failed(), start + HOUR * 40).await;
    let told = said(&store, start + HOUR * 40).await;
    assert!(told.len() == 2 && told[1].contains("for 7 h"), "{told:#?}");
}

#[tokio::test]
async fn trouble_waits_for_the_end_of_a_silence_and_of_the_night() {
    let trouble = || Err(SourceError::ScopeMissing);
    let mut place = Place::new();
    place.plan.quiet = Hours::of("00:00-23:59");
    let mut watcher = place.watcher().await;
    let (store, start) = (place.store(), watcher.since);
    store.set_cursor(LAST_ROOM, "!room:hs").await.unwrap();
    store.mute(start + HOUR).await.unwrap();
    watcher.answered(0, trouble(), start).await;
    assert!(said(&store, start + HOUR * 48).await.is_empty(), "it is silent");
    // Nothing counts as said by that.
    watcher.answered(0, trouble(), start + HOUR * 2).await;
    watcher.answered(0, trouble(), start + HOUR * 3).await;
    let dawn = place.plan.quiet_until(start + HOUR * 2).expect("it is quiet");
    assert!(said(&store, dawn - SignedDuration::from_secs(1)).await.is_empty(), "it is night");
    let told = said(&store, dawn).await;
    assert!(told.len() == 1 && told[0].contains("scope user:profile is missing"), "{told:#?}");
}

#[tokio::test]
async fn a_key_that_is_not_known_counts_once_and_a_window_that_is_lost_is_told_once() {
    let place = Place::new();
    let mut watcher = place.watcher().await;
    let (store, start) = (place.store(), watcher.since);
    store.set_cursor(LAST_ROOM, "!room:hs").await.unwrap();
    for minute in [1, 6] {
        let at = start + SignedDuration::from_mins(minute);
        let (unknown, unreadable) = (vec!["novel".to_owned()], vec!["seven_day".to_owned()]);
        watcher.answered(0, Ok(Snapshot { unknown, unreadable, ..snapshot(at, 10.0) }), at).await;
    }
    has(&watcher.metrics, "unknown_keys_total{key=\"novel\"} 1");
    let told = said(&store, start + HOUR).await;
    assert_eq!(
        told,
        [
            "⚠️ work: the provider's answer has changed, and seven_day can no longer be read. Look for a newer Pilothouse."
        ]
    );
}
