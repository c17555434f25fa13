//! Where the bot is: it follows allowed people into rooms, and out of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use matrix_sdk::deserialized_responses::RawSyncOrStrippedState;
use matrix_sdk::ruma::events::room::tombstone::RoomTombstoneEventContent;
use matrix_sdk::ruma::{OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId};
use matrix_sdk::sync::{State, SyncResponse};
use matrix_sdk::{Room, RoomMemberships, RoomState};
use serde_json::Value;
use tracing::{debug, info, warn};

use super::answer::Answer;
use super::chores::Chores;
use super::event::Event;
use super::{Context, LAST_ROOM, home_cursor};
use crate::retry::Backoff;

/// Tries of a join or a leave before the next survey begins them anew.
const TRIES: usize = 8;

/// How often all rooms are looked over, besides at each start and each change.
const SURVEY: Duration = Duration::from_mins(5);

/// Rooms in a row of upgrades that are followed back.
const UPGRADES: usize = 10;

/// Follows invitations, departures and upgrades.
pub(crate) struct Rooms {
    context: Arc<Context>,
    chores: Chores,
    /// Rooms behind the aliases of the configuration.
    aliases: Mutex<BTreeMap<String, OwnedRoomId>>,
    /// Those about which the homeserver gave no answer when it was asked last.
    unanswered: Mutex<BTreeSet<String>>,
}

impl Rooms {
    pub(crate) fn new(context: Arc<Context>, chores: Chores) -> Self {
        Self { context, chores, aliases: Mutex::default(), unanswered: Mutex::default() }
    }

    /// Whether a list of the configuration names the room, by id or alias.
    pub(crate) fn is_named(&self, list: &[String], room: &RoomId) -> bool {
        list.iter().any(|name| name == room.as_str() || self.aliased(name).is_some_and(|aliased| aliased == room))
    }

    /// Whether the homeserver has said of every alias in `matrix.rooms` which room it means, if any.
    fn knows_all_named(&self) -> bool {
        let unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        !self.context.matrix.rooms.iter().any(|name| unanswered.contains(name))
    }

    /// The room of a name in the configuration.
    pub(crate) fn aliased(&self, name: &str) -> Option<OwnedRoomId> {
        match RoomId::parse(name) {
            Ok(room) => Some(room),
            Err(_) => self.aliases.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned(),
        }
    }

    /// Whether bare words are commands in the room however many are in it: it, or a room that it replaced, is named.
    pub(crate) fn speaks_bare(&self, room: &Room) -> bool {
        if self.context.matrix.bare_words_everywhere {
            return true;
        }
        let mut id = Some(room.room_id().to_owned());
        for _ in 0..UPGRADES {
            let Some(this) = id else { return false };
            if self.is_named(&self.context.matrix.rooms, &this) {
                return true;
            }
            // Whoever makes a room names its predecessor as they like: the old room must say so too.
            let before = self.context.client.get_room(&this).and_then(|room| room.predecessor_room());
            id = before.map(|before| before.room_id).filter(|before| {
                let successor = self.context.client.get_room(before).and_then(|room| room.successor_room());
                successor.is_some_and(|next| next.room_id == this)
            });
        }
        false
    }

    /// Follows the room through the upgrades that were followed.
    pub(crate) fn latest(&self, room: OwnedRoomId) -> OwnedRoomId {
        let mut id = room;
        for _ in 0..UPGRADES {
            let next =
                self.context.client.get_room(&id).and_then(|room| room.successor_room()).map(|next| next.room_id);
            match next.filter(|next| self.is_joined(next)) {
                Some(next) => id = next,
                None => break,
            }
        }
        id
    }

    fn is_joined(&self, room: &RoomId) -> bool {
        self.context.client.get_room(room).is_some_and(|room| room.state() == RoomState::Joined)
    }

    fn is_allowed(&self, user: &str) -> bool {
        self.context.users.borrow().iter().any(|allowed| allowed == user)
    }

