//! What the watch of the subscription has seen, foretold and said: one transaction for each sample that taught something.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Row, Transaction};

use super::outbox::{Draft, Speech, put_speech};
use super::{Store, StoreError, moment, time};

/// Samples are kept so long: a quarter of a year for charts and imports.
pub const SAMPLES_KEPT: SignedDuration = SignedDuration::from_hours(24 * 90);
/// Closed windows, forecasts and alerts are kept so long: two years of weeks to learn from.
pub const RECORD_KEPT: SignedDuration = SignedDuration::from_hours(24 * 730);

/// How full a bucket was, as one source said.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `account/kind[/scope]`.
    pub bucket: String,
    /// When.
    pub at: Timestamp,
    /// Which kind of source.
    pub source: String,
    /// Used part of the limit, in per cent.
    pub percent: f64,
    /// When the window ends, as the source said then.
    pub resets_at: Option<Timestamp>,
}

/// A window that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    /// `account/kind[/scope]`.
    pub bucket: String,
    /// Its start: its id.
    pub started_at: Timestamp,
    /// Its end.
    pub ended_at: Timestamp,
    /// The last value in it, in per cent.
    pub last: f64,
    /// When it was used up, if it was.
    pub exhausted_at: Option<Timestamp>,
    /// In which way it ended.
    pub shape: String,
}

/// A forecast, as it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Foretold {
    /// `account/kind[/scope]`.
    pub bucket: String,
    /// Start of the window.
    pub cycle: Timestamp,
    /// When it was made.
    pub at: Timestamp,
    /// By which estimator.
    pub estimator: String,
    /// How full the bucket was.
    pub percent: f64,
    /// Probability that it runs out before the reset.
    pub probability: f64,
    /// Tenth percentile of the time at which it is used up.
    pub low: Option<Timestamp>,
    /// Median of it.
    pub median: Option<Timestamp>,
    /// Ninetieth percentile of it.
    pub high: Option<Timestamp>,
}

/// Words about a bucket, told once under (bucket, cycle, name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// `account/kind[/scope]`.
    pub bucket: String,
    /// Start of the window.
    pub cycle: Timestamp,
    /// What it is called in the window.
    pub name: String,
    /// It speaks of a state, which ends, and not of a moment.
    pub stands: bool,
    /// JSON of the owner's type: what was told.
    pub payload: String,
    /// The words; `None` where alerts are silent: it counts as told.
    pub draft: Option<Draft>,
    /// The words may not go out before.
    pub not_before: Option<Timestamp>,
}

/// An alert that the room has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What it is called in its window.
    pub name: String,
    /// Start of the window.
    pub cycle: Timestamp,
    /// JSON of what was told.
    pub payload: String,
    /// Row of its words.
    pub outbox: Option<i64>,
}

/// That an alert is over: its words are edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// `account/kind[/scope]`.
    pub bucket: String,
    /// Start of the window.
    pub cycle: Timestamp,
    /// What it is called in the window.
    pub name: String,
    /// The new words.
    pub speech: Option<Speech>,
}

/// Everything that follows from one sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Learned {
    /// What was seen.
    pub samples: Vec<Sample>,
    /// What is decided so far: bucket and JSON of the owner's type.
    pub states: Vec<(String, String)>,
    /// Windows that have ended.
    pub closed: Vec<Closed>,
    /// What was foretold.
    pub foretold: Vec<Foretold>,
    /// What is told.
    pub alerts: Vec<Alert>,
    /// What is over.
    pub over: Vec<Over>,
}

/// Closed weeks that are read at each sample: of five buckets a quarter of a year.
const WEEKS: u32 = 64;

const CLOSED: &str = "bucket, started_at, ended_at, final, exhausted_at, shape";

fn millis(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_millisecond)
}

fn sample(row: &Row<'_>) -> rusqlite::Result<Sample> {
    Ok(Sample {
        bucket: row.get("bucket")?,
        at: time(row, "at")?,
        source: row.get("source")?,
        percent: row.get("percent")?,
        resets_at: moment(row, "resets_at")?,
    })
}

fn closed(row: &Row<'_>) -> rusqlite::Result<Closed> {
    Ok(Closed {
        bucket: row.get("bucket")?,
        started_at: time(row, "started_at")?,
        ended_at: time(row, "ended_at")?,
        last: row.get("final")?,
        exhausted_at: moment(row, "exhausted_at")?,
        shape: row.get("shape")?,
    })
}

fn foretold(row: &Row<'_>) -> rusqlite::Result<Foretold> {
    Ok(Foretold {
        bucket: row.get("bucket")?,
        cycle: time(row, "cycle")?,
        at: time(row, "at")?,
        estimator: row.get("estimator")?,
        percent: row.get("percent")?,
        probability: row.get("probability")?,
        low: moment(row, "low")?,
        median: moment(row, "median")?,
        high: moment(row, "high")?,
    })
}

