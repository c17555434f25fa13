//! What a conversation leaves behind: files, manifests, and what comes next.

use std::io::{BufRead, Write};
use std::path::Path;

use super::Flags;
use super::answers::Place;
use super::apply::{self, SECRET};
use super::draft::Draft;
use super::logins::Logins;
use super::questions::{Dialogue, Stop};
use super::write::{self, Manifest, Planned};
use crate::config::{Secret, Surroundings};
use crate::file::Readers;
use crate::shutdown::InterruptHeld;

/// Asks whether files that exist may be replaced. Without a terminal only `--overwrite` says so.
pub(super) fn may_replace<R: BufRead, W: Write>(
    dialogue: &mut Dialogue<R, W>,
    paths: &[&Path],
    overwrite: bool,
) -> Result<bool, Stop> {
    let there: Vec<String> = paths.iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
    if there.is_empty() || overwrite {
        return Ok(true);
    }
    let there = there.join(", ");
    let agreed = dialogue.terminal && dialogue.agree(&format!("There is already {there}. Replace?"))?;
    if !agreed {
        dialogue.say(&format!("{there} stays as it is, and nothing was written; --overwrite replaces it."))?;
    }
    Ok(agreed)
}

/// Writes everything, the configuration last; says `false` where something in the way may not be replaced.
pub(super) fn output<R: BufRead, W: Write>(
    dialogue: &mut Dialogue<R, W>,
    printed: &mut impl Write,
    draft: &Draft,
    flags: &Flags,
    logins: Logins,
) -> Result<bool, Stop> {
    let own: Vec<(String, Secret)> =
        draft.named_secrets().into_iter().map(|(name, secret)| (name, secret.clone())).collect();
    let mut files = logins.files;
    let mut manifests = Vec::new();
    if draft.paths.place == Place::Here {
        files.extend(own.iter().map(|(name, secret)| Planned::secret(draft.paths.secret(name), secret)));
    }
    let wanted = draft.paths.place == Place::Cluster || flags.secret_manifest.is_some();
    if wanted && !own.is_empty() {
        manifests.push(Manifest { namespace: flags.namespace().to_owned(), name: SECRET.to_owned(), data: own });
    }
    manifests.extend(logins.manifests);
    let yaml = write::yaml(&manifests);
    if let (Some(path), false) = (&flags.secret_manifest, manifests.is_empty()) {
        files.push(Planned { path: path.clone(), text: yaml.clone(), readers: Readers::Owner });
    }
    let mut replaced = Vec::new();
    for file in &files {
        if file.replaces().map_err(|error| Stop::Unwritten(file.path.clone(), error))? {
            replaced.push(file.path.as_path());
        }
    }
    if !may_replace(dialogue, &replaced, flags.overwrite)? {
        return Ok(false);
    }
    let text = Secret::new(draft.text());
    files.push(Planned { path: draft.paths.file.clone(), text, readers: Readers::All });
    // All of them or, before this, none: an interrupt waits so long.
    let held = InterruptHeld::begin();
    for file in &files {
        file.write().map_err(|error| Stop::Unwritten(file.path.clone(), error))?;
    }
    drop(held);
    let written = files.iter().map(|file| {
        let readers = if file.readers == Readers::All { "" } else { "  (for you alone)" };
        format!("  {}{readers}", file.path.display())
    });
    dialogue.say(&format!("\nWritten:\n{}", written.collect::<Vec<_>>().join("\n")))?;
    if flags.secret_manifest.is_none() && !manifests.is_empty() {
        dialogue.say("\nFor `kubectl apply -f -`; --secret-manifest FILE keeps it off the screen:\n")?;
        printed.write_all(yaml.expose().as_bytes())?;
        printed.flush()?;
    }
    for advice in logins.advice {
        dialogue.say(&format!("\n{advice}"))?;
    }
    Ok(true)
}

/// Says what comes next.
pub(super) fn farewell(draft: &Draft, namespace: &str, surroundings: &Surroundings) -> String {
    let mut text = match draft.paths.place {
        Place::Here => format!("\nStart it: pilothouse --config {}", draft.paths.file.display()),
        Place::Cluster => apply::words(draft, namespace),
    };
    let mut set: Vec<&str> =
        surroundings.variables.values().map(String::as_str).filter(|name| !name.contains(' ')).collect();
    set.sort_unstable();
    set.dedup();
    if !set.is_empty() {
        text.push_str("\nWhat the environment said is in the file now, and twice is too much: unset ");
        text.push_str(&set.join(" "));
    }
    text
}
