//! Where the machine keeps what the tests run: the demo reads this file too.

use std::ffi::OsString;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

/// Reads what tells a test where the real parts are.
#[expect(clippy::disallowed_methods, reason = "where the machine keeps its parts is no configuration of the daemon")]
pub(crate) fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The folder in which `make` keeps what it has built once: `<cache>/<kind>-<hash of the pinned versions>`.
fn cached(kind: &str, pins: &[u8]) -> PathBuf {
    let cache = environment("PILOTHOUSE_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(environment("XDG_CACHE_HOME")?).join("pilothouse")));
    let cache = cache.or_else(|| Some(PathBuf::from(environment("HOME")?).join(".cache/pilothouse")));
    let cache = cache.expect("HOME is set");
    let mut hash = format!("{:x}", Sha256::digest(pins));
    hash.truncate(16);
    cache.join(format!("{kind}-{hash}"))
}

/// The virtual environment with Synapse, whether or not it is there yet.
pub(crate) fn synapse_venv() -> PathBuf {
    let cache = || cached("python", include_bytes!("../../requirements.txt"));
    environment("PILOTHOUSE_SYNAPSE_VENV").map_or_else(cache, PathBuf::from)
}

/// Finds a binary of the control plane, `kubectl` among them.
///
/// # Panics
/// With the remedy, where it is missing.
pub(crate) fn control_plane_binary(name: &str) -> PathBuf {
    let ours = environment("PILOTHOUSE_CONTROL_PLANE").map(PathBuf::from);
    let assets = environment("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let cache = cached("control-plane", include_bytes!("../../control-plane/go.sum"));
    let places: Vec<PathBuf> = ours.into_iter().chain(assets).chain([cache]).map(|folder| folder.join(name)).collect();
    places.iter().find(|path| path.is_file()).cloned().unwrap_or_else(|| {
        panic!("no {name} in any of {places:?}: build it once with `make control-plane` (five minutes, needs Go)")
    })
}