fn put_samples(tx: &Transaction<'_>, samples: &[Sample]) -> Result<usize, StoreError> {
    let mut put = tx.prepare_cached(
        "INSERT INTO usage_sample (bucket, at, source, percent, resets_at) VALUES (?1, ?2, ?3, ?4, ?5)
           ON CONFLICT (bucket, at, source) DO NOTHING",
    )?;
    let mut new = 0;
    for sample in samples {
        let at = sample.at.as_millisecond();
        new += put.execute((&sample.bucket, at, &sample.source, sample.percent, millis(sample.resets_at)))?;
    }
    Ok(new)
}

/// Puts words into the outbox that may not go out before a time; gives their row.
pub(super) fn put_words(
    tx: &Transaction<'_>,
    draft: Draft,
    not_before: Option<Timestamp>,
    now: Timestamp,
) -> Result<i64, StoreError> {
    let row = put_speech(tx, None, &Speech::New(draft), now)?;
    if let Some(until) = not_before {
        tx.execute(
            "UPDATE outbox SET not_before = ?2 WHERE id = ?1 AND state = 'queued'",
            (row, until.as_millisecond()),
        )?;
    }
    Ok(row)
}

fn put_alert(tx: &Transaction<'_>, alert: &Alert, now: Timestamp) -> Result<(), StoreError> {
    let at = now.as_millisecond();
    // What speaks of a moment is over as soon as it is told.
    let over_at = (!alert.stands).then_some(at);
    let new = tx.execute(
        "INSERT INTO usage_alert (bucket, cycle, name, at, payload, over_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
           ON CONFLICT (bucket, cycle, name) DO NOTHING",
        (&alert.bucket, alert.cycle.as_millisecond(), &alert.name, at, &alert.payload, over_at),
    )?;
    let Some(draft) = alert.draft.clone().filter(|_| new > 0) else { return Ok(()) };
    let row = put_words(tx, draft, alert.not_before, now)?;
    tx.execute(
        "UPDATE usage_alert SET outbox = ?4 WHERE bucket = ?1 AND cycle = ?2 AND name = ?3",
        (&alert.bucket, alert.cycle.as_millisecond(), &alert.name, row),
    )?;
    Ok(())
}

impl Store {
    /// Writes what follows from a sample: all of it or nothing. An alert of a name that is known is not told again.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written: nothing counts as told.
    pub async fn learn(&self, learned: Learned, now: Timestamp) -> Result<(), StoreError> {
        self.call(move |tx| {
            put_samples(tx, &learned.samples)?;
            for (bucket, state) in &learned.states {
                tx.execute(
                    "INSERT INTO usage_bucket (bucket, state, at) VALUES (?1, ?2, ?3)
                       ON CONFLICT (bucket) DO UPDATE SET state = ?2, at = ?3",
                    (bucket, state, now.as_millisecond()),
                )?;
            }
            for closed in &learned.closed {
                let (started, ended) = (closed.started_at.as_millisecond(), closed.ended_at.as_millisecond());
                tx.execute(
                    &format!("INSERT OR REPLACE INTO usage_cycle ({CLOSED}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"),
                    (&closed.bucket, started, ended, closed.last, millis(closed.exhausted_at), &closed.shape),
                )?;
            }
            for foretold in &learned.foretold {
                tx.execute(
                    "INSERT INTO usage_prediction
                         (bucket, cycle, at, estimator, percent, probability, low, median, high)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
                    (
                        &foretold.bucket,
                        foretold.cycle.as_millisecond(),
                        foretold.at.as_millisecond(),
                        &foretold.estimator,
                        foretold.percent,
                        foretold.probability,
                        millis(foretold.low),
                        millis(foretold.median),
                        millis(foretold.high),
                    ),
                )?;
            }
            for over in learned.over {
                let changed = tx.execute(
                    "UPDATE usage_alert SET over_at = ?4
                       WHERE bucket = ?1 AND cycle = ?2 AND name = ?3 AND over_at IS NULL",
                    (&over.bucket, over.cycle.as_millisecond(), &over.name, now.as_millisecond()),
                )?;
                if let Some(speech) = over.speech.filter(|_| changed > 0) {
                    put_speech(tx, None, &speech, now)?;
                }
            }
            for alert in &learned.alerts {
                put_alert(tx, alert, now)?;
            }
            Ok(())
        })
        .await
    }

    /// Says something at most once in `every` under a key, and not before a time; both or neither is written.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written: it was not said.
    pub async fn say_once(
        &self,
        key: &str,
        every: SignedDuration,
        draft: Draft,
        not_before: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let key = key.to_owned();
        self.call(move |tx| {
            let due = super::claim(tx, &key, now, every)?;
            if due {
                put_words(tx, draft, not_before, now)?;
            }
            Ok(due)
        })
        .await
    }

