//! What the usage endpoint is asked, and what becomes of each of its answers.

use std::time::Duration;

use jiff::SignedDuration;
use pilothouse::usage::credential::CredentialError;
use pilothouse::usage::gate::Outcome;
use pilothouse::usage::source::SourceError;
use pilothouse::usage::{Source, wire};
use serde_json::json;

use super::{Machine, at, source_with};
use crate::support::provider::{Provider, Reply};

#[tokio::test]
async fn the_endpoint_is_asked_as_its_clients_ask_it_under_an_honest_name() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(28_800));
    let snapshot = machine.source(&provider).ask(at(0)).await.unwrap();
    assert_eq!((snapshot.account.as_str(), snapshot.source, snapshot.at), ("work", Source::AnthropicOauth, at(0)));
    assert_eq!((snapshot.plan.as_deref(), snapshot.readings[0].percent()), (Some("max"), Some(12.0)));
    let asked = provider.usage_asked().remove(0);
    assert_eq!(asked.header("authorization"), "Bearer access-0");
    assert_eq!(asked.header("anthropic-beta"), "oauth-2025-04-20");
    assert_eq!(asked.header("accept"), "application/json");
    assert_eq!(asked.header("user-agent"), concat!("pilothouse/", env!("CARGO_PKG_VERSION")));
    assert!(provider.token_asked().is_empty());
}

#[tokio::test]
async fn a_limit_is_told_with_its_time_and_never_renews_the_login() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(28_800));
    let source = machine.source(&provider);
    for (retry_after, seconds) in [
        (None, None),
        (Some("0"), Some(0)),
        (Some("3600"), Some(3_600)),
        (Some("soon"), None),
        (Some("Fri, 15 Jan 2027 08:10:00 GMT"), Some(600)),
        (Some("Fri, 15 Jan 2027 07:10:00 GMT"), None),
    ] {
        provider.on_usage(Reply::too_often(retry_after));
        let retry_after = seconds.map(SignedDuration::from_secs);
        let error = source.ask(at(0)).await.unwrap_err();
        assert_eq!(error, SourceError::RateLimited { retry_after });
        assert_eq!(error.outcome(), Outcome::RateLimited { retry_after });
    }
    assert!(provider.token_asked().is_empty());
    assert!(source.ask(at(0)).await.is_ok());
}

#[tokio::test]
async fn each_bad_answer_has_a_sentence_without_a_secret() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(28_800));
    let quick = wire::client(Duration::from_secs(2), None).unwrap();
    let source = source_with(&provider, machine.place(), machine.store(), quick);
    let text = |status, body: &str| Reply::Answer(status, vec![], body.to_owned());
    let elsewhere = Reply::Answer(302, vec![("location", provider.usage_url().to_string())], String::new());
    for (reply, words) in [
        (text(500, "access-0"), "HTTP 500;"),
        (Reply::error(529, "overloaded_error", "access-0"), "HTTP 529 (overloaded_error)"),
        (Reply::error(500, "Access-0 sk-ant", "x"), "HTTP 500;"),
        (Reply::error(404, "not_found_error", "Not found"), "look whether its URL is right"),
        (elsewhere, "HTTP 302; look whether its URL is right"),
        (Reply::error(403, "permission_error", "your organization has been disabled"), "HTTP 403 (permission_error)"),
        (text(403, "<html>who are you</html>"), "HTTP 403;"),
        (text(200, "<html>sign in to the wireless network</html>"), "is not JSON"),
        (text(200, ""), "is not JSON"),
        (text(200, "{\"five_hour\":"), "is not JSON"),
        (text(200, &" ".repeat(300 * 1024)), "longer than 256 KiB"),
        (Reply::Drip, "no answer in time"),
        (Reply::Silence, "no answer in time"),
    ] {
        let reply_was = format!("{reply:?}");
        provider.on_usage(reply);
        let error = source.ask(at(0)).await.unwrap_err();
        assert!(matches!(error, SourceError::Transient(_)), "{reply_was:.80}: {error:?}");
        assert_eq!(error.outcome(), Outcome::Failed);
        let said = format!("{error} {error:?}");
        assert!(said.contains(words), "{reply_was:.80}: {said}");
        assert!(!said.to_lowercase().contains("access-0") && !said.contains("html"), "{said}");
    }
    provider.on_usage(Reply::json(200, &json!({"usage": 0, "quota": {}})));
    let drift = source.ask(at(0)).await.unwrap_err();
    assert_eq!(drift, SourceError::SchemaDrift(vec!["quota".to_owned(), "usage".to_owned()]));
    assert!(provider.token_asked().is_empty(), "none of these says anything about the login");
    assert!(source.ask(at(0)).await.is_ok(), "and none of them stays");
}

