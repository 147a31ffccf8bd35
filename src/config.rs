//! The process's configuration, read from the environment once. Nothing else in the workspace reads it; each crate is handed its
//! own small part.

use crate::duration;
use anyhow::{Context, anyhow, bail};
use krowoc_engine::executor::StepKinds;
use krowoc_steps::{Secret, StepsConfig};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Shorter ones can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// Everything the environment says.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which PostgreSQL.
    pub database: Database,
    /// Where notifications are listened for, if not there: the database's URL without a transaction pooler in front.
    pub listen_url: Option<String>,
    /// Where HTTP is served.
    pub bind: SocketAddr,
    /// The token of the API, where it is not the one that the database has the hash of.
    pub api_token: Option<Secret>,
    /// How long runs are kept after their end; none: for ever.
    pub keep_runs: Option<Duration>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Providers and what steps may reach.
    pub steps: StepsConfig,
}

/// Which PostgreSQL.
#[derive(Clone, Debug, PartialEq)]
pub enum Database {
    /// The user's own, by its URL.
    Given(String),
    /// A private one in this home.
    Private(PathBuf),
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// In the language of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// The lines' form.
    pub format: LogFormat,
    /// May a terminal be sent colours?
    pub colour: bool,
}

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Config {
    /// Reads the environment. A variable that is set and empty counts as absent.
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub fn from_env() -> anyhow::Result<Self> {
        Self::read(|name| match std::env::var(name) {
            Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => bail!("{name} is not UTF-8"),
        })
    }

    fn read(get: impl Fn(&str) -> anyhow::Result<Option<String>>) -> anyhow::Result<Self> {
        let database = match postgres_url(&get, "DATABASE_URL")? {
            Some(url) => Database::Given(url),
            None => Database::Private(home(&get)?),
        };
        let listen_url = postgres_url(&get, "KROWOC_LISTEN_URL")?;
        if listen_url.is_some() && matches!(database, Database::Private(_)) {
            bail!("KROWOC_LISTEN_URL is set without DATABASE_URL: the private PostgreSQL is not behind a pooler");
        }
        let bind = get("KROWOC_BIND")?.unwrap_or_else(|| "127.0.0.1:7070".into());
        let bind =
            bind.parse().with_context(|| format!("KROWOC_BIND is `{bind}`; expected an address with a port, such as 127.0.0.1:7070"))?;
        let api_token = match get("KROWOC_API_TOKEN")? {
            Some(token) if token.chars().count() < SHORTEST_TOKEN => {
                bail!("KROWOC_API_TOKEN is shorter than {SHORTEST_TOKEN} characters; `openssl rand -hex 32` makes a good one")
            }
            Some(token) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                bail!("KROWOC_API_TOKEN holds characters that an HTTP header can't; use printable ASCII without spaces")
            }
            token => token.map(Secret::new),
        };
        // Off unless asked for: nobody loses records to a default.
        let keep_runs = match get("KROWOC_KEEP_RUNS")? {
            None => None,
            Some(text) => match duration::parse(&text) {
                Ok(age) if !age.is_zero() => Some(age),
                Ok(_) => bail!("KROWOC_KEEP_RUNS is `{text}`, which would remove runs as they end; give a time such as 30d, or nothing"),
                Err(why) => bail!("KROWOC_KEEP_RUNS: {why}"),
            },
        };
        let format = match get("KROWOC_LOG_FORMAT")?.as_deref() {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => bail!("KROWOC_LOG_FORMAT is `{other}`; expected `text` or `json`"),
        };
        let filter = get("KROWOC_LOG")?.unwrap_or_else(|| "info,sqlx=warn,poem=warn,apalis_core=warn".into());
        let allow_private_addresses = match get("KROWOC_HTTP_ALLOW_PRIVATE")?.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => bail!("KROWOC_HTTP_ALLOW_PRIVATE is `{other}`; expected `true` or `false`"),
        };
        let openai_base_url =
            get("OPENAI_BASE_URL")?.map(|url| url.parse().map_err(|why| anyhow!("OPENAI_BASE_URL: {why}"))).transpose()?;
        let steps = StepsConfig {
            openai_api_key: get("OPENAI_API_KEY")?.map(Secret::new),
            openai_base_url,
            allow_private_addresses,
            ..StepsConfig::default()
        };
        Ok(Self {
            database,
            listen_url,
            bind,
            api_token,
            keep_runs,
            log: LogConfig { filter, format, colour: get("NO_COLOR")?.is_none() },
            steps,
        })
    }

    /// The step kinds that this process knows.
    pub fn step_kinds(&self) -> StepKinds {
        krowoc_steps::kinds(self.steps.clone())
    }
}

fn postgres_url(get: &impl Fn(&str) -> anyhow::Result<Option<String>>, name: &str) -> anyhow::Result<Option<String>> {
    match get(name)? {
        Some(url) if !url.starts_with("postgres://") && !url.starts_with("postgresql://") => {
            // Its text may hold a password and stays out of the message.
            bail!("{name} does not begin with postgres://\nExpected postgres://user:password@host:5432/database")
        }
        url => Ok(url),
    }
}