    /// Keeps an answer that the account's own source did not give. When that one answered last stays as it is: a workstation
    /// that speaks makes nobody else well.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn note_told(&self, account: &str, snapshot: String) -> Result<(), StoreError> {
        let account = account.to_owned();
        self.call(move |tx| {
            tx.execute(
                "INSERT INTO usage_account (account, snapshot) VALUES (?1, ?2)
                   ON CONFLICT (account) DO UPDATE SET snapshot = ?2",
                (account, snapshot),
            )?;
            Ok(())
        })
        .await
    }

    /// Takes samples from elsewhere; gives how many were new.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written: none is taken.
    pub async fn import_samples(&self, samples: Vec<Sample>) -> Result<usize, StoreError> {
        self.call(move |tx| put_samples(tx, &samples)).await
    }

    /// Reads what is decided so far of every bucket: JSON of the owner's type.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn bucket_states(&self) -> Result<Vec<String>, StoreError> {
        self.read(|tx| {
            let mut statement = tx.prepare("SELECT state FROM usage_bucket ORDER BY bucket")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Lists samples since a time, oldest first; of one bucket or of all.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn samples(&self, bucket: Option<String>, since: Timestamp) -> Result<Vec<Sample>, StoreError> {
        self.read(move |tx| {
            let mut statement = tx.prepare(
                "SELECT bucket, at, source, percent, resets_at FROM usage_sample
                   WHERE at >= ?1 AND (?2 IS NULL OR bucket = ?2) ORDER BY at, bucket, source",
            )?;
            let rows = statement.query_map((since.as_millisecond(), bucket), sample)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Lists closed windows, oldest first; of one bucket or of all.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn closed_windows(&self, bucket: Option<String>) -> Result<Vec<Closed>, StoreError> {
        self.read(move |tx| {
            let sql = format!("SELECT {CLOSED} FROM usage_cycle WHERE ?1 IS NULL OR bucket = ?1 ORDER BY started_at");
            let mut statement = tx.prepare(&sql)?;
            let rows = statement.query_map([bucket], closed)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Lists the last closed windows of weekly buckets, from which forecasts learn, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn closed_weeks(&self) -> Result<Vec<Closed>, StoreError> {
        self.read(|tx| {
            let sql = format!(
                "SELECT {CLOSED} FROM usage_cycle WHERE bucket LIKE '%/weekly_%' ORDER BY started_at DESC LIMIT {WEEKS}"
            );
            let mut statement = tx.prepare(&sql)?;
            let rows = statement.query_map([], closed)?;
            let mut windows: Vec<Closed> = rows.collect::<Result<_, _>>()?;
            windows.reverse();
            Ok(windows)
        })
        .await
    }

    /// Lists forecasts, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn forecasts(&self) -> Result<Vec<Foretold>, StoreError> {
        self.read(|tx| {
            let mut statement = tx.prepare("SELECT * FROM usage_prediction ORDER BY at")?;
            let rows = statement.query_map([], foretold)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Lists the alerts of a bucket that are not over, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn open_alerts(&self, bucket: &str) -> Result<Vec<Told>, StoreError> {
        let bucket = bucket.to_owned();
        self.read(move |tx| {
            let mut statement = tx.prepare(
                "SELECT name, cycle, payload, outbox FROM usage_alert WHERE bucket = ?1 AND over_at IS NULL ORDER BY at",
            )?;
            let rows = statement.query_map([bucket], |row| {
                Ok(Told {
                    name: row.get("name")?,
                    cycle: time(row, "cycle")?,
                    payload: row.get("payload")?,
                    outbox: row.get("outbox")?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Notes until when alerts are silent; the past takes it back.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn mute(&self, until: Timestamp) -> Result<(), StoreError> {
        self.call(move |tx| {
            tx.execute(
                "INSERT INTO usage_mute (scope, until) VALUES ('all', ?1) ON CONFLICT (scope) DO UPDATE SET until = ?1",
                [until.as_millisecond()],
            )?;
            Ok(())
        })
        .await
    }

    /// Says until when alerts are silent, if they are at `now`.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be read.
    pub async fn muted_until(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.read(move |tx| {
            let until: Option<i64> = tx.query_row("SELECT max(until) FROM usage_mute", [], |row| row.get(0))?;
            let until = until.and_then(|millis| Timestamp::from_millisecond(millis).ok());
            Ok(until.filter(|until| *until > now))
        })
        .await
    }

    /// Forgets what is older than [`SAMPLES_KEPT`] and [`RECORD_KEPT`].
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be written.
    pub async fn prune_usage(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.call(move |tx| {
            let old = (now - SAMPLES_KEPT).as_millisecond();
            let older = (now - RECORD_KEPT).as_millisecond();
            let mut gone = tx.execute("DELETE FROM usage_sample WHERE at < ?1", [old])?;
            gone += tx.execute("DELETE FROM usage_cycle WHERE ended_at < ?1", [older])?;
            gone += tx.execute("DELETE FROM usage_prediction WHERE at < ?1", [older])?;
            gone += tx.execute("DELETE FROM usage_alert WHERE at < ?1", [older])?;
            Ok(gone)
        })
        .await
    }
}

#[cfg(test)]
mod tests;
