//! Foreign words made fit for a room: bounded, and without what moves a cursor or turns the text around.

/// One line of at most `limit` characters.
pub(super) fn line(text: &str, limit: usize) -> String {
    let text = clean(text);
    let words: Vec<&str> = text.split_whitespace().collect();
    bounded(&words.join(" "), limit)
}

/// Cuts a text at `limit` characters, with a sign that it was cut.
fn bounded(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// The beginning of a text, at most so many bytes.
pub(super) fn within_bytes(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// The end of a text, at most so many bytes.
pub(super) fn end_within_bytes(text: &str, limit: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(limit))..]
}

/// Takes out terminal escapes, control characters (line feeds and tabs stay) and marks that change the direction of
/// what follows: all of them could make a text show as another.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => skip_escape(&mut characters),
            '\n' | '\t' => cleaned.push(character),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            character if character.is_control() => {}
            character => cleaned.push(character),
        }
    }
    cleaned
}

/// Skips what follows an ESC: a control sequence (`[` … final byte), a command string (`]` … BEL), or one character.
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => while characters.next_if(|c| !matches!(c, '\u{40}'..='\u{7e}' | '\n')).is_some() {},
        Some(']') => while characters.next_if(|c| !matches!(c, '\u{7}' | '\u{1b}' | '\n')).is_some() {},
        _ => return,
    }
    characters.next_if(|c| *c != '\n' && *c != '\u{1b}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_show_as_something_else_is_taken_out() {
        let table = [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\u{1b}[31merror\u{1b}[0m: no", "error: no"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("a\u{1b}[1;2\nb", "a\nb"),
            ("ring\u{7}\r\nnext\u{0}", "ring\nnext"),
            ("\u{202e}gpj.exe", "gpj.exe"),
        ];
        for (text, expected) in table {
            assert_eq!(clean(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_is_bounded_in_characters() {
        assert_eq!(line("a\n  b", 10), "a b");
        assert_eq!(line("äöüß", 3), "äö…");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(within_bytes("aä", 2), "a");
        assert_eq!(within_bytes("aä", 3), "aä");
        assert_eq!(within_bytes("a", 9), "a");
        assert_eq!(end_within_bytes("äa", 2), "a");
        assert_eq!(end_within_bytes("äa", 3), "äa");
        assert_eq!(end_within_bytes("a", 9), "a");
    }
}
