//! What can be said here, and what was probably meant.

use super::{Text, Words};
use crate::command::{Mistake, Verb};

/// `help`, whole or about one command.
pub(super) fn help(
    about: Option<Verb>,
    offered: &[Verb],
    forbidden: &[Verb],
    targets: &[String],
    prefix: &str,
) -> Words {
    let mut text = Text::new();
    if let Some(verb) = about {
        text = text.code(verb.syntax()).line().say(verb.meaning());
        if !offered.contains(&verb) {
            text = text.line().say("The rules here do not let you use it.");
        } else if forbidden.contains(&verb) {
            text = text.line().say("It is off here: I do not have the permission in the cluster that it needs.");
        }
        return text.words();
    }
    for verb in offered.iter().filter(|verb| !forbidden.contains(verb)) {
        text = text.code(verb.syntax()).line();
    }
    if !targets.is_empty() {
        text = names(text.say("Targets: "), targets).say(". A unique beginning of a name will do");
        if targets.len() > 1 {
            text = text.say(", and so will ").code("all");
        }
        text = text.say(". ");
    }
    text.say("In a room of many, begin with ")
        .code(prefix)
        .say(" or mention me. More: ")
        .code("help start")
        .say(".")
        .words()
}

fn names(text: Text, names: &[String]) -> Text {
    names.iter().enumerate().fold(text, |text, (i, name)| text.say(if i == 0 { "" } else { ", " }).strong(name))
}

/// What is no command, though it was meant as one.
pub(super) fn mistaken(mistake: &Mistake, targets: &[String]) -> Words {
    let text = Text::new();
    match mistake {
        Mistake::UnknownVerb { word, meant: Some(meant) } => {
            text.say("There is no ").code(word).say(". Did you mean ").code(meant.word()).say("?")
        }
        Mistake::UnknownVerb { word, meant: None } => {
            text.say("There is no ").code(word).say(". ").code("help").say(" lists what there is.")
        }
        Mistake::UnknownTarget { word, meant: Some(meant) } => {
            text.say("There is no target ").code(word).say(". Did you mean ").strong(meant).say("?")
        }
        Mistake::UnknownTarget { word, meant: None } => {
            let text = text.say("There is no target ").code(word).say(".");
            if targets.is_empty() { text } else { names(text.say(" There is: "), targets).say(".") }
        }
        Mistake::AmbiguousTarget { word, fits } => names(text.code(word).say(" could be "), fits).say("."),
        Mistake::MissingTarget(verb) => {
            let text = text.code(verb.word()).say(" which?");
            if targets.is_empty() {
                return text.words();
            }
            names(text.say(" There is: "), targets).say(", or ").code("all").say(".")
        }
        Mistake::BadNumber(word) => text.code(word).say(" is no number of replicas."),
        Mistake::Surplus { verb, word } => {
            text.say("What is ").code(word).say("? It is written ").code(verb.syntax()).say(".")
        }
        Mistake::BadTime(word) => text
            .code(word)
            .say(" is no time that I can use. Write for instance ")
            .code("7d")
            .say(", ")
            .code("3h")
            .say(" or ")
            .code("30m")
            .say(" (charts up to 90 days, silence up to 14)."),
        Mistake::BadTrust => text
            .say("It is written ")
            .code(Verb::Trust.syntax())
            .say(", with the whole fingerprint (43 letters; spaces do not matter)."),
    }
    .words()
}
