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
                while let Some(message) = said.pop() {
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
                while let Some(message) = answers.pop() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;
    use tokio::io::duplex;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind], ((body.len() + 4) as u32).to_be_bytes().as_slice(), body].concat()
    }

    fn startup() -> Vec<u8> {
        let body = [196_608_u32.to_be_bytes().as_slice(), b"application_name\0me\0\0"].concat();
        [((body.len() + 4) as u32).to_be_bytes().as_slice(), &body].concat()
    }

    const RENEW: &[u8] = b"SELECT krowoc.renew_v1()\0";

    /// What a server hears that gives one answer, and what its client hears of that.
    async fn carried(cuts: &Cuts, said: Vec<u8>, answer: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
        let ((mut client, mut outside), (mut server, mut inside)) = (duplex(1 << 16), duplex(1 << 16));
        let talk = async move {
            client.write_all(&said).await.expect("said");
            let mut heard = vec![];
            client.read_to_end(&mut heard).await.expect("an end");
            heard
        };
        let serve = async move {
            let (mut heard, mut bytes) = (vec![], vec![0; 1 << 16]);
            // The greeting, then the statement if it comes.
            while !heard.windows(RENEW.len()).any(|window| window == RENEW) {
                match server.read(&mut bytes).await.expect("read") {
                    0 => return heard,
                    n => heard.extend_from_slice(&bytes[..n]),
                }
            }
            server.write_all(&answer).await.expect("answered");
            heard
        };
        let carry = async move {
            carry(cuts, &mut outside, &mut inside).await.expect("carried");
        };
        let (heard, served, ()) = tokio::join!(talk, serve, carry);
        (served, heard)
    }

    /// Cuts of one kind, on one side.
    fn one(side: Side) -> Cuts {
        let cuts = Cuts::new(&[(Act::Renew, 1)], Dice::new(1, "carry"));
        cuts.keep_only(side);
        cuts
    }

    #[tokio::test]
    async fn what_is_cut_before_the_server_hears_never_gets_there() {
        let cuts = one(Side::Before);
        let (served, heard) = carried(&cuts, [startup(), message(b'Q', RENEW)].concat(), message(b'Z', b"I")).await;
        assert_eq!((served, heard), (vec![], vec![]));
        let made = cuts.take("me").expect("a cut");
        assert_eq!((made.act, made.side, cuts.left()), (Act::Renew, Side::Before, 0));
    }

    #[tokio::test]
    async fn what_is_cut_after_the_answer_has_been_heard_by_the_server_alone() {
        let cuts = one(Side::After);
        let said = [startup(), message(b'Q', RENEW)].concat();
        let (served, heard) = carried(&cuts, said.clone(), [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()).await;
        assert_eq!((served, heard), (said, vec![]));
        assert_eq!(cuts.take("me").expect("a cut").side, Side::After);
    }

    #[tokio::test]
    async fn what_the_server_refuses_was_no_commit_and_is_passed_on() {
        let cuts = one(Side::After);
        let answer = [message(b'E', b"SERROR\0\0"), message(b'Z', b"I")].concat();
        let (_, heard) = carried(&cuts, [startup(), message(b'Q', RENEW)].concat(), answer.clone()).await;
        assert_eq!((heard, cuts.left()), (answer, 1));
        assert!(cuts.take("me").is_none());
    }
}
