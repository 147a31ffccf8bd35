//! Where a server's files are: in the home, unless the server's account cannot enter it or the socket's path would be too long.

use crate::{
    account::Account,
    config::{LocalConfig, Purpose},
    error::{Error, IoContext, Result},
    folder::{claim, make, trust_link},
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

/// What a Unix socket's address holds on Linux is 108 bytes with the closing zero; on others 104.
const LONGEST_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// Leaves room for what PostgreSQL adds.
const LONGEST_SERVER_PATH: usize = 900;
/// For what the server's account could not reach in the home.
const OUTSIDE: &str = "/var/lib/krowoc";
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// The folders of one server.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Locks.
    pub home: PathBuf,
    /// Everything the server's account owns.
    pub server: PathBuf,
    /// Who that is.
    pub account: Account,
}

/// Finds or makes the home.
pub(crate) fn home(config: &LocalConfig) -> Result<PathBuf> {
    let me = rustix::process::geteuid();
    // Another account must be able to pass through root's home folder to its own below it.
    make(&config.home, if me.is_root() { 0o755 } else { 0o700 })?;
    let home = config.home.canonicalize().at("opening", &config.home)?;
    let owner = home.metadata().at("reading", &home)?.uid();
    if !me.is_root() && owner != me.as_raw() {
        return Err(Error::Foreign { path: home, owner, expected: me.as_raw() });
    }
    Ok(home)
}

impl Place {
    /// Finds or makes the server's folder in a home. The caller holds the home's `start.lock`: two at once would be in each
    /// other's way.
    pub fn settle(config: &LocalConfig, home: PathBuf) -> Result<Self> {
        let inside = home.join("postgres");
        let account = Account::choose(&inside, config.account.as_deref())?;
        if !inside.exists() {
            // A link that leads nowhere is left over from an outside folder that was deleted.
            if inside.is_symlink() {
                fs::remove_file(&inside).at("removing", &inside)?;
            }
            if account.can_enter(&home) {
                make(&inside, 0o700)?;
            } else {
                let outside = outside(&home, config.purpose);
                make(&outside, 0o700)?;
                symlink(&outside, &inside).at("linking", &inside)?;
            }
        }
        trust_link(&inside)?;
        let server = inside.canonicalize().at("opening", &inside)?;
        usable(&server)?;
        // Once more: an outside folder may be an earlier one, with an owner.
        let account = Account::choose(&server, config.account.as_deref())?;
        claim(&server, account)?;
        Ok(Self { home, server, account })
    }

    /// PostgreSQL's data folder.
    pub fn data(&self) -> PathBuf {
        self.server.join("data")
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.server.join("postgres.log")
    }

    /// Where a downloaded PostgreSQL is put. Root's belongs to root: nobody can lead the unpacking astray.
    pub fn downloads(&self) -> PathBuf {
        match self.account {
            Account::Own => self.server.join("downloads"),
            Account::Other { .. } => Path::new(OUTSIDE).join("downloads"),
        }
    }

    /// The folder for the socket, made when missing.
    pub fn socket_folder(&self) -> Result<PathBuf> {
        let inside = self.server.join("run");
        let folder = if fits(&inside) { inside } else { short_socket_folder(&self.server, self.account.uid()) };
        if folder.symlink_metadata().is_err() {
            self.account.make_folder(&folder)?;
        }
        // In a folder that everybody may write to, somebody else may have made it, or a link in its place.
        claim(&folder, self.account)?;
        if folder.metadata().at("reading", &folder)?.mode() & 0o077 != 0 {
            self.account.close_folder(&folder)?;
        }
        Ok(folder)
    }

    /// Removes what a dead server left in the socket's folder: PostgreSQL would trust its lock file if the number in it had gone
    /// to another process.
    pub fn clear_socket(&self, folder: &Path) -> Result<()> {
        self.account.remove_files(folder, &[SOCKET_NAME, &format!("{SOCKET_NAME}.lock")])
    }
}

fn short_socket_folder(server: &Path, uid: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/krowoc-{uid}-{:016x}", fnv1a(server.as_os_str().as_encoded_bytes())))
}

/// Removes a home, and what had to be put elsewhere. For whoever made it for a while: nobody may be using its server.
pub fn remove_home(home: &Path) -> Result<()> {
    if let Ok(server) = home.join("postgres").canonicalize() {
        let uid = server.metadata().at("reading", &server)?.uid();
        remove(&short_socket_folder(&server, uid))?;
        remove(&server)?;
    }
    remove(home)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("removing", folder),
        _ => Ok(()),
    }
}

/// The socket in its folder.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join(SOCKET_NAME)
}

/// Can a server and its clients be told of this folder? The setting is a list with commas, and a URL holds UTF-8.
fn fits(folder: &Path) -> bool {
    let plain = folder.to_str().is_some_and(|text| !text.contains(','));
    plain && socket(folder).as_os_str().len() <= LONGEST_SOCKET_PATH
}

/// `pg_ctl` puts paths between double quotes into a line of shell, `postmaster.pid` holds one a line, and PostgreSQL cuts off
/// those above 1,023 bytes (`MAXPGPATH`).
fn usable(server: &Path) -> Result<()> {
    let bytes = server.as_os_str().as_encoded_bytes();
    let why = if bytes.iter().any(|byte| b"\"$`\\\n".contains(byte)) {
        "PostgreSQL's programs fail on \", $, `, \\ and line breaks in a path"
    } else if bytes.len() > LONGEST_SERVER_PATH {
        "its path is too long for PostgreSQL"
    } else {
        return Ok(());
    };
    Err(Error::failed(format!("using {}", server.display()), format!("{why}\nChoose another folder with KROWOC_HOME")))
}

/// Only root needs one, and only root can make it.
fn outside(home: &Path, purpose: Purpose) -> PathBuf {
    let name = format!("{OUTSIDE}/{:016x}", fnv1a(home.as_os_str().as_encoded_bytes()));
    match purpose {
        Purpose::Throwaway => PathBuf::from(name),
        // Never a name that was used before: who deletes a home must not find its old data in the next one.
        Purpose::Keep => {
            let free = (1..).map(|n| PathBuf::from(format!("{name}-{n}"))).find(|path| path.symlink_metadata().is_err());
            free.unwrap_or_else(|| PathBuf::from(name))
        }
    }
}

/// FNV-1a: the standard library's hasher may change with its version, and two builds must agree on a name.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn fnv1a_matches_its_published_vectors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_socket_path_fits_up_to_the_systems_limit() {
        let room = LONGEST_SOCKET_PATH - SOCKET_NAME.len() - 1;
        assert!(fits(Path::new(&format!("/{}", "a".repeat(room - 1)))));
        assert!(!fits(Path::new(&format!("/{}", "a".repeat(room)))));
    }

    #[test]
    fn a_socket_folder_that_a_setting_or_a_url_cannot_carry_does_not_fit() {
        assert!(fits(Path::new("/a b/it's")));
        assert!(!fits(Path::new("/a,b")));
        assert!(!fits(Path::new(std::ffi::OsStr::from_bytes(b"/\xff"))));
    }

    #[test]
    fn a_path_that_postgresql_cannot_handle_is_refused_with_what_to_do() {
        for wrong in ["/a\"b", "/$HOME", "/`id`", "/a\\b", "/a\nb", &format!("/{}", "a".repeat(901))] {
            let error = usable(Path::new(wrong)).expect_err(wrong).to_string();
            assert!(error.contains("KROWOC_HOME"), "{error}");
        }
        assert!(usable(Path::new("/a b/it's, (ü)")).is_ok());
    }
}
