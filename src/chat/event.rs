//! One event of a room's timeline, read as far as Pilothouse cares; pure.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// An event of a timeline. What stands outside `content` is the homeserver's word.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(rename = "event_id")]
    pub(crate) id: String,
    pub(crate) sender: String,
    #[serde(default)]
    origin_server_ts: i64,
    state_key: Option<String>,
    #[serde(default)]
    pub(crate) content: Map<String, Value>,
    #[serde(default)]
    unsigned: Map<String, Value>,
}

impl Event {
    /// Reads an event; gives nothing for what is none. Names without their sigil are those of Pilothouse's own parts in
    /// the inbox: no homeserver may give them to an event.
    pub(crate) fn parse(json: &str) -> Option<Self> {
        let event: Self = serde_json::from_str(json).ok()?;
        (event.id.starts_with('$') && event.sender.starts_with('@')).then_some(event)
    }

    /// The homeserver's time for it; the epoch where it sent nonsense, so that it counts as old.
    pub(crate) fn sent_at(&self) -> Timestamp {
        Timestamp::from_millisecond(self.origin_server_ts).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// What a person wrote: a text message of its own, neither an edit nor a notice nor state. Of a reply, what they wrote
    /// themselves: many clients repeat above it the words that it answers.
    pub(crate) fn text(&self) -> Option<&str> {
        let written = self.kind == "m.room.message"
            && self.state_key.is_none()
            && self.content.get("msgtype").and_then(Value::as_str) == Some("m.text");
        if !written || self.is_edit() {
            return None;
        }
        let body = self.content.get("body").and_then(Value::as_str)?;
        Some(if self.relation("m.in_reply_to").is_some() { without_quotation(body) } else { body })
    }

    /// Whether it answers an event because its sender chose to. In a thread, clients name an event for those that know no
    /// threads; nobody chose that one. The relation stands outside the ciphertext: a homeserver that adds or takes it away
    /// wins that a quotation is read with the rest or left out, or that a mistake is answered or not.
    pub(crate) fn is_reply(&self) -> bool {
        let by_itself = self.relation("is_falling_back").and_then(Value::as_bool) == Some(true);
        self.relation("m.in_reply_to").is_some() && !by_itself
    }

    /// The root event of the thread that it stands in.
    pub(crate) fn thread(&self) -> Option<&str> {
        let in_one = self.relation("rel_type").and_then(Value::as_str) == Some("m.thread");
        self.relation("event_id").and_then(Value::as_str).filter(|id| in_one && id.starts_with('$'))
    }

    fn relation(&self, key: &str) -> Option<&Value> {
        self.content.get("m.relates_to")?.get(key)
    }

    /// Whether it replaces another event. The relation stands outside the ciphertext, where a homeserver can take it away;
    /// `m.new_content` stands inside.
    pub(crate) fn is_edit(&self) -> bool {
        self.content.contains_key("m.new_content")
            || self.relation("rel_type").and_then(Value::as_str) == Some("m.replace")
    }

    /// Whether it is an encrypted message, not an encrypted edit.
    pub(crate) fn is_encrypted_message(&self) -> bool {
        self.kind == "m.room.encrypted" && self.state_key.is_none() && !self.is_edit()
    }

    /// Whether its sender notifies this person.
    pub(crate) fn mentions(&self, user: &str) -> bool {
        self.content
            .get("m.mentions")
            .and_then(|mentions| mentions.get("user_ids"))
            .and_then(Value::as_array)
            .is_some_and(|users| users.iter().any(|id| id.as_str() == Some(user)))
    }

    /// Fingerprint of what was encrypted: the same ciphertext gives the same one, wherever a homeserver puts it.
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.kind);
        for (key, value) in self.content.iter().filter(|(key, _)| *key != "m.relates_to") {
            hash.update([0]);
            hash.update(key);
            hash.update([0]);
            hash.update(value.to_string());
        }
        format!("{:x}", hash.finalize())
    }

    /// The person whose membership it changes, and to what.
    pub(crate) fn membership(&self) -> Option<(&str, &str)> {
        let state_key = self.state_key.as_deref().filter(|_| self.kind == "m.room.member")?;
        Some((state_key, self.content.get("membership")?.as_str()?))
    }

    /// Whether this person came into the room by it, rather than changing their name in it.
    pub(crate) fn is_join_of(&self, user: &str) -> bool {
        if self.membership() != Some((user, "join")) {
            return false;
        }
        let before = self.unsigned.get("prev_content").and_then(|content| content.get("membership"));
        match before.and_then(Value::as_str) {
            Some(membership) => membership != "join",
            None => !self.unsigned.contains_key("replaces_state"),
        }
    }
}

