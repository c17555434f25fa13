//! The homeserver, the store, the own device, the people and the rooms.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::Finding;
use crate::chat::outside::{Entered, Entrance, Fault, Outside, Served, look_at_files};
use crate::chat::{Advice, contact, lock_held};
use crate::config::{Config, TrustMode};
use crate::daemon;
use crate::store::pins::{Keys, SeenDevice};
use crate::store::{Store, StoreError};

/// What the row about the encryption keys is called.
const MATRIX_STORE: &str = "Matrix store";

/// The area of the homeserver …
pub(super) const MATRIX: &str = "matrix";
/// … and its rows about the login, and about one that stays behind.
pub(super) const LOGIN: &str = "login";
pub(super) const LOGOUT: &str = "logout";

/// `applied`: this is where it will run, with its volume. Where `end` comes first, nothing more is looked at, but a login that
/// was made for this is ended all the same.
pub(super) async fn findings(config: &Config, applied: bool, end: &CancellationToken) -> Vec<Finding> {
    let mut findings = Vec::new();
    let store = if applied {
        store(config, &mut findings)
    } else {
        findings.push(Finding::skipped("store", "journal", "looked at where it will run"));
        None
    };
    let mut outside = match Outside::new(&config.matrix) {
        Ok(outside) => outside,
        Err(fault) => {
            findings.push(Finding::failure(
                MATRIX,
                "client",
                fault.to_string(),
                "correct matrix.ca_file or matrix.proxy",
            ));
            return findings;
        }
    };
    // Whoever has gone already gets no login.
    let Some(versions) = end.run_until_cancelled(outside.versions()).await.filter(|_| !end.is_cancelled()) else {
        return findings;
    };
    match versions {
        Ok(versions) => {
            let newest = versions.last().cloned().unwrap_or_default();
            findings.push(Finding::good(MATRIX, "homeserver", format!("{} speaks {newest}", config.matrix.homeserver)));
        }
        Err(fault) => {
            let detail = format!("{}: {fault}", config.matrix.homeserver);
            let remedy = "is matrix.homeserver the base URL of the client-server API, and can it be reached from here?";
            findings.push(Finding::failure(MATRIX, "homeserver", detail, remedy));
            return findings;
        }
    }
    if findings.iter().any(|finding| finding.area == "store" && finding.subject == MATRIX_STORE && !finding.holds()) {
        findings.push(Finding::skipped(MATRIX, LOGIN, "not tried: first the Matrix store above must be in order"));
        return findings;
    }
    match outside.enter(end).await {
        Ok(entered) => {
            let how = match entered.by {
                Entrance::Saved => "the saved login is good",
                Entrance::Token | Entrance::NewToken => "the configured access token is good",
                Entrance::Temporary => "logged in for this check alone",
            };
            findings.push(Finding::good(MATRIX, LOGIN, format!("{}, device {}: {how}", entered.user, entered.device)));
            let looking = async {
                people(config, &outside, &entered, store.as_ref(), &mut findings).await;
                rooms(config, &outside, &entered, &mut findings).await;
            };
            tokio::select! {
                () = looking => {}
                () = end.cancelled() => {}
            }
        }
        Err(Fault::Expired) => findings.push(Finding::warning(
            MATRIX,
            LOGIN,
            Fault::Expired.to_string(),
            "start Pilothouse and check again: keys and rooms were not looked at",
        )),
        Err(Fault::Interrupted) => return findings,
        Err(fault) => {
            let remedy = match fault {
                Fault::Unusable(_) => "until then the daemon does not start; `pilothouse config` shows how it logs in",
                Fault::Unanswered(_) => "the daemon waits for that and goes on by itself; check again then",
                _ => "check matrix.user and the token; a daemon that was logged out says in its log what to do",
            };
            findings.push(Finding::failure(MATRIX, LOGIN, fault.to_string(), remedy));
        }
    }
    if let Err(fault) = outside.leave().await {
        findings.push(Finding::warning(MATRIX, LOGOUT, fault.to_string(), "Element: Settings, Sessions"));
    }
    findings
}

