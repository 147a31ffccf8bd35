//! Where the tests of the command line stand: a database and a folder of their own, and what a command said there.

use krowoc_engine::testing::TestDatabase;
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

/// A database and a folder of a test's own.
pub struct Place {
    pub database: TestDatabase,
    pub url: String,
    pub folder: tempfile::TempDir,
}

impl Place {
    pub async fn new() -> Self {
        let cluster = krowoc_postgres::testing::cluster().expect("a server");
        let database = TestDatabase::create(&cluster).await.expect("a database");
        let url = url(&cluster, database.options().get_database().expect("its name"));
        Self { database, url, folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn file(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("written");
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        command(self.folder.path(), &self.url, arguments)
    }

    pub fn krowoc(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().expect("krowoc runs"))
    }

    /// Waits until what a command prints as JSON is as wanted.
    pub fn until(&self, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let said = self.krowoc(arguments).json();
            if wanted(&said) {
                return said;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{arguments:?} still says {said:#}");
        }
    }

    /// Every test ends with a database in which all rules hold.
    pub async fn done(self) {
        assert_eq!(self.database.violations().await.expect("checked"), Vec::<String>::new());
        self.database.drop_database().await.expect("dropped");
    }
}

/// The same server, another database.
fn url(cluster: &str, database: &str) -> String {
    let (address, query) = cluster.split_once('?').map_or((cluster, String::new()), |(address, query)| (address, format!("?{query}")));
    let (server, _) = address.rsplit_once('/').expect("a URL");
    format!("{server}/{database}{query}")
}

pub fn command(folder: &Path, url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_krowoc"));
    command.args(arguments).current_dir(folder).env_clear().env("HOME", folder).env("DATABASE_URL", url).env("KROWOC_LOG", "warn");
    command
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    #[track_caller]
    pub fn expect(&self, code: i32, parts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for part in parts {
            assert!(self.err.contains(part) || self.out.contains(part), "`{part}` is missing in {self:#?}");
        }
        self
    }
}

pub const HELLO: &str = "\
krowoc: v1
name: hello
input: {type: object, required: [name], properties: {name: {type: string}, more: {type: object}}}
steps:
  greet: {transform: {text: 'Hello, ${{ input.name }}'}}
  each:
    map:
      over: ${{ range(3) }}
      as: n
      steps:
        double: {transform: '${{ n * 2 }}'}
      collect: ${{ steps.double.output }}
output: {greeting: '${{ steps.greet.output.text }}', numbers: '${{ steps.each.output }}'}
";

/// A call whose first attempts fail, with two attempts for each go.
pub fn flaky(fail_first: u16) -> String {
    format!(
        "krowoc: v1
name: flaky
steps:
  before: {{transform: {{x: 1}}}}
  call:
    needs: [before]
    llm: {{model: 'sim/instant?fail_first={fail_first}&error=overloaded', messages: [{{role: user, content: Say something about the sea.}}]}}
    retry: {{attempts: 2, backoff: {{kind: constant, initial: 10ms, max: 10ms, jitter: none}}}}
output: ${{{{ steps.call.output }}}}
"
    )
}

pub const WAITING: &str = "krowoc: v1\nname: waiting\nsteps:\n  pause: {wait: {for: 1h}}\n";
