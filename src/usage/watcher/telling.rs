//! What the watcher says beside the alerts: that an account cannot be read, that its login dies, that its answers changed.
//!
//! None of it is urgent: it waits while alerts are silent, is said then if it still holds, and lets people sleep.

use jiff::{SignedDuration, Timestamp};

use super::Watcher;
use crate::chat;
use crate::reply::Report;
use crate::store::StoreError;
use crate::store::outbox::Draft;
use crate::usage::bucket::Snapshot;
use crate::usage::credential::days_left;
use crate::usage::digest;
use crate::usage::source::{Adapter, SourceError};

/// Trouble that a person must end is told once in this time.
const TROUBLE_PAUSE: SignedDuration = SignedDuration::from_hours(24);
/// Something that is told once is told once in this time: what was said is not remembered longer.
const ONCE: SignedDuration = SignedDuration::from_hours(24 * 90);
/// An account that gave no answer for so long is told, whatever is in the way.
const OUTAGE: SignedDuration = SignedDuration::from_hours(6);
/// Keys of answers that are told and counted; who sends more of them sends nonsense.
const MOST_UNKNOWN: usize = 256;

impl Watcher {
    /// Logs that a source fails, or answers again: when that begins or its cause changes, not at each question.
    pub(super) fn log(&mut self, index: usize, failure: Option<&SourceError>) {
        let adapter = &self.adapters[index];
        let (account, source) = (adapter.account(), adapter.kind().word());
        let Some(error) = failure else {
            if self.failing.remove(&index).is_some() {
                tracing::info!(account, source, "usage is read again");
            }
            return;
        };
        let why = error.to_string();
        if self.failing.insert(index, why.clone()) == Some(why) {
            tracing::debug!(account, source, %error, "usage was not read");
        } else {
            tracing::warn!(account, source, %error, "usage was not read");
        }
    }

    /// Says once which keys this version does not know, and tells the room where a window cannot be read.
    pub(super) async fn note_unknown(&mut self, snapshot: &Snapshot, now: Timestamp) {
        for key in &snapshot.unknown {
            if self.unknown.len() < MOST_UNKNOWN && self.unknown.insert(key.clone()) {
                tracing::info!(
                    key,
                    account = snapshot.account,
                    "the provider says something that this version does not know"
                );
                self.metrics.usage_unknown(key);
            }
        }
        if !snapshot.unreadable.is_empty() {
            let (account, windows) = (snapshot.account.clone(), snapshot.unreadable.clone());
            let key = format!("usage/unreadable/{account}/{}", windows.join(","));
            self.tell_once(&key, ONCE, &Report::UsageUnreadable { account, windows }, now).await;
        }
    }

    /// Says that only a person can have the account read again.
    pub(super) async fn tell_trouble(&self, account: &str, error: &SourceError, now: Timestamp) {
        let report = Report::UsageTrouble { account: account.to_owned(), why: error.to_string(), age: None };
        self.tell_once(&format!("usage/trouble/{account}/{}", error.word()), TROUBLE_PAUSE, &report, now).await;
    }

    /// Says once for each outage that there was no good answer for long, from no source of the account.
    pub(super) async fn tell_outage(&self, account: &str, error: &SourceError, now: Timestamp) {
        let of = self.adapters.iter().zip(&self.good).filter(|(adapter, _)| adapter.account() == account);
        let asked = of.filter_map(|(_, good)| *good).max();
        let pushed = self.store.account(account).await.ok().and_then(|row| row.pushed_at);
        let good = asked.max(pushed);
        let age = now.duration_since(good.unwrap_or(self.since));
        if age < OUTAGE {
            return;
        }
        let since = good.map_or("ever".to_owned(), |at| at.as_second().to_string());
        let key = format!("usage/outage/{account}/{since}");
        let (account, why) = (account.to_owned(), error.to_string());
        self.tell_once(&key, ONCE, &Report::UsageTrouble { account, why, age: Some(age) }, now).await;
    }

    /// Says in steps that the login of an account dies.
    pub(super) async fn tell_dying(&self, adapter: &Adapter, now: Timestamp) {
        let Adapter::Anthropic(anthropic) = adapter else { return };
        let ends_at = anthropic.login().ends_at();
        let (Some(days), Some(at)) = (days_left(ends_at, now), ends_at) else { return };
        let account = adapter.account().to_owned();
        // To half a day: each renewal may say it a second later.
        let key = format!("usage/login/{account}/{}/{days}", (at.as_second() + 43_200) / 86_400);
        self.tell_once(&key, ONCE, &Report::LoginDies { account, days }, now).await;
    }

    /// Says something in the room for alerts, at most once in `every`. While alerts are silent it is not said, and does not
    /// count as said.
    async fn tell_once(&self, key: &str, every: SignedDuration, report: &Report, now: Timestamp) {
        let tell = async {
            let plan = std::sync::Arc::clone(&self.plan.borrow());
            if self.store.muted_until(now).await?.is_some() {
                return Ok(());
            }
            let Some(room) = chat::home_room(&self.store, plan.home_room.as_deref()).await? else { return Ok(()) };
            let txn = digest::hashed(&[key, &now.as_millisecond().to_string()]);
            let draft = Draft { txn, room, payload: digest::payload(report, vec![]) };
            if self.store.say_once(key, every, draft, plan.quiet_until(now), now).await? {
                self.outbox.notify_one();
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = tell.await {
            tracing::warn!(%error, key, "a notice could not be written");
        }
    }
}
