//! What a push says: when it was sent and what the CLI was told.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::usage::wire::moment;

/// Reads the time and the windows, these in the form of the usage endpoint. Everything else of a statusline's input is
/// passed over.
pub(super) fn read(body: &[u8]) -> Result<(Timestamp, Value), &'static str> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "the body is not JSON")?;
    let sent_at =
        body.get("sent_at").and_then(moment).ok_or("sent_at is missing: seconds since the epoch, or RFC 3339")?;
    let windows = body
        .get("rate_limits")
        .and_then(Value::as_object)
        .filter(|windows| !windows.is_empty())
        .ok_or("rate_limits is missing: the CLI gives it after its first answer, since 2.1.80")?;
    Ok((sent_at, Value::Object(windows.iter().map(|(key, window)| (key.clone(), renamed(window))).collect())))
}

/// The statusline calls the percentage `used_percentage`.
fn renamed(window: &Value) -> Value {
    let Some(window) = window.as_object() else { return window.clone() };
    let mut renamed: Map<String, Value> = window.clone();
    if let Some(percent) = renamed.remove("used_percentage") {
        renamed.insert("utilization".to_owned(), percent);
    }
    Value::Object(renamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statuslines_whole_input_will_do() {
        let body = br#"{"session_id":"x","model":{"id":"m"},"sent_at":1790000000.5,
            "rate_limits":{"five_hour":{"used_percentage":12.5,"resets_at":1790003600},"seven_day":{"used_percentage":1,"resets_at":1790300000}}}"#;
        let (sent_at, windows) = read(body).unwrap();
        assert_eq!(sent_at, Timestamp::from_millisecond(1_790_000_000_500).unwrap());
        assert_eq!(windows["five_hour"]["utilization"], 12.5);
        assert_eq!(windows["seven_day"]["utilization"], 1);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (body, words) in [
            ("", "not JSON"),
            ("[]", "sent_at"),
            (r#"{"sent_at":"yesterday"}"#, "sent_at"),
            (r#"{"sent_at":1790000000}"#, "rate_limits"),
            (r#"{"sent_at":1790000000,"rate_limits":null}"#, "rate_limits"),
            (r#"{"sent_at":1790000000,"rate_limits":{}}"#, "rate_limits"),
        ] {
            assert!(read(body.as_bytes()).unwrap_err().contains(words), "{body}");
        }
    }
}
