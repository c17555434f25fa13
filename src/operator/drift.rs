//! What nobody asked for: told once, and its recovery edits that message.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::watch;

use super::gate::{outgoing, txn};
use super::{Book, Operator};
use crate::chat;
use crate::cluster::{Drift, Target};
use crate::reply::Report;
use crate::store::StoreError;
use crate::store::outbox::{Draft, Speech};

impl Operator {
    /// Tells drift until the cluster's stream ends, which it never does.
    pub(super) async fn tell_drift(self: Arc<Self>) -> Option<Infallible> {
        let (targets, watched) = watch::channel(to_watch(&self.read_book()));
        let mut book = self.book.clone();
        let follow = async {
            while book.changed().await.is_ok() {
                let new = to_watch(&book.borrow_and_update());
                targets.send_if_modified(|old| {
                    let differs = *old != new;
                    *old = new;
                    differs
                });
            }
            // The rules are read again no more, because the process ends: the drift goes on until it does.
            std::future::pending::<()>().await;
        };
        let mut drifts = std::pin::pin!(self.cluster.drift(watched));
        let tell = async {
            while let Some((target, drift, at)) = drifts.next().await {
                if let Err(error) = self.tell_one(&target, &drift, at).await {
                    tracing::error!(%error, ?drift, "drift could not be told");
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = tell => {}
        }
        None
    }

    async fn tell_one(&self, target: &Target, drift: &Drift, at: Timestamp) -> Result<(), StoreError> {
        let book = self.read_book();
        tracing::warn!(target = %target.key(), ?drift, "unasked change");
        let room = chat::home_room(&self.store, book.home_room.as_deref()).await?;
        // Before the first command nobody is known who would want to read it.
        let Some(room) = room else { return Ok(()) };
        let payload = outgoing(&Report::Drifted { target: target.clone(), drift: drift.clone() }, None);
        let txn = txn(&target.key(), &format!("drift {}", at.as_millisecond()));
        let cursor = format!("drift/{}", target.key());
        let told = self.store.cursor(&cursor).await?.and_then(|row| row.parse().ok());
        if let (Drift::Recovered { .. }, Some(row)) = (drift, told) {
            self.store.say(None, Speech::Revise { row, room, txn, payload }, at).await?;
        } else {
            let row = self.store.say(None, Speech::New(Draft { txn, room, payload }), at).await?;
            self.store.set_cursor(&cursor, &row.to_string()).await?;
        }
        self.outbox.notify_one();
        Ok(())
    }
}

fn to_watch(book: &Book) -> Vec<Target> {
    if book.drift { book.targets.clone() } else { Vec::new() }
}
