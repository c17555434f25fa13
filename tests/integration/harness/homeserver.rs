//! A homeserver that limits, expires, forgets and comes back.

use http::Method;
use serde_json::{Value, json};

use crate::support::http;
use crate::support::synapse::{Account, Login, Synapse, synapse};

async fn whoami(synapse: &Synapse, login: &Login) -> (u16, Value) {
    let url = format!("{}/_matrix/client/v3/account/whoami", synapse.url());
    let answer = http().get(url).bearer_auth(&login.access_token).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn jwt_login(synapse: &Synapse, account: &Account) -> Value {
    let body = json!({"type": "org.matrix.login.jwt", "token": synapse.jwt(account)});
    let url = format!("{}/_matrix/client/v3/login", synapse.url());
    let answer = http().post(url).json(&body).send().await.expect("an answer");
    answer.json().await.expect("JSON")
}

#[tokio::test]
async fn a_json_web_token_logs_in() {
    let synapse = synapse().await;
    let account = synapse.register("jwt").await;
    assert_eq!(jwt_login(&synapse, &account).await["user_id"], account.user_id);
}

#[tokio::test]
async fn an_expired_token_is_a_soft_logout_and_a_lost_device_a_hard_one() {
    let synapse = Synapse::start(json!({})).await;
    let account = synapse.register_as("bot", true).await;
    let login = synapse.login(&account).await;
    let (status, who) = whoami(&synapse, &login).await;
    assert_eq!((status, &who["device_id"]), (200, &json!(login.device_id)));
    let users = synapse.call(&login.access_token, Method::GET, "/_synapse/admin/v2/users", None).await;
    assert_eq!(users["total"], 1);

    synapse.expire_access_tokens(&account).await;
    let (status, error) = whoami(&synapse, &login).await;
    assert_eq!((status, &error["errcode"], &error["soft_logout"]), (401, &json!("M_UNKNOWN_TOKEN"), &json!(true)));

    let login = synapse.login(&account).await;
    synapse.log_out_everywhere(&account).await;
    let (status, error) = whoami(&synapse, &login).await;
    assert_eq!((status, &error["soft_logout"]), (401, &json!(false)));
}

#[tokio::test]
async fn a_homeserver_limits_hangs_goes_away_and_comes_back() {
    let synapse = Synapse::start(json!({"rc_message": {"per_second": 0.2, "burst_count": 2}})).await;
    let account = synapse.register("alice").await;
    let login = synapse.login(&account).await;
    let room = synapse.call(&login.access_token, Method::POST, "/_matrix/client/v3/createRoom", Some(json!({}))).await;
    let room = room["room_id"].as_str().expect("a room");
    let client = http();
    let send = async |number: usize| {
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{number}");
        let body = json!({"msgtype": "m.text", "body": "hello"});
        let request = client.put(format!("{}{path}", synapse.url())).bearer_auth(&login.access_token).json(&body);
        request.send().await.expect("an answer")
    };
    let mut number = 0;
    let limited = loop {
        let answer = send(number).await;
        if answer.status() == 429 {
            break answer.json::<Value>().await.expect("JSON");
        }
        number += 1;
        assert!(number < 20, "nobody is limited");
    };
    assert_eq!(limited["errcode"], "M_LIMIT_EXCEEDED");
    assert!(limited["retry_after_ms"].is_number());

    let health = format!("{}/health", synapse.url());
    let ask = || http().get(&health).timeout(std::time::Duration::from_millis(300)).send();
    synapse.pause();
    assert!(ask().await.expect_err("nobody answers").is_timeout());
    synapse.resume();
    synapse.stop();
    assert!(ask().await.expect_err("nobody listens").is_connect());
    synapse.restart().await;
    assert_eq!(whoami(&synapse, &login).await.0, 200);
}
