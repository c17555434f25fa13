//! Plain text and HTML, written together.

use html_escape::encode_text;
use jiff::SignedDuration;

/// What people read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Complete without formatting.
    pub plain: String,
    /// The same as HTML (the subset of the Matrix specification, `m.room.message` → `org.matrix.custom.html`).
    pub html: String,
}

/// Writes [`Words`].
#[derive(Debug, Default)]
#[must_use]
pub struct Text {
    plain: String,
    html: String,
}

impl Text {
    /// Begins with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds text.
    pub fn say(mut self, text: &str) -> Self {
        self.plain.push_str(text);
        self.html.push_str(&encode_text(text).replace('\n', "<br>"));
        self
    }

    /// Adds a name.
    pub fn strong(self, text: &str) -> Self {
        self.tagged("strong", text)
    }

    /// Adds something to type or compare.
    pub fn code(self, text: &str) -> Self {
        self.tagged("code", text)
    }

    /// Adds text in a colour, which says nothing that the text does not.
    pub fn coloured(mut self, colour: &'static str, text: &str) -> Self {
        self.plain.push_str(text);
        for part in [
            "<strong><font color=\"",
            colour,
            "\" data-mx-color=\"",
            colour,
            "\">",
            &encode_text(text),
            "</font></strong>",
        ] {
            self.html.push_str(part);
        }
        self
    }

    /// Adds what does not hold any more.
    pub fn struck(self, text: &str) -> Self {
        self.tagged("del", text)
    }

    /// Adds words that are written already.
    pub fn with(mut self, words: &Words) -> Self {
        self.plain.push_str(&words.plain);
        self.html.push_str(&words.html);
        self
    }

    /// Adds lines as a quotation.
    pub fn quoted(mut self, lines: impl FnOnce(Self) -> Self) -> Self {
        let inner = lines(Self::new());
        self.plain.push_str(&inner.plain);
        let html = inner.html.strip_suffix("<br>").unwrap_or(&inner.html);
        for part in ["<blockquote>", html, "</blockquote>"] {
            self.html.push_str(part);
        }
        self
    }

    /// Adds the machine's own words, line by line.
    pub fn block(mut self, text: &str) -> Self {
        for line in text.lines() {
            self.plain.push_str("\n  ");
            self.plain.push_str(line);
        }
        self.html.push_str("<pre><code>");
        self.html.push_str(&encode_text(text));
        self.html.push_str("</code></pre>");
        self
    }

    /// Begins a new line.
    pub fn line(mut self) -> Self {
        self.plain.push('\n');
        self.html.push_str("<br>");
        self
    }

    /// Ends.
    #[must_use]
    pub fn words(self) -> Words {
        Words { plain: self.plain.trim_end().to_owned(), html: self.html }
    }

    fn tagged(mut self, tag: &str, text: &str) -> Self {
        self.plain.push_str(text);
        for part in ["<", tag, ">", &encode_text(text), "</", tag, ">"] {
            self.html.push_str(part);
        }
        self
    }
}

/// Puts a text on one line and cuts it after so many letters, which shows.
#[must_use]
pub(super) fn one_line(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// Writes a duration as people say it: `14 s`, `3 min`, `2 h 5 min`, `3 days`.
#[must_use]
pub fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..600 if seconds % 60 != 0 => format!("{} min {} s", seconds / 60, seconds % 60),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 if (seconds % 3600) / 60 != 0 => format!("{} h {} min", seconds / 3600, (seconds % 3600) / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        86400..172_800 => "1 day".to_owned(),
        _ => format!("{} days", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_are_escaped_in_html_and_whole_in_plain() {
        let words = Text::new().strong("<b>").say(" & ").code("a<i>").line().block("<script>\nx & y").words();
        assert_eq!(words.plain, "<b> & a<i>\n\n  <script>\n  x & y");
        assert_eq!(
            words.html,
            "<strong>&lt;b&gt;</strong> &amp; <code>a&lt;i&gt;</code><br><pre><code>&lt;script&gt;\nx &amp; y</code></pre>"
        );
    }

    #[test]
    fn a_line_is_cut_at_a_letter() {
        assert_eq!(one_line(" start\n web  2 ", 11), "start web 2");
        assert_eq!(one_line("stört äpfel", 7), "stört ä…");
    }

    #[test]
    fn durations_read_as_people_say_them() {
        for (seconds, text) in [
            (-3, "0 s"),
            (14, "14 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (300, "5 min"),
            (3599, "59 min"),
            (7500, "2 h 5 min"),
            (7200, "2 h"),
            (90_000, "1 day"),
            (260_000, "3 days"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text);
        }
    }
}
