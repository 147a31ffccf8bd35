//! Guarantee: the server runs exactly as long as somebody uses it, whatever happens to its users, and its data survives them.

mod support;

use krowoc_postgres::{Error, Left, Local, LocalConfig, Purpose};
use sqlx::{Connection, PgConnection};
use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, symlink},
    },
    path::PathBuf,
    process::{Child, Command},
};
use support::{Holder, Test, alive, config, count, eventually, home, setting};

#[tokio::test]
async fn the_last_one_out_stops_the_server_and_the_data_stays() -> Test {
    let home = home();
    let first = Local::join(config(home.path())).await?;
    let second = Local::join(config(home.path())).await?;
    assert_eq!((first.pid(), first.url("krowoc")), (second.pid(), second.url("krowoc")));
    let (pid, url) = (first.pid(), first.url("krowoc"));
    assert_eq!(count(&url).await?, 1);
    assert_eq!(first.leave().await?, Left::Running);
    assert_eq!(count(&url).await?, 2);
    assert_eq!(second.leave().await?, Left::Stopped);
    assert!(!alive(pid), "the server still runs");
    assert!(count(&url).await.is_err());

    let again = Local::join(config(home.path())).await?;
    assert_eq!(count(&again.url("krowoc")).await?, 3);
    assert_eq!(again.leave().await?, Left::Stopped);
    Ok(())
}

#[tokio::test]
async fn dropping_the_last_hold_stops_the_server() -> Test {
    let home = home();
    let local = Local::join(config(home.path())).await?;
    let pid = local.pid();
    drop(local);
    assert!(!alive(pid));
    Ok(())
}

#[tokio::test]
async fn the_server_is_durable_and_listens_on_its_private_socket_only() -> Test {
    let home = home();
    let local = Local::join(LocalConfig::new(home.path())).await?;
    let url = local.url("krowoc");
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(setting(&url, name).await?, "on", "{name}");
    }
    assert_eq!(setting(&url, "listen_addresses").await?, "");
    assert_eq!(setting(&url, "server_encoding").await?, "UTF8");
    assert_eq!(fs::metadata(local.socket_folder())?.mode() & 0o777, 0o700);
    let postmaster = fs::metadata(format!("/proc/{}", local.pid())).map(|meta| meta.uid());
    assert!(postmaster.is_err() || postmaster.is_ok_and(|uid| uid != 0), "the server runs as root");
    let environment = fs::read(format!("/proc/{}/environ", local.pid())).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&environment).contains("CARGO"), "the server keeps its caller's environment");
    local.leave().await?;
    Ok(())
}

#[test]
fn processes_that_start_together_share_one_server() {
    let home = home();
    let children: Vec<Child> = (0..4).map(|_| Holder::spawn(Holder::command(home.path()))).collect();
    let holders: Vec<Holder> = children.into_iter().map(Holder::joined).collect();
    let pid = holders[0].pid;
    assert!(holders.iter().all(|holder| holder.pid == pid));
    let said: Vec<String> = holders.into_iter().map(Holder::leave).collect();
    assert_eq!(said.iter().filter(|said| *said == "the server has stopped").count(), 1, "{said:?}");
    assert_eq!(said.last().map(String::as_str), Some("the server has stopped"));
    assert!(!alive(pid));
}

/// Joining and leaving race without pause; nobody may ever get a server that is being stopped under it.
#[tokio::test]
async fn who_joins_while_the_last_one_leaves_gets_a_server() -> Test {
    let home = home();
    let path = home.path().to_owned();
    // Makes the table: two that make it at once would be in each other's way.
    let first = Local::join(config(&path)).await?;
    count(&first.url("krowoc")).await?;
    first.leave().await?;
    let visitor = |path: PathBuf| async move {
        for _ in 0..6 {
            let local = Local::join(config(&path)).await.expect("joined");
            count(&local.url("krowoc")).await.expect("a working server");
            local.leave().await.expect("left");
        }
    };
    let visitors: Vec<_> = (0..3).map(|_| tokio::spawn(visitor(path.clone()))).collect();
    for visitor in visitors {
        visitor.await?;
    }
    let last = Local::join(config(home.path())).await?;
    assert_eq!(count(&last.url("krowoc")).await?, 20);
    assert_eq!(last.leave().await?, Left::Stopped);
    Ok(())
}

#[tokio::test]
async fn the_server_of_a_killed_process_is_taken_over_and_stopped_by_the_last() -> Test {
    let home = home();
    let holder = Holder::join(home.path());
    let pid = holder.pid;
    holder.kill();
    assert!(alive(pid), "the server died with its user");
    let local = Local::join(config(home.path())).await?;
    assert_eq!(local.pid(), pid);
    assert_eq!(count(&local.url("krowoc")).await?, 1);
    assert_eq!(local.leave().await?, Left::Stopped);
    assert!(!alive(pid));
    Ok(())
}

