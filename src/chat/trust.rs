//! Whose word a message is: gathers what the rule in [`standing`] looks at, and keeps the store's view of people's keys
//! fresh.

pub(crate) mod contact;
pub(crate) mod replay;
pub(crate) mod standing;
pub(crate) mod violation;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use matrix_sdk::Room;
use matrix_sdk::deserialized_responses::{
    AlgorithmInfo, DeviceLinkProblem, EncryptionInfo, VerificationLevel, VerificationState,
};
use matrix_sdk::ruma::{OwnedUserId, UserId};
use tokio::time::Instant;
use tracing::{info, warn};

use self::standing::{Cipher, Device, Evidence, Identity, Link, PinnedKey, judge};
use super::Context;
use super::outside::Served;
use crate::config::TrustMode;
use crate::message::Standing;
use crate::retry::Backoff;
use crate::store::pins::{Keys, Pin, SeenDevice};

/// How often the Matrix store is looked at besides: it does not say when a device is gone.
const LOOK: Duration = Duration::from_mins(5);

/// How long a person's keys are not asked for again by messages, after the homeserver gave no answer.
const UNANSWERED: Duration = Duration::from_mins(1);

/// Sessions whose device was asked for once; the set begins anew when it is full.
const ASKED_SESSIONS: usize = 10_000;

/// Where an observation takes its keys from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// The homeserver, now.
    Server,
    /// The Matrix store, which follows the homeserver's device lists.
    Local,
}

/// Judges messages and watches the keys of the allowed people.
pub(crate) struct Trust {
    context: Arc<Context>,
    /// People whose keys the homeserver was asked for since the start.
    fresh: Mutex<HashSet<OwnedUserId>>,
    /// Sessions of unknown or unsigned devices about which the homeserver was asked.
    asked: Mutex<HashSet<String>>,
    /// People about whom the homeserver gave no answer, and when.
    failed: Mutex<HashMap<OwnedUserId, Instant>>,
}

