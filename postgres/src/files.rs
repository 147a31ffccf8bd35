//! Reading and changing what the server's account owns. Changes are made by a shell under that account: were root to make them
//! itself, the account could have root write, chmod or remove anything by planting a link.

use crate::{
    account::{Account, inherited},
    error::{Error, Result},
};
use rustix::fs::OFlags;
use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Command, Stdio},
};

impl Account {
    /// Writes a file, whole or not at all.
    pub fn write(self, path: &Path, text: &str) -> Result<()> {
        self.shell("writing", path, r#"umask 077; cat >"$1.new" && mv -f -- "$1.new" "$1""#, &[], text)
    }

    /// Puts text at a file's end.
    pub fn append(self, path: &Path, text: &str) -> Result<()> {
        self.shell("writing", path, r#"cat >>"$1""#, &[], text)
    }

    /// Replaces a file's first line; removes the file where it is empty.
    pub fn replace_first_line(self, path: &Path, line: i32) -> Result<()> {
        let script = r#"if [ -s "$1" ]; then umask 077; sed "1s/.*/$2/" "$1" >"$1.new" && mv -f -- "$1.new" "$1"; else rm -f -- "$1"; fi"#;
        self.shell("writing", path, script, &[line.to_string().as_ref()], "")
    }

    /// Removes files of a folder, if they are there.
    pub fn remove_files(self, folder: &Path, names: &[&str]) -> Result<()> {
        let names: Vec<&OsStr> = names.iter().map(AsRef::as_ref).collect();
        self.shell("clearing", folder, r#"cd -- "$1" && shift && rm -f -- "$@""#, &names, "")
    }

    /// Makes a folder that only the account may enter.
    pub fn make_folder(self, path: &Path) -> Result<()> {
        self.shell("making", path, r#"mkdir -m 700 -- "$1""#, &[], "")
    }

    /// Closes a folder to everyone else.
    pub fn close_folder(self, path: &Path) -> Result<()> {
        self.shell("closing to others", path, r#"chmod 700 -- "$1""#, &[], "")
    }

    fn shell(self, what: &str, path: &Path, script: &str, more: &[&OsStr], input: &str) -> Result<()> {
        let failed = |reason: &str| Error::failed(format!("{what} {}", path.display()), reason);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, "sh"]).arg(path).args(more);
        let mut shell = self.dress(shell);
        // Where the system keeps its tools, the caller's environment knows best.
        shell.env("PATH", inherited("PATH").unwrap_or_default());
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = shell.spawn().map_err(|error| failed(&error.to_string()))?;
        // One that does not read says below why.
        let said = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().map_err(|error| failed(&error.to_string()))?;
        match (output.status.success(), said) {
            (true, Some(Ok(()))) => Ok(()),
            (true, _) => Err(failed("the shell did not read it")),
            (false, _) => Err(failed(String::from_utf8_lossy(&output.stderr).trim())),
        }
    }
}

/// A regular file's text; never through a link, and never waiting as for a pipe's writer.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
    };

    #[test]
    fn writing_replaces_a_planted_link_and_leaves_its_target_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (victim, path) = (folder.path().join("victim"), folder.path().join("it's a file"));
        fs::write(&victim, "precious").expect("written");
        symlink(&victim, &path).expect("planted");
        assert!(read(&path).is_err(), "read through a link");
        Account::Own.write(&path, "mine\n").expect("written");
        assert_eq!((read(&path).expect("read"), read(&victim).expect("read")), ("mine\n".into(), "precious".into()));
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        Account::Own.append(&path, "more\n").and_then(|()| Account::Own.replace_first_line(&path, 7)).expect("written");
        assert_eq!(read(&path).expect("read"), "7\nmore\n");
    }

    #[test]
    fn what_cannot_be_written_is_named_and_leaves_the_old_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("settings");
        Account::Own.write(&path, "old").expect("written");
        // Stands in for a full disk: what is new cannot be written beside it.
        fs::create_dir(folder.path().join("settings.new")).expect("made");
        let error = Account::Own.write(&path, "new").expect_err("refused").to_string();
        assert!(error.contains("settings failed:") && error.to_lowercase().contains("directory"), "{error}");
        assert_eq!(read(&path).expect("read"), "old");
    }
}