fn store(config: &Config, findings: &mut Vec<Finding>) -> Option<Store> {
    let folder = &config.matrix.store;
    let logged_in = look_at_files(&config.matrix);
    let opened = if daemon::has_store(folder) {
        opened(folder, findings)
    } else {
        findings.push(match logged_in {
            Ok(false) => unmade(folder),
            _ => Finding::warning(
                "store",
                "journal",
                format!(
                    "{} holds no pilothouse.sqlite3, and this device has logged in before: it was lost, and the next start begins it anew",
                    folder.display()
                ),
                "compare everybody's keys with `trust` then, or name them in trust.pins",
            ),
        });
        None
    };
    if lock_held(folder) {
        let detail = "a running Pilothouse holds it, so it was left alone";
        findings.push(Finding::skipped("store", MATRIX_STORE, detail));
        return opened;
    }
    findings.push(match logged_in {
        Ok(true) => Finding::good("store", MATRIX_STORE, "free, with a saved login; it was not opened"),
        Ok(false) => Finding::good("store", MATRIX_STORE, "free, without a login yet: the first start makes one"),
        Err(fault) => {
            let remedy = "until then it does not start; each case: README, \"The store, and ways out\"";
            Finding::failure("store", MATRIX_STORE, fault.to_string(), remedy)
        }
    });
    opened
}

/// Opens the journal beside whoever works on it.
fn opened(folder: &Path, findings: &mut Vec<Finding>) -> Option<Store> {
    match daemon::open_store_beside(folder) {
        Ok(store) => {
            findings.push(Finding::good("store", "journal", format!("{} can be opened", folder.display())));
            Some(store)
        }
        Err(error) if matches!(error.downcast_ref(), Some(StoreError::Older { .. })) => {
            let remedy =
                "start the daemon of this version and check again: pins and the recovery key were not looked at";
            findings.push(Finding::warning("store", "journal", format!("{error:#}"), remedy));
            None
        }
        Err(error) => {
            let newer = matches!(error.downcast_ref(), Some(StoreError::TooNew { .. }));
            let remedy = if newer {
                "run the newer version, or set matrix.store to another folder"
            } else {
                "mount a writable volume there, or set matrix.store"
            };
            findings.push(Finding::failure("store", "journal", format!("{error:#}"), remedy));
            None
        }
    }
}

/// Tries whether the first start can make the store, with a file that has no name and leaves nothing: the store itself is
/// made by the daemon, so that it belongs to the daemon's user.
fn unmade(folder: &Path) -> Finding {
    // Folders on the way are made too.
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    match tempfile::tempfile_in(there) {
        Ok(_) => {
            Finding::skipped("store", "journal", format!("{} is empty: the first start makes it", folder.display()))
        }
        Err(error) => {
            let detail =
                format!("{} cannot be made: nothing can be written in {}: {error}", folder.display(), there.display());
            Finding::failure("store", "journal", detail, "mount a writable volume there, or set matrix.store")
        }
    }
}

async fn people(
    config: &Config,
    outside: &Outside,
    entered: &Entered,
    store: Option<&Store>,
    findings: &mut Vec<Finding>,
) {
    let mut asked = config.policy.users.clone();
    asked.push(entered.user.clone());
    let served = match outside.keys(&asked).await {
        Ok(served) => served,
        Err(fault) => {
            findings.push(Finding::failure("trust", "keys", fault.to_string(), "try again"));
            return;
        }
    };
    let own = served.get(&entered.user).cloned().unwrap_or_default();
    findings.push(own_device(config, entered, &own));
    findings.push(recovery(config, store).await);
    for user in &config.policy.users {
        let keys = match store {
            Some(store) => store.keys(user).await.unwrap_or_default(),
            None => Keys::default(),
        };
        let configured = config.trust.pins.get(user).map(String::as_str);
        let Some(served) = served.get(user) else {
            findings.push(Finding::warning("trust", user, "their homeserver gave no answer", "check again later"));
            continue;
        };
        findings.push(if config.trust.mode == TrustMode::Devices {
            by_devices(user, configured, &keys, served)
        } else {
            person(config.trust.mode, user, configured, keys, served)
        });
    }
}