impl Trust {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, fresh: Mutex::default(), asked: Mutex::default(), failed: Mutex::default() }
    }

    /// Says whether a message is its sender's word.
    pub(crate) fn standing(&self, evidence: &Evidence) -> Standing {
        judge(self.context.trust.mode, evidence)
    }

    /// Gathers what speaks for and against a message, but for replay. In the steady state this reads only what lies here.
    ///
    /// # Errors
    /// Where the room's encryption is unknown and cannot be asked for, or a store cannot be read.
    pub(crate) async fn evidence(
        &self,
        room: &Room,
        sender: &UserId,
        info: Option<&EncryptionInfo>,
    ) -> anyhow::Result<Evidence> {
        let mut evidence = Evidence {
            room_encrypted: is_encrypted(room).await?,
            plaintext_allowed: self.context.trust.plaintext.iter().any(|id| id == room.room_id()),
            cipher: None,
            identity: None,
            pin: None,
            device: None,
            replayed: false,
        };
        let Some(info) = info.filter(|_| evidence.room_encrypted) else { return Ok(evidence) };

        let new_here = !self.fresh.lock().unwrap_or_else(PoisonError::into_inner).contains(sender);
        let mut info = info.clone();
        let mut cipher = cipher(&info, sender);
        // A device may have been made or signed a moment ago: ask once, then look at the session again.
        let doubtful = matches!(cipher.link, Link::Missing | Link::Unsigned);
        let session = info.session_id().map(str::to_owned);
        if doubtful && session.as_ref().is_some_and(|session| !self.was_asked(session)) {
            // Judged on what lies here it would be refused for good, and for the wrong reason.
            self.observe(sender, From::Server).await.context("the keys of a new device cannot be asked for")?;
            self.note_asked(session.as_deref().unwrap_or_default());
        } else if new_here && !self.failed_lately(sender) {
            self.observe_or_warn(sender, From::Server).await;
        }
        if doubtful
            && let Some(session) = &session
            && let Some(now) = room.get_encryption_info(session, sender).await
        {
            info = (*now).clone();
            cipher = self::cipher(&info, sender);
        }
        evidence.cipher = Some(cipher);

        let encryption = self.context.client.encryption();
        let device = async {
            match &info.sender_device {
                Some(id) => encryption.get_device(sender, id).await,
                None => Ok(None),
            }
        };
        let (identity, keys, device) =
            tokio::join!(encryption.get_user_identity(sender), self.context.store.keys(sender.as_str()), device);
        evidence.identity = identity?.as_ref().and_then(self::identity);
        let keys = keys?;
        evidence.pin = match (contact::pin(&keys, self.configured(sender)), &evidence.identity) {
            (Some(pin), _) => Some(pin),
            (None, Some(identity)) => {
                let master = self.context.store.pin_first(sender.as_str(), &identity.master, now()).await?;
                Some(PinnedKey { master, deliberate: false })
            }
            (None, None) => None,
        };
        if let (Some(identity), Some(pin)) = (&mut evidence.identity, &evidence.pin)
            && !pin.deliberate
            && !identity.violation
        {
            identity.violation = violation::is_noted(&self.context.client, sender.as_str()).await?;
        }
        if let Some(device) = device?.filter(|device| !device.is_deleted())
            && let (Some(ed25519), Some(curve25519)) = (device.ed25519_key(), device.curve25519_key())
        {
            evidence.device = Some(Device {
                id: device.device_id().to_string(),
                ed25519: ed25519.to_base64(),
                curve25519: curve25519.to_base64(),
                signed: device.is_cross_signed_by_owner(),
                pinned: keys.device_pins.get(device.device_id().as_str()).map(|pin| pin.key.clone()),
            });
        }
        Ok(evidence)
    }

    fn configured(&self, user: &UserId) -> Option<&str> {
        self.context.trust.pins.get(user.as_str()).map(String::as_str)
    }

    fn was_asked(&self, session: &str) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).contains(session)
    }

    fn note_asked(&self, session: &str) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= ASKED_SESSIONS {
            asked.clear();
        }
        asked.insert(session.to_owned());
    }

    /// Whether the homeserver gave no answer about a person a moment ago: a batch of theirs does not wait for it each time.
    fn failed_lately(&self, user: &UserId) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(user).is_some_and(|at| at.elapsed() < UNANSWERED)
    }

    async fn observe_or_warn(&self, user: &UserId, from: From) -> bool {
        match self.observe(user, from).await {
            Ok(()) => true,
            Err(error) => {
                warn!(%user, "the keys could not be read again, what is known of them counts: {error:#}");
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.insert(user.to_owned(), Instant::now());
                false
            }
        }
    }

    /// Notes whose keys the homeserver serves for a person, pins them at first contact and warns of what changed.
    async fn observe(&self, user: &UserId, from: From) -> anyhow::Result<()> {
        let encryption = self.context.client.encryption();
        if from == From::Server {
            encryption.request_user_identity(user).await.context("the homeserver was asked for them")?;
        }
        // One at a time: what another observation has noted of somebody new is not what was known before.
        let _turn = self.context.observing.lock().await;
        let identity = encryption.get_user_identity(user).await?;
        if let Some(identity) = &identity {
            violation::look(&self.context, identity).await?;
        }
        let violated = violation::is_noted(&self.context.client, user.as_str()).await?;
        let master = identity.as_ref().and_then(self::identity).map(|identity| identity.master);
        let devices = encryption
            .get_user_devices(user)
            .await?
            .devices()
            .filter_map(|device| {
                Some(SeenDevice {
                    device: device.device_id().to_string(),
                    ed25519: device.ed25519_key()?.to_base64(),
                    name: device.display_name().map(str::to_owned),
                    signed: device.is_cross_signed_by_owner(),
                })
            })
            .collect();
        let served = Served { master, devices };
        let store = &self.context.store;
        let mut before = store.keys(user.as_str()).await?;
        if before.violated != violated {
            // The journal was lost, or a kill came between the two.
            store.note_violation(user.as_str(), violated, now()).await?;
            before.violated = violated;
        }
        let pinned = contact::note(store, &self.context.trust, user.as_str(), &before, &served, now()).await?;
        let first =
            from == From::Server && self.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(user.to_owned());
        self.tell(user, &before, &served, &pinned, first);
        Ok(())
    }

    fn tell(&self, user: &UserId, before: &Keys, served: &Served, device_pins: &BTreeMap<String, Pin>, first: bool) {
        let pinned = contact::pin(before, self.configured(user)).map(|pin| pin.master);
        let master = served.master.as_deref();
        let mode = self.context.trust.mode;
        match (&pinned, master) {
            (Some(pinned), Some(master)) if pinned != master && (first || before.master.as_deref() != Some(master)) => {
                warn!(
                    %user, pinned, now = master,
                    "the cross-signing identity changed: their commands do not count until somebody accepts the new \
                     fingerprint, with `trust accept` in a room or `pilothouse trust` on this machine"
                );
            }
            (None, Some(master)) => info!(%user, fingerprint = master, "met for the first time: identity pinned"),
            (_, None) if mode == TrustMode::Identity && (first || before.master.is_some()) => warn!(
                %user,
                "has no cross-signing identity: their commands do not count and they cannot read what Pilothouse says. \
                 They set it up in their client's security settings, or `trust.mode` is changed"
            ),
            _ => {}
        }
        // At a start before anything was seen every device would be new.
        if before.devices.is_empty() || mode == TrustMode::Any {
            return;
        }
        for device in &served.devices {
            let known =
                before.devices.iter().any(|seen| seen.device == device.device && seen.ed25519 == device.ed25519);
            let counts = match mode {
                TrustMode::Devices => device_pins.get(&device.device).is_some_and(|pin| pin.key == device.ed25519),
                TrustMode::Identity | TrustMode::Any => device.signed,
            };
            // The mode may have been another one when it was seen first: a start says it again.
            if !counts && (!known || first && mode == TrustMode::Devices) {
                warn!(
                    %user, device = device.device, fingerprint = device.ed25519, signed = device.signed,
                    "a new device appeared that does not count as theirs yet"
                );
            }
        }
    }

    fn allowed(&self) -> BTreeSet<OwnedUserId> {
        self.context.users.borrow().iter().filter_map(|user| UserId::parse(user).ok()).collect()
    }

    /// Keeps the store's view of the allowed people's keys fresh, from the first sync on; ends only by being dropped.
    ///
    /// # Errors
    /// Where the SDK has no encryption, or its streams end.
    pub(crate) async fn watch(self: Arc<Self>) -> anyhow::Result<()> {
        let encryption = self.context.client.encryption();
        let mut devices = pin!(encryption.devices_stream().await?);
        let mut identities = pin!(encryption.user_identities_stream().await?);
        let mut users = self.context.users.clone();
        let mut health = self.context.health.subscribe();
        health.wait_for(|health| health.synced_at.is_some()).await?;
        let mut pauses = Backoff::new(Duration::from_secs(2), Duration::from_mins(5));
        let mut complete = self.observe_missing().await;
        loop {
            let changed: BTreeSet<OwnedUserId> = tokio::select! {
                update = devices.next() => {
                    let update = update.context("the stream of devices ended")?;
                    update.new.into_keys().chain(update.changed.into_keys()).collect()
                }
                update = identities.next() => {
                    let update = update.context("the stream of identities ended")?;
                    update.new.into_keys().chain(update.changed.into_keys()).collect()
                }
                changed = users.changed() => {
                    changed.context("the rules are gone")?;
                    complete = self.observe_missing().await;
                    continue;
                }
                () = tokio::time::sleep(if complete { LOOK } else { pauses.next() }) => {
                    complete = self.observe_missing().await;
                    self.allowed()
                }
            };
            for user in self.allowed().intersection(&changed) {
                self.observe_or_warn(user, From::Local).await;
            }
        }
    }

    /// Asks for the keys of the allowed people that were not asked for since the start; says whether all answered.
    async fn observe_missing(&self) -> bool {
        let mut complete = true;
        for user in self.allowed() {
            let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).contains(&user);
            if !fresh {
                complete &= self.observe_or_warn(&user, From::Server).await;
            }
        }
        complete
    }
}

