//! Does a server answer on this socket? A handshake of PostgreSQL's protocol, version 3, and nothing more: a pid file and a socket
//! that accepts prove nothing, and a whole driver would be much for one question.
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use crate::DATABASE;
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// What the socket said.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// A session can be had.
    Ready,
    /// It starts, recovers or stops.
    NotYet(String),
    /// Nobody there, or something else.
    None(String),
}

/// Asks.
pub(crate) fn ask(socket: &Path) -> Answer {
    match handshake(socket) {
        Ok(answer) => answer,
        Err(error) => Answer::None(format!("{}: {error}", socket.display())),
    }
}

fn handshake(socket: &Path) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&startup_message())?;
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    // The two answers to a startup are short; anything else is not a PostgreSQL.
    if !(4..=64 * 1024).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a PostgreSQL server"));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body)?;
    Ok(match (head[0], body.as_slice()) {
        (b'R', [0, 0, 0, 0, ..]) => {
            stream.write_all(&[b'X', 0, 0, 0, 4])?;
            Answer::Ready
        }
        (b'R', _) => Answer::None("it asks for a password".into()),
        (b'E', fields) => refused(fields),
        _ => Answer::None("not a PostgreSQL server".into()),
    })
}

fn startup_message() -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for text in ["user", DATABASE, "database", DATABASE, "application_name", "krowoc join", ""] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    let length = body.len() as u32 + 4;
    [length.to_be_bytes().as_slice(), &body].concat()
}

fn refused(fields: &[u8]) -> Answer {
    let field = |kind: u8| {
        fields.split(|byte| *byte == 0).find_map(|field| match field {
            [first, rest @ ..] if *first == kind => Some(String::from_utf8_lossy(rest).into_owned()),
            _ => None,
        })
    };
    let message = field(b'M').unwrap_or_default();
    match field(b'C').as_deref() {
        // cannot_connect_now, admin_shutdown
        Some("57P03" | "57P01") => Answer::NotYet(message),
        // too_many_connections: full, so it serves.
        Some("53300") => Answer::Ready,
        _ => Answer::None(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_by_its_code() {
        let fields = |code: &str| format!("SFATAL\0VFATAL\0C{code}\0Mthe message\0\0").into_bytes();
        assert_eq!(refused(&fields("57P03")), Answer::NotYet("the message".into()));
        assert_eq!(refused(&fields("53300")), Answer::Ready);
        assert_eq!(refused(&fields("3D000")), Answer::None("the message".into()));
    }

    #[test]
    fn no_socket_is_no_server() {
        assert!(matches!(ask(Path::new("/nowhere/.s.PGSQL.5432")), Answer::None(_)));
    }
}
