//! The words that a command may begin with: how each is written, what it does, whether it changes anything.

use std::fmt;

/// What people can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// What can be said here.
    Help,
    /// How a workload is.
    Status,
    /// Give a workload its replicas.
    Start,
    /// Take them away.
    Stop,
    /// Replace its pods, one after the other.
    Restart,
    /// Who did what.
    History,
    /// How much of the AI subscription is used.
    Usage,
    /// Whose devices count, and accepting a changed one.
    Trust,
    /// Which Pilothouse this is.
    Version,
}

impl Verb {
    /// Every verb, in the order of `help`.
    pub const ALL: [Self; 9] = [
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Status,
        Self::History,
        Self::Usage,
        Self::Trust,
        Self::Version,
        Self::Help,
    ];

    /// The word that people write and that rules name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Help => "help",
            Self::Status => "status",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::History => "history",
            Self::Usage => "usage",
            Self::Trust => "trust",
            Self::Version => "version",
        }
    }

    /// How it is written in full.
    #[must_use]
    pub const fn syntax(self) -> &'static str {
        match self {
            Self::Help => "help [command]",
            Self::Status => "status [target]",
            Self::Start => "start <target> [replicas]",
            Self::Stop => "stop <target>",
            Self::Restart => "restart <target>",
            Self::History => "history [target]",
            Self::Usage => "usage [now | chart [7d] | accuracy | mute 3h]",
            Self::Trust => "trust [accept @user [device] <fingerprint>]",
            Self::Version => "version",
        }
    }

    /// What it does, in one sentence.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Help => "Lists the commands, or explains one.",
            Self::Status => "Says how a workload is: replicas, image, since when, what is wrong, who scaled it last.",
            Self::Start => {
                "Gives a workload the replicas that the last stop took away, or as many as you say. \
                 Without a number it changes nothing on a workload that runs. Also: on."
            }
            Self::Stop => "Takes all replicas away, and remembers how many there were. Also: off.",
            Self::Restart => "Replaces the pods one after the other, without changing how many there are.",
            Self::History => "Says who did what, newest first.",
            Self::Usage => {
                "Says how full the AI subscription's limits are, when they reset and whether they last. \
                 now asks the provider, if it may be asked; chart draws the last days; accuracy holds forecasts against what \
                 came; mute silences alerts for a time (mute 0 takes it back)."
            }
            Self::Trust => {
                "Lists people, their devices and whether their commands count. \
                 With accept, trusts a changed identity or a new device whose fingerprint you have compared."
            }
            Self::Version => "Says which Pilothouse this is.",
        }
    }

    /// Reads a word, aliases included.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word.to_lowercase().as_str() {
            "on" => Some(Self::Start),
            "off" => Some(Self::Stop),
            word => Self::ALL.into_iter().find(|verb| verb.word() == word),
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