#[tokio::test]
async fn a_process_killed_while_it_starts_the_server_leaves_nothing_broken() -> Test {
    // At different moments: making the data, moving it, starting.
    for wait_for in ["start.lock", "postgres/data", "postgres/data/postmaster.pid"] {
        let home = home();
        let mut child = Holder::spawn(Holder::command(home.path()));
        eventually(wait_for, || home.path().join(wait_for).exists());
        child.kill().and_then(|()| child.wait().map(drop)).expect("killed");
        let local = Local::join(config(home.path())).await.map_err(|error| format!("killed at {wait_for}: {error}"))?;
        assert_eq!(count(&local.url("krowoc")).await?, 1, "killed at {wait_for}");
        assert_eq!(local.leave().await?, Left::Stopped, "killed at {wait_for}");
    }
    Ok(())
}

#[tokio::test]
async fn a_machine_crash_leaves_a_pid_file_that_does_not_deceive() -> Test {
    let home = home();
    let local = Local::join(config(home.path())).await?;
    let (data, pid) = (local.data(), local.pid());
    count(&local.url("krowoc")).await?;
    let pid_file = data.join("postmaster.pid");
    let text = fs::read_to_string(&pid_file)?;
    let socket_lock = local.socket_folder().join(".s.PGSQL.5432.lock");
    assert_eq!(local.leave().await?, Left::Stopped);
    // After a reboot the number belongs to somebody else: here to this test, which runs under the same user.
    let ours = text.replacen(&pid.to_string(), &std::process::id().to_string(), 1);
    fs::write(&pid_file, &ours)?;
    fs::write(&socket_lock, &ours)?;
    let again = Local::join(config(home.path())).await?;
    assert_eq!(count(&again.url("krowoc")).await?, 2);
    assert_eq!(again.leave().await?, Left::Stopped);
    // Or the file was not written out at all.
    fs::write(&pid_file, "")?;
    let again = Local::join(config(home.path())).await?;
    assert_eq!(count(&again.url("krowoc")).await?, 3);
    again.leave().await?;
    Ok(())
}

#[tokio::test]
async fn a_crashed_server_recovers_under_its_users() -> Test {
    let home = home();
    let config = LocalConfig::new(home.path());
    let mut local = Local::join(config.clone()).await?;
    let before = local.pid();
    count(&local.url("krowoc")).await?;
    local.crash_and_restart(&config)?;
    assert_ne!(local.pid(), before);
    assert_eq!(count(&local.url("krowoc")).await?, 2);
    local.leave().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_killed_under_its_sessions_is_started_anew() -> Test {
    let home = home();
    let local = Local::join(LocalConfig::new(home.path())).await?;
    count(&local.url("krowoc")).await?;
    let mut session = PgConnection::connect(&local.url("krowoc")).await?;
    let pid = local.pid().to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status()?.success());
    let again = Local::join(LocalConfig::new(home.path())).await?;
    assert_ne!(again.pid(), local.pid());
    assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err());
    assert_eq!(count(&again.url("krowoc")).await?, 2);
    assert_eq!(local.leave().await?, Left::Running);
    assert_eq!(again.leave().await?, Left::Stopped);
    Ok(())
}

#[tokio::test]
async fn a_server_whose_socket_vanished_is_restarted_for_who_is_alone_and_named_to_others() -> Test {
    let home = home();
    let first = Local::join(config(home.path())).await?;
    let pid = first.pid();
    fs::remove_file(first.socket_folder().join(".s.PGSQL.5432"))?;
    let refused = Local::join(config(home.path())).await;
    assert!(matches!(&refused, Err(Error::Unreachable { pid: named, .. }) if *named == pid), "{refused:?}");
    assert_eq!(first.leave().await?, Left::Stopped);

    let holder = Holder::join(home.path());
    let pid = holder.pid;
    holder.kill();
    let socket = home.path().join("postgres/run/.s.PGSQL.5432");
    fs::remove_file(socket)?;
    let alone = Local::join(config(home.path())).await?;
    assert_ne!(alone.pid(), pid);
    assert!(!alive(pid));
    assert_eq!(alone.leave().await?, Left::Stopped);
    Ok(())
}

#[tokio::test]
async fn a_home_with_a_long_path_gets_a_short_socket() -> Test {
    let home = home();
    let deep = home.path().join("a-folder-with-quite-a-long-name".repeat(3)).join("and one 'with' quotes".repeat(3));
    let local = Local::join(config(&deep)).await?;
    let folder = local.socket_folder().to_owned();
    assert!(folder.starts_with("/tmp"), "{}", folder.display());
    assert_eq!(fs::metadata(&folder)?.mode() & 0o777, 0o700);
    assert_eq!(count(&local.url("krowoc")).await?, 1);
    assert_eq!(local.leave().await?, Left::Stopped);
    fs::remove_dir(&folder)?;
    Ok(())
}

