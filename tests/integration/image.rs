//! The container image: the last stage of the Dockerfile, built by `k8s/image.sh` from a static binary as it is built
//! where no Docker engine runs, holds a daemon that works without privileges and without a writable root.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::environment;

/// The image and a container of it, in a storage that goes away with the test.
struct Image {
    folder: TempDir,
    container: String,
}

impl Image {
    /// Builds the image; the dev profile unless the environment says otherwise, because this is about the image.
    fn build() -> Self {
        let folder = tempfile::Builder::new().prefix("pilothouse-image-").tempdir().expect("a folder");
        let mut image = Self { folder, container: String::new() };
        // Neither an overlay nor a user namespace is needed, and nothing of the machine's own storage is touched.
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{root}/images\"\nrunroot = \"{root}/run\"\n",
            root = image.folder.path().display()
        );
        fs::write(image.path("storage.conf"), storage).expect("storage.conf");
        let mut script = image.command(Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s/image.sh"));
        script.env("PILOTHOUSE_IMAGE_ENGINE", "buildah").env("IMAGE", "pilothouse").env_remove("PUSH");
        if environment("PILOTHOUSE_IMAGE_PROFILE").is_none() {
            script.env("PILOTHOUSE_IMAGE_PROFILE", "dev");
        }
        let name = image.said(&mut script).lines().last().expect("the script names the image").to_owned();
        image.container = image.said(image.command("buildah").args(["from", &name])).trim().to_owned();
        image
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("CONTAINERS_STORAGE_CONF", self.path("storage.conf")).env_remove("STORAGE_DRIVER");
        command
    }

    fn said(&self, command: &mut Command) -> String {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(output.status.success(), "{command:?}: {}", words(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs the daemon's binary as the image says, with `/data` and `/etc/pilothouse` as a pod has them.
    fn run(&self, arguments: &[&str]) -> Output {
        for (name, mode) in [("data", 0o777), ("config", 0o755)] {
            fs::create_dir_all(self.path(name)).expect("a folder");
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("its mode");
        }
        let volume = |name: &str, place: &str| format!("{}:{place}", self.path(name).display());
        let mut run = self.command("buildah");
        run.args(["run", "--isolation", "chroot", "--cap-drop", "all"])
            .args(["--volume", &volume("data", "/data:rw"), "--volume", &volume("config", "/etc/pilothouse:ro")])
            .args([&self.container, "--", "/usr/local/bin/pilothouse"])
            .args(arguments);
        run.output().expect("buildah runs")
    }
}

fn words(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_image_is_a_static_binary_for_an_unprivileged_user() {
    let image = Image::build();
    let description = image.said(image.command("buildah").args(["inspect", &image.container]));
    let description: Value = serde_json::from_str(&description).expect("JSON");
    let config = &description["OCIv1"]["config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/usr/local/bin/pilothouse"]));
    assert_eq!(config["Labels"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));

    let version = image.run(&["version"]);
    assert!(version.status.success(), "{}", words(&version));
    let said = String::from_utf8_lossy(&version.stdout);
    assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");

    // Nobody answers on port 1: every part is tried, and each failure says what to do.
    let config = "[matrix]\nhomeserver = \"http://127.0.0.1:1\"\nuser = \"pilothouse\"\npassword = \"secret\"\n\
                  store = \"/data/crypto_store\"\n[policy]\nusers = [\"@alice:example.org\"]\n";
    fs::create_dir_all(image.path("config")).expect("a folder");
    fs::write(image.path("config/pilothouse.toml"), config).expect("a configuration");
    let check = image.run(&["check"]);
    assert_eq!(check.status.code(), Some(1), "{}", words(&check));
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains('✓') && said.contains('✗') && said.contains("127.0.0.1:1"), "{}", words(&check));
}
