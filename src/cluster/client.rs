//! The client: where its configuration comes from, and the limit on every call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow};
use k8s_openapi::NamespaceResourceScope;
use kube::client::ClientBuilder;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};

use super::error::Asked;
use super::{Cluster, ClusterError, Pace, Target};
use crate::config;

/// Limit for a connection to come about, TLS included.
const CONNECT: Duration = Duration::from_secs(5);

impl Cluster {
    /// Builds the client. Asks nothing of the API server, so one that is down does not stop the start.
    ///
    /// # Errors
    /// When no configuration can be read where `settings` says it is, or it cannot be used.
    pub async fn connect(settings: &config::Kubernetes) -> anyhow::Result<Self> {
        Self::with(configuration(settings).await?, settings)
    }

    /// Builds the client from a configuration that was found elsewhere; `settings.source` does not count.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn with(mut config: Config, settings: &config::Kubernetes) -> anyhow::Result<Self> {
        config.connect_timeout = Some(CONNECT);
        // kube would repeat 429, 503 and 504 silently for up to 246 s: too long for somebody who waits for an answer.
        config.default_retry = false;
        if config.cluster_url.host().is_some_and(is_loopback) {
            // HTTPS_PROXY never means the machine itself; kube does not hold NO_PROXY against the server's address.
            config.proxy_url = None;
        }
        let limit = settings.timeout.try_into().context("kubernetes.timeout must not be negative")?;
        let client = ClientBuilder::try_from(config)
            .context("the Kubernetes configuration cannot be used; check the certificates and the user in it")?
            // Also for the head of a watch's answer, which no other limit holds.
            .with_layer(&tower::timeout::TimeoutLayer::new(limit))
            .build();
        Ok(Self::new(client, limit, settings))
    }

    pub(super) fn new(client: Client, limit: Duration, settings: &config::Kubernetes) -> Self {
        Self {
            client,
            limit,
            show_logs: settings.show_logs,
            write_events: settings.events,
            pace: Pace::default(),
            quiet: Arc::new(Mutex::new(HashMap::new())),
            owners: Arc::new(Mutex::new(HashMap::new())),
            written: Arc::new(Mutex::new(HashMap::new())),
            seen: Arc::new(Mutex::new(HashMap::new())),
        }
    }

    /// The client, for the one Secret that is no business of this module.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The same cluster, asked at another pace.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Asks the API server for its version, which every account may: the question of readiness, too.
    ///
    /// # Errors
    /// [`ClusterError`] when no answer came.
    pub async fn version(&self) -> Result<String, ClusterError> {
        let asked = Asked::clusterwide("get", "/version");
        Ok(self.call(&asked, self.client.apiserver_version()).await?.git_version)
    }

    /// Waits for an answer, at most as long as one operation may take.
    pub(super) async fn call<T>(
        &self,
        asked: &Asked,
        answer: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        // Boxed: kube's futures are large, and this one is part of all others here.
        match tokio::time::timeout(self.limit, Box::pin(answer)).await {
            Ok(answer) => answer.map_err(|error| asked.failed(error)),
            Err(_) => Err(ClusterError::Timeout),
        }
    }

    /// The objects of one kind in the target's namespace.
    pub(super) fn api<K>(&self, target: &Target) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &target.namespace)
    }
}

/// Reads the client's configuration. The ServiceAccount is asked first, so that a stray kubeconfig in an image
/// cannot turn a daemon to another cluster; a named context can only mean a kubeconfig.
async fn configuration(settings: &config::Kubernetes) -> anyhow::Result<Config> {
    use config::KubernetesSource::{InCluster, Infer, Kubeconfig};
    let options = KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
    match settings.source {
        InCluster => Config::incluster().context(
            "kubernetes.source is in_cluster, but there is no ServiceAccount here; run inside a cluster or use kubeconfig",
        ),
        Infer if settings.context.is_none() => match Config::incluster() {
            Ok(config) => Ok(config),
            // Their words hold their causes: said as a chain, those would be said twice.
            Err(inside) => Config::from_kubeconfig(&options).await.map_err(|outside| {
                anyhow!("neither a ServiceAccount ({inside}) nor a kubeconfig ({outside}) can be used; set KUBECONFIG or run inside a cluster")
            }),
        },
        Infer | Kubeconfig => Config::from_kubeconfig(&options)
            .await
            .map_err(|error| anyhow!("the kubeconfig cannot be used ({error}); check KUBECONFIG and kubernetes.context")),
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use jiff::SignedDuration;

    use super::*;
    use crate::config::KubernetesSource;

    fn cluster(url: &str) -> Cluster {
        let settings = config::Kubernetes {
            source: KubernetesSource::Infer,
            context: None,
            timeout: SignedDuration::from_secs(60),
            rollout_deadline: SignedDuration::from_mins(5),
            show_logs: false,
            events: false,
        };
        // As in `main`: whoever builds a TLS client first may have set it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Cluster::with(Config::new(url.parse().expect("a URL")), &settings).expect("a client")
    }

    #[tokio::test]
    async fn an_unwilling_api_server_is_asked_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let asked = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut request = [0; 4096];
                if stream.read(&mut request).is_ok_and(|read| read > 0) {
                    count.fetch_add(1, Ordering::SeqCst);
                    let head =
                        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\nconnection: close\r\ncontent-length: 0";
                    let _ = stream.write_all(format!("{head}\r\n\r\n").as_bytes());
                }
            }
        });
        let answer = cluster(&url).version().await;
        assert!(answer.is_err(), "{answer:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "the waiting is ours");
    }

    #[tokio::test]
    async fn a_connection_that_does_not_come_about_is_given_up_long_before_the_limit_of_an_answer() {
        // The kernel accepts; nobody ever speaks TLS.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("bound"));
        let started = tokio::time::Instant::now();
        let answer = cluster(&url).version().await;
        assert!(answer.is_err(), "{answer:?}");
        assert!(started.elapsed() < CONNECT * 3, "{:?}", started.elapsed());
        drop(listener);
    }
}
