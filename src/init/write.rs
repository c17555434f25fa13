//! The files to write, and the manifests of Kubernetes Secrets.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::Secret;
use crate::file::{self, Readers};

/// A file that is to be written.
pub(super) struct Planned {
    /// Where.
    pub(super) path: PathBuf,
    /// What stands in it.
    pub(super) text: Secret,
    /// Who else may read it.
    pub(super) readers: Readers,
}

impl Planned {
    /// A file for its owner alone, that ends with a newline.
    pub(super) fn secret(path: PathBuf, text: &Secret) -> Self {
        Self { path, text: Secret::new(format!("{}\n", text.expose())), readers: Readers::Owner }
    }

    /// Whether something else stands there now.
    ///
    /// # Errors
    /// Where that cannot be seen.
    pub(super) fn replaces(&self) -> io::Result<bool> {
        match fs::read(&self.path) {
            Ok(now) => Ok(now != self.text.expose().as_bytes()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes it, and makes its folder where there is none.
    ///
    /// # Errors
    /// Where the folder cannot be written; what stood there before is untouched then.
    pub(super) fn write(&self) -> io::Result<()> {
        // A link stays one; what it leads to is written.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mode = if self.readers == Readers::Owner { 0o700 } else { 0o755 };
        fs::DirBuilder::new().recursive(true).mode(mode).create(folder)?;
        file::replace(&path, self.text.expose(), self.readers)
    }
}

/// A Kubernetes Secret.
pub(super) struct Manifest {
    /// Its namespace.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
    /// Its keys.
    pub(super) data: Vec<(String, Secret)>,
}

/// Writes manifests as YAML documents. Names and keys stand in quotes, and values are base64, so nothing needs escapes.
pub(super) fn yaml(manifests: &[Manifest]) -> Secret {
    let mut text = String::new();
    for Manifest { namespace, name, data } in manifests {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: \"{name}\"\n  namespace: \"{namespace}\"\n  labels:\n    \
             app.kubernetes.io/name: pilothouse\ntype: Opaque\ndata:\n"
        );
        for (key, value) in data {
            let _ = writeln!(text, "  \"{key}\": {}", STANDARD.encode(value.expose()));
        }
    }
    Secret::new(text)
}
