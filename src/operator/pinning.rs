//! `trust accept`: moves a pin, here or on the machine.

use jiff::Timestamp;

use super::{Book, Operator, now};
use crate::message::Message;
use crate::policy::Repin;
use crate::reply::Report;
use crate::store::inbox::Entry;
use crate::store::{Store, StoreError, outcome};

impl Operator {
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
