//! Throw-away servers for tests.
//!
//! nextest runs every test in a process of its own, so a server that ended with its last user would be started hundreds of times.
//! Here it lingers: a small shell script of its own session stops it when nobody has used it for half a minute. Where the script's
//! `flock` and `setsid` are missing, the server is left to the next run, which takes it over.

use crate::{
    config::{Durability, LocalConfig, Purpose},
    error::{Error, Result},
    local::Local,
    lock::Lock,
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock},
};

/// Seconds without a user after which the server is stopped.
const LINGER_SECONDS: u32 = 30;

/// The URL of database `krowoc` on the server that all tests of this build share: with `fsync` off, wiped when it starts anew.
/// `KROWOC_TEST_DATABASE_URL` names another server to use instead.
pub fn cluster() -> Result<String> {
    static URL: OnceLock<Mutex<Option<String>>> = OnceLock::new();
    shared(&URL, "krowoc-test-pg", Durability::Fast)
}

/// The same with `fsync` on, for tests of faults and for measurements.
pub fn cluster_durable() -> Result<String> {
    static URL: OnceLock<Mutex<Option<String>>> = OnceLock::new();
    shared(&URL, "krowoc-test-pg-durable", Durability::Durable)
}

fn shared(url: &OnceLock<Mutex<Option<String>>>, name: &str, durability: Durability) -> Result<String> {
    if let Some(given) = given() {
        return Ok(given);
    }
    let mut url = url.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(url) = url.as_ref() {
        return Ok(url.clone());
    }
    let home = target_folder().join(name);
    let local = Local::join_blocking(&config(&home, durability))?;
    watch(&home, &local, LINGER_SECONDS)?;
    let joined = local.url(crate::DATABASE);
    // Held until this process ends: the system then lets go of the lock, and the watchdog does the rest.
    std::mem::forget(local);
    *url = Some(joined.clone());
    Ok(joined)
}

/// What the shared server of a home is started with.
pub fn config(home: &Path, durability: Durability) -> LocalConfig {
    LocalConfig {
        purpose: Purpose::Throwaway,
        durability,
        max_connections: 300,
        // A database per test comes and goes; their statistics need no hurry.
        settings: vec![("autovacuum_naptime".into(), "60s".into())],
        ..LocalConfig::new(home)
    }
}

#[expect(clippy::disallowed_methods, reason = "tests have no configuration of their own; this is the one place that asks")]
fn given() -> Option<String> {
    std::env::var("KROWOC_TEST_DATABASE_URL").ok().filter(|url| !url.is_empty())
}

/// The build's target folder, which cargo marks, one way when it made the folder and another when it uses it; the system's folder for temporary files where there is none.
fn target_folder() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let marked = exe.ancestors().find(|folder| ["CACHEDIR.TAG", ".rustc_info.json"].iter().any(|mark| folder.join(mark).is_file()));
    marked.map_or_else(std::env::temp_dir, Path::to_owned)
}

/// Starts the watchdog unless one is there.
fn watch(home: &Path, local: &Local, linger_seconds: u32) -> Result<()> {
    let watchdog = Lock::open(&home.join("watchdog.lock"))?;
    if !watchdog.try_exclusive()? {
        return Ok(());
    }
    watchdog.release()?;
    let mut command = Command::new("setsid");
    command
        .args(["flock", "--nonblock", "watchdog.lock", "sh", "-c", WATCHDOG, "krowoc-watchdog"])
        .arg(local.pid().to_string())
        .arg(local.data())
        .arg(linger_seconds.to_string())
        .current_dir(home)
        // A test runner waits until everybody has closed its pipes.
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match command.spawn() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::failed("starting the watchdog of the test server", error.to_string())),
    }
}

/// `users.lock` is free and its text is the same for long enough: nobody came meanwhile. Then the server is stopped under the
/// exclusive lock, as by a last user. It asks for the lock only that seldom, as asking makes a joining process wait an instant.
const WATCHDOG: &str = r#"
pid=$1 data=$2 linger=$3 idle=0 seen= pause=$(($3 / 6 + 1))
serving() { [ "$(head -n 1 "$data/postmaster.pid" 2>/dev/null)" = "$pid" ] && kill -0 "$pid" 2>/dev/null; }
while serving; do
    sleep $pause
    now=$(cat users.lock; ls -l --time-style=full-iso users.lock)
    if [ "$now" = "$seen" ] && flock --nonblock users.lock true; then idle=$((idle + pause)); else idle=0; fi
    seen=$now
    if [ "$idle" -ge "$linger" ]; then
        exec 9<>users.lock
        if flock --nonblock 9; then
            serving && kill -INT "$pid"
            while serving; do sleep 0.1; done
            exit 0
        fi
        exec 9>&-
        idle=0
    fi
done
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{postmaster, probe};
    use std::{os::unix::fs::PermissionsExt, time::Instant};

    #[test]
    fn all_who_ask_get_the_same_fast_server() {
        let url = cluster().expect("a server");
        assert_eq!(cluster().expect("a server"), url);
        if given().is_none() {
            let home = target_folder().join("krowoc-test-pg");
            let settings = std::fs::read_to_string(home.join("postgres/data/krowoc.conf")).expect("written");
            assert!(settings.contains("fsync = 'off'") && settings.contains("max_connections = '300'"), "{settings}");
        }
    }

    #[test]
    fn a_lingering_server_stops_by_itself_but_not_under_a_user() {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
        let config = config(home.path(), Durability::Fast);
        let first = Local::join_blocking(&config).expect("joined");
        let second = Local::join_blocking(&config).expect("joined");
        watch(home.path(), &first, 1).expect("watched");
        let (data, socket) = (first.data(), crate::place::socket(first.socket_folder()));
        let watched = Instant::now();
        while watched.elapsed() < std::time::Duration::from_secs(4) {
            assert_eq!(probe::ask(&socket), probe::Answer::Ready, "stopped under a user");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        // As when a test process ends: the locks go, nobody stops the server.
        first.abandon();
        second.abandon();
        let until = Instant::now() + std::time::Duration::from_secs(30);
        while matches!(postmaster::find(&data), Ok(postmaster::Found::Running(_))) {
            assert!(Instant::now() < until, "still running");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}
