//! Secrets that live in files, and the one that may hide in a URL.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Secret;

/// Reads a secret from its file, without the newline at its end. The second value is a warning.
///
/// # Errors
/// The fault and its remedy.
pub(super) fn read(path: &Path) -> Result<(Secret, Option<String>), (String, String)> {
    let shown = path.display();
    let failed = |fault: String| (fault, format!("Write the secret into {shown}, readable for the user of pilothouse"));
    let text = std::fs::read(path).map_err(|error| failed(format!("{shown} cannot be read: {error}")))?;
    let text = String::from_utf8(text).map_err(|_| failed(format!("{shown} is not UTF-8 text")))?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.trim().is_empty() {
        return Err(failed(format!("{shown} is empty")));
    }
    Ok((Secret::new(secret), open_to_others(path)))
}

/// Warns of a file that every user of the machine may read.
pub(super) fn open_to_others(path: &Path) -> Option<String> {
    const OTHERS_READ: u32 = 0o004;
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & OTHERS_READ != 0).then(|| {
        format!(
            "{} can be read by every user (mode {:o}). Take that away: chmod o-r, or in Kubernetes `defaultMode: 0440` \
             for the Secret's volume.",
            path.display(),
            mode & 0o777
        )
    })
}

/// Shows a URL with `***` in place of its password.
pub(super) fn shown(url: &url::Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() {
        // Fails for URLs that cannot have a password, which this one has.
        let _ = url.set_password(Some("***"));
    }
    url.to_string()
}

/// Serializes a URL with `***` in place of its password.
#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
pub(super) fn without_password<S: serde::Serializer>(url: &Option<url::Url>, serializer: S) -> Result<S::Ok, S::Error> {
    match url {
        Some(url) => serializer.serialize_some(&shown(url)),
        None => serializer.serialize_none(),
    }
}
