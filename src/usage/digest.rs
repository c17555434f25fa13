//! From one answer of a source to everything that follows from it: what is stored, what is told, what is over. Pure.

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::bucket::{Bucket, Kind, Snapshot};
use super::cycle::{ClosedWindow, Sample, Shape};
use super::decide::{BucketState, Event, News, decide};
use super::overview;
use super::plan::Plan;
use crate::message::Outgoing;
use crate::reply::usage::{Bulletin, Severity};
use crate::reply::{self, Report};
use crate::store::outbox::{Draft, Speech};
use crate::store::samples::{self, Alert, Closed, Foretold, Learned, Over, Told};

/// What is known before the answer.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// What is decided so far.
    pub states: &'a [BucketState],
    /// Windows that have ended.
    pub closed: &'a [ClosedWindow],
    /// Alerts that the room has of the account and that are not over, by bucket.
    pub told: &'a [(Bucket, Vec<Told>)],
    /// The room for alerts; empty while none is known: the words wait for the first.
    pub room: &'a str,
    /// Whether alerts are silent.
    pub muted: bool,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub struct After {
    /// What is decided now.
    pub states: Vec<BucketState>,
    /// What is written, in one transaction.
    pub learned: Learned,
    /// What happened, for the guard and the log.
    pub events: Vec<(Bucket, Event)>,
}

/// Takes an answer in.
#[must_use]
pub fn digest(snapshot: &Snapshot, before: Before<'_>, plan: &Plan, now: Timestamp) -> After {
    let mut after = After { states: before.states.to_vec(), learned: Learned::default(), events: Vec::new() };
    let settings = plan.settings_of(&snapshot.account);
    let (mut armed, mut switched) = (false, Vec::new());
    for reading in &snapshot.readings {
        let Some(sample) = Sample::of(snapshot, reading) else { continue };
        if !sample.is_of_a_past_window() {
            after.learned.samples.push(stored(&reading.bucket, &sample));
        }
        let place = after.states.iter().position(|state| state.bucket == reading.bucket).unwrap_or_else(|| {
            after.states.push(BucketState::of(reading));
            after.states.len() - 1
        });
        let closed = overview::of(&reading.bucket, before.closed);
        let events = decide(&mut after.states[place], &sample, &closed, &settings, now);
        for event in events {
            armed |= matches!(event.news, News::Armed { .. });
            if matches!(event.news, News::Reset { shape: Shape::Switched, .. }) {
                switched.push((&reading.bucket, event.clone()));
            }
            follow(&mut after.learned, &reading.bucket, &event, before, plan, now);
            after.events.push((reading.bucket.clone(), event));
        }
        if let Ok(state) = serde_json::to_string(&after.states[place]) {
            after.learned.states.push((reading.bucket.to_string(), state));
        }
    }
    switch(&mut after.learned, &switched, snapshot, before, plan, now);
    if !switched.is_empty() && snapshot.owner.is_some() {
        forget(&mut after, snapshot);
    }
    if armed && plan.armed {
        // Before what it says of the limits that are over a threshold already.
        after.learned.alerts.insert(0, watched(snapshot, &after.states, before, plan, now));
    }
    after
}

/// Another account is behind the name: told once, and whatever was told of the one before is over.
fn switch(
    learned: &mut Learned,
    switched: &[(&Bucket, Event)],
    snapshot: &Snapshot,
    before: Before<'_>,
    plan: &Plan,
    now: Timestamp,
) {
    let foremost = |(bucket, _): &&(&Bucket, Event)| (bucket.kind == Kind::WeeklyAll, bucket.kind.is_weekly());
    let Some((bucket, event)) = switched.iter().max_by_key(foremost) else { return };
    let end = "another account is behind it now";
    for (told, _) in before.told {
        let named = snapshot.readings.iter().any(|reading| reading.bucket == *told);
        let turned = switched.iter().find(|(bucket, _)| *bucket == told).map(|(_, event)| event.cycle);
        // What the new account does not have is over, too.
        if let Some(cycle) = turned.or((!named).then_some(Timestamp::MAX)) {
            learned.over.extend(over(told, cycle, before, plan, now, end, |_| true));
        }
    }
    // Before what is told of the new one.
    learned.alerts.insert(0, alert(bucket, event, &bulletin(bucket, event, plan, now), before, plan, now));
}

