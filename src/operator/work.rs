//! Orders that change something: resolved to absolute numbers, journaled, carried out, journaled again.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::gate::revise;
use super::{Book, Operator, STORE_PAUSE, now, watching};
use crate::cluster::{ClusterError, Target, Version, Wanted};
use crate::command::Verb;
use crate::message::Message;
use crate::reply::{Change, Report};
use crate::store::inbox::Entry;
use crate::store::memory::Past;
use crate::store::orders::{Before, Done, Started};
use crate::store::outbox::Speech;
use crate::store::watches::{NewWatch, Watch};
use crate::store::{StoreError, outcome};

/// How long the first words of an order let the order itself go first. An API server that is well needs some milliseconds; nobody
/// in the room notices this.
const WORDS_WAIT: Duration = Duration::from_millis(50);

/// An absolute order, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) target: Target,
    pub(super) change: Change,
    /// What else owns the replicas, as it was known when the order was written.
    pub(super) owners: Vec<String>,
    /// The object once its replicas are changed and nothing else is: what tells later whether anybody has changed it since.
    #[serde(default)]
    pub(super) version: Option<Version>,
}

impl Work {
    /// The order that an entry of the journal stands for; `None` where it has none, or a newer version wrote it otherwise.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        serde_json::from_str(entry.work.as_deref()?).ok()
    }

    pub(super) fn wanted(&self) -> Wanted {
        match self.change {
            Change::Scale { to: 0, .. } => Wanted::Gone,
            Change::Scale { to, .. } => Wanted::Replicas(to),
            Change::Restart => Wanted::Restarted,
        }
    }

    pub(super) fn outcome(&self) -> String {
        match self.change {
            Change::Scale { from, to } => format!("scaled {from} → {to}"),
            Change::Restart => "restarted".to_owned(),
        }
    }

    pub(super) fn underway(&self) -> Report {
        Report::Underway { target: self.target.clone(), deed: self.change, owners: self.owners.clone() }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A command whose turn it is.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) entry: &'a Entry,
    pub(super) message: &'a Message,
    /// What the journal knew of the target before this command's order; after a restart, what is left of that.
    past: &'a Past,
    /// The row of its first words in the outbox, where there are some.
    pub(super) row: Option<i64>,
    /// Whether its order is in the journal. Then errors of the store are waited out: nobody would come back to the order before
    /// the next start.
    on_record: bool,
    /// Orders for it that were outdated before they were carried out.
    pub(super) outdated: u32,
}

impl<'a> Turn<'a> {
    pub(super) fn new(entry: &'a Entry, message: &'a Message, past: &'a Past) -> Self {
        Self { entry, message, past, row: None, on_record: false, outdated: 0 }
    }

    /// The same with an order on record and these first words.
    pub(super) fn recorded(self, row: Option<i64>) -> Self {
        Self { row, on_record: true, ..self }
    }

    /// What holds again where the order on record is given up.
    fn before(&self) -> Option<Before> {
        let watches = self.past.watches.iter().filter_map(|watch| {
            let outcome = watching::Job::restore(watch)?.work.outcome();
            Some((watch.clone(), outcome))
        });
        self.on_record.then(|| Before { remembered: self.past.remembered, watches: watches.collect() })
    }

    /// Gives words in answer, in the place of those that it has.
    pub(super) fn says(&self, purpose: &str, report: &Report) -> Speech {
        revise(self.entry, self.message, self.row, purpose, report)
    }
}

/// How carrying an order out went.
#[derive(Debug)]
pub(super) enum Act {
    /// It is done, or it has failed; that is journaled.
    Over,
    /// A conflict: the workload has changed since it was read. Nothing was written there, and the order is still in the journal.
    Outdated(ClusterError),
}

impl Operator {
    /// Writes an order down before anything moves, in the place of one that was outdated; gives the row of the words.
    pub(super) async fn write(
        &self,
        turn: Turn<'_>,
        work: &Work,
        remember: Option<i32>,
    ) -> Result<Option<i64>, StoreError> {
        let older = turn.past.watches.iter();
        let started = Started {
            id: turn.entry.id,
            target: work.target.key(),
            work: work.to_json(),
            remember,
            progress: Some(turn.says(&format!("anew {}", turn.outdated), &work.underway())),
            superseded: older.filter_map(|watch| superseded(watch, turn.message, work)).collect(),
        };
        self.store.start(started, now()).await
    }

