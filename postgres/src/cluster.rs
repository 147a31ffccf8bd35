//! The data of a server: made once, whole or not at all, and started with this crate's settings.

use crate::{
    DATABASE,
    binaries::Binaries,
    config::{Durability, LocalConfig, Purpose},
    error::{Error, IoContext, Result},
    files,
    place::Place,
    settings::{self, SETTINGS_FILE},
};
use postgresql_commands::{
    CommandBuilder,
    initdb::InitDbBuilder,
    pg_ctl::{Mode, PgCtlBuilder},
};
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

/// A log above this is put aside at the next start.
const LONGEST_LOG: u64 = 16 * 1024 * 1024;

/// Starts a server on the place's data, which is made first when there is none. Nobody serves it now.
pub(crate) fn start(config: &LocalConfig, place: &Place, seconds: u64) -> Result<()> {
    let data = place.data();
    if !place.account.can_enter(&place.server) {
        let why = format!("user {}, whom the server runs as, cannot enter it", place.account.uid());
        let advice = "Open the folders above it to that user (chmod o+x), or choose another with KROWOC_HOME";
        return Err(Error::failed(format!("using {}", place.server.display()), format!("{why}\n{advice}")));
    }
    if config.purpose == Purpose::Throwaway {
        remove(&data)?;
    }
    let binaries = Binaries::find(config, place, major_of(&data)?)?;
    if !data.exists() {
        create(config, place, &binaries)?;
    }
    let socket_folder = place.socket_folder()?;
    settings::write(config, place, &socket_folder)?;
    put_log_aside(&place.log())?;
    place.clear_socket(&socket_folder)?;
    tracing::debug!(data = %data.display(), postgres = %binaries.folder.display(), "starting PostgreSQL");
    let pg_ctl =
        PgCtlBuilder::new().program_dir(&binaries.folder).mode(Mode::Start).pgdata(&data).log(place.log()).timeout(seconds).wait().build();
    run(place, pg_ctl, "starting PostgreSQL (pg_ctl)").map(drop).map_err(|error| with_log(error, &place.log()))
}

/// The major version that wrote the data; none where there is no data.
fn major_of(data: &Path) -> Result<Option<u32>> {
    let path = data.join("PG_VERSION");
    let damaged = |why: &str| {
        let what = format!("opening PostgreSQL's data in {}", data.display());
        Error::failed(what, format!("{why}\nRestore it from a backup, or start afresh by moving the folder away"))
    };
    match files::read(&path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| damaged("its PG_VERSION does not hold a version")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !data.exists() => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(damaged("it has no PG_VERSION")),
        Err(source) => Err(Error::Io { what: "reading", path, source }),
    }
}

/// Makes the data beside its place and moves it there when it is complete, so that a kill in between leaves nothing that looks
/// like data. The name is never used twice: an `initdb` that outlived its killed caller may still be writing to its own.
fn create(config: &LocalConfig, place: &Place, binaries: &Binaries) -> Result<()> {
    let unfinished = "data.unfinished-";
    for entry in place.server.read_dir().at("reading", &place.server)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(unfinished) {
            // One that is still being written to may resist; it is in nobody's way.
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::debug!(path = %entry.path().display(), %error, "leaving unfinished data");
            }
        }
    }
    let new = (0..)
        .map(|n| place.server.join(format!("{unfinished}{}-{n}", std::process::id())))
        .find(|path| !path.exists())
        .ok_or_else(|| Error::failed("making PostgreSQL's data", "no free name"))?;
    let initdb = || InitDbBuilder::new().program_dir(&binaries.folder).pgdata(&new);
    let made = initdb()
        .username(DATABASE)
        // Whoever reaches the socket may come in: its folder is closed to everyone but this account and root.
        .auth("trust")
        .encoding("UTF8")
        .no_locale()
        .no_instructions()
        // Below, with what is still added.
        .no_sync();
    run(place, made.build(), "making PostgreSQL's data (initdb)")?;
    create_database(place, binaries, &new)?;
    let include =
        format!("\n# Written at each start; your own settings belong below or in ALTER SYSTEM.\ninclude_if_exists = '{SETTINGS_FILE}'\n");
    place.account.append(&new.join("postgresql.conf"), &include)?;
    if config.durability == Durability::Durable {
        run(place, initdb().sync_only().build(), "writing PostgreSQL's data to the disk (initdb)")?;
    }
    let data = place.data();
    fs::rename(&new, &data).at("moving into place", &data)
}

/// In single-user mode, before there is a server: so data that is in place always holds the database.
fn create_database(place: &Place, binaries: &Binaries, data: &Path) -> Result<()> {
    let what = "creating the database (postgres --single)";
    let mut command = Command::new(binaries.program("postgres"));
    command.arg("--single").arg("-D").arg(data).arg("postgres");
    let mut command = place.account.dress(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Error::failed(what, error.to_string()))?;
    let said = child.stdin.take().map(|mut stdin| stdin.write_all(format!("CREATE DATABASE {DATABASE};\n").as_bytes()));
    let output = child.wait_with_output().map_err(|error| Error::failed(what, error.to_string()))?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    // A failed statement does not show in the exit code.
    if !output.status.success() || !matches!(said, Some(Ok(()))) || ["ERROR:", "FATAL:", "PANIC:"].iter().any(|sign| errors.contains(sign))
    {
        return Err(Error::failed(what, errors));
    }
    Ok(())
}

fn put_log_aside(log: &Path) -> Result<()> {
    if log.metadata().is_ok_and(|meta| meta.len() > LONGEST_LOG) {
        fs::rename(log, log.with_extension("log.1")).at("putting aside", log)?;
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.at("removing", folder),
    }
}

fn run(place: &Place, command: Command, what: &str) -> Result<Output> {
    let output = place.account.dress(command).output().map_err(|error| Error::failed(what, error.to_string()))?;
    if output.status.success() {
        return Ok(output);
    }
    let text = [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).concat();
    Err(Error::failed(what, text.trim()))
}

/// Adds the end of the log, where the reason is.
fn with_log(error: Error, path: &Path) -> Error {
    let Error::Failed { what, reason, .. } = error else { return error };
    let text = files::read(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last_lines = lines[lines.len().saturating_sub(12)..].join("\n");
    Error::Failed { what, reason, log: Some(path.to_owned()), last_lines }
}
