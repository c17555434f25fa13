//! Gaps that could not be read at once: they stay open, and are read beside the receiving loop, each at its own pace.
//!
//! While a room's gap is open nothing of that room reaches the inbox, or its later words would be done before its earlier
//! ones. The other rooms are not held up. Where a gap begins is kept in the store, so a restart goes on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use matrix_sdk::ruma::OwnedRoomId;
use matrix_sdk::{Room, RoomState};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, MutexGuard, Notify, Semaphore};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{EVENTS, Left, REACH, fill};
use crate::chat::Context;
use crate::chat::chores::Chores;
use crate::chat::hearing::{Hearing, Judged};
use crate::chat::sync::POSITION;
use crate::chat::{answer, notice, receipts};
use crate::retry::Backoff;
use crate::store::gaps::Gap;

/// Gaps that are read at a time.
pub(crate) const AT_A_TIME: usize = 4;

/// A room reads that it is not heard when its gap is open for so long.
const TOLD: SignedDuration = SignedDuration::from_mins(1);

/// How long a gap stays open. What it holds is too old to act on long before; then the room's new words count for more.
const PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// The longest wait that a homeserver is granted: no gap is open for longer.
const LONGEST_WAIT: Duration = Duration::from_hours(2);

/// How long the last piece may take, for which the receiving loop waits.
const LAST_PIECE: Duration = Duration::from_secs(10);

/// The open gaps, shared by the receiving loop, which opens them, and [`OpenGaps::run`], which closes them.
pub(crate) struct OpenGaps {
    context: Arc<Context>,
    hearing: Arc<Hearing>,
    chores: Chores,
    /// Locked while either of the two writes the inbox: an event of a room is taken in by one of them.
    rooms: Mutex<BTreeMap<OwnedRoomId, Open>>,
    opened: Notify,
    turns: Semaphore,
}

/// An open gap.
pub(crate) struct Open {
    gap: Gap,
    /// How long the homeserver asked to wait, when it was opened.
    wait: Option<Duration>,
}

impl Open {
    /// A gap that begins at a position and could not be read because of `error`.
    pub(crate) fn because(error: &anyhow::Error, begin: &str, now: Timestamp) -> Self {
        Self { gap: Gap { begin: begin.to_owned(), since: now }, wait: answer::asked_to_wait(error) }
    }

    /// A gap that begins at a position.
    pub(crate) fn at(begin: &str, now: Timestamp) -> Self {
        Self { gap: Gap { begin: begin.to_owned(), since: now }, wait: None }
    }

    /// What the store keeps of it.
    pub(crate) fn gap(&self) -> Gap {
        self.gap.clone()
    }
}

impl OpenGaps {
    /// Goes on with the gaps that the process before has left open.
    pub(crate) async fn resume(context: Arc<Context>, hearing: Arc<Hearing>, chores: Chores) -> anyhow::Result<Self> {
        let kept = context.store.gaps().await?;
        let rooms = kept.into_iter().filter_map(|(id, gap)| Some((id.try_into().ok()?, Open { gap, wait: None })));
        let rooms = Mutex::new(rooms.collect());
        Ok(Self { context, hearing, chores, rooms, opened: Notify::new(), turns: Semaphore::new(AT_A_TIME) })
    }

