//! What nobody asked for: told once, and its recovery edits that message.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::watch;

use super::gate::{outgoing, txn};
use super::guarded::Anchor;
use super::{Book, Operator};
use crate::chat;
use crate::cluster::{Drift, Fallen, Target};
use crate::reply::Report;
use crate::store::StoreError;
use crate::store::falls::Fall;
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
        let mut drifts = std::pin::pin!(self.cluster.drift(watched, self.fallen().await));
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

    /// What the process before has told as fallen.
    async fn fallen(&self) -> BTreeMap<String, Fallen> {
        let falls = self.store.falls().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what fell before the start is not known, so its recovery is not told");
            BTreeMap::new()
        });
        falls.into_iter().map(|(key, Fall { desired, since })| (key, Fallen { desired, since })).collect()
    }

    async fn tell_one(&self, target: &Target, drift: &Drift, at: Timestamp) -> Result<(), StoreError> {
        let book = self.read_book();
        tracing::warn!(target = %target.key(), ?drift, "unasked change");
        let room = chat::home_room(&self.store, book.home_room.as_deref()).await?;
        // Before the first command nobody is known who would want to read it.
        let Some(room) = room else { return Ok(()) };
        let payload = outgoing(&Report::Drifted { target: target.clone(), drift: drift.clone() }, Anchor::default());
        let txn = txn(&target.key(), &format!("drift {}", at.as_millisecond()));
        let told = self.store.drift_row(&target.key()).await?;
        let speech = match (drift, told) {
            (Drift::Recovered { .. }, Some(row)) => Speech::Revise { row, room, txn, payload },
            _ => Speech::New(Draft { txn, room, payload }),
        };
        let row = self.store.say(None, speech, at).await?;
        let fall = match drift {
            Drift::Fell { desired, .. } => Some(Fall { desired: *desired, since: at }),
            _ => None,
        };
        self.store.note_drift(&target.key(), row, fall).await?;
        self.outbox.notify_one();
        Ok(())
    }
}

fn to_watch(book: &Book) -> Vec<Target> {
    if book.drift { book.targets.clone() } else { Vec::new() }
}
