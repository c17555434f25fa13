//! Plain HTTP to providers: a client that gives no token away, and what answers have in common.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Response, header, redirect, tls};
use serde_json::Value;

use crate::tls::{certificate_fault, with_ca};

/// How this program names itself to providers.
pub const USER_AGENT: &str = concat!("pilothouse/", env!("CARGO_PKG_VERSION"));

/// The configuration's key for a bundle of CAs.
const CA_KEY: &str = "usage.ca_file";
/// A connection that takes longer has failed.
const CONNECT: Duration = Duration::from_secs(5);

/// Builds the HTTP client for providers. It follows no redirection, so that a token never goes elsewhere, and honours the
/// usual proxy variables. `ca` is a file with CAs (PEM) to trust beside the usual ones.
///
/// # Errors
/// Where that file cannot be used.
pub fn client(timeout: Duration, ca: Option<&Path>) -> anyhow::Result<Client> {
    let builder = Client::builder()
        .connect_timeout(CONNECT.min(timeout))
        .timeout(timeout)
        .redirect(redirect::Policy::none())
        .tls_version_min(tls::Version::TLS_1_2);
    let builder = with_ca(builder, ca, CA_KEY).map_err(anyhow::Error::msg)?;
    builder.build().context("the HTTP client for providers cannot be built")
}

/// Reads a body of at most `limit` bytes; `None`: it is longer.
pub(super) async fn body(mut answer: Response, limit: usize) -> Result<Option<Vec<u8>>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| failure(&error))? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// Reads `Retry-After`, in seconds or as a date.
pub(super) fn retry_after(answer: &Response, now: Timestamp) -> Option<SignedDuration> {
    let text = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(SignedDuration::from_secs(i64::from(seconds)));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(at.duration_since(now)).filter(SignedDuration::is_positive)
}

/// What went wrong on the way, without the URL: an own proxy's may hold a password.
pub(super) fn failure(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "there was no answer in time".to_owned();
    }
    if let Some(fault) = certificate_fault(error, CA_KEY) {
        return fault;
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let what = if error.is_connect() { "the connection failed" } else { "the answer broke off" };
    format!("{what}: {cause}")
}

/// The word with which a provider names an error (`error.type` or `error`), where it is one: never more of the body.
pub(super) fn error_word(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let error = value.get("error")?;
    let word = error.get("type").unwrap_or(error).as_str()?;
    let harmless = word.len() <= 40 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    harmless.then(|| word.to_owned())
}

/// Reads a time: RFC 3339, or a number of seconds since the epoch (of milliseconds where seconds would be far away).
pub(super) fn moment(value: &Value) -> Option<Timestamp> {
    const FAR: f64 = 1e11;
    if let Some(text) = value.as_str() {
        return text.parse().ok();
    }
    let number = value.as_f64().filter(|number| *number > 0.0 && *number < FAR * 1_000.0)?;
    let millis = if number < FAR { number * 1_000.0 } else { number };
    #[expect(clippy::cast_possible_truncation, reason = "a time in milliseconds, below 1e14")]
    Timestamp::from_millisecond(millis.round() as i64).ok()
}