    /// Asks which rooms the aliases of the configuration mean, as far as that is not known.
    pub(crate) async fn resolve(&self) {
        let matrix = &self.context.matrix;
        let names = matrix.rooms.iter().chain(&matrix.home_room);
        for name in names.filter(|name| self.aliased(name).is_none()) {
            let Ok(alias) = RoomAliasId::parse(name) else {
                warn!(name, "the configuration names a room that is neither an id (!…) nor an alias (#…)");
                continue;
            };
            let answer = self.context.client.resolve_room_alias(&alias).await;
            let answered = answer.as_ref().map_or_else(|error| Answer::of(error) == Answer::Refused, |_| true);
            {
                let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
                if answered {
                    unanswered.remove(name)
                } else {
                    unanswered.insert(name.clone())
                };
            }
            match answer {
                Ok(answer) => {
                    self.aliases.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), answer.room_id);
                }
                Err(error) => warn!(name, "the room of this alias is not known, it is asked for again: {error}"),
            }
        }
        self.note_home().await;
        self.note_last().await;
    }

    /// Keeps the home room where the operator looks it up; what waited for it goes out.
    async fn note_home(&self) {
        let Some(name) = &self.context.matrix.home_room else { return };
        let Some(home) = self.aliased(name).map(|room| self.latest(room)) else { return };
        #[expect(clippy::disallowed_methods, reason = "the loop over all rooms reads the clock")]
        let now = Timestamp::now();
        let noted = async {
            self.context.store.set_cursor(&home_cursor(name), home.as_str()).await?;
            crate::chat::bring_home(&self.context.store, home.as_str(), now).await
        };
        match noted.await {
            Ok(true) => self.context.outbox.notify_one(),
            Ok(false) => {}
            Err(error) => warn!("the home room could not be noted: {error}"),
        }
    }

    /// Takes the room of the last command through its upgrades, and forgets it once the bot has left: what is told there
    /// would reach nobody. Where a command came from another room meanwhile, that one holds.
    async fn note_last(&self) {
        let store = &self.context.store;
        let noted = async {
            let Some(last) = store.cursor(LAST_ROOM).await?.and_then(|id| OwnedRoomId::try_from(id).ok()) else {
                return Ok(());
            };
            let latest = self.latest(last.clone());
            let left = self
                .context
                .client
                .get_room(&latest)
                .is_some_and(|room| matches!(room.state(), RoomState::Left | RoomState::Banned));
            if left {
                info!(room = %latest, "left the room of the last command: news waits for the next one");
                return store.move_cursor(LAST_ROOM, last.as_str(), "").await;
            }
            if latest != last {
                store.move_cursor(LAST_ROOM, last.as_str(), latest.as_str()).await?;
            }
            Ok(())
        };
        if let Err(error) = noted.await {
            warn!("the room of the last command could not be noted: {error}");
        }
    }

    /// Looks all rooms over, now and then and whenever the allowed people change; ends only by being dropped.
    ///
    /// # Errors
    /// Where the rules are gone.
    pub(crate) async fn watch(self: Arc<Self>) -> anyhow::Result<()> {
        let mut users = self.context.users.clone();
        let mut health = self.context.health.subscribe();
        health.wait_for(|health| health.synced_at.is_some()).await?;
        loop {
            self.resolve().await;
            self.survey();
            tokio::select! {
                changed = users.changed() => changed?,
                () = tokio::time::sleep(SURVEY) => {}
            }
        }
    }

    fn survey(self: &Arc<Self>) {
        for room in self.context.client.invited_rooms() {
            self.answer_later(room);
        }
        for room in self.context.client.joined_rooms() {
            if room.is_tombstoned() {
                self.upgrade_later(room.clone());
            }
            self.check_later(room);
        }
    }

    /// Sees to what a sync brought about rooms.
    pub(crate) fn follow(self: &Arc<Self>, response: &SyncResponse) {
        let room = |id: &RoomId| self.context.client.get_room(id);
        for room in response.rooms.invited.keys().filter_map(|id| room(id)) {
            self.answer_later(room);
        }
        if !response.rooms.left.is_empty() {
            let rooms = Arc::clone(self);
            self.chores.add("last room", async move { rooms.note_last().await });
        }
        for (id, update) in &response.rooms.joined {
            let (State::Before(state) | State::After(state)) = &update.state;
            let timeline = update.timeline.events.iter().map(|event| event.raw().json().get());
            for json in state.iter().map(|event| event.json().get()).chain(timeline) {
                if !json.contains("m.room.member") && !json.contains("m.room.tombstone") {
                    continue;
                }
                let Some(event) = Event::parse(json) else { continue };
                let left =
                    event.membership().is_some_and(|(_, membership)| membership == "leave" || membership == "ban");
                if left && let Some(room) = room(id) {
                    self.check_later(room);
                }
                if event.kind == "m.room.tombstone"
                    && let Some(room) = room(id)
                {
                    self.upgrade_later(room);
                }
            }
        }
    }

    fn answer_later(self: &Arc<Self>, room: Room) {
        let rooms = Arc::clone(self);
        self.chores.add(&format!("invite/{}", room.room_id()), async move { rooms.answer(&room).await });
    }

    fn check_later(self: &Arc<Self>, room: Room) {
        let rooms = Arc::clone(self);
        self.chores.add(&format!("company/{}", room.room_id()), async move { rooms.leave_if_abandoned(&room).await });
    }

    fn upgrade_later(self: &Arc<Self>, room: Room) {
        let rooms = Arc::clone(self);
        self.chores.add(&format!("upgrade/{}", room.room_id()), async move { rooms.upgrade(&room).await });
    }

    /// Accepts an invitation of an allowed person, to a room that is named where any is; declines every other.
    async fn answer(&self, room: &Room) {
        let inviter = match room.invite_details().await {
            Ok(invite) => invite.inviter_id,
            Err(error) => {
                debug!(room = %room.room_id(), "no invitation any more: {error}");
                return;
            }
        };
        self.resolve().await;
        let named = self.context.matrix.rooms.is_empty()
            || self.is_named(&self.context.matrix.rooms, room.room_id())
            || self.replaces(room.room_id()).await;
        let accepted = named && self.is_allowed(inviter.as_str());
        // Perhaps this is the room of an alias that cannot be asked for right now: the next survey asks again.
        if !named && self.is_allowed(inviter.as_str()) && !self.knows_all_named() {
            return warn!(room = %room.room_id(), %inviter, "invitation left open until the aliases of matrix.rooms are known");
        }
        let mut pauses = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..TRIES {
            if room.state() != RoomState::Invited {
                return;
            }
            let tried = if accepted { room.join().await } else { room.leave().await };
            match tried {
                Ok(()) if accepted => {
                    info!(room = %room.room_id(), %inviter, "joined");
                    self.resolve().await;
                    // The rules may have changed on the way, when a survey could not see this room as joined.
                    return self.leave_if_abandoned(room).await;
                }
                Ok(()) => return info!(room = %room.room_id(), %inviter, named, "invitation declined"),
                Err(error) => {
                    warn!(room = %room.room_id(), %inviter, accepted, "the invitation is not answered yet: {error}");
                }
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Whether a room that the bot is in says, by the word of an allowed person, that this one replaces it.
    async fn replaces(&self, room: &RoomId) -> bool {
        for old in self.context.client.joined_rooms() {
            if let Some((_, next)) = self.successor(&old).await
                && next == room
            {
                return true;
            }
        }
        false
    }

    /// The room that replaces this one, if an allowed person says so.
    async fn successor(&self, room: &Room) -> Option<(OwnedUserId, OwnedRoomId)> {
        let tombstone = room.get_state_event_static::<RoomTombstoneEventContent>().await;
        let Ok(Some(RawSyncOrStrippedState::Sync(raw))) = tombstone else { return None };
        let event = Event::parse(raw.json().get()).filter(|event| self.is_allowed(&event.sender))?;
        let next = RoomId::parse(event.content.get("replacement_room").and_then(Value::as_str)?).ok()?;
        Some((UserId::parse(&event.sender).ok()?, next))
    }

    /// Joins the room that replaces this one. Where that needs an invitation first, the invitation is waited for.
    async fn upgrade(&self, room: &Room) {
        let Some((sender, next)) = self.successor(room).await else { return };
        let mut pauses = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..TRIES {
            if self.is_joined(&next) {
                return;
            }
            let servers = [sender.server_name().to_owned()];
            match self.context.client.join_room_by_id_or_alias((&*next).into(), &servers).await {
                Ok(_) => {
                    info!(room = %room.room_id(), %next, "followed the upgrade");
                    return self.resolve().await;
                }
                Err(error) => debug!(room = %room.room_id(), %next, "the upgrade is not followed yet: {error}"),
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Leaves a room in which no allowed person is or is invited.
    async fn leave_if_abandoned(&self, room: &Room) {
        // Without rules nothing is known about anybody: that is no reason to leave.
        if room.state() != RoomState::Joined || self.context.users.borrow().is_empty() {
            return;
        }
        let mut pauses = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..TRIES {
            let tried = match room.members(RoomMemberships::ACTIVE).await {
                Ok(members) if members.iter().any(|member| self.is_allowed(member.user_id().as_str())) => return,
                Ok(_) => room.leave().await,
                Err(error) => Err(error),
            };
            match tried {
                Ok(()) => {
                    info!(room = %room.room_id(), "left: no allowed person is in it");
                    return self.note_last().await;
                }
                Err(error) => warn!(room = %room.room_id(), "not left yet, though no allowed person is in it: {error}"),
            }
            tokio::time::sleep(pauses.next()).await;
            if room.state() != RoomState::Joined {
                return;
            }
        }
    }
}
