//! Where a subscription's numbers come from.
//!
//! | source | asks | needs |
//! |---|---|---|
//! | [`anthropic`] | the usage endpoint, with an own login | a [credential](super::credential) |
//! | [`command`] | a program that prints the CLI's own usage | that program, so not the minimal image |
//! | [`push`] | nobody: a workstation tells what its CLI was told | a bearer token of its own |
//!
//! All of them give a [`Snapshot`], read by one decoder ([`answer`]) whose scale is fixed: 1.0 is one per cent.

pub mod answer;
pub mod anthropic;
pub mod command;
pub mod push;

use jiff::{SignedDuration, Timestamp};

use super::bucket::{Snapshot, Source};
use super::credential::CredentialError;
use super::gate::Outcome;

/// The store's row of how asking an account's program goes; the endpoint's row is the account's own.
#[must_use]
pub fn program_row(account: &str) -> String {
    format!("{account}#command")
}

/// A source that is asked from time to time.
#[derive(Debug)]
pub enum Adapter {
    /// The usage endpoint.
    Anthropic(anthropic::Anthropic),
    /// A program.
    Command(command::Program),
}

impl Adapter {
    /// Name of the account in the configuration.
    #[must_use]
    pub fn account(&self) -> &str {
        match self {
            Self::Anthropic(anthropic) => anthropic.account(),
            Self::Command(program) => program.account(),
        }
    }

    /// The store's row of how asking goes: each source of an account has its own pace. The endpoint's is the account's.
    #[must_use]
    pub fn row(&self) -> String {
        match self {
            Self::Anthropic(_) => self.account().to_owned(),
            Self::Command(_) => program_row(self.account()),
        }
    }

    /// Which kind of source this is.
    #[must_use]
    pub fn kind(&self) -> Source {
        match self {
            Self::Anthropic(_) => Source::AnthropicOauth,
            Self::Command(_) => Source::Command,
        }
    }

    /// Asks once. `now` is the time of the question.
    ///
    /// # Errors
    /// [`SourceError`]: what went wrong and what to do.
    pub async fn ask(&self, now: Timestamp) -> Result<Snapshot, SourceError> {
        match self {
            Self::Anthropic(anthropic) => anthropic.ask(now).await,
            Self::Command(program) => program.ask(now).await,
        }
    }
}

/// Why a source gave nothing. No variant ever carries a token or a body of the provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The login is missing, dead, or cannot be read, written or renewed.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The provider does not take a token that was just renewed, or that nothing can renew.
    #[error(
        "the provider does not accept the login (401), and it could not be renewed, or that did not help; log in again with the account's own CLAUDE_CONFIG_DIR (`claude`, \
         `/login`) and put the new login where this one is"
    )]
    Unauthorized,
    /// The token may do other things, not this.
    #[error(
        "the login may not read the usage (403: scope user:profile is missing), as those of `claude setup-token` and CLAUDE_CODE_OAUTH_TOKEN never may; \
         log in with `claude` and `/login` and use that credential. It is not asked again until the credential changes"
    )]
    ScopeMissing,
    /// The provider wants fewer questions.
    #[error(
        "the provider asks to be left alone for a while (429); nothing is to be done, the last numbers stay with their age"
    )]
    RateLimited {
        /// What it asks to wait; `None` or zero: it does not say. [`Gate`](super::gate::Gate) decides what follows.
        retry_after: Option<SignedDuration>,
    },
    /// An answer in which nothing is known.
    #[error("the answer has none of the keys that this version knows (it has: {}); look for a newer Pilothouse", .0.join(", "))]
    SchemaDrift(Vec<String>),
    /// No answer, or one that says that something is wrong for now.
    #[error("{0}; it is asked again later")]
    Transient(String),
    /// The configured program cannot be used.
    #[error("{0}")]
    Program(String),
}

impl SourceError {
    /// What follows for the pace.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::RateLimited { retry_after } | Self::Credential(CredentialError::RateLimited { retry_after }) => {
                Outcome::RateLimited { retry_after: *retry_after }
            }
            Self::ScopeMissing
            | Self::Unauthorized
            | Self::Credential(CredentialError::Missing(_) | CredentialError::Dead(_)) => Outcome::NotAsked,
            _ => Outcome::Failed,
        }
    }

    /// Says whether only a person can end this, with a new login or another configuration.
    #[must_use]
    pub fn needs_a_person(&self) -> bool {
        matches!(
            self,
            Self::ScopeMissing
                | Self::Unauthorized
                | Self::SchemaDrift(_)
                | Self::Program(_)
                | Self::Credential(CredentialError::Missing(_) | CredentialError::Dead(_))
        )
    }

    /// The word in metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Credential(CredentialError::RateLimited { .. }) | Self::RateLimited { .. } => "rate_limited",
            Self::Credential(_) => "credential",
            Self::Unauthorized => "unauthorized",
            Self::ScopeMissing => "scope_missing",
            Self::SchemaDrift(_) => "schema_drift",
            Self::Transient(_) => "transient",
            Self::Program(_) => "program",
        }
    }
}
