//! One user's hold on the shared server: joining, the URL, leaving.

use crate::{
    cluster,
    config::LocalConfig,
    error::{Error, Result},
    lock::{Lock, TRY_AGAIN},
    place::{self, Place, socket},
    postmaster::{self, Found, Postmaster, Stop},
    probe::{self, Answer},
};
use std::{
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

/// How long a server whose state looks ready may stay silent before it is called unreachable; its socket's file is there a moment
/// after its pid file says so.
const PATIENCE: Duration = Duration::from_secs(3);
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// A hold on the server: while one exists, the server runs. Dropping it leaves; [`Local::leave`] does the same and says how it
/// went. Both wait for the server to stop if this was the last hold.
#[derive(Debug)]
pub struct Local {
    place: Place,
    users: Lock,
    socket_folder: PathBuf,
    pid: i32,
    held: bool,
}

/// How leaving went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Others still use the server.
    Running,
    /// This was the last hold; the server has stopped.
    Stopped,
}

impl Local {
    /// Joins the home's server, starting it if nobody has. Waits while another process starts or stops it.
    pub async fn join(config: LocalConfig) -> Result<Self> {
        tokio::task::spawn_blocking(move || Self::join_blocking(&config))
            .await
            .unwrap_or_else(|error| Err(Error::failed("joining PostgreSQL", error.to_string())))
    }

    /// [`Local::join`] for callers without a runtime.
    pub fn join_blocking(config: &LocalConfig) -> Result<Self> {
        let until = Instant::now() + config.timeout;
        let home = place::home(config)?;
        let mut start = Lock::open(&home.join("start.lock"))?;
        start.exclusive(until)?;
        let place = Place::settle(config, home)?;
        let mut users = Lock::open(&place.home.join("users.lock"))?;
        // Only one process is here at a time, and those who leave try only once: so nobody can come between.
        let alone = enter(&users, until)?;
        match settle_in(config, &place, &mut users, alone, until) {
            Ok((pid, socket_folder)) => {
                start.release()?;
                Ok(Self { place, users, socket_folder, pid, held: true })
            }
            Err(error) => {
                // Whoever left meanwhile may have left the server to us.
                if let Err(second) = leave(&users, &place) {
                    tracing::warn!("after a failed join: {second}");
                }
                Err(error)
            }
        }
    }

    /// The URL of a database of this server, for sqlx and for `psql`.
    pub fn url(&self, database: &str) -> String {
        url(&self.socket_folder, database)
    }

    /// The folder with the server's socket.
    pub fn socket_folder(&self) -> &Path {
        &self.socket_folder
    }

    /// The server's data.
    pub fn data(&self) -> PathBuf {
        self.place.data()
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.place.log()
    }

    /// The server's process when this hold was made.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Is a server running on the data, as far as its files and processes tell? A cheap look, for whoever keeps it running.
    pub fn is_running(&self) -> bool {
        matches!(postmaster::find(&self.place.data()), Ok(Found::Running(_) | Found::Unfinished))
    }

    /// Leaves; the last one out stops the server.
    pub async fn leave(self) -> Result<Left> {
        tokio::task::spawn_blocking(move || self.leave_blocking())
            .await
            .unwrap_or_else(|error| Err(Error::failed("leaving PostgreSQL", error.to_string())))
    }

    /// [`Local::leave`] for callers without a runtime.
    pub fn leave_blocking(mut self) -> Result<Left> {
        self.held = false;
        leave(&self.users, &self.place)
    }

    /// Goes as a killed process does: the lock is free, the server is left alone.
    #[cfg(test)]
    pub(crate) fn abandon(mut self) {
        self.held = false;
    }

    /// Restarts the server as a crash would: no session is ended in order, and it recovers. For tests of faults.
    pub fn crash_and_restart(&mut self, config: &LocalConfig) -> Result<()> {
        let until = Instant::now() + config.timeout;
        let mut start = Lock::open(&self.place.home.join("start.lock"))?;
        start.exclusive(until)?;
        let data = self.place.data();
        if let Found::Running(server) = postmaster::find(&data)? {
            postmaster::stop(server.pid, &data, Stop::Immediate, until)?;
        }
        (self.pid, self.socket_folder) = ensure_running(config, &self.place, true, until)?;
        start.release()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.held
            && let Err(error) = leave(&self.users, &self.place)
        {
            tracing::warn!("leaving PostgreSQL: {error}");
        }
    }
}