fn own_device(config: &Config, entered: &Entered, own: &Served) -> Finding {
    let subject = "own device";
    let signed = own.devices.iter().any(|device| device.device == entered.device && device.signed);
    let found = |verdict: fn(&'static str, String, String, String) -> Finding, detail: &str, remedy: &str| {
        verdict("trust", subject.to_owned(), detail.to_owned(), remedy.to_owned())
    };
    match (&own.master, signed) {
        (Some(_), true) => Finding::good("trust", subject, "signed by its owner's identity"),
        (_, false) if entered.by.is_before_the_first_start() => {
            Finding::skipped("trust", subject, "the first start makes the daemon's device and signs it")
        }
        (_, _) if !config.matrix.require_signed_device => found(
            Finding::warning,
            "not signed: people's clients warn, and some send it no keys",
            "give matrix.recovery_key_file; the next start signs it",
        ),
        (None, _) => {
            found(Finding::failure, "the bot's account has no identity yet", "start Pilothouse once: it makes one")
        }
        (Some(_), false) => found(
            Finding::failure,
            "not signed by its owner's identity",
            "give matrix.recovery_key_file; the next start signs it",
        ),
    }
}

/// What the daemon found out about the recovery key at its last start: trying it takes the Matrix store.
async fn recovery(config: &Config, store: Option<&Store>) -> Finding {
    let subject = "recovery key";
    let noted = match store {
        Some(store) => Advice::noted(store).await.ok().flatten(),
        None => None,
    };
    let Some(noted) = noted else {
        return Finding::skipped("trust", subject, "not known yet: the first start makes or tries it");
    };
    let configured = config.matrix.recovery_key.is_some();
    match noted.iter().find(|advice| advice.is_about_the_key()) {
        Some(Advice::KeyOnVolume { .. } | Advice::KeyMissing { .. }) if configured => {
            Finding::skipped("trust", subject, "configured; the next start tries it")
        }
        Some(unfit @ Advice::KeyUnfit { .. }) if configured => {
            Finding::failure("trust", subject, unfit.seen(), unfit.remedy())
        }
        Some(advice) => Finding::warning("trust", subject, advice.seen(), advice.remedy()),
        None if configured => Finding::good("trust", subject, "configured, and not on the volume"),
        None => Finding::skipped("trust", subject, "not known yet: the own device is not signed"),
    }
}

/// `configured`: the pin in `trust.pins`, which wins over the one in `keys`.
fn person(mode: TrustMode, user: &str, configured: Option<&str>, keys: Keys, served: &Served) -> Finding {
    if mode == TrustMode::Any {
        return Finding::warning(
            "trust",
            user,
            "any device counts (trust.mode = any): whoever controls the homeserver or one session commands the cluster",
            "set trust.mode = \"identity\"",
        );
    }
    let Some(master) = &served.master else {
        return Finding::failure(
            "trust",
            user,
            "has no cross-signing identity: cannot read here, and no command of theirs counts",
            "they set one up (Element: Settings, Encryption, Set up recovery), or you set trust.mode = \"devices\"",
        );
    };
    let now = Keys { master: Some(master.clone()), ..keys };
    let detail = match contact::pin(&now, configured) {
        None => return Finding::good("trust", user, format!("not met yet; the first contact pins {master}")),
        Some(_) if contact::is_vouched_for(&now, configured) => {
            return Finding::good("trust", user, format!("pinned as {master}"));
        }
        Some(pin) if pin.master == *master => {
            format!("suspended: the bot's account had verified another identity, and it is now {master}")
        }
        Some(pin) => format!("suspended: the identity was {} and is now {master}", pin.master),
    };
    let remedy = if configured.is_some() {
        format!("compare it with them, then correct trust.pins: `{user} = \"{master}\"`")
    } else {
        format!("compare it with them, then `pilothouse trust accept {user} {master}`")
    };
    Finding::failure("trust", user, detail, remedy)
}