#[tokio::test]
async fn throwaway_data_is_gone_after_the_last_one_left() -> Test {
    let home = home();
    let config = LocalConfig { purpose: Purpose::Throwaway, ..config(home.path()) };
    for _ in 0..2 {
        let local = Local::join(config.clone()).await?;
        assert_eq!(count(&local.url("krowoc")).await?, 1);
        local.leave().await?;
    }
    Ok(())
}

#[tokio::test]
async fn data_of_another_major_is_refused_with_what_to_do() -> Test {
    let home = home();
    let local = Local::join(config(home.path())).await?;
    let version = local.data().join("PG_VERSION");
    local.leave().await?;
    let real = fs::read_to_string(&version)?;
    fs::write(&version, "12\n")?;
    let error = Local::join(config(home.path())).await.expect_err("refused").to_string();
    assert!(error.contains("PostgreSQL 12") && error.contains("pg_upgrade"), "{error}");
    fs::write(&version, real)?;
    Local::join(config(home.path())).await?.leave().await?;
    Ok(())
}

#[tokio::test]
async fn a_missing_postgresql_is_named_with_the_command_that_installs_it() -> Test {
    let home = home();
    let nowhere = LocalConfig { binaries: Some("/nowhere/bin".into()), ..config(home.path()) };
    let error = Local::join(nowhere).await.expect_err("not installed").to_string();
    assert!(error.contains("/nowhere/bin") && error.contains("DATABASE_URL") && error.contains("install"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_the_end_of_its_log() -> Test {
    let home = home();
    let wrong = LocalConfig { settings: vec![("shared_buffers".into(), "a lot".into())], ..config(home.path()) };
    let error = Local::join(wrong).await.expect_err("refused").to_string();
    assert!(error.contains("invalid value for parameter \"shared_buffers\""), "{error}");
    Ok(())
}

/// As in another container that shares the home: its processes cannot be seen, its socket can.
#[tokio::test]
async fn a_server_whose_process_is_hidden_gets_no_second_one_on_its_data() -> Test {
    let home = home();
    let holder = Holder::join(home.path());
    let pid_file = home.path().join("postgres/data/postmaster.pid");
    let text = fs::read_to_string(&pid_file)?;
    let hidden = text.replacen(&holder.pid.to_string(), "999999999", 1);
    fs::write(&pid_file, &hidden)?;
    let error = Local::join(config(home.path())).await.expect_err("refused").to_string();
    assert!(error.contains("another container") && error.contains("KROWOC_HOME"), "{error}");
    assert_eq!(fs::read_to_string(&pid_file)?, hidden, "the running server's file was changed");
    fs::write(&pid_file, text)?;
    assert_eq!(holder.leave(), "the server has stopped");
    Ok(())
}

#[tokio::test]
async fn data_moved_to_another_disk_is_served_through_its_link() -> Test {
    let home = home();
    let local = Local::join(config(home.path())).await?;
    let data = local.data();
    assert_eq!(count(&local.url("krowoc")).await?, 1);
    local.leave().await?;
    let moved = home.path().join("postgres/elsewhere");
    fs::rename(&data, &moved)?;
    symlink(&moved, &data)?;
    let first = Local::join(config(home.path())).await?;
    let second = Local::join(config(home.path())).await?;
    assert_eq!(first.pid(), second.pid());
    assert_eq!(count(&second.url("krowoc")).await?, 2);
    first.leave().await?;
    assert_eq!(second.leave().await?, Left::Stopped);
    Ok(())
}

#[tokio::test]
async fn a_home_may_have_any_bytes_in_its_path_that_postgresql_takes() -> Test {
    for name in ["it's, one (ü)".as_bytes(), b"not utf-8 \xff"] {
        let home = home();
        let odd = home.path().join(OsStr::from_bytes(name));
        let local = Local::join(config(&odd)).await?;
        assert_eq!(count(&local.url("krowoc")).await?, 1);
        let again = Local::join(config(&odd)).await?;
        assert_eq!(local.pid(), again.pid());
        let folder = local.socket_folder().to_owned();
        local.leave().await?;
        assert_eq!(again.leave().await?, Left::Stopped);
        fs::remove_dir(&folder)?;
    }
    let home = home();
    let error = Local::join(config(&home.path().join("$HOME"))).await.expect_err("refused").to_string();
    assert!(error.contains("KROWOC_HOME"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_data_folder_without_data_is_named_and_left_alone() -> Test {
    let home = home();
    let local = Local::join(config(home.path())).await?;
    let data = local.data();
    local.leave().await?;
    fs::remove_file(data.join("PG_VERSION"))?;
    let error = Local::join(config(home.path())).await.expect_err("refused").to_string();
    assert!(error.contains(&data.display().to_string()) && error.contains("no PG_VERSION") && error.contains("backup"), "{error}");
    assert!(data.join("base").is_dir());
    Ok(())
}