pub(crate) fn url(socket_folder: &Path, database: &str) -> String {
    let encode = |bytes: &[u8]| -> String {
        bytes
            .iter()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(*byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect()
    };
    // Port and TLS are said so that PGPORT and PGSSLMODE in the environment do not decide.
    format!(
        "postgres://{user}@localhost:5432/{}?host={}&sslmode=disable",
        encode(database.as_bytes()),
        encode(socket_folder.as_os_str().as_encoded_bytes()),
        user = crate::DATABASE,
    )
}

/// Takes the users' lock, exclusively when there is no other user: then true. Waits for one who is stopping the server.
fn enter(users: &Lock, until: Instant) -> Result<bool> {
    loop {
        if users.try_exclusive()? {
            return Ok(true);
        }
        if users.try_shared()? {
            return Ok(false);
        }
        if Instant::now() >= until {
            return Err(Error::failed("joining PostgreSQL", "another process has been stopping the server all the time"));
        }
        sleep(TRY_AGAIN);
    }
}

/// The running server, under the shared lock.
fn settle_in(config: &LocalConfig, place: &Place, users: &mut Lock, alone: bool, until: Instant) -> Result<(i32, PathBuf)> {
    let server = ensure_running(config, place, alone, until)?;
    let unbroken = share(users, until)?;
    users.note();
    // One who was leaving may have got the lock in between, and stopped the server.
    if unbroken { Ok(server) } else { ensure_running(config, place, false, until) }
}

/// Turns the hold into a shared one; false if it was lost meanwhile. The system lets go of an exclusive lock before it takes the
/// shared one.
fn share(users: &Lock, until: Instant) -> Result<bool> {
    let mut unbroken = true;
    while !users.try_shared()? {
        unbroken = false;
        if Instant::now() >= until {
            return Err(Error::failed("joining PostgreSQL", "another process has kept users.lock all the time"));
        }
        sleep(TRY_AGAIN);
    }
    Ok(unbroken)
}

fn leave(users: &Lock, place: &Place) -> Result<Left> {
    users.release()?;
    if !users.try_exclusive()? {
        return Ok(Left::Running);
    }
    let data = place.data();
    let stopped = match postmaster::find(&data)? {
        Found::Running(server) => postmaster::stop(server.pid, &data, Stop::Fast, Instant::now() + STOP_WITHIN),
        Found::Nothing | Found::Unfinished | Found::Stale { .. } => Ok(()),
    };
    users.release()?;
    stopped.map(|()| Left::Stopped)
}

/// The running server's process and socket folder; starts one if there is none. `alone`: nobody else uses it, so one that does
/// not answer may be replaced.
fn ensure_running(config: &LocalConfig, place: &Place, alone: bool, until: Instant) -> Result<(i32, PathBuf)> {
    let began = Instant::now();
    loop {
        if let Some(server) = running(place, alone, until)? {
            return Ok(server);
        }
        let seconds = until.saturating_duration_since(Instant::now()).as_secs().max(1);
        if let Err(error) = cluster::start(config, place, seconds) {
            // A start by a process that was killed in the middle may have come before ours.
            let overtaken = matches!(postmaster::find(&place.data())?, Found::Running(_));
            // The sessions of a server that was killed end a moment after it.
            let too_early = error.to_string().contains("pre-existing shared memory block") && began.elapsed() < PATIENCE;
            if !(overtaken || too_early) || Instant::now() >= until {
                return Err(error);
            }
            sleep(TRY_AGAIN);
        }
    }
}

/// Waits until the server that is there answers; none if there is none.
fn running(place: &Place, alone: bool, until: Instant) -> Result<Option<(i32, PathBuf)>> {
    let data = place.data();
    let began = Instant::now();
    loop {
        let patient = began.elapsed() < PATIENCE;
        match postmaster::find(&data)? {
            Found::Nothing => return Ok(None),
            Found::Unfinished if patient => {}
            Found::Stale { socket_folder: Some(folder) } if !matches!(probe::ask(&socket(&folder)), Answer::None(_)) => {
                return Err(elsewhere(&data, &folder));
            }
            Found::Unfinished | Found::Stale { .. } => {
                postmaster::disown(&data, place.account)?;
                return Ok(None);
            }
            Found::Running(server) => match answer(&server) {
                Answer::Ready => return Ok(server.socket_folder.map(|folder| (server.pid, folder))),
                Answer::NotYet(_) => {}
                Answer::None(_) if patient || server.status.as_deref() != Some("ready") => {}
                Answer::None(reason) if alone => {
                    tracing::warn!(pid = server.pid, reason, "PostgreSQL runs but does not answer; restarting it");
                    postmaster::stop(server.pid, &data, Stop::Fast, until)?;
                    return Ok(None);
                }
                Answer::None(reason) => return Err(Error::Unreachable { pid: server.pid, data, reason, log: place.log() }),
            },
        }
        if Instant::now() >= until {
            return Err(Error::failed("joining PostgreSQL", format!("it did not get ready in time; its log: {}", place.log().display())));
        }
        sleep(TRY_AGAIN);
    }
}

/// A second server on the same data would destroy it.
fn elsewhere(data: &Path, folder: &Path) -> Error {
    let why =
        format!("a server answers in {}, but its process cannot be seen from here; perhaps it is in another container", folder.display());
    let advice = "Give each container a KROWOC_HOME of its own, or all of them the same DATABASE_URL";
    Error::failed(format!("joining PostgreSQL on {}", data.display()), format!("{why}\n{advice}"))
}

fn answer(server: &Postmaster) -> Answer {
    match &server.socket_folder {
        Some(folder) => probe::ask(&socket(folder)),
        None => Answer::NotYet("it is starting".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_carries_any_path() {
        assert_eq!(
            url(Path::new("/tmp/a b/ü&c"), "krowoc"),
            "postgres://krowoc@localhost:5432/krowoc?host=%2Ftmp%2Fa%20b%2F%C3%BC%26c&sslmode=disable"
        );
    }
}
