//! The container image: the last stage of the Dockerfile, built by `k8s/image.sh` from a static binary as it is built
//! where no Docker engine runs, holds a daemon that works without privileges and without a writable root.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::house::SOON;
use crate::support::leash::Leashed;
use crate::support::manifests::{Manifests, with_namespaces};
use crate::support::person::Person;
use crate::support::synapse::synapse;
use crate::support::{environment, free_port, unique};

/// Where a pod finds its ServiceAccount.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The image and a container of it, in a storage that goes away with the test.
struct Image {
    folder: TempDir,
    container: String,
}

impl Image {
    /// Builds the image; with the dev profile unless the environment says otherwise: this is about what is around the
    /// binary.
    fn build() -> Self {
        let folder = tempfile::Builder::new().prefix("pilothouse-image-").tempdir().expect("a folder");
        // Neither an overlay nor a user namespace is needed, and nothing of the machine's own storage is touched.
        let root = folder.path().display();
        let storage = format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{root}/images\"\nrunroot = \"{root}/run\"\n");
        fs::write(folder.path().join("storage.conf"), storage).expect("storage.conf");

        let mut script = command(&folder, Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s/image.sh"));
        script.env("PILOTHOUSE_IMAGE_ENGINE", "buildah").env("IMAGE", "pilothouse").env_remove("PUSH");
        if environment("PILOTHOUSE_IMAGE_PROFILE").is_none() {
            script.env("PILOTHOUSE_IMAGE_PROFILE", "dev");
        }
        let said = said(&mut script);
        let name = said.lines().last().expect("the script names the image");
        let container = self::said(command(&folder, "buildah").args(["from", name])).trim().to_owned();
        Self { folder, container }
    }

    /// What the image says of itself.
    fn configuration(&self) -> Value {
        let description = said(command(&self.folder, "buildah").args(["inspect", &self.container]));
        let mut description: Value = serde_json::from_str(&description).expect("JSON");
        description["OCIv1"]["config"].take()
    }

    /// A folder with files, to be mounted at `place`.
    fn volume(&self, place: &str, files: &[(&str, &str)]) -> Volume {
        let folder = self.folder.path().join(place.trim_start_matches('/').replace('/', "-"));
        fs::create_dir_all(&folder).expect("a folder");
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("a file");
        }
        Volume { folder, place: place.to_owned() }
    }

    /// Runs the daemon's binary to its end as the user that the image names, without any capability.
    fn run(&self, volumes: &[&Volume], environment: &[String], arguments: &[&str]) -> Output {
        self.command(volumes, environment, arguments).output().expect("buildah runs")
    }

    /// Starts the daemon in the same way.
    fn start(&self, volumes: &[&Volume], environment: &[String]) -> Contained {
        let mark = unique("PILOTHOUSE_TEST");
        let environment: Vec<String> = environment.iter().cloned().chain([format!("MARK={mark}")]).collect();
        let buildah = Leashed::start("buildah", &self.command(volumes, &environment, &[]));
        Contained { buildah, mark }
    }

    fn command(&self, volumes: &[&Volume], environment: &[String], arguments: &[&str]) -> Command {
        let mut run = command(&self.folder, "buildah");
        run.args(["run", "--isolation", "chroot", "--cap-drop", "all"]);
        for Volume { folder, place } in volumes {
            run.arg("--volume").arg(format!("{}:{place}", folder.display()));
        }
        for variable in environment {
            run.args(["--env", variable]);
        }
        run.args([&self.container, "--", "/usr/local/bin/pilothouse"]).args(arguments);
        run
    }
}

/// A daemon that runs in the image.
struct Contained {
    buildah: Leashed,
    /// Stands in its environment and in nobody else's.
    mark: String,
}