async fn is_encrypted(room: &Room) -> anyhow::Result<bool> {
    let known = room.encryption_state();
    if known.is_unknown() {
        return Ok(room.latest_encryption_state().await.context("ask whether the room is encrypted")?.is_encrypted());
    }
    Ok(known.is_encrypted())
}

fn identity(identity: &matrix_sdk::encryption::identities::UserIdentity) -> Option<Identity> {
    Some(Identity {
        master: identity.master_key().get_first_key()?.to_base64(),
        violation: identity.has_verification_violation(),
    })
}

fn cipher(info: &EncryptionInfo, sender: &UserId) -> Cipher {
    let AlgorithmInfo::MegolmV1AesSha2 { curve25519_key, .. } = &info.algorithm_info else {
        return Cipher { curve25519: String::new(), link: Link::Insecure, forwarded: true };
    };
    let link = match &info.verification_state {
        _ if info.sender != sender => Link::Mismatched,
        // The own pin judges a changed identity, not the SDK's.
        VerificationState::Verified
        | VerificationState::Unverified(
            VerificationLevel::UnverifiedIdentity | VerificationLevel::VerificationViolation,
        ) => Link::Signed,
        VerificationState::Unverified(VerificationLevel::UnsignedDevice) => Link::Unsigned,
        VerificationState::Unverified(VerificationLevel::None(DeviceLinkProblem::MissingDevice)) => Link::Missing,
        VerificationState::Unverified(VerificationLevel::None(DeviceLinkProblem::InsecureSource)) => Link::Insecure,
        VerificationState::Unverified(VerificationLevel::MismatchedSender) => Link::Mismatched,
    };
    Cipher { curve25519: curve25519_key.clone(), link, forwarded: info.forwarder.is_some() }
}

#[expect(clippy::disallowed_methods, reason = "keys are noted with the time at which they were seen")]
fn now() -> Timestamp {
    Timestamp::now()
}
