//! The guard: a limit that is nearly used up stops targets, and gives them back after its reset.
//!
//! It wants things as a person does: a row of the inbox says `stop llama`, and `operator` and `policy` do the rest. What it
//! wants is decided by [`judge()`], which is pure; [`Guard::step`] reads what `judge` needs and writes what it gives, in one
//! transaction, so that a kill at any instant repeats nothing and forgets nothing. Whether a target is really as the guard
//! left it is for the operator to see: it alone reads the cluster.
//!
//! ```text
//!  rule met in two samples ─▶ held ──stop──▶ own (its stop changed the replicas)
//!                               │              │ confirmed reset, and no other rule holds the target (else: why not, once)
//!          a person's start ────┤              ▼
//!          rests until the reset◀┘           start, if nobody has changed the workload since
//! ```

pub mod deed;
pub mod judge;
pub mod notice;
pub mod rule;
pub mod state;

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

pub use deed::{Course, Deed, Past, Will};
pub use judge::judge;
pub use notice::{Action, Keeper, News, Notice, Reason, Request};
pub use rule::{Rule, View};
pub use state::{Key, State};

use super::plan::Hours;
use crate::chat;
use crate::message::{Address, GUARD, Message, Outgoing, Standing};
use crate::reply::{self, Report};
use crate::store::guard::Ledger;
use crate::store::inbox::Arrival;
use crate::store::outbox::Draft;
use crate::store::{Store, StoreError};

/// After so many intervals without a sample, data is stale: the guard neither stops nor starts.
pub const STALE_AFTER: i32 = 3;

/// A sample that is further ahead of the own clock is of a clock that was set since.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// What the guard is told by the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The rules, in the order of the configuration.
    pub rules: Vec<Rule>,
    /// The watched accounts: what was stored of others does not count any more.
    pub accounts: Vec<String>,
    /// Those of them for which nobody is asked: their workstations push, and sleep.
    pub pushed: Vec<String>,
    /// What is not urgent waits for the end of these hours.
    pub quiet: Option<Hours>,
    /// The targets that rules may name, by that name.
    pub targets: BTreeMap<String, Guarded>,
    /// Between two polls of one account.
    pub interval: SignedDuration,
    /// Room for what nobody asked for.
    pub home_room: Option<String>,
    /// People to notify when the guard acts, by full user id.
    pub mentions: Vec<String>,
    /// Zone of the times that people read.
    pub zone: TimeZone,
}

/// A target as the guard knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    /// What people read.
    pub label: String,
    /// Its key in the journal, `kind/namespace/name`.
    pub key: String,
}

impl Settings {
    /// Too old to act on, or from a clock that was ahead.
    pub(crate) fn is_stale(&self, at: Timestamp, now: Timestamp) -> bool {
        now.duration_since(at) > self.interval * STALE_AFTER || at.duration_since(now) > AHEAD
    }

    pub(super) fn is_asked(&self, account: &str) -> bool {
        self.pushed.iter().all(|name| name != account)
    }

    fn is_watched(&self, account: &str) -> bool {
        self.accounts.iter().any(|name| name == account)
    }
}

/// What one step has written: whoever waits for it is to be woken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stepped {
    /// New rows of the inbox.
    pub requests: usize,
    /// New words for the room.
    pub notices: usize,
}

/// The guard with its settings.
#[derive(Debug, Clone)]
pub struct Guard {
    settings: Settings,
}

impl Guard {
    /// A guard that keeps to these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Looks at everything once: to be called after each sample that was decided and at each interval, first when the
    /// first poll has come back, good or not. `views` has every bucket of which something is known, those of accounts that
    /// are silent too: that they are stale is for the guard to see. The same views again change nothing.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was written, and the next call decides the same.
    pub async fn step(&self, store: &Store, views: Vec<View>, now: Timestamp) -> Result<Stepped, StoreError> {
        // Without a room the words wait for the first, but the limit is no less near: the request is made all the same.
        let room = chat::home_room(store, self.settings.home_room.as_deref()).await?.unwrap_or_default();
        let muted = store.muted_until(now).await?.is_some();
        let settings = self.settings.clone();
        store
            .guard(move |ledger| {
                let stored = read_states(ledger)?;
                let mut states = stored.clone();
                let pasts = read_pasts(ledger, &states, &settings)?;
                let actions = judge(&mut states, &pasts, &views, &settings, now);
                write_states(ledger, &stored, &states, now)?;
                write_actions(ledger, &actions, (&room, muted), &settings, now)
            })
            .await
    }
}