impl Contained {
    /// The folder of the daemon's own process in `/proc`.
    fn process(&self) -> Option<PathBuf> {
        let is_it = |process: &Path| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            // Those around it have the mark on their command line or hand it on; it alone runs the binary.
            fs::read(process.join("cmdline")).is_ok_and(|line| line.starts_with(b"/usr/local/bin/pilothouse"))
                && String::from_utf8_lossy(&environment).contains(&self.mark)
        };
        let processes = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
        processes.into_iter().find(|process| is_it(process))
    }

    /// A line of its `/proc/…/status`.
    fn status(&self, name: &str) -> String {
        let status = fs::read_to_string(self.process().expect("it runs").join("status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.expect("the kernel says so").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Asks it to end, and waits until it has.
    async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.buildah.end(SOON).await.unwrap_or_else(|error| panic!("{error}"))
    }

    fn signal(&self, name: &str) {
        if let Some(process) = self.process() {
            let pid = process.file_name().expect("a process id");
            let _ = Command::new("kill").arg("-s").arg(name).arg(pid).status();
        }
    }
}

impl Drop for Contained {
    /// What buildah has started does not end with it.
    fn drop(&mut self) {
        self.signal("KILL");
        if std::thread::panicking() {
            eprintln!("the daemon in the image{}", self.buildah.tail(60));
        }
    }
}

struct Volume {
    folder: PathBuf,
    place: String,
}

fn command(folder: &TempDir, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("CONTAINERS_STORAGE_CONF", folder.path().join("storage.conf")).env_remove("STORAGE_DRIVER");
    command
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", words(&output));
    String::from_utf8(output.stdout).expect("text")
}

fn words(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}{err}", output.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_works_as_a_pod_would() {
    let image = tokio::task::spawn_blocking(Image::build).await.expect("the image is built");

    let says = image.configuration();
    assert_eq!(says["User"], "65532:65532");
    assert_eq!(says["Entrypoint"], json!(["/usr/local/bin/pilothouse"]));
    assert_eq!(says["Labels"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));

    let version = image.run(&[], &[], &["version"]);
    assert!(version.status.success(), "{}", words(&version));
    assert_eq!(String::from_utf8_lossy(&version.stdout).trim(), concat!("pilothouse ", env!("CARGO_PKG_VERSION")));

    with_namespaces(async |own, targets| {
        let homeserver = synapse().await;
        let (bot, account) = (homeserver.register("pilothouse").await, homeserver.register("alice").await);
        let person = Person::with_identity(&homeserver, &account).await;
        let manifests = Manifests::render("base").moved(&own.name, &targets.name);
        own.apply(&manifests.yaml()).await;
        targets.deployment("web", "fine", 0).await;
        let token = own.service_account_token("pilothouse").await;
        let ca = fs::read_to_string(own.cluster.ca()).expect("the API server's bundle");

        // The shipped configuration, with the names of this place.
        let shipped = manifests.only("ConfigMap")["data"]["pilothouse.toml"].as_str().expect("a file");
        let mut config: toml::Table = toml::from_str(shipped).expect("TOML");
        config["matrix"]["homeserver"] = homeserver.url().into();
        config["matrix"]["user"] = bot.user_id.clone().into();
        config["policy"]["users"] = vec![person.user_id.clone()].into();
        let configured = config["targets"].as_array_mut().expect("targets");
        configured.truncate(1);
        configured[0]["namespace"] = targets.name.clone().into();

        let data = image.volume("/data", &[]);
        fs::set_permissions(&data.folder, fs::Permissions::from_mode(0o777)).expect("a volume that 65532 may write");
        let secrets = image.volume("/run/secrets/pilothouse", &[("password", &bot.password)]);
        let account = image.volume(ACCOUNT, &[("token", &token), ("ca.crt", &ca), ("namespace", own.name.as_str())]);
        let url = url::Url::parse(own.cluster.url()).expect("a URL");
        let port = free_port();
        let environment = [
            format!("PILOTHOUSE__ADMIN__LISTEN=127.0.0.1:{port}"),
            format!("KUBERNETES_SERVICE_HOST={}", url.host_str().expect("a host")),
            format!("KUBERNETES_SERVICE_PORT={}", url.port().expect("a port")),
        ];
        let check = |config: &toml::Table| {
            let config = image.volume("/etc/pilothouse", &[("pilothouse.toml", &config.to_string())]);
            image.run(&[&data, &config, &secrets, &account], &environment, &["check"])
        };

        let good = check(&config);
        assert_eq!(good.status.code(), Some(0), "{}", words(&good));
        for seen in [homeserver.url(), &person.user_id, "/data/crypto_store is empty"] {
            assert!(words(&good).contains(seen), "{seen} is not in {}", words(&good));
        }

        // Outside its volumes it can write nothing: the root belongs to somebody else.
        let mut elsewhere = config.clone();
        elsewhere["matrix"]["store"] = "/elsewhere/crypto_store".into();
        let file = image.volume("/etc/pilothouse", &[("pilothouse.toml", &elsewhere.to_string())]);
        let volumes = [&data, &file, &secrets, &account];
        for arguments in [&[][..], &["check"]] {
            let readonly = image.run(&volumes, &environment, arguments);
            assert_eq!(readonly.status.code(), Some(1), "{}", words(&readonly));
            assert!(words(&readonly).contains("mount a writable volume there"), "{}", words(&readonly));
        }

        // The daemon itself, from its first login to a workload that runs.
        let _kubelet = targets.kubelet();
        let file = image.volume("/etc/pilothouse", &[("pilothouse.toml", &config.to_string())]);
        let mut daemon = image.start(&[&data, &file, &secrets, &account], &environment);
        let room = person.create_room(&[&bot.user_id]).await;
        person.member(&room, &bot.user_id, "join", SOON).await;
        let sent = person.send(&room, "start").await;
        let answer = person.expect_reply(&sent, SOON).await;
        person.expect_text(&answer, "ready: 1/1", SOON).await;
        assert_eq!(targets.generation("web").await, 2);
        for (name, value) in [("Uid", "65532 65532 65532 65532"), ("Gid", "65532 65532 65532 65532")] {
            assert_eq!(daemon.status(name), value, "{name}");
        }
        for capabilities in ["CapEff", "CapPrm"] {
            assert_eq!(daemon.status(capabilities), "0000000000000000", "{capabilities}");
        }
        let ready = reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await.expect("its probes answer");
        assert_eq!(ready.status(), 200);
        let status = daemon.stop().await;
        assert!(status.success(), "{status}");

        config["matrix"]["homeserver"] = "http://127.0.0.1:1".into();
        let bad = check(&config);
        assert_eq!(bad.status.code(), Some(1), "{}", words(&bad));
        assert!(words(&bad).contains("✗ homeserver"), "{}", words(&bad));
    })
    .await;
}
