//! One place where every refusal of the API server, and every failure on the way to it, becomes a [`ClusterError`].

use std::error::Error;

use super::Target;

/// What the API server, or the way to it, said no to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// 404.
    #[error("{0} does not exist")]
    NotFound(String),
    /// 403, with what is missing (`patch deployments/scale in apps`).
    #[error("the ServiceAccount may not {0}")]
    Forbidden(String),
    /// 409.
    #[error("somebody else changed {0} at the same moment")]
    Conflict(String),
    /// 403 by a ResourceQuota.
    #[error("the quota does not allow it: {0}")]
    Quota(String),
    /// No answer in time: nothing is certain.
    #[error("the API server did not answer in time: nothing is certain")]
    Timeout,
    /// No connection.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// 401.
    #[error("the API server does not accept the credentials: {0}")]
    Unauthorized(String),
    /// It would change nothing, so that it was not asked for.
    #[error("{0}")]
    Pointless(String),
    /// 4xx otherwise.
    #[error("the API server refused: {0}")]
    Refused(String),
    /// 5xx, or an answer that cannot be read.
    #[error("the API server failed: {0}")]
    Failed(String),
}

impl ClusterError {
    /// Says whether what was asked may have been done all the same: it was on its way, and what became of it was not heard.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Timeout | Self::Failed(_))
    }
}

/// What was asked, for the words of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    verb: &'static str,
    resource: String,
    namespace: Option<String>,
    object: String,
}

impl Asked {
    /// Something of the target itself, or of a subresource (`/scale`).
    pub(super) fn of(verb: &'static str, target: &Target, subresource: &str) -> Self {
        Self {
            verb,
            resource: format!("{}{subresource}", target.resource()),
            namespace: Some(target.namespace.clone()),
            object: target.to_string(),
        }
    }

    /// Something else in the target's namespace.
    pub(super) fn beside(verb: &'static str, target: &Target, resource: &str) -> Self {
        Self {
            verb,
            resource: resource.to_owned(),
            namespace: Some(target.namespace.clone()),
            object: format!("{resource} of {target}"),
        }
    }

    /// Something that belongs to no namespace.
    pub(super) fn clusterwide(verb: &'static str, resource: &str) -> Self {
        Self { verb, resource: resource.to_owned(), namespace: None, object: resource.to_owned() }
    }

    /// The permission in one line: `patch deployments/scale in apps`.
    pub(super) fn permission(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} {} in {namespace}", self.verb, self.resource),
            None => format!("{} {}", self.verb, self.resource),
        }
    }

    /// Says what an error of the client means for what was asked.
    pub(super) fn failed(&self, error: kube::Error) -> ClusterError {
        match error {
            kube::Error::Api(status) => self.refused(&status),
            kube::Error::Service(error) if is_timeout(&*error) => ClusterError::Timeout,
            kube::Error::Service(error) if is_connect(&*error) => ClusterError::Unreachable(chain(&*error)),
            kube::Error::Service(error) => ClusterError::Failed(format!(
                "the connection broke before the answer, nothing is certain: {}",
                chain(&*error)
            )),
            kube::Error::Auth(error) => ClusterError::Unauthorized(chain(&error)),
            error => ClusterError::Failed(chain(&error)),
        }
    }

    /// Says what a status of the API server means for what was asked.
    pub(super) fn refused(&self, status: &kube::core::Status) -> ClusterError {
        let message = status.message.clone();
        if status.is_not_found() {
            ClusterError::NotFound(self.object.clone())
        } else if status.is_forbidden() {
            // Three senders of a 403: the quota, the authorizer (whose text is fixed), and any other admission.
            if message.contains("exceeded quota") {
                ClusterError::Quota(message)
            } else if message.contains(" cannot ") {
                ClusterError::Forbidden(self.permission())
            } else {
                ClusterError::Refused(message)
            }
        } else if status.is_conflict() || status.is_already_exists() {
            ClusterError::Conflict(self.object.clone())
        } else {
            match status.code {
                401 => ClusterError::Unauthorized(message),
                504 => ClusterError::Timeout,
                // "Not now" says nothing about the request.
                429 => ClusterError::Failed(format!("too many requests: {message}")),
                400..500 => ClusterError::Refused(message),
                code => ClusterError::Failed(format!("{message} ({code})")),
            }
        }
    }
}

/// Whether the limit for one answer has passed.
fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn Error>::is::<tower::timeout::error::Elapsed>)
}

/// Whether no connection came about, so that nothing was sent.
fn is_connect(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect)
    })
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// An error and its causes in one line; a cause that its parent has already named is left out.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let words = cause.to_string();
        if text.is_empty() {
            text = words;
        } else if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn asked() -> Asked {
        Asked::of("patch", &super::super::tests::deployment("web"), "/scale")
    }

    fn status(code: u16, reason: &str, message: &str) -> Status {
        Status::failure(message, reason).with_code(code)
    }

    #[test]
    fn every_status_becomes_a_sentence_that_says_what_and_why() {
        let table = [
            (status(404, "NotFound", "x"), "Deployment web in namespace apps does not exist"),
            (
                status(
                    403,
                    "Forbidden",
                    r#"deployments.apps "web" is forbidden: User "u" cannot patch resource "deployments/scale""#,
                ),
                "the ServiceAccount may not patch deployments/scale in apps",
            ),
            (
                status(403, "Forbidden", r#"pods "x" is forbidden: exceeded quota: small, requested: pods=1"#),
                r#"the quota does not allow it: pods "x" is forbidden: exceeded quota: small, requested: pods=1"#,
            ),
            (
                status(403, "Forbidden", "admission webhook denied the request"),
                "the API server refused: admission webhook denied the request",
            ),
            (status(409, "Conflict", "x"), "somebody else changed Deployment web in namespace apps at the same moment"),
            (
                status(401, "Unauthorized", "Unauthorized"),
                "the API server does not accept the credentials: Unauthorized",
            ),
            (
                status(422, "Invalid", "spec.replicas: must be >= 0"),
                "the API server refused: spec.replicas: must be >= 0",
            ),
            (status(429, "TooManyRequests", "later"), "the API server failed: too many requests: later"),
            (status(500, "InternalError", "etcd"), "the API server failed: etcd (500)"),
            (status(503, "ServiceUnavailable", "down"), "the API server failed: down (503)"),
            (status(504, "Timeout", "x"), "the API server did not answer in time: nothing is certain"),
        ];
        for (status, sentence) in table {
            assert_eq!(asked().refused(&status).to_string(), sentence);
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = kube::Error::Service("refused".into());
        assert_eq!(
            asked().failed(error),
            ClusterError::Failed("the connection broke before the answer, nothing is certain: refused".into())
        );
    }
}