fn read_states(ledger: &Ledger<'_>) -> Result<BTreeMap<Key, State>, StoreError> {
    let rows = ledger.states()?.into_iter().filter_map(|(rule, target, json)| {
        let state = serde_json::from_str(&json)
            .inspect_err(
                |error| tracing::error!(rule, target, %error, "a state of the guard cannot be read: it begins anew"),
            )
            .ok()?;
        Some((Key { rule, target }, state))
    });
    Ok(rows.collect())
}

fn read_pasts(
    ledger: &Ledger<'_>,
    states: &BTreeMap<Key, State>,
    settings: &Settings,
) -> Result<BTreeMap<Key, Past>, StoreError> {
    let mut pasts = BTreeMap::new();
    for (key, state) in states {
        let course = |event: Option<String>| -> Result<Option<Course>, StoreError> {
            let Some(event) = event else { return Ok(None) };
            Ok(ledger.entry(&event)?.map(|entry| deed::course(&entry)))
        };
        let mut past =
            Past { stop: course(state.stop_event(key))?, start: course(state.start_event(key))?, since: vec![] };
        if let (Some(event), Some(target)) = (state.stop_event(key), settings.targets.get(&key.target)) {
            past.since = ledger.since(&event, &target.key)?.iter().filter_map(deed::deed).collect();
        }
        pasts.insert(key.clone(), past);
    }
    Ok(pasts)
}

fn write_states(
    ledger: &Ledger<'_>,
    stored: &BTreeMap<Key, State>,
    states: &BTreeMap<Key, State>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let keys: BTreeSet<&Key> = stored.keys().chain(states.keys()).collect();
    for key in keys {
        match states.get(key).filter(|state| **state != State::default()) {
            None => ledger.drop_state(&key.rule, &key.target)?,
            Some(state) if stored.get(key) == Some(state) => {}
            Some(state) => {
                let json = serde_json::to_string(state).unwrap_or_default();
                ledger.put_state(&key.rule, &key.target, &json, now)?;
            }
        }
    }
    Ok(())
}

fn write_actions(
    ledger: &Ledger<'_>,
    actions: &[Action],
    (room, muted): (&str, bool),
    settings: &Settings,
    now: Timestamp,
) -> Result<Stepped, StoreError> {
    let mut stepped = Stepped::default();
    for action in actions {
        match action {
            Action::Request(request) => {
                tracing::warn!(request.event, request.target, ?request.will, "the usage guard wants something");
                stepped.requests += usize::from(ledger.request(&arrival(request, room, now), now)?);
            }
            Action::Say(notice) => {
                tracing::info!(rule = notice.rule, news = notice.news.word(), "the usage guard says something");
                let Notice { news, .. } = notice;
                if muted && !news.is_deed() {
                    continue;
                }
                let urgent = news.is_deed() || news.is_grave();
                let quiet = settings.quiet.filter(|_| !urgent).and_then(|hours| hours.until(&settings.zone, now));
                ledger.say(draft(notice, room, settings), quiet, now)?;
                stepped.notices += 1;
            }
        }
    }
    Ok(stepped)
}

/// Makes the row of the inbox: what a person would have written.
fn arrival(request: &Request, room: &str, now: Timestamp) -> Arrival {
    let message = Message {
        who: GUARD.to_owned(),
        room: room.to_owned(),
        event: request.event.clone(),
        text: format!("{} {}", request.will.word(), request.target),
        sent_at: now,
        thread: None,
        device: None,
        standing: Standing::Proven,
        address: Address::Mentioned,
    };
    Arrival {
        event: message.event.clone(),
        room: message.room.clone(),
        sender: message.who.clone(),
        sent_at: now,
        payload: serde_json::to_string(&message).unwrap_or_default(),
        waiting_for: None,
    }
}

fn draft(notice: &Notice, room: &str, settings: &Settings) -> Draft {
    let words = reply::words(&Report::Guard { notice: notice.clone(), zone: settings.zone.clone() });
    let mentions = if notice.news.is_grave() { settings.mentions.clone() } else { Vec::new() };
    let outgoing = Outgoing { mentions, ..Outgoing::new(words.plain, words.html) };
    Draft { txn: notice.txn(), room: room.to_owned(), payload: outgoing.json() }
}

#[cfg(test)]
mod tests;
