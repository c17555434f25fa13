//! First contact: which of a person's keys are pinned when they are met, and whether those that are served now are trusted.
//! The same for the daemon and for who looks from outside.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::standing::{Identity, PinnedKey, is_trusted};
use crate::chat::outside::Served;
use crate::config::{self, TrustMode};
use crate::store::pins::{By, Keys, Pin, SeenDevice};
use crate::store::{Store, StoreError};

/// The pinned master key; `configured`: the one that `trust.pins` names, which wins.
pub(crate) fn pin(keys: &Keys, configured: Option<&str>) -> Option<PinnedKey> {
    match configured {
        Some(master) => Some(PinnedKey { master: master.to_owned(), deliberate: true }),
        None => {
            keys.pin.as_ref().map(|pin| PinnedKey { master: pin.key.clone(), deliberate: pin.by != By::FirstContact })
        }
    }
}

/// Whether somebody's identity, as it was seen last, is the one that is trusted.
pub(crate) fn is_vouched_for(keys: &Keys, configured: Option<&str>) -> bool {
    vouches(keys, configured, keys.master.as_deref())
}

fn vouches(keys: &Keys, configured: Option<&str>, master: Option<&str>) -> bool {
    master.is_some_and(|master| {
        let identity = Identity { master: master.to_owned(), violation: keys.violated };
        is_trusted(pin(keys, configured).as_ref(), &identity)
    })
}

/// The devices that count from now on, of a person of whom none is pinned: at first contact all; where they were met under
/// another mode, those that their trusted identity has signed. Any other may be one that was refused until now.
pub(crate) fn counting(before: &Keys, configured: Option<&str>, served: &Served) -> Vec<SeenDevice> {
    let vouched = vouches(before, configured, served.master.as_deref());
    let counts = |device: &&SeenDevice| !before.is_met() || vouched && device.signed;
    served.devices.iter().filter(counts).cloned().collect()
}

/// Notes what the homeserver serves for a person, and pins it where nothing is pinned. `before`: what was known of them; gives
/// the device pins that hold now.
///
/// # Errors
/// [`StoreError`] where the file cannot be written.
pub(crate) async fn note(
    store: &Store,
    trust: &config::Trust,
    user: &str,
    before: &Keys,
    served: &Served,
    now: Timestamp,
) -> Result<BTreeMap<String, Pin>, StoreError> {
    let configured = trust.pins.get(user).map(String::as_str);
    let mut pinned = before.device_pins.clone();
    // Once any is pinned, only somebody's word adds one.
    if trust.mode == TrustMode::Devices && pinned.is_empty() {
        // Before anything is noted: after a kill in between they would be met already.
        let counting = counting(before, configured, served);
        if !counting.is_empty() {
            store.pin_first_devices(user, counting, now).await?;
            pinned = store.keys(user).await?.device_pins;
        }
    }
    store.observe_keys(user, served.master.clone(), served.devices.clone(), now).await?;
    match (configured, &served.master) {
        (Some(pin), _) if before.pin.as_ref().is_none_or(|before| before.key != pin) => {
            store.pin_configured(user, pin, now).await?;
        }
        (None, Some(master)) => {
            store.pin_first(user, master, now).await?;
        }
        _ => {}
    }
    Ok(pinned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, signed: bool) -> SeenDevice {
        SeenDevice { device: name.to_owned(), ed25519: "key".to_owned(), name: None, signed }
    }

    fn met(by: By) -> Keys {
        let pin = Pin { key: "A".to_owned(), since: Timestamp::UNIX_EPOCH, by };
        let devices = vec![device("SIGNED", true), device("UNSIGNED", false)];
        Keys { pin: Some(pin), master: Some("A".to_owned()), devices, ..Keys::default() }
    }

    #[test]
    fn after_a_switch_only_devices_of_the_pin_that_holds_count() {
        let counted = |before: &Keys, configured, master: &str| {
            let served = Served { master: Some(master.to_owned()), devices: met(By::FirstContact).devices };
            counting(before, configured, &served).into_iter().map(|seen| seen.device).collect::<Vec<_>>()
        };
        let first = met(By::FirstContact);
        assert_eq!(counted(&Keys::default(), None, "A"), ["SIGNED", "UNSIGNED"], "first contact");
        assert_eq!(counted(&first, None, "A"), ["SIGNED"]);
        assert_eq!(counted(&first, None, "B"), [""; 0], "another identity is served");
        assert_eq!(counted(&first, Some("B"), "A"), [""; 0], "the configuration pins another one");
        assert_eq!(counted(&first, Some("B"), "B"), ["SIGNED"], "the configuration pins the one that is served");
        let violated = |by| Keys { violated: true, ..met(by) };
        assert_eq!(counted(&violated(By::FirstContact), None, "A"), [""; 0], "it came in a verified one's place");
        assert_eq!(counted(&violated(By::Accepted("@b:hs".to_owned())), None, "A"), ["SIGNED"], "and was accepted");
        assert_eq!(counted(&violated(By::FirstContact), Some("A"), "A"), ["SIGNED"], "and is configured");
    }

    #[tokio::test]
    async fn who_is_looked_at_from_outside_first_is_met_by_the_same_rule() {
        let place = crate::store::tests::Place::new();
        let store = place.open();
        let trust = config::Trust { mode: TrustMode::Devices, pins: BTreeMap::new(), plaintext: Vec::new() };
        let served = Served { master: Some("A".to_owned()), devices: vec![device("PHONE", false)] };
        let look = async |served: &Served| {
            let before = store.keys("@anna:hs").await.unwrap();
            note(&store, &trust, "@anna:hs", &before, served, Timestamp::UNIX_EPOCH).await.unwrap()
        };
        // `pilothouse trust`, and later the daemon, which also sees a device that was made in between.
        assert!(look(&served).await.contains_key("PHONE"));
        let later = Served { devices: vec![device("PHONE", false), device("LAPTOP", true)], ..served };
        assert_eq!(look(&later).await.into_keys().collect::<Vec<_>>(), ["PHONE"]);
    }

    #[test]
    fn only_a_deliberate_pin_vouches_for_an_identity_in_a_verified_ones_place() {
        let vouched = |violated, by, configured, master: &str| {
            is_vouched_for(&Keys { violated, master: Some(master.to_owned()), ..met(by) }, configured)
        };
        assert!(vouched(false, By::FirstContact, None, "A"));
        assert!(!vouched(false, By::FirstContact, None, "B"));
        assert!(!vouched(true, By::FirstContact, None, "A"));
        assert!(vouched(true, By::Accepted("@b:hs".to_owned()), None, "A"));
        assert!(vouched(true, By::FirstContact, Some("A"), "A"));
        assert!(!vouched(true, By::FirstContact, Some("B"), "A"));
        assert!(!is_vouched_for(&Keys::default(), Some("A")), "nothing is served");
    }
}