    /// A command that came late must not undo what was said after it.
    pub(super) async fn overtaken(
        &self,
        entry: &Entry,
        message: &Message,
        target: Target,
        verb: Verb,
    ) -> Result<(), StoreError> {
        self.metrics.command(verb.word(), "overtaken");
        self.answer(entry, message, outcome::OVERTAKEN, &Report::Overtaken { target, verb }).await
    }

    /// Carries a journaled order out and journals what came of it. Absolute, so that it may be done twice. With a
    /// `metadata.resourceVersion` the replicas are changed only while the workload is at it.
    pub(super) async fn act(
        &self,
        turn: Turn<'_>,
        work: &Work,
        at: Option<&str>,
        book: &Book,
    ) -> Result<Act, StoreError> {
        let began = now();
        let quiet = self.cluster.quiet(&work.target, began + book.rollout_deadline);
        let verb = work.change.verb();
        let change = async {
            match (work.change, at) {
                (Change::Scale { to, .. }, Some(at)) => {
                    self.cluster.scale_at(&work.target, to, at).await.map(|()| work.version.clone())
                }
                (Change::Scale { to, .. }, None) => {
                    self.cluster.scale(&work.target, to).await.map(|()| work.version.clone())
                }
                (Change::Restart, _) => self.cluster.restart(&work.target, began).await.map(Some),
            }
        };
        let changed = self.or_its_words(change).await;
        let version = match changed {
            Ok(version) => version,
            Err(error) => {
                let nothing_moved = !error.is_uncertain();
                self.cluster.quiet(&work.target, quiet.filter(|_| nothing_moved).unwrap_or_else(now));
                if at.is_some() && matches!(error, ClusterError::Conflict(_)) {
                    tracing::info!(target = %work.target.key(), "the workload has changed meanwhile: the order is judged anew");
                    return Ok(Act::Outdated(error));
                }
                self.failed(turn, true, &work.target, verb, error).await?;
                return Ok(Act::Over);
            }
        };
        self.outbox.notify_one();
        // A restart is not known by its replicas: what the API server made of it says which looks came after.
        let work = Work { version, ..work.clone() };
        self.carried_out(turn, &work, began, book).await;
        Ok(Act::Over)
    }

    /// Journals that an order is carried out, and watches what comes of it.
    pub(super) async fn carried_out(&self, turn: Turn<'_>, work: &Work, began: Timestamp, book: &Book) {
        self.metrics.command(work.change.verb().word(), "done");
        let deadline = began + book.rollout_deadline;
        self.cluster.quiet(&work.target, deadline);
        let job = watching::Job::new(turn, work, began, deadline);
        let watch = Some(NewWatch { target: work.target.key(), payload: job.to_json(), deadline });
        self.conclude(Done { message: turn.row, watch, ..Done::silent(turn.entry.id, &work.outcome()) }).await;
        // Unbounded but small: one job a command in work. It fails only while the process ends, and the row is written.
        drop(self.watchers.send(job));
    }

