//! How a login is written down: in one JSON document as the CLI does, or each token by itself. Pure; a Secret's keys and
//! the files of a directory are the same thing here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Credential, Renewed};
use crate::config::Secret;
use crate::usage::wire::moment;

/// The CLI's file.
pub const DOCUMENT: &str = ".credentials.json";
/// The CLI's section in it.
const SECTION: &str = "claudeAiOauth";

/// Names and what stands there: a Secret's data, or the files of a directory.
pub(super) type Entries = BTreeMap<String, String>;

/// How a login is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// One JSON document, laid out as the CLI's `.credentials.json`. Fields of others in it are kept.
    Document {
        /// Key of the Secret, or name of the file.
        key: String,
    },
    /// Each token by itself.
    Keys(Keys),
}

impl Default for Layout {
    fn default() -> Self {
        Self::Document { key: DOCUMENT.to_owned() }
    }
}

/// Keys of a Secret, or names of files, with one value each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The access token.
    pub access_token: String,
    /// The refresh token. Without one the login ends with the access token.
    pub refresh_token: Option<String>,
    /// When the access token ends: RFC 3339, or seconds or milliseconds since the epoch. Written as the latter.
    pub expires_at: Option<String>,
    /// When the whole login ends, likewise.
    pub refresh_expires_at: Option<String>,
    /// Scopes, with spaces between.
    pub scopes: Option<String>,
    /// The plan's name.
    pub plan: Option<String>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            access_token: "access_token".to_owned(),
            refresh_token: Some("refresh_token".to_owned()),
            expires_at: Some("expires_at".to_owned()),
            refresh_expires_at: Some("refresh_expires_at".to_owned()),
            scopes: Some("scopes".to_owned()),
            plan: Some("plan".to_owned()),
        }
    }
}

impl Layout {
    /// Every name that is looked at.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::Document { key } => vec![key],
            Self::Keys(keys) => {
                let more = [&keys.refresh_token, &keys.expires_at, &keys.refresh_expires_at, &keys.scopes, &keys.plan];
                std::iter::once(&keys.access_token).chain(more.into_iter().flatten()).map(String::as_str).collect()
            }
        }
    }

    /// Reads the login.
    ///
    /// # Errors
    /// What is missing or of a wrong form, without a word of the content.
    pub(super) fn read(&self, entries: &Entries) -> Result<Credential, String> {
        match self {
            Self::Document { key } => {
                let document = document(key, entries)?;
                let Some(login) = section(&document) else {
                    return Err(format!("{key} has no {SECTION} with an accessToken"));
                };
                from_section(login).ok_or_else(|| format!("{key} has neither an accessToken nor a refreshToken"))
            }
            Self::Keys(keys) => {
                from_keys(keys, entries).ok_or_else(|| format!("{} is missing or empty", keys.access_token))
            }
        }
    }

    /// Says what is to be written where, in this order: the refresh token comes last, because as long as the old one
    /// stands there the new tokens are taken from the store.
    ///
    /// # Errors
    /// What is missing or of a wrong form.
    pub(super) fn changes(&self, entries: &Entries, renewed: &Renewed) -> Result<Vec<(String, String)>, String> {
        match self {
            Self::Document { key } => {
                let mut document = document(key, entries)?;
                let login = match document.get_mut(SECTION) {
                    Some(Value::Object(login)) => login,
                    _ => &mut document,
                };
                login.insert("accessToken".to_owned(), json!(renewed.access_token));
                login.insert("refreshToken".to_owned(), json!(renewed.refresh_token));
                login.insert("expiresAt".to_owned(), json!(renewed.expires_at.as_millisecond()));
                if let Some(at) = renewed.refresh_expires_at {
                    login.insert("refreshTokenExpiresAt".to_owned(), json!(at.as_millisecond()));
                }
                if !renewed.scopes.is_empty() {
                    login.insert("scopes".to_owned(), json!(renewed.scopes));
                }
                Ok(vec![(key.clone(), Value::Object(document).to_string())])
            }
            Self::Keys(keys) => {
                let millis = |at: Timestamp| at.as_millisecond().to_string();
                let scopes = Some(renewed.scopes.join(" ")).filter(|scopes| !scopes.is_empty());
                let values = [
                    (Some(&keys.access_token), Some(renewed.access_token.clone())),
                    (keys.expires_at.as_ref(), Some(millis(renewed.expires_at))),
                    (keys.refresh_expires_at.as_ref(), renewed.refresh_expires_at.map(millis)),
                    (keys.scopes.as_ref(), scopes),
                    (keys.refresh_token.as_ref(), Some(renewed.refresh_token.clone())),
                ];
                Ok(values.into_iter().filter_map(|(key, value)| Some((key?.clone(), value?))).collect())
            }
        }
    }
}

fn document(key: &str, entries: &Entries) -> Result<Map<String, Value>, String> {
    let text = entries.get(key).ok_or_else(|| format!("{key} is missing"))?;
    // The parser's own words could repeat a piece of a token.
    serde_json::from_str(text).map_err(|_| format!("{key} is not a JSON object"))
}

/// The login in a document: the CLI's section, or the document itself where somebody copied only that.
fn section(document: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let bare = || document.contains_key("accessToken").then_some(document);
    document.get(SECTION).and_then(Value::as_object).or_else(bare)
}

