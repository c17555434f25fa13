//! `restart`: replaces the pods, where that is permitted.

use super::work::{Turn, Work};
use super::{Book, Operator};
use crate::command::Verb;
use crate::message::Message;
use crate::policy::Restart;
use crate::reply::{Change, Report};
use crate::store::inbox::Entry;
use crate::store::{StoreError, outcome};

impl Operator {
    pub(super) async fn restart(
        &self,
        entry: &Entry,
        message: &Message,
        order: &Restart,
        book: &Book,
    ) -> Result<(), StoreError> {
        let Some(target) = book.target(order.target()).cloned() else {
            let report = Report::NotConfigured { target: order.target().to_owned() };
            return self.answer(entry, message, outcome::TARGET_GONE, &report).await;
        };
        let verb = Verb::Restart;
        let past = self.store.past(entry.id, &target.key()).await?;
        let turn = Turn::new(entry, message, &past);
        match self.cluster.may_restart(&target).await {
            Ok(true) => {}
            Ok(false) => {
                self.metrics.command(verb.word(), "refused");
                return self
                    .answer(entry, message, &outcome::refused("not offered"), &Report::RestartNotOffered { target })
                    .await;
            }
            Err(error) => return self.failed(turn, false, &target, verb, error).await,
        }
        if past.overtaken {
            return self.overtaken(entry, message, target, verb).await;
        }
        let work = Work { target, change: Change::Restart, owners: vec![], version: None };
        let turn = turn.recorded(self.write(turn, &work, None).await?);
        self.act(turn, &work, None, book).await.map(drop)
    }
}
