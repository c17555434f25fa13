//! Text → [`Command`]: pure, and the only place that knows how people write.
//!
//! Case, spaces and commas do not matter. A target is named by its name or a unique beginning of it; a near miss is a
//! [`Mistake`] that carries what was probably meant. What is no command is [`Reading::Talk`] and is left in peace.

mod usage;
mod verb;

pub use usage::Usage;
pub use verb::Verb;

use crate::message::Address;

/// A command, as somebody meant it; targets are names of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `help [command]`.
    Help(Option<Verb>),
    /// `status [target…]`; empty means all.
    Status(Vec<String>),
    /// `start <target…> [n]`.
    Start {
        /// Names of targets.
        targets: Vec<String>,
        /// Replicas, if a number was given.
        replicas: Option<u32>,
        /// Whether `all` was written.
        all: bool,
    },
    /// `stop <target…>`.
    Stop {
        /// Names of targets.
        targets: Vec<String>,
        /// Whether `all` was written.
        all: bool,
    },
    /// `restart <target…>`.
    Restart {
        /// Names of targets.
        targets: Vec<String>,
        /// Whether `all` was written.
        all: bool,
    },
    /// `history [target]`.
    History(Option<String>),
    /// `usage …`.
    Usage(Usage),
    /// `trust`.
    Trust,
    /// `trust accept @user [device] <fingerprint>`.
    Accept {
        /// Full user id.
        user: String,
        /// The device, for a device's key; without it the user's identity is meant.
        device: Option<String>,
        /// The fingerprint that was shown, without spaces.
        fingerprint: String,
    },
    /// `version`.
    Version,
}

impl Command {
    /// Gives the verb.
    #[must_use]
    pub const fn verb(&self) -> Verb {
        match self {
            Self::Help(_) => Verb::Help,
            Self::Status(_) => Verb::Status,
            Self::Start { .. } => Verb::Start,
            Self::Stop { .. } => Verb::Stop,
            Self::Restart { .. } => Verb::Restart,
            Self::History(_) => Verb::History,
            Self::Usage(_) => Verb::Usage,
            Self::Trust | Self::Accept { .. } => Verb::Trust,
            Self::Version => Verb::Version,
        }
    }

    /// Whether it changes something: such words need an address in a room of many.
    #[must_use]
    pub const fn changes(&self) -> bool {
        matches!(
            self,
            Self::Start { .. }
                | Self::Stop { .. }
                | Self::Restart { .. }
                | Self::Accept { .. }
                | Self::Usage(Usage::Mute(_))
        )
    }

    /// Gives the named targets.
    #[must_use]
    pub fn targets(&self) -> &[String] {
        match self {
            Self::Status(targets)
            | Self::Start { targets, .. }
            | Self::Stop { targets, .. }
            | Self::Restart { targets, .. } => targets,
            Self::History(Some(target)) => std::slice::from_ref(target),
            _ => &[],
        }
    }
}

/// Why something that was meant as a command is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mistake {
    /// No such command.
    UnknownVerb {
        /// As written.
        word: String,
        /// Probably meant.
        meant: Option<Verb>,
    },
    /// No such target.
    UnknownTarget {
        /// As written.
        word: String,
        /// Probably meant.
        meant: Option<String>,
    },
    /// The beginning fits several targets.
    AmbiguousTarget {
        /// As written.
        word: String,
        /// What it fits.
        fits: Vec<String>,
    },
    /// Several targets exist and none was named.
    MissingTarget(Verb),
    /// Not a number of replicas.
    BadNumber(String),
    /// More words than the command takes.
    Surplus {
        /// The command.
        verb: Verb,
        /// The first word too many.
        word: String,
    },
    /// `trust` with something else than `accept @user [device] <fingerprint>`.
    BadTrust,
    /// Not a time as `7d`, `3h` or `30m`, or too long a one.
    BadTime(String),
}

impl Mistake {
    /// The same without the names of targets that are not among these: not everybody is told every name.
    #[must_use]
    pub fn among(self, names: &[String]) -> Self {
        match self {
            Self::UnknownTarget { word, meant } => {
                Self::UnknownTarget { word, meant: meant.filter(|name| names.contains(name)) }
            }
            Self::AmbiguousTarget { word, mut fits } => {
                fits.retain(|name| names.contains(name));
                match fits.len() {
                    0 => Self::UnknownTarget { word, meant: None },
                    _ => Self::AmbiguousTarget { word, fits },
                }
            }
            other => other,
        }
    }