    /// Gives the open gaps to who writes the inbox; nobody else does until they are given back.
    pub(crate) async fn lock(&self) -> MutexGuard<'_, BTreeMap<OwnedRoomId, Open>> {
        self.rooms.lock().await
    }

    /// Says whether any room has a gap.
    pub(crate) async fn are_open(&self) -> bool {
        !self.rooms.lock().await.is_empty()
    }

    /// Says whether no room is heard: every one that the bot is in has an open gap.
    pub(crate) async fn are_everywhere(&self) -> bool {
        let open = self.rooms.lock().await;
        !open.is_empty() && self.context.client.joined_rooms().iter().all(|room| open.contains_key(room.room_id()))
    }

    /// Tells that gaps were opened, once the store has them.
    pub(crate) fn opened(&self) {
        self.opened.notify_one();
    }

    /// Reads what is open until it is closed; ends only by being dropped.
    pub(crate) async fn run(self: Arc<Self>) -> anyhow::Result<()> {
        let mut reading = FuturesUnordered::new();
        let mut begun = BTreeSet::new();
        loop {
            for (id, open) in &*self.rooms.lock().await {
                if begun.insert(id.clone()) {
                    reading.push(self.see_to(id.clone(), open.gap.since, open.wait));
                }
            }
            tokio::select! {
                () = self.opened.notified() => {}
                Some(id) = reading.next(), if !reading.is_empty() => {
                    begun.remove(&id);
                }
            }
        }
    }

    /// Tries one room until its gap is closed.
    async fn see_to(&self, id: OwnedRoomId, since: Timestamp, wait: Option<Duration>) -> OwnedRoomId {
        let mut pauses = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        let mut next = Instant::now() + wait.unwrap_or_else(|| pauses.next()).min(LONGEST_WAIT);
        loop {
            // However long the homeserver asks to wait, the room is told in time and not left deaf for longer than that.
            let due = until_due(now().duration_since(since)).map(|due| Instant::now() + due);
            tokio::time::sleep_until(due.map_or(next, |due| due.min(next))).await;
            if Instant::now() >= next {
                let tried = {
                    let _turn = self.turns.acquire().await;
                    self.close(&id).await
                };
                let Err(error) = tried else { return id };
                let pause = answer::asked_to_wait(&error).unwrap_or_else(|| pauses.next());
                warn!(room = %id, ?pause, "what was said there cannot be read yet: {error:#}");
                next = Instant::now() + pause.min(LONGEST_WAIT);
            }
            let age = now().duration_since(since);
            let told = match age {
                age if age >= PATIENCE => self.pass_over(&id).await,
                age if age >= TOLD => self.say(&id, "deaf", since, notice::unheard(false)).await,
                _ => Ok(()),
            };
            match told {
                Ok(()) if age >= PATIENCE => return id,
                Ok(()) => {}
                Err(error) => {
                    warn!(room = %id, "the room was not told: {error:#}");
                    next = next.min(Instant::now() + pauses.next());
                }
            }
        }
    }

    /// Reads a room's gap to its end and takes in what it holds.
    async fn close(&self, id: &OwnedRoomId) -> anyhow::Result<()> {
        let Some(gap) = self.rooms.lock().await.get(id).map(Open::gap) else { return Ok(()) };
        let Some(room) = self.context.client.get_room(id).filter(|room| room.state() == RoomState::Joined) else {
            // Who left a room has nothing to hear there.
            let mut rooms = self.rooms.lock().await;
            return self.take(id, Judged::default(), None, &mut rooms).await;
        };
        let position = self.position().await?;
        let (mut judged, mut left) = self.read(&room, &position, &gap.begin).await?;

        let mut rooms = self.rooms.lock().await;
        let last = self.position().await?;
        if last != position {
            // What came since: the loop passes this room over, and waits now.
            let rest = tokio::time::timeout(LAST_PIECE, self.read(&room, &last, &position)).await;
            match rest.context("the homeserver did not answer in time").flatten() {
                Ok((rest, rest_left)) => {
                    judged.arrivals.extend(rest.arrivals);
                    left = left.or(rest_left);
                }
                Err(error) => {
                    let rest = Gap { begin: position, since: gap.since };
                    self.take(id, judged, Some(rest), &mut rooms).await?;
                    return Err(error);
                }
            }
        }
        if let Some(left) = left {
            tell_left(&self.context, id, left, &gap.begin, now()).await?;
        }
        self.take(id, judged, None, &mut rooms).await
    }

    /// Reads and judges what a room said between two positions.
    async fn read(&self, room: &Room, from: &str, to: &str) -> anyhow::Result<(Judged, Option<Left>)> {
        let users = Arc::clone(&self.context.users.borrow());
        let filled = fill(room, &users, from.to_owned(), to, now()).await?;
        let judged = self.hearing.hear(filled.heard).await?;
        ensure!(judged.held.is_empty(), "something in it cannot be judged yet");
        Ok((judged, filled.left))
    }

    /// Writes what was read, and what of the gap is left.
    async fn take(
        &self,
        id: &OwnedRoomId,
        judged: Judged,
        rest: Option<Gap>,
        rooms: &mut BTreeMap<OwnedRoomId, Open>,
    ) -> anyhow::Result<()> {
        let newest = receipts::newest(&judged.arrivals);
        let gaps = vec![(id.to_string(), rest.clone())];
        let new = self.context.store.receive_with_gaps(judged.arrivals, None, gaps, now()).await?;
        if let Some(gap) = rest {
            rooms.insert(id.clone(), Open { gap, wait: None });
        } else {
            rooms.remove(id);
            info!(room = %id, new, "caught up with the room");
        }
        if new > 0 {
            self.context.inbox.notify_one();
            receipts::send(&self.context, &self.chores, newest);
        }
        Ok(())
    }

    /// Gives a gap up, and says so in the room.
    async fn pass_over(&self, id: &OwnedRoomId) -> anyhow::Result<()> {
        let mut rooms = self.rooms.lock().await;
        let Some(gap) = rooms.get(id).map(Open::gap) else { return Ok(()) };
        warn!(room = %id, "what was said there could not be read in {PATIENCE:#} and is passed over");
        self.say(id, "unheard", gap.since, notice::unheard(true)).await?;
        self.take(id, Judged::default(), None, &mut rooms).await
    }

    /// Says something in the room, once for each gap.
    async fn say(
        &self,
        id: &OwnedRoomId,
        what: &str,
        since: Timestamp,
        words: crate::message::Outgoing,
    ) -> anyhow::Result<()> {
        let txn = format!("{what}-{:x}", Sha256::digest(format!("{id} {}", since.as_millisecond())));
        Ok(self.context.say(txn, id.as_str(), words, now()).await?)
    }

    async fn position(&self) -> anyhow::Result<String> {
        self.context.store.cursor(POSITION).await?.context("there is no position before the first sync")
    }
}

/// The time until something is due about a gap of this age, whether it can be read or not.
fn until_due(age: SignedDuration) -> Option<Duration> {
    let due = [TOLD, PATIENCE].into_iter().find(|due| age < *due)?;
    Duration::try_from(due - age).ok()
}

/// Tells a room, once for each gap, that a part of it stays unread.
pub(crate) async fn tell_left(
    context: &Context,
    id: &OwnedRoomId,
    left: Left,
    begin: &str,
    now: Timestamp,
) -> anyhow::Result<()> {
    let words = match left {
        Left::TooMuch => notice::cut(EVENTS, REACH),
        Left::Refused => notice::unheard(true),
    };
    let txn = format!("cut-{:x}", Sha256::digest(format!("{id} {begin}")));
    Ok(context.say(txn, id.as_str(), words, now).await?)
}

#[expect(clippy::disallowed_methods, reason = "a loop: it notes when things arrived, and how long they took")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_looked_at_when_its_room_must_be_told_and_when_it_is_passed_over() {
        for (age, due) in [(0, Some(60)), (59, Some(1)), (60, Some(3540)), (3599, Some(1)), (3600, None)] {
            assert_eq!(until_due(SignedDuration::from_secs(age)), due.map(Duration::from_secs), "{age} s");
        }
    }
}
