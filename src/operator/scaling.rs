//! `start` and `stop`: what they come to for the workload as it is, and only while it is so.

use super::guarded::Hands;
use super::watching::Job;
use super::work::{Act, Turn, Work};
use super::{Book, Operator, now};
use crate::cluster::{Left, Target, Workload};
use crate::command::Verb;
use crate::message::{GUARD, Message};
use crate::policy::Scale;
use crate::reply::{Change, Report};
use crate::store::inbox::Entry;
use crate::store::memory::Past;
use crate::store::orders::Done;
use crate::store::{StoreError, outcome};

/// How many orders may be outdated because the workload, or its status, was changed between the look at it and the write. The
/// next one, absolute as they all are, is carried out whatever the workload is by then; but not for the guard.
const OUTDATED: u32 = 3;

impl Operator {
    /// Scales. What drift sees saves the question to the API server before the order; whether it is still so is asked with
    /// the order itself. The guard, who has promised to look, looks.
    pub(super) async fn scale(
        &self,
        entry: &Entry,
        message: &Message,
        order: &Scale,
        book: &Book,
    ) -> Result<(), StoreError> {
        let Some(target) = book.target(order.target()).cloned() else {
            let report = Report::NotConfigured { target: order.target().to_owned() };
            return self.answer(entry, message, outcome::TARGET_GONE, &report).await;
        };
        let (key, verb, is_guard) = (target.key(), verb(order), message.who == GUARD);
        let seen = self.cluster.seen(&target).filter(|_| !is_guard);
        let asked = async {
            // Beside the journal: it costs no time of its own.
            if seen.is_none() { Some(self.cluster.workload(&target).await) } else { None }
        };
        let (asked, owners, past) = tokio::join!(asked, self.cluster.owners(&target), self.store.past(entry.id, &key));
        let past = past?;
        if past.overtaken {
            return self.overtaken(entry, message, target, verb).await;
        }
        let mut turn = Turn::new(entry, message, &past);
        let seen = seen.filter(|seen| is_news(seen, &past));
        let mut is_fresh = seen.is_none();
        let mut looked = match seen.map(Ok).or(asked) {
            Some(looked) => looked,
            None => self.cluster.workload(&target).await,
        };
        loop {
            let workload = match looked {
                Ok(workload) => workload,
                Err(error) => return self.failed(turn, false, &target, verb, error).await,
            };
            if is_guard
                && verb == Verb::Start
                && let Some(hands) = self.ask(turn, || self.hands_since_guard(entry, &target, &workload)).await?
            {
                return self.left_alone(turn, target, workload.desired, hands).await;
            }
            match order.resolve(workload.desired, past.remembered) {
                Some(to) => {
                    let change = Change::Scale { from: workload.desired, to };
                    let owners = owners.iter().cloned().chain(workload.managed_by).collect();
                    let version = Some(workload.version.next());
                    let work = Work { target: target.clone(), change, owners, version };
                    let remember = (to == 0).then_some(workload.desired);
                    turn = turn.recorded(self.ask(turn, || self.write(turn, &work, remember)).await?);
                    if turn.outdated > 0 && book.rules.is_stale(entry.sent_at, now()) {
                        // The journal could not be written for long.
                        let report =
                            Report::Stale { texts: vec![message.text.trim().to_owned()], limit: book.rules.staleness };
                        let speech = Some(turn.says("stale", &report));
                        return self
                            .close_undone(turn, Done { speech, ..Done::silent(entry.id, outcome::TOO_OLD) })
                            .await;
                    }
                    let at = workload.resource_version.filter(|_| is_guard || turn.outdated < OUTDATED);
                    match self.act(turn, &work, at.as_deref(), book).await? {
                        Act::Over => return Ok(()),
                        Act::Outdated(error) if turn.outdated == OUTDATED => {
                            return self.failed(turn, true, &target, verb, error).await;
                        }
                        Act::Outdated(_) => turn.outdated += 1,
                    }
                }
                // What was seen a while ago is not enough to say that nothing has to be done.
                None if !is_fresh => {}
                None => return self.unchanged(turn, target, &workload).await,
            }
            looked = self.or_its_words(self.cluster.workload(&target)).await;
            is_fresh = true;
        }
    }

    /// Says that everything is as wanted, and journals who wanted it: a `stop` of what is stopped may still change whose
    /// stop it is. That holds for the guard, too: it has said that it stops something.
    async fn unchanged(&self, turn: Turn<'_>, target: Target, workload: &Workload) -> Result<(), StoreError> {
        let (replicas, ready) = (workload.desired, workload.ready);
        // Its replicas leave out the pods that are on their way out: those would pass for gone.
        let counted = if replicas == 0 { self.cluster.left(&target).await } else { None };
        let left = counted.unwrap_or(Left::AtLeast(workload.current));
        let change = Change::Scale { from: replicas, to: replicas };
        self.metrics.command(change.verb().word(), "unchanged");
        let work = Work { target: target.clone(), change, owners: vec![], version: Some(workload.version.clone()) };
        let key = target.key();
        let report = Report::AlreadySo { target, replicas, ready, left };
        let speech = Some(turn.says("unchanged", &report));
        let done = Done {
            target: Some(key),
            work: Some(work.to_json()),
            speech,
            ..Done::silent(turn.entry.id, outcome::UNCHANGED)
        };
        self.close_undone(turn, done).await
    }

    /// Says that the guard does not give back what somebody else had a hand in.
    async fn left_alone(&self, turn: Turn<'_>, target: Target, replicas: i32, hands: Hands) -> Result<(), StoreError> {
        self.metrics.command(Verb::Start.word(), "left alone");
        let key = Some(target.key());
        let by = match hands {
            Hands::Ordered(who) => Some(who),
            Hands::Changed => None,
        };
        let speech = Some(turn.says("left alone", &Report::LeftAlone { target, replicas, by }));
        self.close_undone(turn, Done { target: key, speech, ..Done::silent(turn.entry.id, outcome::LEFT_ALONE) }).await
    }
}

/// Says whether a workload was seen after the older orders that are still under watch. Otherwise this look is older than what
/// was done here, and would have it done again.
fn is_news(seen: &Workload, past: &Past) -> bool {
    let orders = past.watches.iter().filter_map(Job::restore).filter_map(|job| job.work.version);
    orders.filter(|done| done.uid == seen.version.uid).all(|done| done.generation <= seen.version.generation)
}

fn verb(order: &Scale) -> Verb {
    if order.resolve(1, None) == Some(0) { Verb::Stop } else { Verb::Start }
}
