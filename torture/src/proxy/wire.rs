//! What a client says to PostgreSQL, as far as its commits go
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).

use std::{collections::HashMap, fmt};

/// What is committed. The names of functions and columns are the engine's statements'; a scenario that never sees one fails by its counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Act {
    /// Runs are accepted.
    Start,
    /// Steps are leased.
    Claim,
    /// Steps end.
    Complete,
    /// Attempts end, their steps do not.
    Reschedule,
    /// The items of a map are stored.
    Expand,
    /// Leases are renewed.
    Renew,
    /// A run is stopped.
    Cancel,
    /// Failed steps are sent back to work.
    Redrive,
}

impl Act {
    /// What a statement does.
    fn of(sql: &str) -> Option<Self> {
        const WORDS: [(&str, Act); 11] = [
            ("krowoc.start_runs_v1(", Act::Start),
            ("krowoc.claim_v1(", Act::Claim),
            ("krowoc.claim_run_v1(", Act::Claim),
            ("krowoc.complete_v1(", Act::Complete),
            ("krowoc.complete_one_v1(", Act::Complete),
            ("krowoc.reschedule_v1(", Act::Reschedule),
            ("krowoc.expand_v1(", Act::Expand),
            ("krowoc.renew_v1(", Act::Renew),
            ("krowoc.renew_bundles_v1(", Act::Renew),
            ("UPDATE krowoc.lane SET state = 'aborting'", Act::Cancel),
            ("UPDATE krowoc.dead_letter SET state = 'redriven'", Act::Redrive),
        ];
        WORDS.into_iter().find_map(|(words, act)| sql.contains(words).then_some(act))
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "starts",
            Self::Claim => "claims",
            Self::Complete => "completions",
            Self::Reschedule => "retries and waits",
            Self::Expand => "expansions",
            Self::Renew => "renewals",
            Self::Cancel => "cancels",
            Self::Redrive => "redrives",
        })
    }
}

/// A message, whole.
pub struct Message {
    /// Its first byte; 0 for the first of a connection, which has none.
    pub kind: u8,
    /// Everything, as it is sent.
    pub bytes: Vec<u8>,
}

impl Message {
    /// What follows its kind and length.
    pub fn body(&self) -> &[u8] {
        &self.bytes[if self.kind == 0 { 4 } else { 5 }..]
    }
}

/// Cuts one side's stream into messages.
pub struct Messages {
    bytes: Vec<u8>,
    first: bool,
}

impl Messages {
    /// A client's: its first message has no kind.
    pub fn of_client() -> Self {
        Self { bytes: vec![], first: true }
    }

    /// A server's.
    pub fn of_server() -> Self {
        Self { bytes: vec![], first: false }
    }

    /// More of the stream.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message that is complete.
    pub fn pop(&mut self) -> Option<Message> {
        let head = usize::from(!self.first);
        let length: [u8; 4] = self.bytes.get(head..head + 4)?.try_into().ok()?;
        let end = head + (u32::from_be_bytes(length) as usize).max(4);
        if self.bytes.len() < end {
            return None;
        }
        let rest = self.bytes.split_off(end);
        let bytes = std::mem::replace(&mut self.bytes, rest);
        let kind = if self.first { 0 } else { bytes[0] };
        self.first = false;
        Some(Message { kind, bytes })
    }
}

#[derive(Clone, Copy)]
enum Statement {
    Commit,
    Does(Act),
    Other,
}

impl Statement {
    fn of(sql: &str) -> Self {
        match Act::of(sql) {
            Some(act) => Self::Does(act),
            None if sql.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("commit")) => Self::Commit,
            None => Self::Other,
        }
    }
}

/// What is known of a connection: statements have their text once, and then a name.
#[derive(Default)]
pub struct Talk {
    /// `application_name`, as the client gave it.
    pub client: String,
    statements: HashMap<String, Statement>,
    portals: HashMap<String, Statement>,
    in_transaction: bool,
    /// What the transaction under way has done.
    done: Option<Act>,
}

impl Talk {
    /// The client says something; gives what the server commits when it hears it.
    pub fn said(&mut self, message: &Message) -> Option<Act> {
        let mut texts = texts(message.body());
        match message.kind {
            0 => {
                // The version's number comes first, and has zeros.
                let body = message.body().get(4..).unwrap_or_default();
                let words: Vec<String> = self::texts(body).collect();
                let named = words.chunks(2).find(|pair| pair[0] == "application_name");
                self.client = named.and_then(|pair| pair.get(1)).cloned().unwrap_or_default();
                None
            }
            b'P' => {
                let (name, sql) = (texts.next()?, texts.next()?);
                self.statements.insert(name, Statement::of(&sql));
                None
            }
            b'B' => {
                let (portal, name) = (texts.next()?, texts.next()?);
                let statement = self.statements.get(&name).copied().unwrap_or(Statement::Other);
                self.portals.insert(portal, statement);
                None
            }
            b'E' => {
                let statement = self.portals.get(&texts.next()?).copied()?;
                self.carries_out(statement)
            }
            b'Q' => self.carries_out(Statement::of(&texts.next()?)),
            _ => None,
        }
    }