/// Judges a person in mode `devices`: by the devices that were there at first contact or were accepted. Of whom none is
/// pinned, the daemon's next look pins those that count.
fn by_devices(user: &str, configured: Option<&str>, keys: &Keys, served: &Served) -> Finding {
    let names = |devices: &[SeenDevice]| -> String {
        devices.iter().map(|device| device.device.as_str()).collect::<Vec<_>>().join(", ")
    };
    let none_pinned = keys.device_pins.is_empty();
    let pinned =
        |device: &SeenDevice| keys.device_pins.get(&device.device).is_some_and(|pin| pin.key == device.ed25519);
    let counting = if none_pinned { contact::counting(keys, configured, served) } else { Vec::new() };
    let (known, new): (Vec<_>, Vec<_>) =
        served.devices.iter().cloned().partition(|device| pinned(device) || counting.contains(device));
    let good = match (none_pinned, keys.is_met()) {
        (true, false) => format!("not met yet; the first contact pins {}", names(&known)),
        (true, true) => format!("the next look of the daemon pins {}, as their identity has signed", names(&known)),
        (false, _) => format!("known by {}", names(&known)),
    };
    let Some(newest) = new.first() else {
        return if known.is_empty() {
            let remedy = "they log in at a client with encryption";
            Finding::failure("trust", user, "has no device that could say anything", remedy)
        } else {
            Finding::good("trust", user, good)
        };
    };
    let remedy = format!(
        "compare the fingerprint with them, then `pilothouse trust accept {user} {} {}`",
        newest.device, newest.ed25519
    );
    if known.is_empty() {
        let detail = format!("none of their devices was accepted, so no command of theirs counts: {}", names(&new));
        Finding::failure("trust", user, detail, remedy)
    } else {
        Finding::warning("trust", user, format!("{good}; new, and not accepted: {}", names(&new)), remedy)
    }
}

