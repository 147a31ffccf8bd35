//! Guarantee: root's krowoc runs a server under another account, reaches it whatever its own umask and capabilities, and cannot be
//! led by that account to touch what is not the server's. Without root there is nothing to show.

mod support;

use krowoc_postgres::Local;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
    path::Path,
    process::{Child, Command},
};
use support::{Holder, Test, alive, config, count, eventually, home};

fn root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// A file of root's, and what an attacker would have done to it.
struct Victim<'a>(&'a Path);

impl<'a> Victim<'a> {
    fn new(path: &'a Path) -> Self {
        fs::write(path, "precious").and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600))).expect("written");
        Self(path)
    }

    fn is_unharmed(&self, planted: &str) {
        assert_eq!(fs::read_to_string(self.0).expect("there"), "precious", "written through {planted}");
        let meta = fs::metadata(self.0).expect("there");
        assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o600), "given away through {planted}");
    }
}

#[tokio::test]
async fn links_that_the_servers_account_planted_lead_root_nowhere() -> Test {
    if !root() {
        return Ok(());
    }
    let home = home();
    let local = Local::join(config(home.path())).await?;
    let server = local.data().parent().expect("a parent").to_owned();
    let owner = fs::metadata(&server)?.uid();
    local.leave().await?;
    let path = home.path().join("victim");
    let victim = Victim::new(&path);
    let plant = |name: &str| -> Test {
        let link = server.join(name);
        fs::remove_file(&link).ok();
        symlink(&path, &link)?;
        Ok(lchown(&link, Some(owner), None)?)
    };
    // Written anew at each start: the link gives way.
    plant("data/krowoc.conf")?;
    Local::join(config(home.path())).await?.leave().await?;
    victim.is_unharmed("krowoc.conf");
    assert!(!server.join("data/krowoc.conf").is_symlink());
    // Those that the server writes itself, or that say who serves: refused.
    for name in ["data/krowoc.conf.new", "data/postmaster.pid", "data/PG_VERSION", "postgres.log"] {
        let kept = fs::read(server.join(name)).ok();
        plant(name)?;
        let error = Local::join(config(home.path())).await.expect_err(name).to_string();
        assert!(!error.contains("precious"), "{name}: {error}");
        victim.is_unharmed(name);
        fs::remove_file(server.join(name))?;
        if let Some(kept) = kept {
            fs::write(server.join(name), kept)?;
            lchown(server.join(name), Some(owner), None)?;
        }
    }
    Local::join(config(home.path())).await?.leave().await?;
    Ok(())
}

#[tokio::test]
async fn another_servers_socket_survives_a_link_in_place_of_the_sockets_folder() -> Test {
    if !root() {
        return Ok(());
    }
    let home = home();
    let local = Local::join(config(home.path())).await?;
    let run = local.socket_folder().to_owned();
    let owner = fs::metadata(&run)?.uid();
    local.leave().await?;
    let theirs = home.path().join("theirs");
    fs::create_dir(&theirs)?;
    fs::write(theirs.join(".s.PGSQL.5432"), "")?;
    fs::remove_dir_all(&run)?;
    symlink(&theirs, &run)?;
    lchown(&run, Some(owner), None)?;
    let error = Local::join(config(home.path())).await.expect_err("refused").to_string();
    assert!(error.contains("it is not a folder"), "{error}");
    assert!(theirs.join(".s.PGSQL.5432").exists());
    assert_eq!(fs::metadata(&theirs)?.uid(), 0);
    Ok(())
}

