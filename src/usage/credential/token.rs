//! Asks the token endpoint for the tokens that follow.

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use reqwest::header;
use serde::Deserialize;
use serde_json::json;

use super::{Credential, CredentialError, EARLY, Renewed, Settings};
use crate::usage::wire::{USER_AGENT, body, error_word, failure, retry_after};

/// Answers have about 1 KiB.
const LONGEST_BODY: usize = 64 * 1024;
/// What a token's life is when the answer does not say.
const TYPICAL: SignedDuration = SignedDuration::from_hours(8);
/// Names that this endpoint does not answer.
const REFUSED_AGENTS: [&str; 2] = ["claude-code/", "claude-cli/"];

/// Why there are no new tokens.
#[derive(Debug)]
pub(super) enum TokenError {
    /// This refresh token is used up or revoked.
    InvalidGrant,
    /// Anything else.
    Other(CredentialError),
}

#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<f64>,
    refresh_token_expires_in: Option<f64>,
    scope: Option<String>,
}

/// Uses a refresh token up.
pub(super) async fn renew(
    http: &reqwest::Client,
    settings: &Settings,
    credential: &Credential,
    now: Timestamp,
) -> Result<Renewed, TokenError> {
    let unavailable =
        |why: String| TokenError::Other(CredentialError::Unavailable(format!("the token endpoint: {why}")));
    let Some(refresh_token) = &credential.refresh_token else {
        return Err(unavailable("there is no refresh token".to_owned()));
    };
    let mut question = json!({
        "grant_type": "refresh_token",
        "refresh_token": refresh_token.expose(),
        "client_id": credential.client_id.as_ref().unwrap_or(&settings.client_id),
    });
    if !credential.scopes.is_empty() {
        question["scope"] = credential.scopes.join(" ").into();
    }
    let request = http
        .post(settings.token_url.clone())
        .header(header::USER_AGENT, agent(&settings.user_agent))
        .header(header::ACCEPT, "application/json")
        .json(&question);
    let answer = request.send().await.map_err(|error| unavailable(failure(&error)))?;
    let status = answer.status();
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err(TokenError::Other(CredentialError::RateLimited { retry_after: retry_after(&answer, now) }));
    }
    let body = body(answer, LONGEST_BODY).await.map_err(unavailable)?;
    let body = body.ok_or_else(|| unavailable("its answer is too long; is something else at its URL?".to_owned()))?;
    if status == StatusCode::OK {
        let answer = serde_json::from_slice(&body).ok().and_then(|answer| renewed(answer, credential, now));
        return answer.ok_or_else(|| unavailable("there are no tokens in its answer".to_owned()));
    }
    match (status, error_word(&body).as_deref()) {
        (_, Some("invalid_grant")) => Err(TokenError::InvalidGrant),
        (_, Some("invalid_client")) => {
            Err(unavailable("it does not know the client id; is the configured one right?".to_owned()))
        }
        (StatusCode::NOT_FOUND, _) => Err(unavailable("there is none (404); is its configured URL right?".to_owned())),
        (status, word) => {
            let word = word.map(|word| format!(" ({word})")).unwrap_or_default();
            Err(unavailable(format!("HTTP {}{word}", status.as_u16())))
        }
    }
}

