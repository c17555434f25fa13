//! Renewing a login: what is asked, what is written, and when it is over.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use pilothouse::usage::credential::{CredentialError, Keys, Layout, days_left, directory};
use pilothouse::usage::source::SourceError;
use serde_json::json;

use super::{DEADLINE, DOCUMENT, Machine, at, document, login, source, tokens};
use crate::support::provider::{Provider, Reply};

#[tokio::test]
async fn a_login_that_ends_soon_is_renewed_and_written_whole() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(300));
    let source = machine.source(&provider);
    source.ask(at(0)).await.unwrap();
    let asked = provider.token_asked().remove(0);
    let question = json!({
        "grant_type": "refresh_token",
        "refresh_token": "refresh-0",
        "client_id": "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
        "scope": "user:inference user:profile",
    });
    assert_eq!(asked.body, question);
    assert_eq!(asked.header("content-type"), "application/json");
    assert_eq!(asked.header("user-agent"), concat!("pilothouse/", env!("CARGO_PKG_VERSION")));

    let written = machine.stored();
    let until = written["claudeAiOauth"]["expiresAt"].as_i64().unwrap();
    let mut expected = document("access-1", "refresh-1", 0);
    expected["claudeAiOauth"]["expiresAt"] = until.into();
    assert_eq!(written, expected, "what others keep there stays");
    // The time that passed while it was asked counts.
    assert!((28_800_000..28_860_000).contains(&(until - at(0).as_millisecond())), "{until}");
    let mode = std::fs::metadata(machine.config().join(DOCUMENT)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(machine.config()).unwrap().count(), 1, "no lock and no other file stays");
    assert_eq!(machine.store().successor("work").await.unwrap(), None);
    assert_eq!(days_left(source.login().ends_at(), at(2_000_000 - 86_400)), Some(1));
    // Good for eight hours now, over a restart too.
    machine.source(&provider).ask(at(28_000)).await.unwrap();
    assert_eq!(provider.token_asked().len(), 1);
}

#[tokio::test]
async fn an_answer_without_times_leaves_a_file_that_works() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(10));
    provider.beside(json!({}));
    let source = machine.source(&provider);
    source.ask(at(0)).await.unwrap();
    let written = machine.stored();
    let login = &written["claudeAiOauth"];
    assert!(login["expiresAt"].as_i64().unwrap() > at(300).as_millisecond());
    assert_eq!(login["scopes"], json!(["user:inference", "user:profile"]));
    source.ask(at(300)).await.unwrap();
    assert_eq!(provider.token_asked().len(), 1, "it is not renewed over and over");
}

#[tokio::test]
async fn each_token_in_a_file_of_its_own_is_renewed_too() {
    let (provider, machine) = (Provider::start().await, Machine::new());
    let file = |name: &str| machine.config().join(name);
    let until = at(10).as_second().to_string();
    for (name, text) in
        [("access_token", "access-0\n"), ("refresh_token", "refresh-0\n"), ("expires_at", until.as_str())]
    {
        std::fs::write(file(name), text).unwrap();
    }
    let settings = directory::Settings { path: machine.config(), layout: Layout::Keys(Keys::default()) };
    let source = source(&provider, directory::Place::new(settings).into(), machine.store());
    source.ask(at(0)).await.unwrap();
    assert_eq!(std::fs::read_to_string(file("access_token")).unwrap(), "access-1\n");
    assert_eq!(std::fs::read_to_string(file("refresh_token")).unwrap(), "refresh-1\n");
    source.ask(at(300)).await.unwrap();
    assert_eq!(provider.token_asked().len(), 1);
}

#[tokio::test]
async fn a_login_that_is_over_is_not_asked_for_again_until_there_is_a_new_one() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(10));
    let source = machine.source(&provider);
    provider.revoke();
    for second in [0, 300, 600] {
        let error = source.ask(at(second)).await.unwrap_err();
        assert!(matches!(error, SourceError::Credential(CredentialError::Dead(_))), "{error}");
        let said = error.to_string();
        assert!(said.contains("/login") && !said.contains("refresh-0"), "{said}");
    }
    assert_eq!((provider.token_asked().len(), provider.usage_asked().len()), (1, 0));
    let (access, refresh) = provider.log_in();
    machine.log_in(&access, &refresh, 28_800);
    source.ask(at(900)).await.unwrap();
}

