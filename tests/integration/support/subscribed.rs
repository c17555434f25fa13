//! A subscription in a test's hands: what its provider says, a login in a folder, and the configuration that names both.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::leash::Folder;
use super::provider::Provider;

/// The time of the machine: daemons have no other.
pub(crate) fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "a test of a whole process happens now")]
    Timestamp::now()
}

/// An end of a week that is three days off.
pub(crate) fn week() -> Timestamp {
    now() + SignedDuration::from_hours(72)
}

/// An answer of the provider: the 5-hour window is 12 % full, the week so full; it ends at `resets_at`.
pub(crate) fn answer(percent: f64, resets_at: Timestamp) -> Value {
    let limit = |kind: &str, percent: f64, at: Timestamp| {
        json!({
            "kind": kind, "group": kind.split('_').next(), "percent": percent, "severity": "normal",
            "resets_at": at.to_string(), "scope": null, "is_active": true,
        })
    };
    json!({ "limits": [
        limit("session", 12.0, resets_at - SignedDuration::from_hours(70)),
        limit("weekly_all", percent, resets_at),
    ] })
}

/// The CLI's document with the provider's first login; the whole login ends in so many hours.
pub(crate) fn document(hours: Option<i64>) -> String {
    document_until(hours.map(|hours| now() + SignedDuration::from_hours(hours)))
}

/// The same with the time at which the whole login ends.
pub(crate) fn document_until(end: Option<Timestamp>) -> String {
    json!({ "claudeAiOauth": {
        "accessToken": "access-0", "refreshToken": "refresh-0",
        "expiresAt": (now() + SignedDuration::from_hours(8)).as_millisecond(),
        "refreshTokenExpiresAt": end.map(Timestamp::as_millisecond),
        "scopes": ["user:profile"], "subscriptionType": "max",
    } })
    .to_string()
}

/// Puts that login into a folder.
pub(crate) fn log_in(folder: &Path) {
    log_in_for(folder, None);
}

/// Puts a login into a folder that ends in so many hours.
pub(crate) fn log_in_for(folder: &Path, hours: Option<i64>) {
    std::fs::write(folder.join(".credentials.json"), document(hours)).expect("written");
}

/// A provider that says that the week is so full until then, and a folder with its login.
pub(crate) async fn subscription(percent: f64, resets_at: Timestamp) -> (Provider, Folder) {
    let (provider, folder) = (Provider::start().await, Folder::new("pilothouse-login-"));
    provider.says(answer(percent, resets_at));
    log_in(&folder);
    (provider, folder)
}

/// An account that asks this provider with the login in the folder.
pub(crate) fn account(name: &str, provider: &Provider, folder: &Path) -> String {
    format!(
        "[[usage.accounts]]\nname = {name:?}\ndirectory = {:?}\nusage_url = {:?}\ntoken_url = {:?}\n",
        folder.display().to_string(),
        provider.usage_url().as_str(),
        provider.token_url().as_str(),
    )
}

/// The section, asked so often; `more` are its keys, accounts and rules.
pub(crate) fn section(interval: &str, more: &str) -> String {
    format!("[usage]\ninterval = {interval:?}\ntimezone = \"UTC\"\n{more}")
}

/// A rule that stops `web` when a week of this account is 90 % full.
pub(crate) fn rule(account: &str) -> String {
    format!(
        "[[usage.rules]]\nname = \"spare the week\"\nbucket = \"{account}/weekly_all\"\npercent = 90\nstop = [\"web\"]\nmode = \"act\"\n"
    )
}