    /// Waits for the cluster; when it takes its time, the words that are on record go out meanwhile. On a small machine the two
    /// would hold each other up, and what fails at once is told by one message.
    pub(super) async fn or_its_words<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = std::pin::pin!(answer);
        if let Ok(answer) = tokio::time::timeout(WORDS_WAIT, &mut answer).await {
            return answer;
        }
        self.outbox.notify_one();
        answer.await
    }

    /// Asks something of the journal; where an order is on record, until it answers: nobody else would come back to that order
    /// before the next start.
    pub(super) async fn ask<T, F>(&self, turn: Turn<'_>, ask: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        if turn.on_record {
            return Ok(self.insist(turn.entry.id, "an order cannot be judged anew", ask).await);
        }
        ask().await
    }

    /// Writes what came of an order that may have moved the cluster. The lane is held until it is written: whoever comes
    /// next must not overtake it. A stop gives up after a while, and the next start judges the order anew.
    pub(super) async fn conclude(&self, done: Done) {
        let write = || self.store.finish(done.clone(), now());
        self.insist(done.id, "an outcome cannot be written", write).await;
        self.outbox.notify_one();
    }

    /// Asks something of the journal until it answers; the log says meanwhile what cannot be done for that row.
    pub(super) async fn insist<T, F>(&self, id: i64, trouble: &str, ask: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(error) => tracing::error!(id, %error, "{trouble}; trying again"),
            }
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }

    /// Says and journals that nothing came of an order, as far as is known. `tried`: it was on its way to the cluster.
    pub(super) async fn failed(
        &self,
        turn: Turn<'_>,
        tried: bool,
        target: &Target,
        verb: Verb,
        error: ClusterError,
    ) -> Result<(), StoreError> {
        tracing::warn!(%error, target = %target.key(), "the cluster said no");
        self.metrics.command(verb.word(), "failed");
        self.metrics.cluster_error(&error);
        let (outcome, is_uncertain) = (format!("{}: {error}", outcome::FAILED), error.is_uncertain());
        let speech = turn.says("failed", &Report::Failed { target: target.clone(), verb, error, tried });
        let done = Done { target: Some(target.key()), speech: Some(speech), ..Done::silent(turn.entry.id, &outcome) };
        if tried && is_uncertain {
            self.conclude(done).await;
            return Ok(());
        }
        self.close_undone(turn, done).await
    }

    /// Closes a command for which nothing has moved. An order that is on record is given up, and whoever waited for the end
    /// of an older one goes on.
    pub(super) async fn close_undone(&self, turn: Turn<'_>, done: Done) -> Result<(), StoreError> {
        let Some(before) = turn.before() else {
            // When this cannot be written nothing is lost: the command is looked at again.
            return self.close(done).await;
        };
        self.conclude(Done { given_up: Some(before), ..done }).await;
        let watches = self.ask(turn, || self.store.watches()).await?;
        for watch in watches.into_iter().filter(|watch| turn.past.watches.contains(watch)) {
            if let Some(job) = watching::Job::restore(&watch) {
                self.cluster.quiet(&job.target, watch.deadline);
                drop(self.watchers.send(job));
            }
        }
        Ok(())
    }
}

/// The last words of an older watch of the target: who took over.
fn superseded(watch: &Watch, message: &Message, work: &Work) -> Option<(i64, Speech)> {
    let older = watching::Job::restore(watch)?;
    let report = Report::Superseded {
        target: older.target.clone(),
        deed: older.work.change,
        by: message.who.clone(),
        newer: work.change.verb(),
    };
    Some((watch.inbox, older.speech(&report, &format!("superseded by {}", message.event))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Kind;
    use crate::store::inbox::State;
    use crate::usage::guard::{Course, Will, deed};

    /// The guard reads of the journal what is written here.
    #[test]
    fn an_order_in_the_journal_is_read_as_the_deed_that_it_was() {
        let target = Target {
            name: "web".to_owned(),
            label: "web".to_owned(),
            kind: Kind::Deployment,
            namespace: "apps".to_owned(),
            object: "web".to_owned(),
        };
        let entry = |change: Option<Change>, outcome: &str| Entry {
            id: 1,
            event: "$e".to_owned(),
            room: "!r".to_owned(),
            sender: "@alice:hs".to_owned(),
            state: State::Told,
            sent_at: Timestamp::UNIX_EPOCH,
            received_at: Timestamp::UNIX_EPOCH,
            payload: String::new(),
            target: None,
            work: change.map(|change| Work { target: target.clone(), change, owners: vec![], version: None }.to_json()),
            outcome: Some(outcome.to_owned()),
            started_at: None,
            waiting_for: None,
        };
        let scale = |from, to| Some(Change::Scale { from, to });
        for (change, outcome, course, will) in [
            (scale(2, 0), "scaled 2 → 0, done in 5 s", Course::Moved, Some(Will::Stop)),
            (scale(0, 2), "superseded", Course::Moved, Some(Will::Start)),
            (scale(2, 2), outcome::UNCHANGED, Course::Unmoved, Some(Will::Start)),
            (scale(0, 0), outcome::UNCHANGED, Course::Unmoved, Some(Will::Stop)),
            (scale(2, 0), "failed: no answer", Course::Failed { ordered: true }, Some(Will::Stop)),
            (None, "failed: no answer", Course::Failed { ordered: false }, None),
            (None, outcome::TOO_OLD, Course::Failed { ordered: false }, None),
            (None, outcome::LEFT_ALONE, Course::Void, None),
            (None, "refused", Course::Void, None),
            (Some(Change::Restart), "restarted", Course::Void, None),
        ] {
            let entry = entry(change, outcome);
            assert_eq!(deed::course(&entry), course, "{entry:?}");
            assert_eq!(deed::deed(&entry).map(|deed| deed.will), will, "{entry:?}");
        }
        assert_eq!(deed::course(&Entry { state: State::Started, ..entry(scale(2, 0), "") }), Course::Open);
    }
}