#[tokio::test]
async fn a_refused_refresh_token_is_forgiven_where_a_newer_one_is_stored() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(10));
    let source = machine.source(&provider);
    provider.on_token(Reply::Held);
    let asking = tokio::spawn(async move { source.ask(at(0)).await });
    provider.until_token_asked(1).await;
    let (access, refresh) = provider.log_in();
    machine.log_in(&access, &refresh, 28_800);
    provider.let_go();
    tokio::time::timeout(DEADLINE, asking).await.unwrap().unwrap().unwrap();
    assert_eq!(provider.usage_asked().remove(0).header("authorization"), format!("Bearer {access}"));
    assert_eq!(tokens(&machine.stored()), (access.as_str(), refresh.as_str()));
}

#[tokio::test]
async fn a_newer_login_is_not_overwritten_by_a_renewal_of_the_older() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(10));
    let login = login(&provider, machine.place(), machine.store());
    // Somebody logs in at the very moment in which the answer is on its way.
    provider.on_token(Reply::Held);
    let renewing = login.clone();
    let asking = tokio::spawn(async move { renewing.current(at(0)).await });
    provider.until_token_asked(1).await;
    machine.log_in("access-new", "refresh-new", 28_800);
    provider.let_go();
    tokio::time::timeout(DEADLINE, asking).await.unwrap().unwrap().unwrap();
    let after = login.current(at(300)).await.unwrap();
    assert_eq!(after.access_token.expose(), "access-new");
    assert_eq!(tokens(&machine.stored()), ("access-new", "refresh-new"));
    assert_eq!(machine.store().successor("work").await.unwrap(), None);
}

#[tokio::test]
async fn while_the_token_endpoint_fails_the_login_is_used_as_long_as_it_lasts() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(200));
    let source = machine.source(&provider);
    let text = |status, body: &str| Reply::Answer(status, vec![], body.to_owned());
    for reply in [
        Reply::too_often(Some("3600")),
        text(500, "refresh-0"),
        Reply::error(404, "not_found_error", "Not found"),
        Reply::json(401, &json!({"error": "invalid_client"})),
        text(200, "<html>"),
        text(200, "{}"),
        text(200, &" ".repeat(100 * 1024)),
    ] {
        provider.on_token(reply.clone());
        source.ask(at(0)).await.unwrap();
        provider.on_token(reply);
        let error = source.ask(at(200)).await.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(matches!(error, SourceError::Credential(_)) && !said.contains("refresh-0"), "{said}");
        assert!(!error.needs_a_person(), "{said}");
    }
    assert_eq!(tokens(&machine.stored()), ("access-0", "refresh-0"));
    source.ask(at(200)).await.unwrap();
    assert_eq!(tokens(&machine.stored()), ("access-1", "refresh-1"));
}

#[tokio::test]
async fn nothing_is_renewed_that_could_not_be_kept() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(10));
    let login = login(&provider, machine.place(), machine.store());
    login.current(at(-1_000)).await.unwrap();
    // Another process holds the store and does not let go.
    let hog = rusqlite::Connection::open(machine.folder.path().join("store.sqlite3")).unwrap();
    hog.execute_batch("BEGIN IMMEDIATE").unwrap();
    // What there is serves as long as it lasts.
    assert_eq!(login.current(at(0)).await.unwrap().access_token.expose(), "access-0");
    let error = login.current(at(10)).await.unwrap_err();
    assert!(error.to_string().contains("cannot be kept"), "{error}");
    assert!(provider.token_asked().is_empty());
    hog.execute_batch("ROLLBACK").unwrap();
    login.current(at(10)).await.unwrap();
    assert_eq!(provider.token_asked().len(), 1);
}

#[tokio::test]
async fn an_impatient_caller_loses_no_token() {
    let (provider, machine) = (Provider::start().await, Machine::with_login(10));
    let source = machine.source(&provider);
    provider.on_token(Reply::Held);
    {
        let asking = source.ask(at(0));
        tokio::select! {
            _ = asking => panic!("the answer is held"),
            () = provider.until_token_asked(1) => {}
        }
    }
    provider.let_go();
    let written = async {
        while tokens(&machine.stored()) != ("access-1", "refresh-1") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, written).await.unwrap();
    source.ask(at(0)).await.unwrap();
    assert_eq!(provider.token_asked().len(), 1);
}