/// Reads what followed. What the answer leaves out stays as it was.
fn renewed(answer: Answer, before: &Credential, now: Timestamp) -> Option<Renewed> {
    let text = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let (access, refresh) = (text(answer.access_token), text(answer.refresh_token));
    // A new refresh token alone is worth keeping: the old one is used up.
    access.as_ref().or(refresh.as_ref())?;
    let until = |seconds: Option<f64>| {
        let seconds = SignedDuration::try_from_secs_f64(seconds.filter(|seconds| *seconds > 0.0)?).ok()?;
        now.checked_add(seconds).ok()
    };
    // An end in the past would have it renewed over and over; 401 says when it is over after all.
    let still = before.expires_at.filter(|at| at.duration_since(now) > EARLY);
    let expires_at = match &access {
        Some(_) => until(answer.expires_in).or(still).or_else(|| now.checked_add(TYPICAL).ok()).unwrap_or(now),
        None => now,
    };
    let scopes = answer.scope.map(|scope| scope.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    Some(Renewed {
        access_token: access.unwrap_or_else(|| before.access_token.expose().to_owned()),
        refresh_token: refresh.or_else(|| Some(before.refresh_token.as_ref()?.expose().to_owned()))?,
        expires_at,
        refresh_expires_at: until(answer.refresh_token_expires_in).or(before.refresh_expires_at),
        scopes: scopes.filter(|scopes| !scopes.is_empty()).unwrap_or_else(|| before.scopes.clone()),
    })
}

/// The name that this endpoint is told: the configured one, unless it refuses that.
fn agent(configured: &str) -> &str {
    let lower = configured.to_ascii_lowercase();
    if REFUSED_AGENTS.iter().any(|refused| lower.starts_with(refused)) { USER_AGENT } else { configured }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn before(expires_at: i64) -> Credential {
        Credential {
            access_token: Secret::new("a1"),
            refresh_token: Some(Secret::new("r1")),
            expires_at: Some(at(expires_at)),
            refresh_expires_at: Some(at(2_000_000)),
            scopes: vec!["user:profile".to_owned()],
            plan: None,
            client_id: None,
        }
    }

    #[test]
    fn what_an_answer_leaves_out_stays() {
        for (answer, expires_in, scopes) in [
            (r#"{"access_token":"a2","refresh_token":"r2","expires_in":43200,"scope":"x y"}"#, 43_200, 2),
            (r#"{"access_token":"a2","refresh_token":"r2"}"#, 28_800, 1),
            (r#"{"access_token":"a2","refresh_token":"r2","expires_in":0,"scope":""}"#, 28_800, 1),
            (r#"{"access_token":"a2","refresh_token":"r2","expires_in":null,"scope":null}"#, 28_800, 1),
        ] {
            let renewed = renewed(serde_json::from_str(answer).unwrap(), &before(10), at(0)).unwrap();
            assert_eq!((renewed.access_token.as_str(), renewed.refresh_token.as_str()), ("a2", "r2"));
            assert_eq!((renewed.expires_at, renewed.scopes.len()), (at(expires_in), scopes), "{answer}");
            assert_eq!(renewed.refresh_expires_at, Some(at(2_000_000)));
        }
        let early = serde_json::from_str(r#"{"access_token":"a2","refresh_token":"r2","refresh_token_expires_in":60}"#);
        let early = renewed(early.unwrap(), &before(9_000), at(0)).unwrap();
        assert_eq!((early.expires_at, early.refresh_expires_at), (at(9_000), Some(at(60))));
    }

    #[test]
    fn one_token_alone_is_kept_and_none_is_none() {
        let read = |answer: &str| renewed(serde_json::from_str(answer).unwrap(), &before(10), at(0));
        let refresh = read(r#"{"refresh_token":"r2","expires_in":28800}"#).unwrap();
        assert_eq!(
            (refresh.access_token.as_str(), refresh.refresh_token.as_str(), refresh.expires_at),
            ("a1", "r2", at(0))
        );
        let access = read(r#"{"access_token":"a2"}"#).unwrap();
        assert_eq!((access.access_token.as_str(), access.refresh_token.as_str()), ("a2", "r1"));
        assert!(read("{}").is_none() && read(r#"{"access_token":" "}"#).is_none());
    }

    #[test]
    fn this_endpoint_never_hears_a_name_that_it_refuses() {
        for (configured, told) in [
            ("claude-code/2.1", USER_AGENT),
            ("Claude-CLI/1", USER_AGENT),
            ("mine/1", "mine/1"),
            (USER_AGENT, USER_AGENT),
        ] {
            assert_eq!(agent(configured), told);
        }
    }
}
