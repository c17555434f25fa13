//! From a timeline event to an entry for the inbox.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use matrix_sdk::deserialized_responses::{EncryptionInfo, TimelineEvent, TimelineEventKind, UnableToDecryptReason};
use matrix_sdk::ruma::{OwnedRoomId, UserId};
use matrix_sdk::{Room, RoomMemberships};
use tracing::{debug, warn};

use super::answer::{self, is_logout};
use super::chores::Chores;
use super::event::{Event, names_one_of, strip_name};
use crate::chat::Context;
use crate::chat::rooms::Rooms;
use crate::chat::trust::Trust;
use crate::chat::trust::replay::{Replay, Sight};
use crate::chat::trust::standing::Evidence;
use crate::message::{Address, Message, Standing};
use crate::store::inbox::Arrival;

/// How long the homeserver is left to the answer before a message index is asked for.
const INDEX_PAUSE: Duration = Duration::from_secs(2);

/// A timeline event and the room that it was heard in.
pub(crate) struct Heard {
    pub(crate) room: Room,
    pub(crate) event: TimelineEvent,
    /// Its Megolm message index, where the ciphertext was at hand.
    pub(crate) message_index: Option<u32>,
}

/// What an event means for the inbox.
enum Meaning {
    /// A text to judge.
    Text(Text),
    /// An encrypted event that cannot be read; its key may still come.
    Locked(OwnedRoomId, Arrival),
}

struct Text {
    room: Room,
    event: Event,
    body: String,
    info: Option<Arc<EncryptionInfo>>,
    message_index: Option<u32>,
}

/// What became of a batch.
#[derive(Default)]
pub(crate) struct Judged {
    /// Entries for the inbox.
    pub(crate) arrivals: Vec<Arrival>,
    /// Rooms of which something cannot be judged now: from there on nothing of them is in `arrivals`.
    pub(crate) held: BTreeSet<OwnedRoomId>,
}

impl Judged {
    /// Takes in nothing more of a room: something of it, or of a person who speaks there, could not be asked for, and no other
    /// room must wait for that. Gives the error back where it is no room's own: the login is over, or a store is broken.
    fn hold(&mut self, room: &Room, error: anyhow::Error) -> anyhow::Result<()> {
        if answer::to(&error).is_none() || is_logout(&error) {
            return Err(error);
        }
        warn!(room = %room.room_id(), "held until it can be judged: {error:#}");
        self.held.insert(room.room_id().to_owned());
        Ok(())
    }
}

/// Turns what was heard into entries for the inbox.
pub(crate) struct Hearing {
    context: Arc<Context>,
    rooms: Arc<Rooms>,
    trust: Arc<Trust>,
    replay: Arc<Replay>,
    chores: Chores,
}

impl Hearing {
    pub(crate) fn new(context: Arc<Context>, rooms: Arc<Rooms>, trust: Arc<Trust>, chores: Chores) -> Self {
        let replay = Arc::new(Replay::new(Arc::clone(&context)));
        Self { context, rooms, trust, replay, chores }
    }

    /// Gives the entries for the inbox, in the order of `heard`. Strangers, edits, notices and the like leave none.
    ///
    /// # Errors
    /// Where nothing can be judged now: nothing of this batch may be taken in, and it is heard again later.
    pub(crate) async fn hear(&self, heard: Vec<Heard>) -> anyhow::Result<Judged> {
        let users = Arc::clone(&self.context.users.borrow());
        let meanings: Vec<Meaning> = heard.into_iter().filter_map(|heard| meaning(heard, &users)).collect();

        let sights: Vec<Option<Sight>> = meanings.iter().map(sight).collect();
        let asked = sights.iter().flatten().map(|s| (s.session.clone(), s.digest.clone(), s.event.clone())).collect();
        // What speaks for a single message is gathered beside that: somebody waits for it.
        let single = async {
            match meanings.as_slice() {
                [Meaning::Text(text)] => Some(self.evidence(text).await),
                _ => None,
            }
        };
        let (earlier, mut gathered) = tokio::join!(self.context.store.sighted_all(asked), single);
        let mut earlier = earlier?.into_iter();
        let mut known: HashMap<String, u32> = meanings
            .iter()
            .filter_map(|meaning| match meaning {
                Meaning::Text(text) => Some((text.event.id.clone(), text.message_index?)),
                Meaning::Locked(..) => None,
            })
            .collect();

        // A single command is waited for by somebody; many at once are best indexed at once.
        let pause = if meanings.len() == 1 { INDEX_PAUSE } else { Duration::ZERO };
        let mut judged = Judged::default();
        for (meaning, sight) in meanings.into_iter().zip(sights) {
            let earlier = sight.as_ref().and_then(|_| earlier.next()).unwrap_or_default();
            let text = match meaning {
                Meaning::Locked(room, arrival) if !judged.held.contains(&room) => {
                    judged.arrivals.push(arrival);
                    continue;
                }
                Meaning::Text(text) if !judged.held.contains(text.room.room_id()) => text,
                _ => continue,
            };
            let replayed = match &sight {
                None => false,
                Some(sight) if earlier.is_empty() && text.message_index.is_none() => {
                    self.index_later(&text.room, sight, pause);
                    false
                }
                Some(sight) => match self.replay.is_replay(&text.room, sight, &earlier, &mut known).await {
                    Ok(replayed) => replayed,
                    Err(error) => {
                        judged.hold(&text.room, error)?;
                        continue;
                    }
                },
            };
            let evidence = match gathered.take() {
                Some(gathered) => gathered,
                None => self.evidence(&text).await,
            };
            let evidence = match evidence {
                Ok(evidence) => evidence,
                Err(error) => {
                    judged.hold(&text.room, error)?;
                    continue;
                }
            };
            let standing = self.trust.standing(&Evidence { replayed, ..evidence });
            judged.arrivals.push(self.arrival(text, standing).await?);
        }
        Ok(judged)
    }

