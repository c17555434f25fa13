//! What TLS has against a server's certificate, in words.

use rustls::CertificateError;

/// Says what is wrong with a server's certificate, where that is why a request failed, and what to do. `key` is the
/// configuration's for a private CA.
#[must_use]
pub fn certificate_fault(error: &(dyn std::error::Error + 'static), key: &str) -> Option<String> {
    Some(match refused_certificate(error)? {
        CertificateError::UnknownIssuer => {
            format!("its certificate is signed by an unknown CA: set {key} to the PEM file of that CA")
        }
        fault => format!("its certificate is refused ({fault}): renew it, or correct the address"),
    })
}

/// An `io::Error` hides what it carries from `source`.
fn refused_certificate<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a CertificateError> {
    let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    if let Some(carried) = carried {
        return refused_certificate(carried);
    }
    match error.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(fault)) => Some(fault),
        _ => error.source().and_then(refused_certificate),
    }
}
