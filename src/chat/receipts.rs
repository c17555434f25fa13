//! Read receipts: people see that their words arrived.

use std::collections::BTreeMap;
use std::time::Duration;

use matrix_sdk::RoomState;
use matrix_sdk::ruma::api::client::receipt::create_receipt::v3::ReceiptType;
use matrix_sdk::ruma::events::receipt::ReceiptThread;
use matrix_sdk::ruma::{EventId, RoomId};
use tracing::debug;

use super::chores::Chores;
use crate::chat::Context;
use crate::store::inbox::Arrival;

/// How long a read receipt lets an answer go first.
const PAUSE: Duration = Duration::from_millis(200);

/// The last event of each room.
pub(crate) fn newest(arrivals: &[Arrival]) -> BTreeMap<String, String> {
    arrivals.iter().map(|arrival| (arrival.room.clone(), arrival.event.clone())).collect()
}

/// Marks these events as read, beside the caller.
pub(crate) fn send(context: &Context, chores: &Chores, newest: BTreeMap<String, String>) {
    for (room, event) in newest {
        let Ok(id) = RoomId::parse(&room) else { continue };
        let Some(room) = context.client.get_room(&id) else { continue };
        let Ok(event) = EventId::parse(event) else { continue };
        chores.add(&format!("read/{event}"), async move {
            // An answer that comes at once says more, and should not wait for this on its way.
            tokio::time::sleep(PAUSE).await;
            if room.state() == RoomState::Joined
                && let Err(error) = room.send_single_receipt(ReceiptType::Read, ReceiptThread::Unthreaded, event).await
            {
                debug!(room = %room.room_id(), "no receipt: {error}");
            }
        });
    }
}
