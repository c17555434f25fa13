//! Whose certificates count besides the system's, and what TLS has against one, in words.

use std::path::Path;

use reqwest::{Certificate, ClientBuilder};
use rustls::CertificateError;

/// Trusts the CAs of a file (PEM), too, where one is configured. `key` is the configuration's for it.
///
/// # Errors
/// Why the file cannot be used.
pub fn with_ca(builder: ClientBuilder, ca: Option<&Path>, key: &str) -> Result<ClientBuilder, String> {
    let Some(path) = ca else { return Ok(builder) };
    let unusable = |why: &str| format!("{key} = {}: {why}", path.display());
    let pem = std::fs::read(path).map_err(|error| unusable(&error.to_string()))?;
    let bundle = Certificate::from_pem_bundle(&pem).map_err(|_| unusable("its PEM cannot be read"))?;
    if bundle.is_empty() {
        return Err(unusable("no PEM certificate in it"));
    }
    Ok(builder.tls_certs_merge(bundle))
}

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