    /// Reads the message indices that the process before has left unread.
    pub(crate) fn index_missing(&self) {
        let replay = Arc::clone(&self.replay);
        self.chores.add("index", async move { replay.note_missing().await });
    }

    fn index_later(&self, room: &Room, sight: &Sight, pause: Duration) {
        let (replay, room, sight) = (Arc::clone(&self.replay), room.clone(), sight.clone());
        self.chores.add(&format!("index/{}", sight.event), async move {
            // After the answer: a replay that comes sooner has it read before anything is acted on.
            tokio::time::sleep(pause).await;
            if let Err(error) = replay.note(&room, &sight).await {
                // The next event with this text reads it.
                debug!(event = sight.event, "message index not read: {error:#}");
            }
        });
    }

    async fn evidence(&self, text: &Text) -> anyhow::Result<Evidence> {
        let sender = UserId::parse(&text.event.sender).context("an allowed user's id")?;
        self.trust.evidence(&text.room, &sender, text.info.as_deref()).await
    }

    async fn arrival(&self, text: Text, standing: Standing) -> anyhow::Result<Arrival> {
        let Text { room, event, body, info, .. } = text;
        let (address, text) = self.address(&room, &event, &body).await;
        let message = Message {
            who: event.sender.clone(),
            room: room.room_id().to_string(),
            event: event.id.clone(),
            text,
            sent_at: event.sent_at(),
            thread: event.thread().map(str::to_owned),
            device: info.and_then(|info| info.sender_device.clone()).map(|device| device.to_string()),
            standing,
            address,
        };
        Ok(Arrival {
            event: message.event.clone(),
            room: message.room.clone(),
            sender: message.who.clone(),
            sent_at: message.sent_at,
            payload: serde_json::to_string(&message)?,
            waiting_for: None,
        })
    }

    /// Says how the text may be a command here, and takes the bot's name off its front.
    async fn address(&self, room: &Room, event: &Event, body: &str) -> (Address, String) {
        let own = room.own_user_id();
        let mentioned = event.mentions(own.as_str());
        let names = [self.context.matrix.display_name.as_str(), own.as_str(), own.localpart()];
        let stripped = strip_name(body, &names, mentioned);
        let text = stripped.unwrap_or_else(|| body.trim()).to_owned();
        let address = if self.rooms.speaks_bare(room) || company(room).await == Some(2) {
            Address::Bare
        } else if stripped.is_some() || mentioned && (!event.is_reply() || names_one_of(body, &names)) {
            Address::Mentioned
        } else if mentioned {
            Address::Answering
        } else {
            Address::Overheard
        };
        (address, text)
    }
}

/// People who are in the room or invited to it; nothing where that cannot be known.
async fn company(room: &Room) -> Option<u64> {
    let counted = room.joined_members_count() + room.invited_members_count();
    if counted > 0 {
        return Some(counted);
    }
    match room.members(RoomMemberships::ACTIVE).await {
        Ok(members) => u64::try_from(members.len()).ok(),
        Err(error) => {
            warn!(room = %room.room_id(), "members unknown, so only addressed commands count in it: {error}");
            None
        }
    }
}

fn sight(meaning: &Meaning) -> Option<Sight> {
    let Meaning::Text(text) = meaning else { return None };
    let session = text.info.as_ref()?.session_id()?.to_owned();
    Some(Sight { session, digest: text.event.digest(), event: text.event.id.clone() })
}

fn meaning(heard: Heard, users: &[String]) -> Option<Meaning> {
    let Heard { room, event: timeline, message_index } = heard;
    let event = Event::parse(timeline.raw().json().get())?;
    if event.sender == room.own_user_id().as_str() || !users.contains(&event.sender) {
        return None;
    }
    match &timeline.kind {
        TimelineEventKind::UnableToDecrypt { utd_info, .. } => {
            if !event.is_encrypted_message() {
                return None;
            }
            // What the key that is here does not open waits like the rest; but its sender is asked for this one by itself.
            let awaits_key = matches!(
                utd_info.reason,
                UnableToDecryptReason::MissingMegolmSession { .. } | UnableToDecryptReason::UnknownMegolmMessageIndex
            );
            let session = utd_info.session_id.clone().filter(|_| awaits_key);
            let waiting_for = session.unwrap_or_else(|| event.id.clone());
            debug!(event = event.id, sender = event.sender, reason = ?utd_info.reason, "cannot be read");
            let id = room.room_id().to_owned();
            Some(Meaning::Locked(
                id,
                Arrival {
                    room: room.room_id().to_string(),
                    sent_at: event.sent_at(),
                    payload: timeline.raw().json().get().to_owned(),
                    waiting_for: Some(waiting_for),
                    sender: event.sender,
                    event: event.id,
                },
            ))
        }
        TimelineEventKind::Decrypted(_) | TimelineEventKind::PlainText { .. } => {
            let body = event.text()?.to_owned();
            let info = timeline.encryption_info().cloned();
            Some(Meaning::Text(Text { room, event, body, info, message_index }))
        }
    }
}
