//! Folders: made with the mode they need whatever the umask, and never taken from somebody else.

use crate::{
    account::Account,
    error::{Error, IoContext, Result},
};
use rustix::fs::OFlags;
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Makes a folder if it is missing, with this mode; one that exists keeps its own. Where root makes those above it too, others may
/// pass through them, as the server's account must.
pub(crate) fn make(folder: &Path, mode: u32) -> Result<()> {
    make_with(folder, Some(mode))
}

fn make_with(folder: &Path, mode: Option<u32>) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_with(parent, rustix::process::geteuid().is_root().then_some(0o755))?;
    }
    match fs::create_dir(folder) {
        // By another process just now; if it is no folder, whoever enters it will say so.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(Error::Io { what: "making", path: folder.to_owned(), source }),
        Ok(()) => match mode {
            Some(mode) => open(folder)?.set_permissions(Permissions::from_mode(mode)).at("setting the mode of", folder),
            None => Ok(()),
        },
    }
}

/// Refuses a link that neither root, the caller nor the owner of its target has put there: it would have the server run on
/// somebody else's choice of folder.
pub(crate) fn trust_link(link: &Path) -> Result<()> {
    let (Ok(meta), Ok(target)) = (link.symlink_metadata(), link.metadata()) else { return Ok(()) };
    let me = rustix::process::geteuid().as_raw();
    if meta.is_symlink() && ![0, me, target.uid()].contains(&meta.uid()) {
        return Err(Error::Foreign { path: link.to_owned(), owner: meta.uid(), expected: target.uid() });
    }
    Ok(())
}

/// Makes sure that a folder is the account's, and that nobody else may change what is in it. Root gives its own away only while
/// they are empty: made a moment ago, or by one of us who was killed in between. One with files in it is somebody's.
pub(crate) fn claim(folder: &Path, account: Account) -> Result<()> {
    let meta = folder.symlink_metadata().at("reading", folder)?;
    if !meta.is_dir() {
        return Err(Error::failed(format!("using {}", folder.display()), "it is not a folder\nMove away what is there and try again"));
    }
    if meta.uid() != account.uid() {
        let foreign = || Error::Foreign { path: folder.to_owned(), owner: meta.uid(), expected: account.uid() };
        let mine = rustix::process::geteuid().is_root() && meta.uid() == 0;
        if !mine || folder.read_dir().at("reading", folder)?.next().is_some() {
            return Err(foreign());
        }
        // Opened, so that what is given is what was looked at.
        let opened = open(folder)?;
        if opened.metadata().at("reading", folder)?.uid() != 0 {
            return Err(foreign());
        }
        account.give(&opened, folder)?;
    }
    if meta.mode() & 0o022 != 0 {
        let what = format!("using {}", folder.display());
        return Err(Error::failed(what, format!("others may write to it\nClose it with:  chmod go-w '{}'", folder.display())));
    }
    Ok(())
}

fn open(folder: &Path) -> Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(folder).at("opening", folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("there").mode() & 0o777
    }

    #[test]
    fn a_folder_that_exists_keeps_its_mode() {
        let folder = tempfile::tempdir().expect("a folder");
        let theirs = folder.path().join("theirs");
        fs::create_dir(&theirs).and_then(|()| fs::set_permissions(&theirs, Permissions::from_mode(0o750))).expect("made");
        make(&theirs, 0o700).expect("there");
        claim(&theirs, Account::Own).expect("mine");
        assert_eq!(mode(&theirs), 0o750);
        make(&theirs.join("a/b"), 0o711).expect("made");
        assert_eq!(mode(&theirs.join("a/b")), 0o711);
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("opened");
        let error = claim(folder.path(), Account::Own).expect_err("refused").to_string();
        assert!(error.contains("others may write to it") && error.contains("chmod go-w"), "{error}");
    }

    /// Only root can give a folder away.
    #[test]
    fn roots_own_files_are_never_given_to_the_servers_account() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (theirs, planted) = (folder.path().join("etc"), folder.path().join("postgres"));
        fs::create_dir(&theirs).and_then(|()| fs::write(theirs.join("shadow"), "")).expect("made");
        let account = Account::Other { uid: 65_534, gid: 65_534 };
        assert!(matches!(claim(&theirs, account), Err(Error::Foreign { .. })));
        symlink(&theirs, &planted).expect("planted");
        std::os::unix::fs::lchown(&planted, Some(65_534), None).expect("given");
        assert!(matches!(trust_link(&planted), Err(Error::Foreign { .. })));
        assert_eq!(theirs.metadata().expect("there").uid(), 0);
        fs::remove_file(theirs.join("shadow")).expect("removed");
        claim(&theirs, account).expect("an empty one is what a killed process left");
        assert_eq!(theirs.metadata().expect("there").uid(), 65_534);
    }
}
