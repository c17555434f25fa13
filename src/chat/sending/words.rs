//! Words as an event: notice, reply, edit, bounded; and several messages as one. Pure.

use std::collections::BTreeSet;

use matrix_sdk::ruma::events::Mentions;
use matrix_sdk::ruma::events::relation::{Reply, Thread};
use matrix_sdk::ruma::events::room::message::{
    FormattedBody, ImageMessageEventContent, MessageType, Relation, ReplacementMetadata, RoomMessageEventContent,
    RoomMessageEventContentWithoutRelation,
};
use matrix_sdk::ruma::events::room::{EncryptedFile, ImageInfo};
use matrix_sdk::ruma::{EventId, OwnedEventId, UInt, UserId};

use crate::message::{Image, Outgoing};
use crate::store::outbox::Parcel;

/// Most bytes of text and HTML in one event: 64 KiB bound the whole event, and encryption adds a third.
const MOST: usize = 30_000;
/// An edit carries its words twice.
const MOST_OF_EDIT: usize = 18_000;

/// Makes the content of a notice; with `root`, of an edit of that event.
pub(super) fn content(outgoing: &Outgoing, root: Option<&EventId>) -> RoomMessageEventContent {
    let (plain, html) = bounded(&outgoing.plain, &outgoing.html, if root.is_some() { MOST_OF_EDIT } else { MOST });
    let content = RoomMessageEventContent::notice_html(plain, html);
    let mentions = Mentions::with_user_ids(outgoing.mentions.iter().filter_map(|user| UserId::parse(user).ok()));
    let mut content = content.add_mentions(mentions);
    if let Some(root) = root {
        // Nobody is notified again by an edit.
        let already = content.mentions.clone();
        return content.make_replacement(ReplacementMetadata::new(root.to_owned(), already));
    }
    content.relates_to = relation(outgoing);
    content
}

/// Makes the content of a picture whose bytes are uploaded already, with the words as its caption.
pub(super) fn picture(outgoing: &Outgoing, image: &Image, file: EncryptedFile, size: u64) -> RoomMessageEventContent {
    let (plain, html) = bounded(&outgoing.plain, &outgoing.html, MOST);
    let mut picture = ImageMessageEventContent::encrypted(plain, file);
    picture.formatted = Some(FormattedBody::html(html));
    picture.filename = Some(image.name.clone());
    let mut info = ImageInfo::new();
    info.width = Some(image.width.into());
    info.height = Some(image.height.into());
    info.mimetype = Some("image/png".to_owned());
    info.size = UInt::new(size);
    picture.info = Some(Box::new(info));
    let mut content = RoomMessageEventContent::new(MessageType::Image(picture));
    content.relates_to = relation(outgoing);
    content.add_mentions(Mentions::new())
}

/// What the words hang on: the event that they answer, in the thread where that was asked.
fn relation(outgoing: &Outgoing) -> Option<Relation<RoomMessageEventContentWithoutRelation>> {
    let id = |event: &Option<String>| OwnedEventId::try_from(event.as_deref()?).ok();
    match (id(&outgoing.thread), id(&outgoing.reply_to)) {
        (Some(root), Some(asked)) => Some(Relation::Thread(Thread::plain(root, asked))),
        (Some(root), None) => Some(Relation::Thread(Thread::without_fallback(root))),
        (None, asked) => asked.map(|event| Relation::Reply(Reply::with_event_id(event))),
    }
}

/// Cuts what is too long, and says so.
fn bounded(plain: &str, html: &str, most: usize) -> (String, String) {
    if plain.len() + html.len() <= most {
        return (plain.to_owned(), html.to_owned());
    }
    // HTML cannot be cut between its tags: what is too long is shown without formatting.
    let mut keep = most / 2;
    loop {
        let kept = &plain[..plain.floor_char_boundary(keep)];
        let missing = plain[kept.len()..].chars().count();
        let note = if missing == 0 { String::new() } else { format!("\n… ({missing} more characters left out)") };
        let plain = format!("{kept}{note}");
        let html = html_escape::encode_text(&plain).replace('\n', "<br>");
        if plain.len() + html.len() <= most || keep == 0 {
            return (plain, html);
        }
        keep /= 2;
    }
}

