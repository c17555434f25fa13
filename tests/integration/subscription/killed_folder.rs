//! The daemon itself, killed around the renewal of a login in a folder, as the CLI keeps it.
//!
//! A write to a folder stops nowhere by itself. So the document becomes a pipe while the provider thinks: the daemon looks at
//! it once more before it writes, and waits there.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use pilothouse::store::Store;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, unix::pipe};

use super::killed::{LONG, kubeconfig, until_asked_with};
use super::{DOCUMENT, document, read, tokens};
use crate::support::leash::Folder;
use crate::support::process::Pilothouse;
use crate::support::provider::{Provider, Reply};

/// Where the daemon dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// It has the locks, and its request has not arrived.
    BeforeAsking,
    /// What followed is in the store, and not in the folder.
    BeforeWriting,
    /// What followed is in the folder, and still in the store.
    AfterWriting,
}

/// A folder with a login, and the daemon that renews it. Homeserver and API server are nowhere: they are none of its concern.
struct Home {
    provider: Provider,
    folder: Folder,
    pilothouse: Pilothouse,
    _kubeconfig: Folder,
}

impl Home {
    async fn new() -> Self {
        let (provider, folder) = (Provider::start().await, Folder::new("pilothouse-login-"));
        fs::create_dir(folder.join("config")).unwrap();
        let kubeconfig = kubeconfig("http://127.0.0.1:1");
        let pilothouse = Pilothouse::new().configuration("").kubeconfig(&kubeconfig.join("config"));
        let home = Self { provider, folder, pilothouse, _kubeconfig: kubeconfig };
        home.put("access-0", "refresh-0", 240);
        home.configure(home.provider.token_url().as_str());
        home
    }

    fn configure(&self, token_url: &str) {
        let config = self.folder.join("config").display().to_string();
        let toml = format!(
            "[matrix]\nhomeserver = \"http://127.0.0.1:1\"\nuser = \"@bot:here\"\npassword = \"x\"\n[policy]\nusers = [\"@you:here\"]\n\
             [usage]\ninterval = \"2s\"\n[[usage.accounts]]\nname = \"work\"\ndirectory = {config:?}\n\
             usage_url = {:?}\ntoken_url = {token_url:?}\n",
            self.provider.usage_url().as_str(),
        );
        self.pilothouse.write_configuration(&toml);
    }

    fn document(&self) -> PathBuf {
        self.folder.join("config").join(DOCUMENT)
    }

    /// Puts a login there, whole, without a lock, as not everybody takes one.
    fn put(&self, access: &str, refresh: &str, expires: i64) {
        let new = self.folder.join("new");
        fs::write(&new, document(access, refresh, expires).to_string()).unwrap();
        fs::rename(new, self.document()).unwrap();
    }

    fn stored(&self) -> Value {
        read(&self.document())
    }

    fn locks(&self) -> [PathBuf; 2] {
        [self.folder.join("config").join(".oauth_refresh.lock"), self.folder.join("config.lock")]
    }

    fn database(&self) -> PathBuf {
        self.pilothouse.database()
    }

    /// What is kept of a renewal, if anything.
    async fn kept(&self) -> Option<String> {
        let store = Store::open_beside(&self.database()).unwrap();
        store.successor("work").await.unwrap().map(|kept| kept.successor)
    }

    /// Lets the daemon run to a step of the renewal, and kills it there.
    async fn kill(&self, death: Death) {
        if death == Death::BeforeAsking {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            self.configure(&format!("http://{}/", listener.local_addr().unwrap()));
            let mut running = self.pilothouse.start();
            let connected = tokio::time::timeout(LONG, listener.accept()).await.expect("it asks").unwrap();
            assert!(self.locks().iter().all(|lock| lock.is_dir()), "it has the locks");
            running.kill().await;
            drop(connected);
            self.configure(self.provider.token_url().as_str());
            return;
        }
        self.provider.on_token(Reply::Held);
        let mut running = self.pilothouse.start();
        self.provider.until_token_asked(1).await;
        let aside = self.folder.join("aside");
        fs::rename(self.document(), &aside).unwrap();
        assert!(Command::new("mkfifo").arg(self.document()).status().expect("mkfifo, of coreutils").success());
        self.provider.let_go();
        let mut pipe = self.reader().await;
        assert!(self.kept().await.expect("kept first of all").contains("refresh-1"));
        if death == Death::BeforeWriting {
            running.kill().await;
            fs::rename(&aside, self.document()).unwrap();
        } else {
            // From here on the store takes nothing more, so what is kept there stays.
            let store = rusqlite::Connection::open(self.database()).unwrap();
            store.busy_timeout(LONG).unwrap();
            store.execute_batch("BEGIN IMMEDIATE").unwrap();
            pipe.write_all(&fs::read(&aside).unwrap()).await.unwrap();
            drop(pipe);
            let is_written = async || {
                let is_file = fs::symlink_metadata(self.document()).is_ok_and(|found| found.is_file());
                is_file && tokens(&self.stored()).1 == "refresh-1"
            };
            until("the tokens are written", is_written).await;
            running.kill().await;
        }
        assert!(self.kept().await.is_some());
    }

    /// Waits until the daemon reads the pipe in the place of the document.
    async fn reader(&self) -> pipe::Sender {
        let opened = async {
            loop {
                match pipe::OpenOptions::new().open_sender(self.document()) {
                    Ok(sender) => return sender,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(LONG, opened).await.expect("it looks once more before it writes")
    }
}

async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let wait = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("in time: {what}"));
}

/// Kills the daemon, puts a newer login there perhaps, and starts it again.
async fn lives_through(death: Death, is_newer: bool) {
    let case = format!("{death:?}, newer login: {is_newer}");
    let home = Home::new().await;
    home.kill(death).await;
    let asked = home.provider.token_asked().len();
    let (access, refresh) = if is_newer {
        let (access, refresh) = home.provider.log_in();
        home.put(&access, &refresh, 28_800);
        (access, refresh)
    } else {
        ("access-1".to_owned(), "refresh-1".to_owned())
    };
    let _running = home.pilothouse.start();
    until_asked_with(&home.provider, &access).await;
    until(&case, async || tokens(&home.stored()) == (access.as_str(), refresh.as_str())).await;
    if is_newer {
        assert_eq!(home.provider.token_asked().len(), asked, "{case}: it is used as it is");
        // It is renewed in its turn, past what the dead one has left.
        home.provider.expire();
        until(&case, async || tokens(&home.stored()).1 != refresh).await;
        assert_eq!(home.provider.token_asked().len(), asked + 1, "{case}");
    } else {
        assert_eq!(home.provider.token_asked().len(), 1, "{case}: the refresh token is used once");
    }
    until(&case, async || !home.locks().iter().any(|lock| lock.exists()) && home.kept().await.is_none()).await;
    let stored = home.stored();
    let (access, refresh) = tokens(&stored);
    assert!(home.provider.takes(access, refresh), "{case}: {access}, {refresh}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_killed_daemon_loses_no_tokens_in_a_folder_overwrites_no_newer_login_and_leaves_no_lock() {
    // All at once: each waits a minute until the locks of the dead count for nothing.
    let deaths = [Death::BeforeAsking, Death::BeforeWriting, Death::AfterWriting];
    join_all(deaths.iter().flat_map(|death| [false, true].map(|is_newer| lives_through(*death, is_newer)))).await;
}