    /// Whether it is known what was meant, but for a slip of the finger or a word that was left out.
    fn is_near(&self) -> bool {
        match self {
            Self::UnknownVerb { meant, .. } => meant.is_some(),
            Self::UnknownTarget { meant, .. } => meant.is_some(),
            Self::AmbiguousTarget { .. } | Self::MissingTarget(_) => true,
            Self::BadNumber(_) | Self::Surplus { .. } | Self::BadTrust | Self::BadTime(_) => false,
        }
    }
}

/// What a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Nothing that Pilothouse should answer.
    Talk,
    /// A command.
    Command(Command),
    /// Meant as a command, but wrong.
    Mistake(Mistake),
}

/// What a text is read against.
#[derive(Debug, Clone, Copy)]
pub struct Grammar<'a> {
    /// Names of all targets.
    pub targets: &'a [String],
    /// What a command begins with in a room of many.
    pub prefix: &'a str,
}

/// In a bare room a sentence of more words is talk, unless every word fits.
const LONGEST_GUESS: usize = 4;

/// Reads a text.
#[must_use]
pub fn read(text: &str, grammar: Grammar<'_>, address: Address) -> Reading {
    let (text, address) = match strip_prefix(text, grammar.prefix) {
        Some(rest) => (rest, Address::Mentioned),
        None => (text, address),
    };
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty()).collect();
    let Some((&first, rest)) = words.split_first() else {
        return match address {
            Address::Mentioned => Reading::Command(Command::Help(None)),
            Address::Bare | Address::Answering | Address::Overheard => Reading::Talk,
        };
    };
    let reading = match Verb::parse(first) {
        Some(verb) => match arguments(verb, rest, grammar.targets) {
            Ok(command) => Reading::Command(command),
            Err(mistake) => Reading::Mistake(mistake),
        },
        None => Reading::Mistake(Mistake::UnknownVerb {
            word: first.to_lowercase(),
            meant: closest_verb(&first.to_lowercase()),
        }),
    };
    match (address, reading) {
        (Address::Overheard, Reading::Command(command)) if command.changes() => Reading::Talk,
        // "Have you seen this?" is no command, "statsu" is one.
        (Address::Overheard, Reading::Mistake(_))
        | (Address::Bare, Reading::Mistake(Mistake::UnknownVerb { meant: None, .. })) => Reading::Talk,
        (Address::Bare | Address::Answering, Reading::Mistake(_)) if words.len() > LONGEST_GUESS => Reading::Talk,
        // "Restart worked" is no command, "restart wbe" is one.
        (Address::Answering, Reading::Mistake(mistake)) if !mistake.is_near() => Reading::Talk,
        (_, reading) => reading,
    }
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let text = text.trim();
    let head = text.get(..prefix.len())?;
    let rest = &text[prefix.len()..];
    let whole_word = rest.is_empty() || rest.starts_with(char::is_whitespace);
    (!prefix.is_empty() && head.eq_ignore_ascii_case(prefix) && whole_word).then_some(rest)
}

fn arguments(verb: Verb, words: &[&str], names: &[String]) -> Result<Command, Mistake> {
    match verb {
        Verb::Help => match words {
            [] => Ok(Command::Help(None)),
            [word] => {
                let word = word.to_lowercase();
                Verb::parse(&word)
                    .map(|verb| Command::Help(Some(verb)))
                    .ok_or_else(|| Mistake::UnknownVerb { meant: closest_verb(&word), word })
            }
            [_, word, ..] => Err(surplus(verb, word)),
        },
        Verb::Usage => usage::read(words).map(Command::Usage),
        Verb::Version => match words {
            [] => Ok(Command::Version),
            [word, ..] => Err(surplus(verb, word)),
        },
        Verb::Status => selection(words, names).map(|(targets, _)| Command::Status(targets)),
        Verb::History => match words {
            [] => Ok(Command::History(None)),
            [word] if word.eq_ignore_ascii_case("all") => Ok(Command::History(None)),
            [word] => resolve(word, names).map(|name| Command::History(Some(name))),
            [_, word, ..] => Err(surplus(verb, word)),
        },
        Verb::Start => {
            let (words, replicas) = match words.split_last() {
                Some((last, rest)) if looks_numeric(last) && !is_name(last, names) => {
                    let number = last.parse().map_err(|_| Mistake::BadNumber((*last).to_owned()))?;
                    (rest, Some(number))
                }
                _ => (words, None),
            };
            let (targets, all) = change(verb, words, names)?;
            Ok(Command::Start { targets, replicas, all })
        }
        Verb::Stop => change(verb, words, names).map(|(targets, all)| Command::Stop { targets, all }),
        Verb::Restart => change(verb, words, names).map(|(targets, all)| Command::Restart { targets, all }),
        Verb::Trust => trust(words),
    }
}