fn from_section(login: &Map<String, Value>) -> Option<Credential> {
    let text = |key: &str| login.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let (access, refresh) = (text("accessToken"), text("refreshToken"));
    access.or(refresh)?;
    let scopes = login.get("scopes").and_then(Value::as_array).into_iter().flatten();
    Some(Credential {
        access_token: Secret::new(access.unwrap_or_default()),
        refresh_token: refresh.map(Secret::new),
        expires_at: login.get("expiresAt").and_then(moment),
        refresh_expires_at: login.get("refreshTokenExpiresAt").and_then(moment),
        scopes: scopes.filter_map(Value::as_str).map(str::to_owned).collect(),
        plan: text("subscriptionType").map(str::to_owned),
        client_id: text("clientId").map(str::to_owned),
    })
}

fn from_keys(keys: &Keys, entries: &Entries) -> Option<Credential> {
    let text = |key: &str| entries.get(key).map(|text| text.trim()).filter(|text| !text.is_empty());
    let optional = |key: &Option<String>| key.as_deref().and_then(text);
    let time = |key: &Option<String>| {
        let text = optional(key)?;
        text.parse::<i64>().map_or_else(|_| text.parse().ok(), |number| moment(&json!(number)))
    };
    let (access, refresh) = (text(&keys.access_token), optional(&keys.refresh_token));
    access.or(refresh)?;
    Some(Credential {
        access_token: Secret::new(access.unwrap_or_default()),
        refresh_token: refresh.map(Secret::new),
        expires_at: time(&keys.expires_at),
        refresh_expires_at: time(&keys.refresh_expires_at),
        scopes: optional(&keys.scopes).into_iter().flat_map(str::split_whitespace).map(str::to_owned).collect(),
        plan: optional(&keys.plan).map(str::to_owned),
        client_id: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Entries {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn renewed() -> Renewed {
        Renewed {
            access_token: "a2".to_owned(),
            refresh_token: "r2".to_owned(),
            expires_at: at(28_800),
            refresh_expires_at: Some(at(2_000_000)),
            scopes: vec!["user:profile".to_owned()],
        }
    }

    const CLI: &str = r#"{"claudeAiOauth":{"accessToken":"a1","refreshToken":"r1","expiresAt":1800000000000,"refreshTokenExpiresAt":1802000000000,
        "scopes":["user:inference","user:profile"],"subscriptionType":"max","rateLimitTier":"t","new":{"x":1}},"mcpOAuth":{"y":2}}"#;

    #[test]
    fn the_clis_document_is_read_and_the_rest_of_it_kept() {
        let layout = Layout::default();
        let before = entries(&[(DOCUMENT, CLI)]);
        let credential = layout.read(&before).unwrap();
        assert_eq!((credential.access_token.expose(), credential.parent()), ("a1", Some(super::super::digest("r1"))));
        assert_eq!((credential.expires_at, credential.refresh_expires_at), (Some(at(0)), Some(at(2_000_000))));
        assert_eq!((credential.plan.as_deref(), credential.scopes.len()), (Some("max"), 2));

        let changes = layout.changes(&before, &renewed()).unwrap();
        let written: Value = serde_json::from_str(&changes[0].1).unwrap();
        let mut expected: Value = serde_json::from_str(CLI).unwrap();
        let login = &mut expected[SECTION];
        login["accessToken"] = json!("a2");
        login["refreshToken"] = json!("r2");
        login["expiresAt"] = json!(1_800_028_800_000_i64);
        login["scopes"] = json!(["user:profile"]);
        assert_eq!(written, expected);
        assert_eq!(layout.read(&changes.into_iter().collect()).unwrap(), credential.renewed(&renewed()));
    }

    #[test]
    fn a_blanked_document_can_still_be_renewed() {
        let blank = r#"{"claudeAiOauth":{"accessToken":"","refreshToken":"r1","expiresAt":0}}"#;
        let credential = Layout::default().read(&entries(&[(DOCUMENT, blank)])).unwrap();
        assert!(credential.is_expiring(at(0)) && credential.can_renew() && !credential.is_usable(at(0)));
    }

    #[test]
    fn each_token_by_itself_is_read_and_the_refresh_token_written_last() {
        let layout = Layout::Keys(Keys::default());
        let mut files = entries(&[
            ("access_token", "a1\n"),
            ("refresh_token", "r1\n"),
            ("expires_at", "2027-01-15T08:00:00Z"),
            ("scopes", "user:inference user:profile\n"),
        ]);
        let credential = layout.read(&files).unwrap();
        assert_eq!((credential.access_token.expose(), credential.expires_at), ("a1", Some(at(0))));
        let changes = layout.changes(&files, &renewed()).unwrap();
        assert_eq!(changes.last().unwrap(), &("refresh_token".to_owned(), "r2".to_owned()));
        files.extend(changes);
        assert_eq!(layout.read(&files).unwrap(), credential.renewed(&renewed()));
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_repeated() {
        for (document, words) in [
            ("{\"accessToken\": sk-ant-oat01-x", "is not a JSON object"),
            ("[]", "is not a JSON object"),
            ("{}", "has no claudeAiOauth"),
            (r#"{"claudeAiOauth":{"accessToken":"","refreshToken":""}}"#, "neither"),
        ] {
            let why = Layout::default().read(&entries(&[(DOCUMENT, document)])).unwrap_err();
            assert!(why.contains(words) && !why.contains("sk-ant"), "{document}: {why}");
        }
        assert!(Layout::default().read(&Entries::new()).unwrap_err().contains("is missing"));
        assert!(Layout::Keys(Keys::default()).read(&Entries::new()).unwrap_err().contains("access_token"));
    }
}