#[test]
fn a_strict_umask_does_not_lock_the_servers_account_out() {
    if !root() {
        return;
    }
    let home = home();
    let deep = home.path().join("made/by us");
    let mut command = Command::new("sh");
    command.args(["-c", r#"umask 077; exec "$@""#, "sh", env!("CARGO_BIN_EXE_hold")]).arg(&deep);
    let holder = Holder::joined(Holder::spawn(command));
    assert!(!deep.join("postgres").is_symlink(), "the data went elsewhere");
    assert_eq!(fs::metadata(&deep).expect("made").mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(deep.join("postgres")).expect("made").mode() & 0o777, 0o700);
    assert_eq!(holder.leave(), "the server has stopped");
}

/// As in a container: root may not look into another user's processes.
fn blinkered(home: &Path) -> Child {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_ptrace", env!("CARGO_BIN_EXE_hold")]).arg(home);
    Holder::spawn(command)
}

#[test]
fn a_stale_pid_file_stops_nobody_elses_process() {
    if !root() {
        return;
    }
    let home = home();
    let first = Holder::joined(blinkered(home.path()));
    let second = Holder::joined(blinkered(home.path()));
    assert_eq!(first.pid, second.pid, "its own server was not recognised");
    let pid_file = home.path().join("postgres/data/postmaster.pid");
    let text = fs::read_to_string(&pid_file).expect("written");
    assert_eq!(first.leave(), "others still use the server");
    let pid = second.pid;
    assert_eq!(second.leave(), "the server has stopped");
    // The number has gone to a process of the same account; the second pretends to be a server, of other data.
    let programs = home.path().join("programs");
    fs::create_dir(&programs).expect("made");
    for program in ["sleep", "postgres"] {
        let bin = programs.join(program);
        symlink("/bin/sleep", &bin).expect("linked");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]).arg(&bin).arg("600");
        let mut bystander = command.spawn().expect("starts");
        let line = format!("/proc/{}/cmdline", bystander.id());
        eventually("the bystander", || fs::read_to_string(&line).is_ok_and(|line| line.starts_with(&*bin.to_string_lossy())));
        fs::write(&pid_file, text.replacen(&pid.to_string(), &bystander.id().to_string(), 1)).expect("written");
        let holder = Holder::joined(blinkered(home.path()));
        assert_ne!(holder.pid.unsigned_abs(), bystander.id());
        assert_eq!(holder.leave(), "the server has stopped");
        assert!(bystander.try_wait().expect("asked").is_none(), "somebody else's process was stopped");
        bystander.kill().and_then(|()| bystander.wait()).expect("killed");
    }
}

/// Root's server runs under another account; here the caller itself has no privilege.
#[test]
fn a_caller_without_privilege_runs_its_own_server() {
    if !root() {
        // Then every other test here has shown it.
        return;
    }
    let home = home();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).expect("opened");
    let mine = home.path().join("mine");
    // The build's folder may be closed to others; what the system's temporary folder holds is not.
    let program = home.path().join("hold");
    fs::copy(env!("CARGO_BIN_EXE_hold"), &program).expect("copied");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]).arg(&program).arg(&mine);
    let holder = Holder::joined(Holder::spawn(command));
    let (server, owner) = (holder.pid, fs::metadata(&mine).expect("made"));
    assert_eq!(fs::metadata(format!("/proc/{server}")).expect("runs").uid(), owner.uid());
    assert_ne!(owner.uid(), 0);
    assert_eq!(owner.mode() & 0o777, 0o700);
    assert_eq!(holder.leave(), "the server has stopped");
    assert!(!alive(server));
}

/// Root's own folder is closed to the server's account: the data goes elsewhere, with a link in the home.
#[tokio::test]
async fn a_home_closed_to_the_servers_account_still_serves() -> Test {
    if !root() {
        return Ok(());
    }
    let closed = tempfile::tempdir()?;
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700))?;
    let config = config(&closed.path().join("home"));
    let local = Local::join(config.clone()).await?;
    let outside = local.data().parent().expect("a parent").to_owned();
    assert!(outside.starts_with("/var/lib/krowoc"), "{}", outside.display());
    assert_eq!(count(&local.url("krowoc")).await?, 1);
    local.leave().await?;
    let again = Local::join(config).await?;
    assert_eq!(count(&again.url("krowoc")).await?, 2);
    again.leave().await?;
    fs::remove_dir_all(&outside)?;
    Ok(())
}

#[test]
fn processes_that_start_together_in_a_closed_home_share_one_server() {
    if !root() {
        return;
    }
    let closed = tempfile::tempdir().expect("a folder");
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("closed");
    let children: Vec<Child> = (0..4).map(|_| Holder::spawn(Holder::command(closed.path()))).collect();
    let holders: Vec<Holder> = children.into_iter().map(Holder::joined).collect();
    assert!(holders.iter().all(|holder| holder.pid == holders[0].pid));
    let outside = fs::read_link(closed.path().join("postgres")).expect("a link");
    holders.into_iter().for_each(|holder| drop(holder.leave()));
    fs::remove_dir_all(outside).expect("removed");
}
