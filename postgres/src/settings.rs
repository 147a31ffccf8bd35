//! What the server is started with, in a file that is written anew at each start.

use crate::{
    config::{Durability, LocalConfig},
    error::Result,
    place::Place,
};
use std::{fs, path::Path};

/// In the data folder, included by `postgresql.conf`.
pub(crate) const SETTINGS_FILE: &str = "krowoc.conf";

/// Writes them beside the data.
pub(crate) fn write(config: &LocalConfig, place: &Place, socket_folder: &Path) -> Result<()> {
    let mut settings = vec![
        ("listen_addresses".to_owned(), String::new()),
        ("port".to_owned(), "5432".to_owned()),
        ("unix_socket_directories".to_owned(), socket_folder.display().to_string()),
        ("unix_socket_permissions".to_owned(), "0700".to_owned()),
        ("max_connections".to_owned(), config.max_connections.to_string()),
        ("shared_buffers".to_owned(), format!("{}MB", shared_buffers_mb(memory_mb()))),
    ];
    // Short transactions on a fast local disk, checkpoints seldom enough that full page images stay rare.
    for (name, value) in [
        ("max_wal_size", "2GB"),
        ("min_wal_size", "256MB"),
        ("wal_buffers", "16MB"),
        ("checkpoint_timeout", "15min"),
        ("random_page_cost", "1.1"),
        ("jit", "off"),
        ("autovacuum_naptime", "15s"),
        ("log_checkpoints", "off"),
        ("log_line_prefix", "%m [%p] %q%a "),
        ("log_timezone", "UTC"),
        ("timezone", "UTC"),
    ] {
        settings.push((name.to_owned(), value.to_owned()));
    }
    let durable = if config.durability == Durability::Durable { "on" } else { "off" };
    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        settings.push((name.to_owned(), durable.to_owned()));
    }
    settings.extend(config.settings.iter().cloned());
    let text: String = settings.iter().map(|(name, value)| format!("{name} = '{}'\n", quoted(value))).collect();
    place.account.write(&place.data().join(SETTINGS_FILE), &format!("# Written by krowoc at each start.\n{text}"))
}

/// <https://www.postgresql.org/docs/current/config-setting.html>: within quotes a backslash escapes, and a line must not break.
fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n")
}

/// A sixteenth of the machine, within what a private server needs and deserves.
fn shared_buffers_mb(memory_mb: u64) -> u64 {
    (memory_mb / 16).clamp(128, 512)
}

/// 0 where the system does not say.
fn memory_mb() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kb = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    kb.unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_buffers_follow_memory_within_bounds() {
        assert_eq!([0, 4_096, 6_400, 65_536].map(shared_buffers_mb), [128, 256, 400, 512]);
    }
    #[test]
    fn a_setting_carries_any_text() {
        assert_eq!(quoted("it's a\\b\nc"), r"it''s a\\b\nc");
    }
}
