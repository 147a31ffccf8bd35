//! Carries a connection's messages to either side, and cuts it where that is wanted.

use super::{
    cuts::{Cut, Cuts, Side},
    wire::{Act, Message, Messages, Talk},
};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Answers to a commit that are kept until it is clear that it was one.
struct Withheld {
    act: Act,
    bytes: Vec<u8>,
    rows: usize,
    refused: bool,
}

impl Withheld {
    fn add(&mut self, message: &Message) {
        self.bytes.extend_from_slice(&message.bytes);
        self.rows += usize::from(message.kind == b'D');
        // A COMMIT after an error is answered as what it is.
        self.refused |= message.kind == b'E' || (message.kind == b'C' && message.body().starts_with(b"ROLLBACK"));
    }

    /// A claim that found nothing has changed nothing.
    fn is_done(&self) -> bool {
        !self.refused && (self.act != Act::Claim || self.rows > 0)
    }
}

/// Until one side has gone, or the connection is cut.
pub(super) async fn carry(
    cuts: &Cuts,
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut withheld = None;
    let ended = carry_on(cuts, client, server, &mut withheld).await;
    if let Some(Withheld { act, .. }) = withheld {
        cuts.give_back(act, Side::After);
    }
    ended
}

async fn carry_on(
    cuts: &Cuts,
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
    withheld: &mut Option<Withheld>,
) -> io::Result<()> {
    let (mut talk, mut said, mut answers) = (Talk::default(), Messages::of_client(), Messages::of_server());
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let mut on = vec![];
        tokio::select! {
            n = client.read(&mut from_client) => {
                let n = n?;
                said.extend(&from_client[..n]);
                while let Some(message) = said.next() {
                    // One commit at a time: a client that has not heard of one says nothing more.
                    let commits = talk.said(&message).filter(|_| withheld.is_none());
                    match commits.and_then(|act| Some((act, cuts.choose(act)?))) {
                        Some((act, Side::Before)) => {
                            cuts.make(Cut { client: talk.client, act, side: Side::Before });
                            return Ok(());
                        }
                        Some((act, Side::After)) => *withheld = Some(Withheld { act, bytes: vec![], rows: 0, refused: false }),
                        None => {}
                    }
                    on.extend(message.bytes);
                }
                if n == 0 {
                    return Ok(());
                }
                server.write_all(&on).await?;
            }
            n = server.read(&mut from_server) => {
                let n = n?;
                if n == 0 {
                    return Ok(());
                }
                answers.extend(&from_server[..n]);
                while let Some(message) = answers.next() {
                    let ready = message.kind == b'Z';
                    if ready {
                        talk.is_ready(message.body().first());
                    }
                    let Some(kept) = withheld.as_mut() else {
                        on.extend(message.bytes);
                        continue;
                    };
                    kept.add(&message);
                    if !ready {
                        continue;
                    }
                    let Some(kept) = withheld.take() else { continue };
                    if kept.is_done() {
                        cuts.make(Cut { client: talk.client, act: kept.act, side: Side::After });
                        return Ok(());
                    }
                    cuts.give_back(kept.act, Side::After);
                    on.extend(kept.bytes);
                }
                client.write_all(&on).await?;
            }
        }
    }
}