/// Forgets the windows that the new account does not have: they were the earlier one's.
fn forget(after: &mut After, snapshot: &Snapshot) {
    let named = |bucket: &Bucket| snapshot.readings.iter().any(|reading| reading.bucket == *bucket);
    let of = |state: &&mut BucketState| state.bucket.account == snapshot.account && !named(&state.bucket);
    for state in after.states.iter_mut().filter(of) {
        *state = BucketState::new(state.bucket.clone(), state.reset, state.length);
        if let Ok(json) = serde_json::to_string(state) {
            after.learned.states.push((state.bucket.to_string(), json));
        }
    }
}

fn bulletin(bucket: &Bucket, event: &Event, plan: &Plan, now: Timestamp) -> Bulletin {
    let (bucket, news, zone) = (bucket.clone(), event.news.clone(), plan.zone.clone());
    let mut bulletin = Bulletin { bucket, several: plan.several(), news, zone, now };
    // What waits is written for the time at which it will be read.
    bulletin.now = morning(bulletin.severity(), plan, now).unwrap_or(now);
    bulletin
}

/// Until when an alert waits, where the quiet hours are on.
fn morning(severity: Severity, plan: &Plan, now: Timestamp) -> Option<Timestamp> {
    plan.quiet_until(now).filter(|_| severity < Severity::Critical)
}

/// What one event writes and says.
fn follow(learned: &mut Learned, bucket: &Bucket, event: &Event, before: Before<'_>, plan: &Plan, now: Timestamp) {
    let bulletin = || bulletin(bucket, event, plan, now);
    match &event.news {
        News::Closed(window) => learned.closed.push(closed(window)),
        News::Predicted { at, percent, forecast } => learned.foretold.push(Foretold {
            bucket: bucket.to_string(),
            cycle: event.cycle,
            at: *at,
            estimator: forecast.estimator.word().to_owned(),
            percent: *percent,
            probability: forecast.probability,
            low: forecast.low,
            median: forecast.median,
            high: forecast.high,
        }),
        // A switch is told of the account, once for all its buckets.
        News::Armed { .. } | News::ResetConfirmed | News::Reset { shape: Shape::Switched, .. } => {}
        News::Raised { .. } => {
            let crossed = |name: &str| name.starts_with("crossed");
            learned.over.extend(over(bucket, event.cycle, before, plan, now, "its limit was raised", crossed));
        }
        News::Reset { .. } => {
            let ended = over(bucket, event.cycle, before, plan, now, "it was reset", |_| true);
            // The 5-hour window is reset several times a day: that is news only for whoever was told that it is full.
            if bucket.kind != Kind::Session || !ended.is_empty() {
                learned.alerts.push(alert(bucket, event, &bulletin(), before, plan, now));
            }
            learned.over.extend(ended);
        }
        News::Cleared { .. } => {
            let alarm = |name: &str| name == "alarm" || name.starts_with("escalated");
            let end = "it is no longer likely to run out";
            learned.over.extend(over(bucket, event.cycle, before, plan, now, end, alarm));
            learned.alerts.push(alert(bucket, event, &bulletin(), before, plan, now));
        }
        News::Crossed { .. } | News::Alarm { .. } | News::Escalated { .. } => {
            learned.alerts.push(alert(bucket, event, &bulletin(), before, plan, now));
        }
    }
}

/// The id of an alert's event, from what it is about: told twice, it is one event.
fn txn(bucket: &Bucket, cycle: Timestamp, name: &str) -> String {
    hashed(&[&bucket.to_string(), &cycle.as_millisecond().to_string(), name])
}

/// A transaction id of these words.
pub(in crate::usage) fn hashed(words: &[&str]) -> String {
    let digest =
        words.iter().fold(Sha256::new(), |digest, word| digest.chain_update(word).chain_update([0])).finalize();
    digest.iter().take(16).fold("us".to_owned(), |txn, byte| format!("{txn}{byte:02x}"))
}

fn alert(
    bucket: &Bucket,
    event: &Event,
    bulletin: &Bulletin,
    before: Before<'_>,
    plan: &Plan,
    now: Timestamp,
) -> Alert {
    let name = event.name();
    let severity = bulletin.severity();
    let mentions = plan.mention.get(severity.word()).cloned().into_iter().collect();
    let report = Report::UsageNews(Box::new(bulletin.clone()));
    let draft = (!before.muted).then(|| Draft {
        txn: txn(bucket, event.cycle, &name),
        room: before.room.to_owned(),
        payload: payload(&report, mentions),
    });
    let not_before = morning(severity, plan, now);
    let words = reply::words(&report);
    let kept = serde_json::json!({ "plain": words.plain });
    let stands = is_standing(&event.news);
    Alert { bucket: bucket.to_string(), cycle: event.cycle, name, stands, payload: kept.to_string(), draft, not_before }
}