#[tokio::test]
async fn a_refused_token_is_renewed_exactly_once() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(28_800));
    let source = machine.source(&provider);
    provider.expire();
    assert!(source.ask(at(0)).await.is_ok());
    assert_eq!((provider.token_asked().len(), provider.usage_asked().len()), (1, 2));
    // The new one is refused as well: it is not renewed again, and asked again only after a while.
    provider.expire();
    let refused = || Reply::error(401, "authentication_error", "OAuth token has expired. Please obtain a new token.");
    provider.on_usage(refused());
    provider.on_usage(refused());
    for second in [300, 600, 3_800] {
        assert_eq!(source.ask(at(second)).await.unwrap_err(), SourceError::Unauthorized);
    }
    assert_eq!((provider.token_asked().len(), provider.usage_asked().len()), (2, 4));
    // A new login counts at once.
    let (access, refresh) = provider.log_in();
    machine.log_in(&access, &refresh, 28_800);
    assert!(source.ask(at(3_900)).await.is_ok());
    assert_eq!((provider.token_asked().len(), provider.usage_asked().len()), (2, 5));
}

#[tokio::test]
async fn a_token_that_is_refused_for_long_is_tried_again_in_an_hour() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(288_000));
    let source = machine.source(&provider);
    for _ in 0..2 {
        provider.on_usage(Reply::error(401, "authentication_error", "Invalid bearer token"));
    }
    assert_eq!(source.ask(at(0)).await.unwrap_err(), SourceError::Unauthorized);
    assert_eq!(source.ask(at(3_599)).await.unwrap_err(), SourceError::Unauthorized);
    assert_eq!(provider.usage_asked().len(), 2);
    assert!(source.ask(at(3_600)).await.is_ok());
    assert_eq!(provider.token_asked().len(), 1);
}

#[tokio::test]
async fn a_token_without_the_scope_is_asked_once_until_the_login_changes() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(28_800));
    let source = machine.source(&provider);
    let message = "OAuth token does not meet scope requirement user:profile";
    provider.on_usage(Reply::error(403, "permission_error", message));
    for second in [0, 300, 20_000] {
        let error = source.ask(at(second)).await.unwrap_err();
        assert_eq!((&error, error.outcome()), (&SourceError::ScopeMissing, Outcome::NotAsked));
        assert!(error.needs_a_person() && error.to_string().contains("/login"), "{error}");
    }
    assert_eq!((provider.usage_asked().len(), provider.token_asked().len()), (1, 0));
    let (access, refresh) = provider.log_in();
    machine.log_in(&access, &refresh, 28_800);
    assert!(source.ask(at(20_300)).await.is_ok());
}

#[tokio::test]
async fn an_empty_bearer_is_never_sent() {
    let (provider, machine) = (Provider::start().await, Machine::new());
    let source = machine.source(&provider);
    machine.log_in("", "", 28_800);
    let error = source.ask(at(0)).await.unwrap_err();
    assert!(
        matches!(&error, SourceError::Credential(CredentialError::Missing(why)) if why.contains("/login")),
        "{error}"
    );
    assert_eq!(error.outcome(), Outcome::NotAsked);
    std::fs::remove_file(machine.config().join(super::DOCUMENT)).unwrap();
    assert!(source.ask(at(0)).await.unwrap_err().to_string().contains(".credentials.json is missing"));
    assert!(provider.usage_asked().is_empty());
    // Blanked by another program, but not lost.
    machine.log_in("", "refresh-0", 28_800);
    assert!(source.ask(at(0)).await.is_ok());
    assert_eq!(provider.usage_asked().remove(0).header("authorization"), "Bearer access-1");
}
