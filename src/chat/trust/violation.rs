//! People whom the bot's account had verified and whose identity is another one now.
//!
//! The SDK then sends nothing to any room that they are in until its user has decided. Here the own pin decides whose
//! commands count, and what is said is for everybody in the room: the verification is withdrawn as soon as that is seen. It
//! is noted first, because afterwards nothing tells such a person from one who was never verified.

use jiff::Timestamp;
use matrix_sdk::encryption::identities::UserIdentity;
use matrix_sdk::ruma::OwnedUserId;
use matrix_sdk::{Client, Error};
use matrix_sdk_base::crypto::{OlmError, SessionRecipientCollectionError};
use tracing::{info, warn};

use crate::chat::Context;

/// Withdraws the verifications because of which the SDK refuses to send; says whether it may send now.
pub(crate) async fn settle(context: &Context, error: &Error) -> bool {
    let users = changed(error);
    let withdrawn = async {
        let _turn = context.observing.lock().await;
        for user in users {
            if let Some(identity) = context.client.encryption().get_user_identity(user).await? {
                look(context, &identity).await?;
            }
        }
        anyhow::Ok(())
    };
    match withdrawn.await {
        Ok(()) => !users.is_empty(),
        Err(error) => {
            warn!("an old verification stands in the way of sending and could not be withdrawn: {error:#}");
            false
        }
    }
}

/// Withdraws the verification of an identity that is not the verified one any more; ends the note where the one of now is one that
/// the bot's account has verified, be it the one of before that is back. While [`Context::observing`] is held.
pub(super) async fn look(context: &Context, identity: &UserIdentity) -> anyhow::Result<()> {
    let user = identity.user_id().as_str();
    if identity.has_verification_violation() {
        return withdraw(context, identity).await;
    }
    if identity.is_verified() && is_noted(&context.client, user).await? {
        context.client.state_store().remove_custom_value(key(user).as_bytes()).await?;
        info!(user, "their identity of now is one that this account has verified");
    }
    Ok(())
}

async fn withdraw(context: &Context, identity: &UserIdentity) -> anyhow::Result<()> {
    let Some(master) = identity.master_key().get_first_key().map(|key| key.to_base64()) else { return Ok(()) };
    let user = identity.user_id().as_str();
    // Where the verification was: it outlives the loss of the journal, and so must this.
    let note = master.clone().into_bytes();
    context.client.state_store().set_custom_value_no_read(key(user).as_bytes(), note).await?;
    context.store.note_violation(user, true, now()).await?;
    identity.withdraw_verification().await?;
    warn!(
        user,
        now = master,
        "this account had verified another identity of theirs: that is withdrawn, or nobody in a room \
        with them could be told anything"
    );
    Ok(())
}

/// Whether any key has come in the place of one that the bot's account had verified. However often they changed it since, only
/// somebody's deliberate word lets it count, or that account's own.
pub(super) async fn is_noted(client: &Client, user: &str) -> anyhow::Result<bool> {
    Ok(client.state_store().get_custom_value(key(user).as_bytes()).await?.is_some())
}

fn key(user: &str) -> String {
    format!("pilothouse/violation/{user}")
}

fn changed(error: &Error) -> &[OwnedUserId] {
    if let Error::OlmError(error) = error
        && let OlmError::SessionRecipientCollectionError(SessionRecipientCollectionError::VerifiedUserChangedIdentity(
            users,
        )) = error.as_ref()
    {
        return users;
    }
    &[]
}

#[expect(clippy::disallowed_methods, reason = "noted with the time at which it was seen")]
fn now() -> Timestamp {
    Timestamp::now()
}
