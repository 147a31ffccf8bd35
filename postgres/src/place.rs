//! Where a server's files are: in the home, unless the server's account cannot enter it or the socket's path would be too long.

use crate::{
    account::Account,
    config::{LocalConfig, Purpose},
    error::{Error, IoContext, Result},
};
use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// What a Unix socket's address holds on Linux is 108 bytes with the closing zero; on others 104.
const LONGEST_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
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

impl Place {
    /// Finds or makes the folders.
    pub fn settle(config: &LocalConfig) -> Result<Self> {
        let root = rustix::process::geteuid().is_root();
        // Another account must be able to pass through root's home folder to its own below it.
        make(&config.home, if root { 0o755 } else { 0o700 })?;
        let home = config.home.canonicalize().at("opening", &config.home)?;
        let me = rustix::process::geteuid().as_raw();
        let owner = home.metadata().at("reading", &home)?.uid();
        if !root && owner != me {
            return Err(Error::Foreign { path: home, owner, expected: me });
        }
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
        let server = inside.canonicalize().at("opening", &inside)?;
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

    /// Where a downloaded PostgreSQL is put.
    pub fn downloads(&self) -> PathBuf {
        self.server.join("downloads")
    }

    /// The folder for the socket, made when missing.
    pub fn socket_folder(&self) -> Result<PathBuf> {
        let inside = self.server.join("run");
        let folder = if fits(&inside) {
            inside
        } else {
            PathBuf::from(format!("/tmp/krowoc-{}-{:016x}", self.account.uid(), fnv1a(self.server.as_os_str().as_encoded_bytes())))
        };
        make(&folder, 0o700)?;
        claim(&folder, self.account)?;
        Ok(folder)
    }

    /// Removes what a dead server left in the socket's folder: PostgreSQL would trust its lock file if the number in it had gone
    /// to another process.
    pub fn clear_socket(&self) -> Result<()> {
        let folder = self.socket_folder()?;
        for name in [SOCKET_NAME.to_owned(), format!("{SOCKET_NAME}.lock")] {
            let path = folder.join(name);
            if path.symlink_metadata().is_ok() {
                fs::remove_file(&path).at("removing", &path)?;
            }
        }
        Ok(())
    }
}

/// The socket in its folder.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join(SOCKET_NAME)
}

fn fits(folder: &Path) -> bool {
    socket(folder).as_os_str().len() <= LONGEST_SOCKET_PATH
}

/// Only root needs one, and only root can make it.
fn outside(home: &Path, purpose: Purpose) -> PathBuf {
    let name = format!("/var/lib/krowoc/{:016x}", fnv1a(home.as_os_str().as_encoded_bytes()));
    match purpose {
        Purpose::Throwaway => PathBuf::from(name),
        // Never a name that was used before: who deletes a home must not find its old data in the next one.
        Purpose::Keep => {
            let free = (1..).map(|n| PathBuf::from(format!("{name}-{n}"))).find(|path| path.symlink_metadata().is_err());
            free.unwrap_or_else(|| PathBuf::from(name))
        }
    }
}

fn make(folder: &Path, mode: u32) -> Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).at("making", parent)?;
    }
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.at("making", folder),
    }
}

/// Makes sure that a folder is the account's alone. In a folder that everybody may write to, somebody else may have made it, or
/// a link in its place.
fn claim(folder: &Path, account: Account) -> Result<()> {
    let meta = folder.symlink_metadata().at("reading", folder)?;
    let ours = meta.uid() == account.uid();
    // Root's: made here a moment ago, or by one of us who was killed before giving it away.
    if !meta.is_dir() || !(ours || meta.uid() == 0 && rustix::process::geteuid().is_root()) {
        return Err(Error::Foreign { path: folder.to_owned(), owner: meta.uid(), expected: account.uid() });
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).at("closing to others", folder)?;
    }
    if ours { Ok(()) } else { account.give(folder) }
}

/// FNV-1a: the standard library's hasher may change with its version, and two builds must agree on a name.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