/// Joins messages into one, as far as they fit; gives the JSON of the joined words and the rows in it beside the first.
pub(super) fn join(first: &Parcel, others: &[Parcel]) -> Option<(String, Vec<i64>)> {
    let mut joined: Outgoing = serde_json::from_str(&first.payload).ok()?;
    if joined.image.is_some() {
        return None;
    }
    let mut asked: BTreeSet<String> = joined.reply_to.iter().cloned().collect();
    let mut rows = Vec::new();
    joined.html = format!("<div>{}</div>", joined.html);
    for other in others {
        let Ok(words) = serde_json::from_str::<Outgoing>(&other.payload) else { continue };
        if words.image.is_some() || words.thread != joined.thread {
            break;
        }
        let length = joined.plain.len() + joined.html.len() + words.plain.len() + words.html.len() + 12;
        if length > MOST {
            break;
        }
        joined.plain = format!("{}\n{}", joined.plain, words.plain);
        joined.html = format!("{}<div>{}</div>", joined.html, words.html);
        joined.mentions.extend(words.mentions);
        asked.extend(words.reply_to);
        rows.push(other.id);
    }
    if rows.is_empty() {
        return None;
    }
    joined.mentions.sort();
    joined.mentions.dedup();
    if asked.len() > 1 {
        // An event answers one event; this one speaks to several.
        joined.reply_to = None;
    }
    Some((serde_json::to_string(&joined).ok()?, rows))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::row;
    use super::*;

    fn outgoing(plain: &str, html: &str) -> Outgoing {
        Outgoing {
            plain: plain.to_owned(),
            html: html.to_owned(),
            reply_to: Some("$asked:x".to_owned()),
            thread: None,
            mentions: vec!["@anna:x".to_owned(), "nobody".to_owned()],
            anywhere: false,
            image: None,
        }
    }

    fn event(outgoing: &Outgoing, root: Option<&str>) -> Value {
        let root = root.map(|id| OwnedEventId::try_from(id).expect("an id"));
        serde_json::to_value(content(outgoing, root.as_deref())).expect("it is JSON")
    }

    #[test]
    fn an_answer_is_a_notice_in_reply_to_the_command() {
        assert_eq!(
            event(&outgoing("a & b", "a &amp; <b>b</b>"), None),
            json!({
                "msgtype": "m.notice",
                "body": "a & b",
                "format": "org.matrix.custom.html",
                "formatted_body": "a &amp; <b>b</b>",
                "m.mentions": { "user_ids": ["@anna:x"] },
                "m.relates_to": { "m.in_reply_to": { "event_id": "$asked:x" } },
            })
        );
    }

    #[test]
    fn in_a_thread_it_is_answered_in_the_thread() {
        let threaded = Outgoing { thread: Some("$root:x".to_owned()), ..outgoing("a", "a") };
        let relation = |outgoing: &Outgoing| event(outgoing, None)["m.relates_to"].clone();
        let plain = json!({
            "rel_type": "m.thread", "event_id": "$root:x", "is_falling_back": true,
            "m.in_reply_to": { "event_id": "$asked:x" },
        });
        assert_eq!(relation(&threaded), plain);
        let several = Outgoing { reply_to: None, ..threaded };
        assert_eq!(relation(&several), json!({ "rel_type": "m.thread", "event_id": "$root:x" }));
    }

    #[test]
    fn words_of_a_thread_are_not_told_elsewhere() {
        let mut threaded = row(2, "a", None, false, true);
        let words = Outgoing { thread: Some("$root:x".to_owned()), ..outgoing("a", "a") };
        threaded.payload = words.json();
        assert_eq!(join(&row(1, "a", None, false, true), &[threaded]), None);
    }

    #[test]
    fn an_edit_replaces_its_event_and_notifies_nobody_again() {
        let event = event(&outgoing("ready", "ready"), Some("$root:x"));
        assert_eq!(event["m.relates_to"], json!({ "rel_type": "m.replace", "event_id": "$root:x" }));
        assert_eq!(event["m.new_content"]["body"], "ready");
        assert_eq!(event["m.new_content"]["msgtype"], "m.notice");
        assert_eq!(event["m.mentions"], json!({}));
    }

    #[test]
    fn what_is_too_long_is_cut_with_a_note_at_a_letter() {
        for (plain, html) in [
            ("ä".repeat(40_000), "<b>ä</b>".repeat(40_000)),
            ("<&\n".repeat(20_000), "x".to_owned()),
            ("short".to_owned(), "<b>x</b>".repeat(20_000)),
        ] {
            for (root, most) in [(None, MOST), (Some("$root:x"), 2 * MOST_OF_EDIT + 100)] {
                let event = event(&outgoing(&plain, &html), root);
                let length = |content: &Value| {
                    content["body"].as_str().map_or(0, str::len)
                        + content["formatted_body"].as_str().map_or(0, str::len)
                };
                let length = length(&event) + length(&event["m.new_content"]);
                assert!(length <= most, "{length} > {most}");
                assert_eq!(event["body"].as_str().is_some_and(|body| body.contains("left out)")), plain != "short");
            }
        }
    }

    #[test]
    fn joined_words_keep_their_order_and_answer_nobody_alone() {
        let (payload, rows) = join(&row(1, "a", None, false, true), &[row(2, "a", None, false, true)]).expect("joined");
        assert_eq!(rows, [2]);
        let words: Outgoing = serde_json::from_str(&payload).expect("it is JSON");
        assert_eq!(words.plain, "words 1\nwords 2");
        assert_eq!(words.html, "<div>words 1</div><div>words 2</div>");
        assert_eq!(words.reply_to, None);
        assert_eq!(words.mentions, ["@anna:x"]);
    }

    #[test]
    fn joining_stops_where_the_event_would_be_too_long() {
        let mut long = row(2, "a", None, false, true);
        long.payload = serde_json::to_string(&outgoing(&"x".repeat(20_000), &"x".repeat(20_000))).expect("JSON");
        assert_eq!(join(&row(1, "a", None, false, true), &[long]), None);
    }
}
