//! The configuration as the operator of a machine meets it: sources in, text out.

mod example;
mod faults;
mod inheritance;
mod precedence;
mod secrets;
mod usage;

use std::path::PathBuf;

use super::{Config, Findings, Loaded, Sources};

/// A configuration that lacks nothing, in TOML.
const COMPLETE: &str = r#"
[matrix]
user = "pilothouse"
password = "correct horse"

[policy]
users = ["@you:example.org"]

[[targets]]
name = "web"
namespace = "apps"
"#;

/// A folder of its own with `pilothouse.toml` in it, and an environment.
struct Place {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Place {
    fn new(file: Option<&str>, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pilothouse.toml");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        Self { folder, sources: Sources { argument: None, environment, usual: vec![path] } }
    }

    fn load(&self) -> Result<Loaded, Findings> {
        Config::load(&self.sources)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a person reads of the faults, without the folder's name.
    fn faults(&self) -> String {
        self.shorten(&self.load().unwrap_err().to_string())
    }

    fn shorten(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

fn load(file: Option<&str>, environment: &[(&str, &str)]) -> Result<Loaded, Findings> {
    Place::new(file, environment).load()
}