/// Leaves out the fallback of a rich reply (Matrix client-server API): the lines at the top that begin with `> `, the first
/// with who is answered, and the empty one below them. A quotation that a person writes names nobody so, and stays: the
/// relation alone may be the homeserver's word.
fn without_quotation(body: &str) -> &str {
    if !body.starts_with("> <@") && !body.starts_with("> * <@") {
        return body;
    }
    let mut rest = body;
    while rest.starts_with("> ") || rest.starts_with(">\n") {
        rest = rest.split_once('\n').map_or("", |(_, below)| below);
    }
    if rest.len() < body.len() { rest.strip_prefix('\n').unwrap_or(rest) } else { body }
}

/// Whether one of these names stands anywhere in a text, as a word.
pub(crate) fn names_one_of(text: &str, names: &[&str]) -> bool {
    let text = text.to_lowercase();
    let apart = |letter: Option<char>| !letter.is_some_and(char::is_alphanumeric);
    names.iter().filter(|name| !name.is_empty()).map(|name| name.to_lowercase()).any(|name| {
        text.match_indices(&name)
            .any(|(at, _)| apart(text[..at].chars().next_back()) && apart(text[at + name.len()..].chars().next()))
    })
}

/// Takes the bot's name off the front of a text, where it stands there as an address: `Pilothouse: start`,
/// `@pilothouse:example.org start`, `[Pilothouse](https://matrix.to/…) start`. A bare name without punctuation is one only
/// if `mentioned`; otherwise it may be a word like any other. Gives the rest if there was a name.
pub(crate) fn strip_name<'a>(text: &'a str, names: &[&str], mentioned: bool) -> Option<&'a str> {
    let text = text.trim();
    if mentioned
        && let Some(linked) = text.strip_prefix('[')
        && let Some((label, rest)) = linked.split_once("](https://matrix.to/#/")
        && let Some((_, rest)) = rest.split_once(')')
        && names.iter().any(|name| label.trim_start_matches('@').eq_ignore_ascii_case(name.trim_start_matches('@')))
    {
        return Some(rest.trim_start_matches([':', ',']).trim());
    }
    let bare = text.trim_start_matches('@');
    for name in names.iter().map(|name| name.trim_start_matches('@')).filter(|name| !name.is_empty()) {
        let Some(head) = bare.get(..name.len()) else { continue };
        if !head.eq_ignore_ascii_case(name) {
            continue;
        }
        let rest = &bare[name.len()..];
        if let Some(rest) = rest.strip_prefix([':', ','])
            && (rest.is_empty() || rest.starts_with(char::is_whitespace))
        {
            return Some(rest.trim());
        }
        if mentioned && (rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            return Some(rest.trim());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(content: &Value) -> Event {
        let event = json!({
            "type": "m.room.message", "event_id": "$e", "sender": "@a:b", "origin_server_ts": 1000, "content": content
        });
        Event::parse(&event.to_string()).unwrap()
    }

    #[test]
    fn only_texts_of_their_own_are_read() {
        assert_eq!(message(&json!({"msgtype": "m.text", "body": "start"})).text(), Some("start"));
        assert_eq!(message(&json!({"msgtype": "m.notice", "body": "start"})).text(), None);
        assert_eq!(message(&json!({"msgtype": "m.emote", "body": "start"})).text(), None);
        assert_eq!(message(&json!({})).text(), None, "a redacted event has no content");
        let edit = json!({"msgtype": "m.text", "body": "* start", "m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}});
        assert_eq!(message(&edit).text(), None);
        let stripped = json!({"msgtype": "m.text", "body": "* start", "m.new_content": {"body": "start"}});
        assert_eq!(message(&stripped).text(), None, "an edit whose relation the homeserver took away");
        let reply = json!({"msgtype": "m.text", "body": "stop", "m.relates_to": {"m.in_reply_to": {"event_id": "$x"}}});
        assert_eq!(message(&reply).text(), Some("stop"));
    }

    #[test]
    fn what_a_reply_quotes_is_not_what_it_says() {
        let reply = |body: &str| {
            let relation = json!({"m.in_reply_to": {"event_id": "$x"}});
            message(&json!({"msgtype": "m.text", "body": body, "m.relates_to": relation}))
        };
        for (body, said) in [
            ("> <@bot:b> web is ready\n\nstop", "stop"),
            ("> <@bot:b> web: ready\n> Image: fine\n>\n> more\n\nstop web\nnow", "stop web\nnow"),
            ("> <@bot:b> web is ready\nstop", "stop"),
            ("> * <@bot:b> waves\n\n> stop\n\nno", "> stop\n\nno"),
            ("> <@bot:b> web is ready", ""),
            // A quotation of their own: the relation may be the homeserver's word.
            ("> shall I\nstop web", "> shall I\nstop web"),
            ("stop\n> it", "stop\n> it"),
            (">stop", ">stop"),
        ] {
            assert_eq!(reply(body).text(), Some(said), "{body:?}");
        }
        let quotation = message(&json!({"msgtype": "m.text", "body": "> no\n\nstop"}));
        assert_eq!(quotation.text(), Some("> no\n\nstop"), "a quotation that answers nothing is its sender's words");
    }

    #[test]
    fn a_thread_is_named_by_its_root() {
        let thread = |relation: Value| {
            let event = message(&json!({"msgtype": "m.text", "body": "stop", "m.relates_to": relation}));
            event.thread().map(str::to_owned)
        };
        assert_eq!(thread(json!({"rel_type": "m.thread", "event_id": "$r"})).as_deref(), Some("$r"));
        assert_eq!(thread(json!({"rel_type": "m.reference", "event_id": "$r"})), None);
        assert_eq!(thread(json!({"rel_type": "m.thread", "event_id": "r"})), None);
        assert_eq!(thread(json!({"m.in_reply_to": {"event_id": "$r"}})), None);
    }

    #[test]
    fn a_reply_that_nobody_chose_is_none() {
        let related = |relation: Value| {
            message(&json!({"msgtype": "m.text", "body": "stop", "m.relates_to": relation})).is_reply()
        };
        let of = json!({"event_id": "$x"});
        assert!(related(json!({"m.in_reply_to": of})));
        assert!(related(json!({"rel_type": "m.thread", "event_id": "$r", "m.in_reply_to": of})));
        assert!(!related(
            json!({"rel_type": "m.thread", "event_id": "$r", "is_falling_back": true, "m.in_reply_to": of})
        ));
        assert!(!message(&json!({"msgtype": "m.text", "body": "stop"})).is_reply());
    }

    #[test]
    fn names_without_their_sigil_are_no_event() {
        let parse = |id: &str, sender: &str| {
            let event = json!({ "type": "m.room.message", "event_id": id, "sender": sender, "content": {} });
            Event::parse(&event.to_string()).is_some()
        };
        assert!(parse("$e", "@a:b"));
        assert!(!parse("guard/1", "@a:b"));
        assert!(!parse("$e", "usage guard"));
    }

    #[test]
    fn the_digest_leaves_out_what_the_homeserver_can_change() {
        let plain = message(&json!({"msgtype": "m.text", "body": "start"}));
        let related = message(&json!({"msgtype": "m.text", "body": "start", "m.relates_to": {"event_id": "$x"}}));
        let other = message(&json!({"msgtype": "m.text", "body": "stop"}));
        assert_eq!(plain.digest(), related.digest());
        assert_ne!(plain.digest(), other.digest());
    }

    #[test]
    fn a_join_is_told_from_a_new_name() {
        let member = |unsigned: Value| {
            let event = json!({
                "type": "m.room.member", "event_id": "$e", "sender": "@bot:b", "state_key": "@bot:b",
                "origin_server_ts": 1, "content": {"membership": "join"}, "unsigned": unsigned
            });
            Event::parse(&event.to_string()).unwrap().is_join_of("@bot:b")
        };
        assert!(member(json!({})));
        assert!(member(json!({"prev_content": {"membership": "invite"}, "replaces_state": "$x"})));
        assert!(!member(json!({"prev_content": {"membership": "join"}, "replaces_state": "$x"})));
        assert!(!member(json!({"replaces_state": "$x"})));
    }

    #[test]
    fn a_name_in_a_text_is_a_word_of_it() {
        let names = ["Pilot House", "@ph:example.org", "ph", ""];
        for (text, named) in [
            ("thanks pilot house!", true),
            ("well done, PH", true),
            ("thanks @ph:example.org", true),
            ("phew, thanks", false),
            ("the graph", false),
            ("", false),
        ] {
            assert_eq!(names_one_of(text, &names), named, "{text}");
        }
    }

    #[test]
    fn an_address_at_the_front_is_taken_off() {
        let names = ["Pilothouse", "@pilothouse:example.org", "pilothouse"];
        let strip = |text, mentioned| strip_name(text, &names, mentioned);
        assert_eq!(strip("Pilothouse: start", false), Some("start"));
        assert_eq!(strip("pilothouse, start web 3", false), Some("start web 3"));
        assert_eq!(strip("@pilothouse:example.org: start", false), Some("start"));
        assert_eq!(strip("@pilothouse:example.org start", true), Some("start"));
        assert_eq!(strip("Pilothouse start", true), Some("start"));
        assert_eq!(strip("[Pilothouse](https://matrix.to/#/@pilothouse:example.org) start", true), Some("start"));
        assert_eq!(
            strip("[@pilothouse:example.org](https://matrix.to/#/@pilothouse:example.org): start", true),
            Some("start")
        );
        assert_eq!(strip("Pilothouse start", false), None, "a word like any other");
        assert_eq!(strip("Pilothouses: start", true), None);
        assert_eq!(strip("start", true), None);
        assert_eq!(strip("pilöthouse: start", false), None);
    }
}
