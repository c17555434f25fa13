//! What `usage` shows: every account with the last good answer, its age, and what is decided of each bucket.

mod json;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::bucket::{Bucket, Reading, Snapshot, Source, blocking};
use super::cycle::ClosedWindow;
use super::decide::{BucketState, Pace};
use super::digest::{self, Before};
use super::forecast::{Estimator, Outlook};
use super::guard::STALE_AFTER;
use super::plan::Plan;
use super::source::program_row;
use crate::store::{Store, StoreError};

/// Everything that is known of the watched accounts.
#[derive(Debug, Clone, PartialEq)]
pub struct Overview {
    /// The accounts, in the order of the configuration.
    pub accounts: Vec<Watched>,
    /// Until when alerts are silent.
    pub muted_until: Option<Timestamp>,
    /// The zone for times.
    pub zone: TimeZone,
    /// The time of reading.
    pub now: Timestamp,
}

/// One account.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// Its name in the configuration.
    pub name: String,
    /// The last good answer.
    pub snapshot: Option<Snapshot>,
    /// What is decided of the buckets in it.
    pub buckets: Vec<Shown>,
    /// Older than this it counts as stale: three intervals.
    pub stale_after: SignedDuration,
    /// Why the last question failed.
    pub trouble: Option<String>,
    /// Until when the provider wants to be left alone.
    pub blocked_until: Option<Timestamp>,
}

/// One bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// What the source said last.
    pub reading: Reading,
    /// When.
    pub at: Timestamp,
    /// What is to come.
    pub outlook: Outlook,
    /// Used against even use.
    pub pace: Option<Pace>,
    /// Percentage points per hour, over the last six hours.
    pub burn: Option<f64>,
}

impl Watched {
    /// Puts the last answer and what is decided of its buckets together.
    #[must_use]
    pub fn new(
        name: &str,
        snapshot: Option<Snapshot>,
        states: &[BucketState],
        closed: &[ClosedWindow],
        (estimator, interval): (Estimator, SignedDuration),
    ) -> Self {
        let shown = |reading: &Reading, source: Source, at: Timestamp| {
            let state = states.iter().find(|state| state.bucket == reading.bucket);
            let closed = of(&reading.bucket, closed);
            // Where two sources speak of one account, what is decided stands on the fresher value; of one client's word
            // it stands on the fullest, and on none that is about a window of the past.
            let latest = state.and_then(|state| state.window()).map(super::cycle::Window::latest);
            let mut reading = reading.clone();
            let mut at = at;
            let fresher = |latest: &super::cycle::Point| latest.at > at || source == Source::Push;
            if let Some(latest) = latest.filter(|latest| fresher(latest) && reading.limit.is_none()) {
                (reading.used, at) = (latest.percent, latest.at);
                reading.resets_at =
                    state.and_then(|state| state.window()).and_then(|window| window.ends_at).or(reading.resets_at);
            }
            Shown {
                outlook: state.map_or(Outlook::NoResetKnown, |state| state.outlook(estimator, &closed)),
                pace: state.and_then(BucketState::pace),
                burn: state.and_then(BucketState::burn),
                reading,
                at,
            }
        };
        let buckets = snapshot
            .iter()
            .flat_map(|snapshot| snapshot.readings.iter().map(|reading| shown(reading, snapshot.source, snapshot.at)))
            .collect();
        Self {
            name: name.to_owned(),
            snapshot,
            buckets,
            stale_after: interval * STALE_AFTER,
            trouble: None,
            blocked_until: None,
        }
    }

    /// The limits that are used up now, the one that ends last first: that one binds.
    #[must_use]
    pub fn used_up(&self, now: Timestamp) -> Vec<&Reading> {
        blocking(self.buckets.iter().map(|shown| &shown.reading), now)
    }

    /// The money that pays on when the plan's own limits are used up.
    #[must_use]
    pub fn paying(&self) -> Option<&Reading> {
        self.buckets.iter().map(|shown| &shown.reading).find(|reading| reading.pays())
    }

    /// How old the last good answer is.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Option<SignedDuration> {
        self.buckets
            .iter()
            .map(|shown| shown.at)
            .max()
            .or(self.snapshot.as_ref().map(|s| s.at))
            .map(|at| now.duration_since(at))
    }

    /// Says whether the numbers are too old to act on.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.age(now).is_none_or(|age| age > self.stale_after)
    }
}

