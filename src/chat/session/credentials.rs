//! What is shown to the homeserver at a login: a password, or a JSON Web Token from its source.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::OpenError;
use super::wire::{LIMITED, Patience, USER_AGENT, WireError, chain, no_answer, patiently, retry_after, with_ca};
use crate::config::{self, JwtSource, Login};

/// Keycloak answers within this time.
const KEYCLOAK_TIMEOUT: Duration = Duration::from_secs(15);

/// Gives the body of a `/login` request; `None` for a configured access token, which needs no login.
pub(super) async fn credentials(matrix: &config::Matrix, patience: Patience<'_>) -> Result<Option<Value>, OpenError> {
    Ok(match &matrix.login {
        Login::Token { .. } => None,
        Login::Password { password } => Some(json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": matrix.user },
            "password": password.expose(),
        })),
        Login::Jwt { login_type, source } => {
            let token = jwt(source, matrix, patience).await?;
            Some(json!({ "type": login_type, "token": token }))
        }
    })
}

async fn jwt(source: &JwtSource, matrix: &config::Matrix, patience: Patience<'_>) -> Result<String, OpenError> {
    match source {
        JwtSource::Token { token } => Ok(token.expose().trim().to_owned()),
        JwtSource::File { path } => {
            let fail = |why: String| OpenError::TokenSource {
                why: format!("{} {why}; it must hold a JSON Web Token", path.display()),
            };
            let text = std::fs::read_to_string(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
            let token = text.trim();
            if token.is_empty() { Err(fail("is empty".to_owned())) } else { Ok(token.to_owned()) }
        }
        JwtSource::Keycloak { .. } => keycloak(source, matrix, patience).await,
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
}

#[derive(Deserialize, Default)]
struct Denied {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

/// The resource owner password grant; an outage of Keycloak is waited out like one of the homeserver.
async fn keycloak(source: &JwtSource, matrix: &config::Matrix, patience: Patience<'_>) -> Result<String, OpenError> {
    let JwtSource::Keycloak { url, realm, client_id, client_secret, password } = source else {
        return Err(OpenError::TokenSource { why: "not a Keycloak source".to_owned() });
    };
    let said = |why: String| format!("Keycloak at {url}, realm {realm}: {why}");
    let fail = |why: String| OpenError::TokenSource {
        why: format!("{}; check the keycloak settings and the bot's account there", said(why)),
    };
    let http = keycloak_http(matrix).map_err(fail)?;
    let endpoint = format!("{}/realms/{realm}/protocol/openid-connect/token", url.as_str().trim_end_matches('/'));
    let mut form = vec![
        ("grant_type", "password"),
        ("client_id", client_id),
        ("username", localpart(&matrix.user)),
        ("password", password.expose()),
        ("scope", "openid"),
    ];
    if let Some(secret) = client_secret {
        form.push(("client_secret", secret.expose()));
    }
    patiently("asking Keycloak for a token", patience, || {
        patience.while_watched(grant(http.post(&endpoint).form(&form)))
    })
    .await
    .map_err(|error| match error {
        WireError::Refused { .. } => fail(error.to_string()),
        WireError::Interrupted => OpenError::Interrupted,
        WireError::Limited(wait) => OpenError::Unanswered { why: said(format!("asks to wait {} s", wait.as_secs())) },
        WireError::Unreachable(_) | WireError::Strange(_) => OpenError::Unanswered { why: said(error.to_string()) },
    })
}

/// Its own client: the homeserver's proxy is not Keycloak's. The private CA usually is.
fn keycloak_http(matrix: &config::Matrix) -> Result<reqwest::Client, String> {
    let builder = reqwest::Client::builder().user_agent(USER_AGENT).timeout(KEYCLOAK_TIMEOUT);
    with_ca(builder, matrix)?.build().map_err(|error| chain(&error))
}

async fn grant(request: reqwest::RequestBuilder) -> Result<String, WireError> {
    let unreachable = |error: reqwest::Error| WireError::Unreachable(no_answer(error));
    let answer = request.send().await.map_err(unreachable)?;
    let status = answer.status();
    let asked_to_wait = retry_after(&answer);
    let body = answer.bytes().await.map_err(unreachable)?;
    if status.is_success() {
        return serde_json::from_slice::<Granted>(&body)
            .map(|granted| granted.access_token)
            .map_err(|_| WireError::Strange(format!("{status} without an access_token")));
    }
    if status.as_u16() == 429 {
        return Err(WireError::Limited(asked_to_wait.unwrap_or(LIMITED)));
    }
    let denied: Denied = serde_json::from_slice(&body).unwrap_or_default();
    // Keycloak says in a word what is wrong; a proxy before it does not.
    if status.is_server_error() || denied.error.is_empty() {
        return Err(WireError::Unreachable(format!("Keycloak answers {status}")));
    }
    Err(WireError::Refused {
        status: status.as_u16(),
        code: denied.error,
        message: denied.error_description,
        soft_logout: false,
    })
}

/// The localpart of a full user id; a localpart stays one.
pub(crate) fn localpart(user: &str) -> &str {
    user.strip_prefix('@').map_or(user, |rest| rest.split(':').next().unwrap_or(rest))
}

/// Whether `found`, a full user id, is what `matrix.user` names.
pub(crate) fn same_user(configured: &str, found: &str) -> bool {
    if configured.starts_with('@') && configured.contains(':') {
        configured == found
    } else {
        localpart(configured) == localpart(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_localpart_or_a_full_id_names_the_account() {
        for (configured, found, same) in [
            ("bot", "@bot:example.org", true),
            ("@bot", "@bot:example.org", true),
            ("@bot:example.org", "@bot:example.org", true),
            ("@bot:example.com", "@bot:example.org", false),
            ("bob", "@bot:example.org", false),
        ] {
            assert_eq!(same_user(configured, found), same, "{configured} {found}");
        }
    }
}