async fn rooms(config: &Config, outside: &Outside, entered: &Entered, findings: &mut Vec<Finding>) {
    if entered.by.is_before_the_first_start() {
        findings.push(Finding::skipped("rooms", "joined", "seen with this check's login: the daemon has not run yet"));
    }
    let rooms = match outside.rooms().await {
        Ok(rooms) => rooms,
        Err(fault) => {
            findings.push(Finding::failure("rooms", "joined", fault.to_string(), "try again"));
            return;
        }
    };
    if rooms.is_empty() {
        let remedy = format!("invite {} to an encrypted room", entered.user);
        findings.push(Finding::warning("rooms", "joined", "none yet", remedy));
    }
    for room in rooms {
        let people = room.members.iter().filter(|member| config.policy.users.contains(member)).count();
        let detail = format!("{} members, {people} of them allowed", room.members.len());
        let plaintext = config.trust.plaintext.contains(&room.id);
        findings.push(match (room.encrypted, plaintext) {
            (true, _) => Finding::good("rooms", room.id, format!("encrypted, {detail}")),
            (false, true) => Finding::warning(
                "rooms",
                room.id,
                format!("not encrypted, allowed by trust.plaintext; {detail}"),
                "the homeserver can forge commands there: use an encrypted room",
            ),
            (false, false) => Finding::warning(
                "rooms",
                room.id,
                format!("not encrypted: no command counts there; {detail}"),
                "use an encrypted room",
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::check::Verdict;
    use crate::store::pins::{By, Pin};

    #[test]
    fn a_changed_identity_is_accepted_where_its_pin_stands() {
        let served = Served { master: Some("NEW".to_owned()), devices: Vec::new() };
        let pin = |key: &str, by| Pin { key: key.to_owned(), since: Timestamp::UNIX_EPOCH, by };
        let remedy = |configured, met: Option<&str>| {
            let keys = Keys { pin: met.map(|key| pin(key, By::FirstContact)), ..Keys::default() };
            let found = person(TrustMode::Identity, "@anna:hs", configured, keys, &served);
            assert_eq!(found.verdict, Verdict::Failure, "{found:?}");
            found.remedy.expect("a way out")
        };
        assert!(remedy(None, Some("OLD")).contains("pilothouse trust accept @anna:hs NEW"));
        let configured = remedy(Some("OLD"), Some("NEW"));
        assert!(configured.contains("trust.pins") && !configured.contains("accept"), "{configured}");

        let violated = |by| Keys { pin: Some(pin("NEW", by)), violated: true, ..Keys::default() };
        let judged = |configured, by| person(TrustMode::Identity, "@anna:hs", configured, violated(by), &served);
        let found = judged(None, By::FirstContact);
        assert!(found.detail.contains("had verified another identity"), "{found:?}");
        assert!(found.remedy.expect("a way out").contains("pilothouse trust accept @anna:hs NEW"));
        assert_eq!(judged(None, By::Accepted("@bob:hs".to_owned())).verdict, Verdict::Good);
        assert_eq!(judged(Some("NEW"), By::FirstContact).verdict, Verdict::Good);
    }

    #[test]
    fn in_mode_devices_a_person_is_judged_by_the_pins_of_their_devices() {
        let served = |devices: &[(&str, &str)]| -> Vec<SeenDevice> {
            let seen = |(device, key): &(&str, &str)| SeenDevice {
                device: (*device).to_owned(),
                ed25519: (*key).to_owned(),
                name: None,
                signed: true,
            };
            devices.iter().map(seen).collect()
        };
        let phone = || served(&[("PHONE", "key")]);
        let both = || served(&[("PHONE", "key"), ("LAPTOP", "other")]);
        for (pins, devices, verdict, part) in [
            (None, phone(), Verdict::Good, "the first contact pins PHONE"),
            (Some("key"), phone(), Verdict::Good, "known by PHONE"),
            (Some("key"), both(), Verdict::Warning, "known by PHONE; new, and not accepted: LAPTOP"),
            (Some("key"), served(&[("LAPTOP", "other")]), Verdict::Failure, "none of their devices was accepted"),
            (Some("another key"), phone(), Verdict::Failure, "none of their devices was accepted"),
            (Some("key"), Vec::new(), Verdict::Failure, "has no device"),
            (None, Vec::new(), Verdict::Failure, "has no device"),
        ] {
            let pin = |key: &str| Pin { key: key.to_owned(), since: Timestamp::UNIX_EPOCH, by: By::FirstContact };
            let device_pins = pins.map(|key| ("PHONE".to_owned(), pin(key))).into_iter().collect();
            let keys = Keys { device_pins, ..Keys::default() };
            let found = by_devices("@anna:hs", None, &keys, &Served { master: None, devices });
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.detail.contains(part), "{found:?}");
            let way_out = matches!(found.verdict, Verdict::Good) || found.remedy.is_some();
            assert!(way_out, "{found:?}");
        }
        // Met under another mode: what the trusted identity has signed will count, and nothing else.
        let pin = Pin { key: "MASTER".to_owned(), since: Timestamp::UNIX_EPOCH, by: By::FirstContact };
        let met = Keys { pin: Some(pin), devices: both(), ..Keys::default() };
        let shown = Served { master: Some("MASTER".to_owned()), devices: both() };
        let found = by_devices("@anna:hs", None, &met, &shown);
        assert!(found.verdict == Verdict::Good && found.detail.contains("pins PHONE, LAPTOP"), "{found:?}");
        let found = by_devices("@anna:hs", None, &Keys { violated: true, ..met }, &shown);
        assert!(found.verdict == Verdict::Failure && found.detail.contains("none of their devices"), "{found:?}");
    }
}
