//! Login is exactly one way, seen from what is given.

use std::path::PathBuf;

use super::reader::Reader;
use super::{JwtSource, Login, Secret, secret};

const PASSWORD: &str = "matrix.password";
const ACCESS_TOKEN: &str = "matrix.access_token";
const DEVICE_ID: &str = "matrix.device_id";
const JWT_TOKEN: &str = "matrix.jwt.token";
const JWT_TOKEN_FILE: &str = "matrix.jwt.token_file";
const KEYCLOAK: [&str; 5] = [
    "matrix.jwt.keycloak.url",
    "matrix.jwt.keycloak.realm",
    "matrix.jwt.keycloak.client_id",
    "matrix.jwt.keycloak.client_secret",
    "matrix.jwt.keycloak.client_secret_file",
];

/// Reads the way to log in. `jwt` is the predecessor's `AUTH_METHOD=jwt`, which asks for one even when no key does.
pub(super) fn read(reader: &mut Reader, jwt: bool) -> Option<Login> {
    let given = |reader: &Reader, key: &str| reader.is_given(key) || reader.is_given(&format!("{key}_file"));
    let token = given(reader, ACCESS_TOKEN) || reader.is_given(DEVICE_ID);
    let ready_jwt = given(reader, JWT_TOKEN);
    let keycloak = KEYCLOAK.iter().any(|key| reader.is_given(key)) || (jwt && !ready_jwt);
    // With Keycloak the password is Keycloak's.
    let password = given(reader, PASSWORD) && !keycloak;
    let ways = [(token, ACCESS_TOKEN), (ready_jwt, JWT_TOKEN), (keycloak, "matrix.jwt.keycloak"), (password, PASSWORD)];
    let ways: Vec<&str> = ways.into_iter().filter(|(given, _)| *given).map(|(_, way)| way).collect();
    match ways[..] {
        [] => {
            reader.fault(
                PASSWORD,
                "nothing says how to log in",
                "Give one of matrix.password, matrix.access_token with matrix.device_id, or matrix.jwt; each secret also \
                 as key with _file at its end, as variable (PILOTHOUSE__MATRIX__PASSWORD_FILE), or as MATRIX_PASSWORD",
            );
            None
        }
        [ACCESS_TOKEN] => access_token(reader),
        [JWT_TOKEN] => {
            let source = ready(reader)?;
            Some(Login::Jwt { login_type: login_type(reader)?, source })
        }
        ["matrix.jwt.keycloak"] => {
            let source = grant(reader);
            Some(Login::Jwt { login_type: login_type(reader)?, source: source? })
        }
        [PASSWORD] => Some(Login::Password { password: reader.secret(PASSWORD)?? }),
        _ => {
            let named: Vec<String> = ways.iter().map(|way| with_origin(reader, way)).collect();
            reader.fault(
                "matrix",
                &format!("there is more than one way to log in: {}", named.join(" and ")),
                "Keep one of them",
            );
            None
        }
    }
}

/// `matrix.password (MATRIX_PASSWORD)`.
fn with_origin(reader: &Reader, way: &str) -> String {
    let keys = [way.to_owned(), format!("{way}_file"), DEVICE_ID.to_owned()];
    let keys = match way {
        "matrix.jwt.keycloak" => KEYCLOAK.map(str::to_owned).to_vec(),
        ACCESS_TOKEN => keys.to_vec(),
        _ => keys[..2].to_vec(),
    };
    let found = keys.into_iter().find_map(|key| reader.origin(&key).map(|origin| format!("{key} ({origin})")));
    found.unwrap_or_else(|| way.to_owned())
}

fn access_token(reader: &mut Reader) -> Option<Login> {
    let access_token = reader.secret(ACCESS_TOKEN);
    let device_id = reader.optional::<String>(DEVICE_ID);
    let (access_token, device_id) = (access_token?, device_id?);
    if access_token.is_none() {
        reader.fault(
            DEVICE_ID,
            "is given without matrix.access_token",
            "Give the access token that belongs to this device, or remove the device",
        );
    }
    if device_id.is_none() {
        reader.fault(
            DEVICE_ID,
            "is not given, but the access token belongs to a device",
            "Write the device_id that came with the token (GET /_matrix/client/v3/account/whoami tells it)",
        );
    }
    Some(Login::Token { access_token: access_token?, device_id: device_id? })
}

fn login_type(reader: &mut Reader) -> Option<String> {
    reader.required("matrix.jwt.login_type")
}

/// A file is read again at each login, so it is not read here, only looked at.
fn ready(reader: &mut Reader) -> Option<JwtSource> {
    if !reader.is_given(JWT_TOKEN_FILE) || reader.is_given(JWT_TOKEN) {
        return Some(JwtSource::Token { token: reader.secret(JWT_TOKEN)?? });
    }
    let path: PathBuf = reader.optional(JWT_TOKEN_FILE)??;
    if let Err(error) = std::fs::File::open(&path) {
        let text = format!("{} cannot be read now: {error}. It must be there when a login needs it.", path.display());
        reader.warn(JWT_TOKEN_FILE, &text);
    } else if let Some(text) = secret::open_to_others(&path) {
        reader.warn(JWT_TOKEN_FILE, &text);
    }
    Some(JwtSource::File { path })
}

fn grant(reader: &mut Reader) -> Option<JwtSource> {
    let url = reader.parsed::<url::Url>(KEYCLOAK[0], "a URL");
    let realm = reader.optional::<String>(KEYCLOAK[1]);
    let client_id = reader.optional::<String>(KEYCLOAK[2]);
    let client_secret = reader.secret(KEYCLOAK[3]);
    let password = reader.secret(PASSWORD);
    for (key, variable, missing) in [
        (KEYCLOAK[0], "KEYCLOAK_URL", matches!(url, Some(None))),
        (KEYCLOAK[1], "KEYCLOAK_REALM", matches!(realm, Some(None))),
        (KEYCLOAK[2], "KEYCLOAK_CLIENT_ID", matches!(client_id, Some(None))),
        (PASSWORD, "MATRIX_PASSWORD", matches!(password, Some(None))),
    ] {
        if missing {
            let remedy = format!("Give it in the file, or set {variable}");
            reader.fault(key, "is not given, but the login by Keycloak needs it", &remedy);
        }
    }
    let password: Secret = password??;
    Some(JwtSource::Keycloak {
        url: url??,
        realm: realm??,
        client_id: client_id??,
        client_secret: client_secret?,
        password,
    })
}
