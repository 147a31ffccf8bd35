//! Under which account the server runs: the caller's, unless the caller is root, whom PostgreSQL refuses.

use crate::error::{Error, IoContext, Result};
use std::{
    fs::File,
    os::unix::{
        fs::{MetadataExt, fchown},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

/// Who runs the server and owns its files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Account {
    /// The caller.
    Own,
    /// Another, which only root can choose.
    Other { uid: u32, gid: u32 },
}

impl Account {
    /// The account for a server with its files in the folder, which may not exist yet.
    pub fn choose(folder: &Path, wanted: Option<&str>) -> Result<Self> {
        let me = rustix::process::geteuid().as_raw();
        let owner = folder.metadata().ok().map(|meta| (meta.uid(), meta.gid()));
        if me != 0 {
            return match owner {
                Some((uid, _)) if uid != me => Err(Error::Foreign { path: folder.to_owned(), owner: uid, expected: me }),
                _ => Ok(Self::Own),
            };
        }
        match owner {
            Some((uid, gid)) if uid != 0 => return Ok(Self::Other { uid, gid }),
            _ => {}
        }
        let names = wanted.map_or(vec!["postgres", "nobody"], |name| vec![name]);
        names.iter().find_map(|name| lookup(name)).ok_or_else(|| {
            Error::failed("choosing an account for PostgreSQL", format!("run by root, it needs one of the accounts {names:?}; none exists"))
        })
    }

    /// The number of the files' owner.
    pub fn uid(self) -> u32 {
        match self {
            Self::Own => rustix::process::geteuid().as_raw(),
            Self::Other { uid, .. } => uid,
        }
    }

    /// A command under this account, without the caller's environment: the server outlives the caller and must not keep its
    /// secrets, and variables such as `PGPORT` must not reach it.
    pub fn dress(self, mut command: Command) -> Command {
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("LC_ALL", "C");
        for kept in ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
            if let Some(value) = inherited(kept) {
                command.env(kept, value);
            }
        }
        // The caller's folder may be closed to the account, and the server would keep it busy.
        command.current_dir("/").stdin(Stdio::null());
        if let Self::Other { uid, gid } = self {
            // The standard library drops the supplementary groups too when root sets a uid.
            command.gid(gid).uid(uid);
        }
        command
    }

    /// Gives an opened folder to the account.
    pub fn give(self, opened: &File, path: &Path) -> Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => fchown(opened, Some(uid), Some(gid)).at("giving to the server's account", path),
        }
    }

    /// Can the account enter the folder? Asked by trying, since access lists and mounts have a say too.
    pub fn can_enter(self, folder: &Path) -> bool {
        if self == Self::Own {
            return true;
        }
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", r#"cd -- "$1""#, "sh"]).arg(folder);
        self.dress(shell).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

/// What the system's own tools are steered by; no configuration of ours.
#[expect(clippy::disallowed_methods, reason = "the system's variables, not configuration")]
pub(crate) fn inherited(variable: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(variable)
}

fn lookup(name: &str) -> Option<Account> {
    let number = |what: &str| {
        let output = Command::new("id").args([what, name]).stdin(Stdio::null()).output().ok()?;
        // Some systems print nobody's number as -2.
        let number: i64 = String::from_utf8_lossy(&output.stdout).trim().parse().ok()?;
        output.status.success().then_some(number as u32)
    };
    match (number("-u")?, number("-g")?) {
        (0, _) => None,
        (uid, gid) => Some(Account::Other { uid, gid }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_never_the_servers_account() {
        assert_eq!(lookup("root"), None);
        assert!(lookup("no-such-account-here").is_none());
    }

    #[test]
    fn the_callers_environment_does_not_reach_the_server() {
        let command = Account::Own.dress(Command::new("env"));
        let output = { command }.env("KEPT", "1").output().expect("env runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("KEPT=1") && text.contains("LC_ALL=C"), "{text}");
        assert!(!text.contains("CARGO_"), "{text}");
    }
}