fn surplus(verb: Verb, word: &str) -> Mistake {
    Mistake::Surplus { verb, word: word.to_owned() }
}

fn looks_numeric(word: &str) -> bool {
    word.strip_prefix(['-', '+']).unwrap_or(word).starts_with(|c: char| c.is_ascii_digit())
}

fn is_name(word: &str, names: &[String]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(word))
}

/// Names of a command that changes something: with one target its name may be left out.
fn change(verb: Verb, words: &[&str], names: &[String]) -> Result<(Vec<String>, bool), Mistake> {
    match (words, names) {
        ([], [only]) => Ok((vec![only.clone()], false)),
        ([], _) => Err(Mistake::MissingTarget(verb)),
        _ => selection(words, names),
    }
}

fn selection(words: &[&str], names: &[String]) -> Result<(Vec<String>, bool), Mistake> {
    if let [word] = words
        && word.eq_ignore_ascii_case("all")
        && !is_name("all", names)
    {
        return Ok((names.to_vec(), true));
    }
    let mut targets: Vec<String> = Vec::new();
    for word in words {
        let name = resolve(word, names)?;
        if !targets.contains(&name) {
            targets.push(name);
        }
    }
    Ok((targets, false))
}

fn resolve(word: &str, names: &[String]) -> Result<String, Mistake> {
    if let Some(name) = names.iter().find(|name| name.eq_ignore_ascii_case(word)) {
        return Ok(name.clone());
    }
    let lower = word.to_lowercase();
    let fits: Vec<String> = names.iter().filter(|name| name.to_lowercase().starts_with(&lower)).cloned().collect();
    match fits.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Mistake::UnknownTarget {
            meant: closest(&lower, names.iter().map(String::as_str)).map(str::to_owned),
            word: word.to_owned(),
        }),
        _ => Err(Mistake::AmbiguousTarget { word: word.to_owned(), fits }),
    }
}

fn trust(words: &[&str]) -> Result<Command, Mistake> {
    let Some((first, rest)) = words.split_first() else { return Ok(Command::Trust) };
    let (user, rest) = match rest.split_first() {
        Some((user, rest)) if first.eq_ignore_ascii_case("accept") && user.starts_with('@') => (user, rest),
        _ => return Err(Mistake::BadTrust),
    };
    // Clients show a fingerprint in groups of four; an ed25519 key is 43 letters of unpadded base64.
    let joined = |words: &[&str]| words.concat().trim_end_matches('=').to_owned();
    let whole = joined(rest);
    if whole.len() == FINGERPRINT_LENGTH {
        return Ok(Command::Accept { user: (*user).to_owned(), device: None, fingerprint: whole });
    }
    match rest.split_first() {
        Some((device, rest)) if joined(rest).len() == FINGERPRINT_LENGTH => Ok(Command::Accept {
            user: (*user).to_owned(),
            device: Some((*device).to_owned()),
            fingerprint: joined(rest),
        }),
        _ => Err(Mistake::BadTrust),
    }
}

/// Letters of 32 bytes in unpadded base64.
const FINGERPRINT_LENGTH: usize = 43;

fn closest_verb(word: &str) -> Option<Verb> {
    closest(word, Verb::ALL.into_iter().map(Verb::word)).and_then(Verb::parse)
}

/// Finds the name that differs least, if one slip of the finger (two in a long word) explains the difference.
fn closest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::osa_distance(word, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= if name.chars().count() > 5 { 2 } else { 1 })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests;
