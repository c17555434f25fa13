//! A person with a terminal: an encrypted, cross-signed Matrix client that shows one room as text.

use std::time::Duration;

use anyhow::Context as _;
use matrix_sdk::config::SyncSettings;
use matrix_sdk::encryption::EncryptionSettings;
use matrix_sdk::ruma::api::client::room::create_room::v3 as create_room;
use matrix_sdk::ruma::events::InitialStateEvent;
use matrix_sdk::ruma::events::room::encryption::RoomEncryptionEventContent;
use matrix_sdk::ruma::events::room::member::{MembershipState, OriginalSyncRoomMemberEvent};
use matrix_sdk::ruma::events::room::message::{OriginalSyncRoomMessageEvent, Relation, RoomMessageEventContent};
use matrix_sdk::ruma::{OwnedUserId, UserId};
use matrix_sdk::{Client, Room};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// What the room shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Somebody wrote something, or changed what they wrote.
    Said { who: String, text: String, edited: bool },
    /// Somebody came in.
    Joined { who: OwnedUserId },
}

/// A person, logged in and syncing.
pub(crate) struct Person {
    client: Client,
    name: String,
    heard: mpsc::UnboundedReceiver<Heard>,
    said: mpsc::UnboundedSender<Heard>,
    /// The sync loop, which ends with the person.
    syncing: Option<AbortOnDropHandle<()>>,
}

impl Person {
    /// Logs in on a new device and gives the account a cross-signing identity.
    pub(crate) async fn login(homeserver: &str, user: &str, password: &str) -> anyhow::Result<Self> {
        let settings = EncryptionSettings { auto_enable_cross_signing: true, ..EncryptionSettings::default() };
        let client = Client::builder()
            .homeserver_url(homeserver)
            // Loopback needs no proxy.
            .http_client(reqwest::Client::builder().no_proxy().build()?)
            .with_encryption_settings(settings)
            .build()
            .await?;
        client
            .matrix_auth()
            .login_username(user, password)
            .initial_device_display_name("Pilothouse demo")
            .send()
            .await
            .with_context(|| format!("{user} cannot log in"))?;
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        client.sync_once(SyncSettings::new().timeout(Duration::ZERO)).await?;
        let (said, heard) = mpsc::unbounded_channel();
        Ok(Self { client, name: user.to_owned(), heard, said, syncing: None })
    }

    /// Makes the key with which other devices of the account become trusted.
    pub(crate) async fn recovery_key(&self) -> anyhow::Result<String> {
        self.client.encryption().recovery().enable().await.context("no recovery key for the demo's person")
    }

    /// Makes an encrypted room for two and begins to listen.
    pub(crate) async fn open_room(&mut self, other: &UserId) -> anyhow::Result<Room> {
        let mut request = create_room::Request::new();
        request.name = Some("Pilothouse".to_owned());
        request.preset = Some(create_room::RoomPreset::TrustedPrivateChat);
        request.is_direct = true;
        request.invite = vec![other.to_owned()];
        let encryption = RoomEncryptionEventContent::with_recommended_defaults();
        request.initial_state = vec![InitialStateEvent::with_empty_state_key(encryption).to_raw_any()];
        let room = self.client.create_room(request).await.context("cannot make a room")?;
        self.listen(&room);
        let client = self.client.clone();
        let syncing = tokio::spawn(async move {
            loop {
                if let Err(error) = client.sync_once(SyncSettings::new()).await {
                    eprintln!("The terminal chat cannot reach the homeserver: {error:#}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
        self.syncing = Some(AbortOnDropHandle::new(syncing));
        Ok(room)
    }

    fn listen(&self, room: &Room) {
        let own = self.client.user_id().map(ToOwned::to_owned);
        let said = self.said.clone();
        room.add_event_handler(move |event: OriginalSyncRoomMessageEvent| async move {
            if own.as_ref() == Some(&event.sender) {
                return;
            }
            let (text, edited) = match &event.content.relates_to {
                Some(Relation::Replacement(new)) => (new.new_content.msgtype.body(), true),
                _ => (event.content.body(), false),
            };
            let who = event.sender.localpart().to_owned();
            // Nobody listens any more when the demo ends.
            said.send(Heard::Said { who, text: text.to_owned(), edited }).ok();
        });
        let said = self.said.clone();
        room.add_event_handler(move |event: OriginalSyncRoomMemberEvent| async move {
            if event.content.membership == MembershipState::Join {
                said.send(Heard::Joined { who: event.state_key }).ok();
            }
        });
    }

    /// Waits for the next thing that the room shows, and prints it.
    pub(crate) async fn listen_next(&mut self) -> Option<Heard> {
        let heard = self.heard.recv().await?;
        if let Heard::Said { who, text, edited } = &heard {
            show(who, text, *edited);
        }
        Some(heard)
    }

    /// Waits until somebody has come in.
    pub(crate) async fn wait_for(&mut self, user: &UserId, deadline: Duration) -> anyhow::Result<()> {
        let came_in = async {
            while let Some(heard) = self.listen_next().await {
                if heard == (Heard::Joined { who: user.to_owned() }) {
                    return;
                }
            }
        };
        tokio::time::timeout(deadline, came_in)
            .await
            .with_context(|| format!("{user} did not join the room within {} s", deadline.as_secs()))
    }

    /// Says something in the room.
    pub(crate) async fn say(&self, room: &Room, text: &str) -> anyhow::Result<()> {
        room.send(RoomMessageEventContent::text_plain(text)).await.context("cannot send to the room")?;
        Ok(())
    }

    /// Prints what the person says, for a conversation that nobody types.
    pub(crate) fn echo(&self, text: &str) {
        show(&self.name, text, false);
    }
}

/// Prints one message: who, then the text; an edit shows as a new line with a pencil.
fn show(who: &str, text: &str, edited: bool) {
    let head = if edited { "✎" } else { who };
    for (index, line) in text.lines().enumerate() {
        let head = if index == 0 { head } else { "" };
        println!("  {head:>10} │ {line}");
    }
}

/// Reads lines from the terminal until it closes.
pub(crate) fn typed() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    // A thread, because a read from a terminal cannot be called off.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