    /// The server is ready for more, in this state of the transaction.
    pub fn is_ready(&mut self, status: Option<&u8>) {
        self.in_transaction = status != Some(&b'I');
        if !self.in_transaction {
            self.done = None;
        }
    }

    fn carries_out(&mut self, statement: Statement) -> Option<Act> {
        match statement {
            Statement::Commit => self.done.take(),
            Statement::Does(act) if self.in_transaction => {
                self.done = Some(act);
                None
            }
            Statement::Does(act) => Some(act),
            Statement::Other => None,
        }
    }
}

/// Texts that end with a zero, one after the other; what follows them may be anything.
fn texts(bytes: &[u8]) -> impl Iterator<Item = String> + '_ {
    bytes.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, texts: &[&str]) -> Vec<u8> {
        let body: Vec<u8> = texts.iter().flat_map(|text| [text.as_bytes(), &[0]].concat()).collect();
        [&[kind], ((body.len() + 4) as u32).to_be_bytes().as_slice(), &body].concat()
    }

    fn hear(talk: &mut Talk, bytes: &[u8]) -> Vec<Act> {
        let mut messages = Messages { bytes: bytes.to_vec(), first: false };
        std::iter::from_fn(|| messages.pop()).filter_map(|message| talk.said(&message)).collect()
    }

    #[test]
    fn a_statement_is_known_by_its_name_afterwards_and_commits_by_itself() {
        let mut talk = Talk::default();
        let prepared = message(b'P', &["s1", "SELECT * FROM krowoc.claim_v1($1)"]);
        let other = message(b'P', &["s2", "SELECT 1"]);
        assert_eq!(hear(&mut talk, &[prepared, other].concat()), []);
        let once = |name| [message(b'B', &["", name]), message(b'E', &[""]), message(b'S', &[])].concat();
        assert_eq!(hear(&mut talk, &once("s1")), [Act::Claim]);
        assert_eq!(hear(&mut talk, &once("s2")), []);
        assert_eq!(hear(&mut talk, &once("s1")), [Act::Claim]);
    }

    #[test]
    fn in_a_transaction_the_commit_counts() {
        let mut talk = Talk::default();
        assert_eq!(hear(&mut talk, &message(b'Q', &["BEGIN"])), []);
        talk.is_ready(Some(&b'T'));
        assert_eq!(hear(&mut talk, &message(b'Q', &["SELECT krowoc.start_runs_v1()"])), []);
        assert_eq!(hear(&mut talk, &message(b'Q', &["COMMIT"])), [Act::Start]);
        talk.is_ready(Some(&b'I'));
        assert_eq!(hear(&mut talk, &message(b'Q', &["COMMIT"])), [], "nothing was done in it");
        assert_eq!(hear(&mut talk, &message(b'Q', &["SELECT krowoc.start_runs_v1()"])), [Act::Start]);
    }

    #[test]
    fn what_was_rolled_back_is_forgotten() {
        let mut talk = Talk::default();
        talk.is_ready(Some(&b'T'));
        hear(&mut talk, &message(b'Q', &["SELECT krowoc.start_runs_v1()"]));
        talk.is_ready(Some(&b'I'));
        assert_eq!(hear(&mut talk, &message(b'Q', &["COMMIT"])), []);
    }

    #[test]
    fn messages_come_whole_however_the_stream_is_cut() {
        let startup: Vec<u8> = {
            let body = [196_608_u32.to_be_bytes().as_slice(), b"user\0krowoc\0application_name\0client-1\0\0"].concat();
            [((body.len() + 4) as u32).to_be_bytes().as_slice(), &body].concat()
        };
        let stream = [startup, message(b'Q', &["SELECT krowoc.renew_v1()"])].concat();
        let (mut messages, mut talk, mut acts) = (Messages::of_client(), Talk::default(), vec![]);
        for byte in stream {
            messages.extend(&[byte]);
            while let Some(message) = messages.pop() {
                acts.extend(talk.said(&message));
            }
        }
        assert_eq!((talk.client.as_str(), acts), ("client-1", vec![Act::Renew]));
    }
}
