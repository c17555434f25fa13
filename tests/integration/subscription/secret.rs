//! A login in a Secret of a real API server.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use pilothouse::usage::credential::secret::{CLAIM, Place as SecretPlace, Settings};
use pilothouse::usage::credential::{CredentialError, Keys, Layout, Place};
use pilothouse::usage::source::SourceError;
use serde_json::{Value, json};

use super::{DEADLINE, DOCUMENT, Machine, at, document, login, source, tokens};
use crate::support::control_plane::{Namespace, client_for, with_namespace};
use crate::support::provider::{Provider, Reply};

/// The Secret's name.
pub(super) const NAME: &str = "claude-login";

/// A Role with which the login can be read and renewed, as long as the Secret is mounted.
const PATCH_ONLY: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: watcher}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: watcher}
rules:
- {apiGroups: [''], resources: [secrets], resourceNames: [claude-login], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: watcher}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: watcher}
subjects: [{kind: ServiceAccount, name: watcher}]
";

/// Makes the Secret, or puts other values into it, as `kubectl` does.
pub(super) async fn put(namespace: &Namespace, data: &[(&str, &str)]) {
    let api = namespace.api::<Secret>();
    let data: BTreeMap<_, _> =
        data.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec()))).collect();
    if api.get_opt(NAME).await.unwrap().is_some() {
        let patch = Patch::Merge(json!({"data": data}));
        api.patch(NAME, &PatchParams::default(), &patch).await.unwrap();
    } else {
        let metadata = kube::core::ObjectMeta { name: Some(NAME.to_owned()), ..Default::default() };
        let secret = Secret { metadata, data: Some(data), ..Secret::default() };
        api.create(&PostParams::default(), &secret).await.unwrap();
    }
}

pub(super) async fn put_login(namespace: &Namespace, access: &str, refresh: &str, expires: i64) {
    put(namespace, &[(DOCUMENT, &document(access, refresh, expires).to_string()), ("other", "stays")]).await;
}

/// The document in the Secret, after nothing else in it was touched.
pub(super) async fn stored(namespace: &Namespace) -> Value {
    let secret = namespace.api::<Secret>().get(NAME).await.unwrap();
    let claim = secret.metadata.annotations.and_then(|annotations| annotations.get(CLAIM).cloned());
    assert_eq!(claim, None, "the claim is given back");
    let data = secret.data.unwrap();
    assert_eq!(data["other"].0, b"stays");
    serde_json::from_slice(&data[DOCUMENT].0).unwrap()
}

pub(super) fn place(namespace: &Namespace, client: Client, mount: Option<PathBuf>) -> Place {
    place_in(&namespace.name, client, mount)
}