/// Edits of what was told of the window that this event ends or clears.
fn over(
    bucket: &Bucket,
    cycle: Timestamp,
    before: Before<'_>,
    plan: &Plan,
    now: Timestamp,
    end: &str,
    which: impl Fn(&str) -> bool,
) -> Vec<Over> {
    let told = before.told.iter().filter(|(of, _)| of == bucket).flat_map(|(_, told)| told);
    told.filter(|told| told.cycle <= cycle && which(&told.name))
        .map(|told| {
            let said = serde_json::from_str::<serde_json::Value>(&told.payload).ok();
            let said = said.and_then(|said| said["plain"].as_str().map(str::to_owned)).unwrap_or_default();
            let report = Report::UsageOver { said, end: end.to_owned(), at: now, zone: plan.zone.clone() };
            let speech = told.outbox.map(|row| Speech::Revise {
                row,
                room: String::new(),
                txn: txn(bucket, told.cycle, &format!("{}-over", told.name)),
                payload: payload(&report, vec![]),
            });
            Over { bucket: bucket.to_string(), cycle: told.cycle, name: told.name.clone(), speech }
        })
        .collect()
}

/// Says whether an alert speaks of a state, which ends, and not of a moment.
fn is_standing(news: &News) -> bool {
    matches!(news, News::Crossed { .. } | News::Alarm { .. } | News::Escalated { .. })
}

/// What is watched of an account, said at its first answer.
fn watched(snapshot: &Snapshot, states: &[BucketState], before: Before<'_>, plan: &Plan, now: Timestamp) -> Alert {
    let bucket = Bucket { account: snapshot.account.clone(), kind: Kind::Other("account".to_owned()), scope: None };
    let estimator = (plan.settings.estimator, plan.interval);
    let account = overview::Watched::new(&snapshot.account, Some(snapshot.clone()), states, before.closed, estimator);
    let report = Report::UsageArmed(overview::Overview {
        accounts: vec![account],
        muted_until: None,
        zone: plan.zone.clone(),
        now,
    });
    let draft = (!before.muted).then(|| Draft {
        txn: txn(&bucket, Timestamp::UNIX_EPOCH, "armed"),
        room: before.room.to_owned(),
        payload: payload(&report, vec![]),
    });
    Alert {
        bucket: bucket.to_string(),
        cycle: Timestamp::UNIX_EPOCH,
        name: "armed".to_owned(),
        stands: false,
        payload: "{}".to_owned(),
        draft,
        not_before: plan.quiet_until(now),
    }
}

/// The words as the outbox keeps them.
#[must_use]
pub fn payload(report: &Report, mentions: Vec<String>) -> String {
    let words = reply::words(report);
    Outgoing { mentions, ..Outgoing::new(words.plain, words.html) }.json()
}

fn stored(bucket: &Bucket, sample: &Sample) -> samples::Sample {
    samples::Sample {
        bucket: bucket.to_string(),
        at: sample.at,
        source: sample.source.word().to_owned(),
        percent: sample.percent,
        resets_at: sample.resets_at,
    }
}

/// Makes what is stored of a window.
#[must_use]
pub fn closed(window: &ClosedWindow) -> Closed {
    Closed {
        bucket: window.bucket.to_string(),
        started_at: window.started_at,
        ended_at: window.ended_at,
        last: window.last,
        exhausted_at: window.exhausted_at,
        shape: window.shape.word().to_owned(),
    }
}

/// Reads a stored window; `None` where a newer version wrote a shape that this one does not know.
#[must_use]
pub fn window(closed: &Closed) -> Option<ClosedWindow> {
    Some(ClosedWindow {
        bucket: closed.bucket.parse().ok()?,
        started_at: closed.started_at,
        ended_at: closed.ended_at,
        last: closed.last,
        exhausted_at: closed.exhausted_at,
        shape: Shape::of(&closed.shape)?,
    })
}

#[cfg(test)]
mod tests;