/// Where the private PostgreSQL lives: `KROWOC_HOME`, else the place the system sets aside for a user's data.
fn home(get: &impl Fn(&str) -> anyhow::Result<Option<String>>) -> anyhow::Result<PathBuf> {
    if let Some(home) = get("KROWOC_HOME")? {
        return Ok(home.into());
    }
    if let Some(data) = get("XDG_DATA_HOME")?.map(PathBuf::from).filter(|path| path.is_absolute()) {
        return Ok(data.join("krowoc"));
    }
    let user =
        get("HOME")?.context("neither KROWOC_HOME nor HOME is set; set KROWOC_HOME to a folder for Krowoc's data, or DATABASE_URL")?;
    let below = if cfg!(target_os = "macos") { "Library/Application Support/krowoc" } else { ".local/share/krowoc" };
    Ok(PathBuf::from(user).join(below))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(variables: &[(&str, &str)]) -> anyhow::Result<Config> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Config::read(|name| Ok(variables.get(name).map(|value| (*value).to_owned())))
    }

    fn refused(variables: &[(&str, &str)]) -> String {
        format!("{:#}", read(variables).expect_err("refused"))
    }

    #[test]
    fn without_settings_everything_has_a_default() {
        let config = read(&[("HOME", "/home/ada")]).expect("read");
        let Database::Private(home) = config.database else { panic!("a private database") };
        assert!(home.starts_with("/home/ada") && home.ends_with("krowoc"), "{}", home.display());
        assert_eq!(config.bind.to_string(), "127.0.0.1:7070");
        assert_eq!(config.keep_runs, None, "records are removed unasked");
        assert_eq!(
            config.log,
            LogConfig { filter: "info,sqlx=warn,poem=warn,apalis_core=warn".into(), format: LogFormat::Text, colour: true }
        );
    }

    #[test]
    fn the_home_is_the_first_that_is_named() {
        let home = |variables: &[(&str, &str)]| read(variables).expect("read").database;
        let all = [("KROWOC_HOME", "/srv/k"), ("XDG_DATA_HOME", "/xdg"), ("HOME", "/home/ada")];
        assert_eq!(home(&all), Database::Private("/srv/k".into()));
        assert_eq!(home(&all[1..]), Database::Private("/xdg/krowoc".into()));
        assert_eq!(home(&[("DATABASE_URL", "postgres://h/d")]), Database::Given("postgres://h/d".into()));
    }

    #[test]
    fn a_key_reaches_the_steps_and_no_log() {
        let config =
            read(&[("HOME", "/h"), ("OPENAI_API_KEY", "sk-0123456789"), ("OPENAI_BASE_URL", "http://localhost:11434/v1")]).expect("read");
        assert_eq!(config.steps.openai_api_key.as_ref().map(Secret::expose), Some("sk-0123456789"));
        assert!(!format!("{config:?}").contains("sk-0123456789"));
    }

    #[test]
    fn a_wrong_value_names_its_variable_and_shows_no_password() {
        assert!(refused(&[("HOME", "/h"), ("KROWOC_BIND", "8080")]).contains("KROWOC_BIND"));
        assert!(refused(&[("HOME", "/h"), ("KROWOC_HTTP_ALLOW_PRIVATE", "yes")]).contains("KROWOC_HTTP_ALLOW_PRIVATE"));
        assert!(refused(&[("HOME", "/h"), ("KROWOC_KEEP_RUNS", "30 days")]).contains("KROWOC_KEEP_RUNS"));
        assert!(refused(&[("HOME", "/h"), ("KROWOC_KEEP_RUNS", "30")]).contains("KROWOC_KEEP_RUNS: `30` has no unit"));
        assert!(refused(&[("HOME", "/h"), ("KROWOC_KEEP_RUNS", "0s")]).contains("KROWOC_KEEP_RUNS"));
        let message = refused(&[("HOME", "/h"), ("KROWOC_API_TOKEN", "hunter2")]);
        assert!(message.contains("KROWOC_API_TOKEN") && message.contains("16") && !message.contains("hunter2"), "{message}");
        assert!(refused(&[("HOME", "/h"), ("KROWOC_API_TOKEN", "two words are no token")]).contains("printable ASCII"));
        assert!(refused(&[("HOME", "/h"), ("KROWOC_LOG_FORMAT", "xml")]).contains("`text` or `json`"));
        let message = refused(&[("HOME", "/h"), ("OPENAI_BASE_URL", "localhost:11434/v1")]);
        assert!(message.contains("OPENAI_BASE_URL: `localhost:11434/v1`") && message.contains("http://localhost:11434/v1"), "{message}");
        assert!(refused(&[]).contains("KROWOC_HOME"));
        let message = refused(&[("DATABASE_URL", "mysql://root:hunter2@h/d")]);
        assert!(message.contains("DATABASE_URL") && !message.contains("hunter2"), "{message}");
        let message = refused(&[("DATABASE_URL", "postgres://h/d"), ("KROWOC_LISTEN_URL", "root:hunter2@h")]);
        assert!(message.contains("KROWOC_LISTEN_URL") && !message.contains("hunter2"), "{message}");
        assert!(refused(&[("HOME", "/h"), ("KROWOC_LISTEN_URL", "postgres://h/d")]).contains("without DATABASE_URL"));
    }
}