pub(super) fn place_in(namespace: &str, client: Client, mount: Option<PathBuf>) -> Place {
    let settings =
        Settings { namespace: namespace.to_owned(), name: NAME.to_owned(), layout: Layout::default(), mount };
    SecretPlace::new(client, settings).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_one_renews_and_both_go_on_with_its_token() {
    with_namespace(async |namespace| {
        let provider = Provider::start().await;
        put_login(&namespace, "access-0", "refresh-0", 10).await;
        let machines = [Machine::new(), Machine::new()];
        let [first, second] = [0, 1].map(|index: usize| {
            source(&provider, place(&namespace, namespace.client.clone(), None), machines[index].store())
        });
        for round in 1..=5_u32 {
            // Each round both find that the token ends.
            let now = i64::from(round - 1) * 28_800;
            provider.on_token(Reply::Held);
            let both = async { tokio::join!(first.ask(at(now)), second.ask(at(now))) };
            let release = async {
                provider.until_token_asked(round as usize).await;
                provider.let_go();
            };
            let both = async { tokio::join!(both, release).0 };
            let (first, second) = tokio::time::timeout(DEADLINE, both).await.unwrap();
            first.unwrap();
            second.unwrap();
            assert_eq!(provider.token_asked().len(), round as usize, "exactly one of them has renewed");
            let expected = (format!("access-{round}"), format!("refresh-{round}"));
            let asked = provider.usage_asked();
            assert!(
                asked[asked.len() - 2..]
                    .iter()
                    .all(|asked| asked.header("authorization") == format!("Bearer {}", expected.0)),
                "both go on with it"
            );
            let stored = stored(&namespace).await;
            assert_eq!(tokens(&stored), (expected.0.as_str(), expected.1.as_str()));
            assert!(provider.takes(&expected.0, &expected.1));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_never_use_a_token_twice() {
    with_namespace(async |namespace| {
        let provider = Provider::start().await;
        put_login(&namespace, "access-0", "refresh-0", 10).await;
        let machines: Vec<_> = (0..6).map(|_| Machine::new()).collect();
        let mut asking = tokio::task::JoinSet::new();
        for machine in &machines {
            let login = login(&provider, place(&namespace, namespace.client.clone(), None), machine.store());
            asking.spawn(async move { login.current(at(0)).await });
        }
        let all = tokio::time::timeout(DEADLINE, asking.join_all()).await.unwrap();
        assert!(all.into_iter().all(|one| one.unwrap().access_token.expose() == "access-1"));
        assert_eq!(provider.token_asked().len(), 1);
        assert_eq!(tokens(&stored(&namespace).await), ("access-1", "refresh-1"));
    })
    .await;
}

#[tokio::test]
async fn each_token_under_a_key_of_its_own_is_renewed_too() {
    with_namespace(async |namespace| {
        let (provider, machine) = (Provider::start().await, Machine::new());
        put(&namespace, &[("token", "access-0"), ("again", "refresh-0"), ("until", "1800000010"), ("other", "stays")])
            .await;
        let keys = Keys {
            access_token: "token".to_owned(),
            refresh_token: Some("again".to_owned()),
            expires_at: Some("until".to_owned()),
            ..Keys::default()
        };
        let settings = Settings {
            namespace: namespace.name.clone(),
            name: NAME.to_owned(),
            layout: Layout::Keys(keys),
            mount: None,
        };
        let place = SecretPlace::new(namespace.client.clone(), settings).into();
        source(&provider, place, machine.store()).ask(at(0)).await.unwrap();
        let data = namespace.api::<Secret>().get(NAME).await.unwrap().data.unwrap();
        let texts = ["token", "again", "other"].map(|key| String::from_utf8(data[key].0.clone()).unwrap());
        assert_eq!(texts, ["access-1", "refresh-1", "stays"]);
    })
    .await;
}

#[tokio::test]
async fn a_new_login_in_the_secret_counts_at_once_and_a_missing_one_is_told() {
    with_namespace(async |namespace| {
        let (provider, machine) = (Provider::start().await, Machine::new());
        let source = source(&provider, place(&namespace, namespace.client.clone(), None), machine.store());
        let error = source.ask(at(0)).await.unwrap_err();
        assert!(
            matches!(&error, SourceError::Credential(CredentialError::Missing(why)) if why.contains("does not exist"))
        );
        put_login(&namespace, "access-0", "refresh-0", 28_800).await;
        source.ask(at(0)).await.unwrap();
        let (access, refresh) = provider.log_in();
        put_login(&namespace, &access, &refresh, 28_800).await;
        source.ask(at(300)).await.unwrap();
        assert!(provider.token_asked().is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_account_that_may_only_patch_renews_what_is_mounted() {
    with_namespace(async |namespace| {
        let (provider, machine) = (Provider::start().await, Machine::new());
        namespace.apply(PATCH_ONLY).await;
        let token = namespace.service_account_token("watcher").await;
        let limited = client_for(&namespace.kubeconfig_for_token(&token)).await;
        let forbidden = kube::Api::<Secret>::namespaced(limited.clone(), &namespace.name).get(NAME).await;
        assert!(matches!(forbidden, Err(kube::Error::Api(status)) if status.is_forbidden()), "it may not read it");

        put_login(&namespace, "access-0", "refresh-0", 10).await;
        // The mount shows a change only after a minute.
        let mount = |access: &str, refresh: &str, expires| machine.log_in(access, refresh, expires);
        mount("access-0", "refresh-0", 10);
        let begin = || source(&provider, place(&namespace, limited.clone(), Some(machine.config())), machine.store());
        let first = begin();
        first.ask(at(0)).await.unwrap();
        assert_eq!(tokens(&stored(&namespace).await), ("access-1", "refresh-1"));
        first.ask(at(300)).await.unwrap();
        // A restart in that minute finds the newer one in the Secret.
        begin().ask(at(10)).await.unwrap();
        assert_eq!((provider.token_asked().len(), provider.usage_asked().len()), (1, 3));
        // Renewed again before the mount has followed.
        provider.expire();
        first.ask(at(20)).await.unwrap();
        first.ask(at(30)).await.unwrap();
        assert_eq!(provider.token_asked().len(), 2);
        // A new login, in the mount at last.
        let (access, refresh) = provider.log_in();
        put_login(&namespace, &access, &refresh, 28_800).await;
        mount(&access, &refresh, 28_800);
        first.ask(at(60)).await.unwrap();
        assert_eq!(provider.token_asked().len(), 2);

        let unmounted = source(&provider, place(&namespace, limited.clone(), None), machine.store());
        let error = unmounted.ask(at(60)).await.unwrap_err();
        assert!(error.to_string().contains("may not get it"), "{error}");
    })
    .await;
}
