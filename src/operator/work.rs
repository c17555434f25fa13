//! Orders that change something: resolved to absolute numbers, journaled, carried out, journaled again.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::gate::{draft, outgoing, txn};
use super::guarded::{Hands, anchor};
use super::{Book, Operator, STORE_PAUSE, now, watching};
use crate::chat::{GUARD, Message};
use crate::cluster::{ClusterError, Target, Version, Wanted, Workload};
use crate::command::Verb;
use crate::policy::{Repin, Restart, Scale};
use crate::reply::{Change, Report};
use crate::store::inbox::{Done, Entry, Started};
use crate::store::outbox::Speech;
use crate::store::watches::{NewWatch, Watch};
use crate::store::{Store, StoreError, outcome};

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

    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Operator {
    pub(super) async fn scale(
        &self,
        entry: &Entry,
        message: &Message,
        order: &Scale,
        book: &Book,
    ) -> Result<(), StoreError> {
        let Some(target) = book.target(order.target()).cloned() else {
            return self.answer(entry, message, "the target is gone", &Report::Trouble).await;
        };
        // Read beside the workload: autoscalers and the journal cost no time of their own.
        let key = target.key();
        let (workload, owners, past) = tokio::join!(
            self.cluster.workload(&target),
            self.cluster.owners(&target),
            self.store.past(entry.id, &key),
        );
        let past = past?;
        let workload = match workload {
            Ok(workload) => workload,
            Err(error) => {
                let verb = order_verb(order);
                return self.failed(entry, message, None, &target, verb, error).await;
            }
        };
        if past.overtaken {
            return self.overtaken(entry, message, target, order_verb(order)).await;
        }
        if message.who == GUARD
            && order_verb(order) == Verb::Start
            && let Some(hands) = self.hands_since_guard(entry, &target, &workload).await?
        {
            return self.left_alone(entry, message, target, workload.desired, hands).await;
        }
        let Some(to) = order.resolve(workload.desired, past.remembered) else {
            return self.unchanged(entry, message, target, &workload).await;
        };
        let change = Change::Scale { from: workload.desired, to };
        let owners = owners.into_iter().chain(workload.managed_by).collect();
        let work = Work { target, change, owners, version: Some(workload.version.next()) };
        let remember = (to == 0).then_some(workload.desired);
        self.perform(entry, message, &work, remember, past.watches, book).await
    }

    pub(super) async fn restart(
        &self,
        entry: &Entry,
        message: &Message,
        order: &Restart,
        book: &Book,
    ) -> Result<(), StoreError> {
        let Some(target) = book.target(order.target()).cloned() else {
            return self.answer(entry, message, "the target is gone", &Report::Trouble).await;
        };
        let verb = Verb::Restart;
        match self.cluster.may_restart(&target).await {
            Ok(true) => {}
            Ok(false) => {
                self.metrics.command(verb.word(), "refused");
                return self
                    .answer(entry, message, &outcome::refused("not offered"), &Report::RestartNotOffered { target })
                    .await;
            }
            Err(error) => return self.failed(entry, message, None, &target, verb, error).await,
        }
        let past = self.store.past(entry.id, &target.key()).await?;
        if past.overtaken {
            return self.overtaken(entry, message, target, verb).await;
        }
        let work = Work { target, change: Change::Restart, owners: vec![], version: None };
        self.perform(entry, message, &work, None, past.watches, book).await
    }

    /// Says that everything is as wanted, and journals who wanted it: a `stop` of what is stopped may still change whose
    /// stop it is. That holds for the guard, too: it has said that it stops something.
    async fn unchanged(
        &self,
        entry: &Entry,
        message: &Message,
        target: Target,
        workload: &Workload,
    ) -> Result<(), StoreError> {
        let (replicas, ready, current) = (workload.desired, workload.ready, workload.current);
        let change = Change::Scale { from: replicas, to: replicas };
        self.metrics.command(change.verb().word(), "unchanged");
        let work = Work { target: target.clone(), change, owners: vec![], version: Some(workload.version.clone()) };
        let key = target.key();
        let report = Report::AlreadySo { target, replicas, ready, current };
        let speech = Some(Speech::New(draft(entry, message, &report)));
        let done = Done {
            target: Some(key),
            work: Some(work.to_json()),
            speech,
            ..Done::silent(entry.id, outcome::UNCHANGED)
        };
        self.close(done).await
    }

    /// Says that the guard does not give back what somebody else had a hand in.
    async fn left_alone(
        &self,
        entry: &Entry,
        message: &Message,
        target: Target,
        replicas: i32,
        hands: Hands,
    ) -> Result<(), StoreError> {
        self.metrics.command(Verb::Start.word(), "left alone");
        let key = Some(target.key());
        let by = match hands {
            Hands::Ordered(who) => Some(who),
            Hands::Changed => None,
        };
        let speech = Some(Speech::New(draft(entry, message, &Report::LeftAlone { target, replicas, by })));
        self.close(Done { target: key, speech, ..Done::silent(entry.id, outcome::LEFT_ALONE) }).await
    }

    async fn perform(
        &self,
        entry: &Entry,
        message: &Message,
        work: &Work,
        remember: Option<i32>,
        older: Vec<Watch>,
        book: &Book,
    ) -> Result<(), StoreError> {
        let started = Started {
            id: entry.id,
            target: work.target.key(),
            work: work.to_json(),
            remember,
            progress: Some(draft(entry, message, &work.underway())),
            superseded: older.iter().filter_map(|watch| superseded(watch, message, work)).collect(),
        };
        let row = self.store.start(started, now()).await?;
        self.outbox.notify_one();
        self.act(entry, message, work, row, book).await
    }

    /// A command whose key came late must not undo what was said after it.
    async fn overtaken(&self, entry: &Entry, message: &Message, target: Target, verb: Verb) -> Result<(), StoreError> {
        self.metrics.command(verb.word(), "overtaken");
        self.answer(entry, message, outcome::OVERTAKEN, &Report::Overtaken { target, verb }).await
    }

    /// Carries a journaled order out and journals what came of it. Absolute, so that it may be done twice.
    pub(super) async fn act(
        &self,
        entry: &Entry,
        message: &Message,
        work: &Work,
        row: Option<i64>,
        book: &Book,
    ) -> Result<(), StoreError> {
        let began = now();
        self.cluster.quiet(&work.target, began + book.rollout_deadline);
        let verb = work.change.verb();
        let result = match work.change {
            Change::Scale { to, .. } => self.cluster.scale(&work.target, to).await,
            Change::Restart => self.cluster.restart(&work.target, began).await,
        };
        if let Err(error) = result {
            self.cluster.quiet(&work.target, now());
            return self.failed(entry, message, row, &work.target, verb, error).await;
        }
        self.metrics.command(verb.word(), "done");
        let deadline = began + book.rollout_deadline;
        let job = watching::Job::new(entry, message, work, row, began, deadline);
        let watch = Some(NewWatch { target: work.target.key(), payload: job.to_json(), deadline });
        self.conclude(Done { message: row, watch, ..Done::silent(entry.id, &work.outcome()) }).await;
        // Unbounded but small: one job a command in work. It fails only while the process ends, and the row is written.
        drop(self.watchers.send(job));
        Ok(())
    }

    /// Writes what came of an order that may have moved the cluster. The lane is held until it is written: whoever comes
    /// next must not overtake it. A stop gives up after a while, and the next start judges the order anew.
    async fn conclude(&self, done: Done) {
        while let Err(error) = self.store.finish(done.clone(), now()).await {
            tracing::error!(id = done.id, %error, "an outcome cannot be written; trying again");
            tokio::time::sleep(STORE_PAUSE).await;
        }
        self.outbox.notify_one();
    }

    async fn failed(
        &self,
        entry: &Entry,
        message: &Message,
        row: Option<i64>,
        target: &Target,
        verb: Verb,
        error: ClusterError,
    ) -> Result<(), StoreError> {
        tracing::warn!(%error, target = %target.key(), "the cluster said no");
        self.metrics.command(verb.word(), "failed");
        self.metrics.cluster_error(&error);
        let outcome = format!("{}: {error}", outcome::FAILED);
        let report = Report::Failed { target: target.clone(), verb, error, tried: row.is_some() };
        let target = Some(target.key());
        let Some(row) = row else {
            // Nothing was tried, so nothing is lost when this cannot be written: the command is looked at again.
            let speech = Some(Speech::New(draft(entry, message, &report)));
            return self.close(Done { target, speech, ..Done::silent(entry.id, &outcome) }).await;
        };
        let speech = Some(Speech::Revise {
            row,
            room: entry.room.clone(),
            txn: txn(&entry.event, "failed"),
            payload: outgoing(&report, anchor(message)),
        });
        self.conclude(Done { target, speech, ..Done::silent(entry.id, &outcome) }).await;
        Ok(())
    }

    pub(super) async fn repin(
        &self,
        entry: &Entry,
        message: &Message,
        order: &Repin,
        book: &Book,
    ) -> Result<(), StoreError> {
        let report = accept(&self.store, order, book.pins.get(order.user()).map(String::as_str), now()).await?;
        let outcome = match &report {
            Report::Repinned { fingerprint, .. } => outcome::accepted(fingerprint),
            Report::PinnedByConfiguration { .. } => outcome::refused("pinned by the configuration"),
            _ => outcome::refused("another key"),
        };
        self.confirm(entry, message, &outcome, &report).await
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
    Some((watch.inbox, older.speech(&report, "superseded")))
}

/// Moves a pin to the key that the homeserver serves now, if it is the one that was compared; a pin of the
/// configuration wins and is moved there alone.
///
/// # Errors
/// [`StoreError`]: the pin is where it was.
pub async fn accept(
    store: &Store,
    order: &Repin,
    configured: Option<&str>,
    now: Timestamp,
) -> Result<Report, StoreError> {
    if order.device().is_none() && configured.is_some_and(|pin| pin != order.fingerprint()) {
        return Ok(Report::PinnedByConfiguration { user: order.user().to_owned() });
    }
    let keys = store.keys(order.user()).await?;
    let shown = match order.device() {
        None => keys.master,
        Some(device) => keys.devices.into_iter().find(|seen| seen.device == device).map(|seen| seen.ed25519),
    };
    let (user, device) = (order.user().to_owned(), order.device().map(str::to_owned));
    if shown.as_deref() != Some(order.fingerprint()) {
        return Ok(Report::NotShown { user, device, shown });
    }
    store.repin(order.user(), order.device(), order.fingerprint(), order.by(), now).await?;
    tracing::warn!(user, device, by = order.by(), "a key was accepted");
    Ok(Report::Repinned { user, device, fingerprint: order.fingerprint().to_owned() })
}

fn order_verb(order: &Scale) -> Verb {
    if order.resolve(1, None) == Some(0) { Verb::Stop } else { Verb::Start }
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

#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use crate::cluster::RolloutState;
    use crate::store::inbox::State;

    fn version(generation: i64) -> Version {
        Version { uid: "one".to_owned(), generation }
    }

    /// A workload of so many replicas, none of which is there yet.
    pub(in crate::operator) fn workload(desired: i32, generation: i64) -> Workload {
        Workload {
            desired,
            version: version(generation),
            current: 0,
            ready: 0,
            available: 0,
            images: vec![],
            rollout: RolloutState::Complete,
            paused: false,
            on_delete: false,
            scaled_by: None,
            managed_by: None,
            since: None,
        }
    }

    /// An order for `web` as the journal has it, which is to leave the object at this generation.
    pub(in crate::operator) fn order(
        sender: &str,
        (from, to): (i32, i32),
        generation: i64,
        outcome: Option<&str>,
    ) -> Entry {
        let target = serde_json::json!({
            "name": "web", "label": "web", "kind": "Deployment", "namespace": "apps", "object": "web",
        });
        let work = serde_json::json!({
            "target": target, "change": { "scale": { "from": from, "to": to } }, "owners": [],
            "version": version(generation),
        });
        Entry {
            id: 1,
            event: "$e".to_owned(),
            room: "!r".to_owned(),
            sender: sender.to_owned(),
            state: State::Told,
            sent_at: Timestamp::UNIX_EPOCH,
            received_at: Timestamp::UNIX_EPOCH,
            payload: String::new(),
            target: None,
            work: Some(work.to_string()),
            outcome: outcome.map(str::to_owned),
            started_at: None,
        }
    }
}