/// The closed windows of one bucket.
#[must_use]
pub fn of(bucket: &Bucket, closed: &[ClosedWindow]) -> Vec<ClosedWindow> {
    closed.iter().filter(|window| window.bucket == *bucket).cloned().collect()
}

/// Reads what is decided so far of every bucket.
///
/// # Errors
/// [`StoreError`] where the store cannot be read.
pub async fn states(store: &Store) -> Result<Vec<BucketState>, StoreError> {
    Ok(store.bucket_states().await?.iter().filter_map(|json| readable(json)).collect())
}

/// Reads the closed weeks that forecasts learn from.
///
/// # Errors
/// [`StoreError`] where the store cannot be read.
pub async fn weeks(store: &Store) -> Result<Vec<ClosedWindow>, StoreError> {
    Ok(store.closed_weeks().await?.iter().filter_map(digest::window).collect())
}

/// Reads everything that is shown.
///
/// # Errors
/// [`StoreError`] where the store cannot be read.
pub async fn read(store: &Store, plan: &Plan, now: Timestamp) -> Result<Overview, StoreError> {
    read_with(store, plan, &[], now).await
}

/// As [`read`], with what follows from answers that nobody has decided on yet: nothing of it is kept.
///
/// # Errors
/// [`StoreError`] where the store cannot be read.
pub async fn read_with(
    store: &Store,
    plan: &Plan,
    answers: &[Snapshot],
    now: Timestamp,
) -> Result<Overview, StoreError> {
    let closed: Vec<ClosedWindow> = store.closed_windows(None).await?.iter().filter_map(digest::window).collect();
    let mut states = states(store).await?;
    for answer in answers {
        let before = Before { states: &states, closed: &closed, told: &[], room: "", muted: true };
        states = digest::digest(answer, before, plan, now).states;
    }
    let mut accounts = Vec::new();
    for name in &plan.accounts {
        let mut row = store.account(name).await?;
        // A program beside the endpoint has a row of its own.
        let program = store.account(&program_row(name)).await?;
        row.trouble = row.trouble.or(program.trouble);
        row.blocked_until = row.blocked_until.max(program.blocked_until);
        let snapshot = row.snapshot.as_deref().and_then(readable);
        let estimator = (plan.settings.estimator, plan.interval);
        accounts.push(Watched {
            trouble: row.trouble,
            blocked_until: row.blocked_until,
            ..Watched::new(name, snapshot, &states, &closed, estimator)
        });
    }
    Ok(Overview { accounts, muted_until: store.muted_until(now).await?, zone: plan.zone.clone(), now })
}

/// Keeps what another source than the endpoint has said of an account, where no answer is kept that says more. What is
/// decided stands on the freshest value all the same.
///
/// # Errors
/// [`StoreError`] where the store cannot be read or written.
pub async fn keep(store: &Store, plan: &Plan, told: &Snapshot) -> Result<(), StoreError> {
    let kept: Option<Snapshot> = store.account(&told.account).await?.snapshot.as_deref().and_then(readable);
    if kept.as_ref().is_some_and(|kept| plan.prefers(&told.account, kept.source, told.source)) {
        return Ok(());
    }
    let decided: Vec<Bucket> = states(store).await?.into_iter().map(|state| state.bucket).collect();
    if let Ok(json) = serde_json::to_string(&joined(told, kept, &decided)) {
        store.note_told(&told.account, json).await?;
    }
    Ok(())
}

/// A workstation tells what its CLI was told last, which may be one limit of two: the other stays as long as its window goes on
/// and something is decided of it, which knows its age.
fn joined(told: &Snapshot, kept: Option<Snapshot>, decided: &[Bucket]) -> Snapshot {
    let mut joined = told.clone();
    let kept = kept.filter(|kept| (kept.source, told.source) == (Source::Push, Source::Push));
    for reading in kept.into_iter().flat_map(|kept| kept.readings) {
        let is_told = told.readings.iter().any(|other| other.bucket == reading.bucket);
        let goes_on = reading.resets_at.is_some_and(|end| end > told.at) && decided.contains(&reading.bucket);
        if !is_told && goes_on {
            joined.readings.push(reading);
        }
    }
    joined
}

/// Reads stored JSON; what a newer version wrote otherwise counts as not there, and the log says so.
fn readable<T: serde::de::DeserializeOwned>(json: &str) -> Option<T> {
    serde_json::from_str(json).inspect_err(|error| tracing::warn!(%error, "a stored state cannot be read")).ok()
}

#[cfg(test)]
mod tests;
