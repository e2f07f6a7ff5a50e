//! One connection from hello to close.

use std::io;
use std::time::Duration;

use dph_agent_ipc::{Connection, Peer, Uid};
use dph_agent_protocol::frame::{HEADER_LEN, Header};
use dph_agent_protocol::version::HELLO;
use dph_agent_protocol::{
    DecodeError, ErrorCode, FRAME_TIMEOUT, Failure, HELLO_TIMEOUT, Hello, HelloReply, IDLE_TIMEOUT,
    REPLY_TIMEOUT, Reply, Request,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tracing::debug;
use zeroize::Zeroizing;

use crate::authorize::authorize;
use crate::error::{Chain, Problem};
use crate::handle::{Desk, handle};
use crate::sessions::Seat;

/// Times that a client may name a version before the agent gives up on it.
const HELLO_TRIES: usize = 2;

/// A frame that was read; its body is wiped when dropped.
struct Frame {
    kind: u16,
    body: Zeroizing<Vec<u8>>,
}

/// Why a session ends before the client closes it.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("{0} took too long")]
    Timeout(&'static str),
    #[error("the client sent something that is not a frame")]
    Frame(#[from] dph_agent_protocol::frame::FrameError),
    #[error("the client did not say hello")]
    NoHello,
    #[error("the reply does not fit into a frame")]
    Reply(#[from] dph_agent_protocol::EncodeError),
}

/// Serves one client until it leaves, breaks a rule or has to make room.
pub async fn run(connection: Connection, peer: Peer, own: Uid, seat: Seat, desk: &Desk) {
    let mut session = Session { connection, peer, own, desk };
    let ended = tokio::select! {
        ended = session.serve(&seat) => ended,
        () = seat.asked_to_leave() => Ok(()),
    };
    if let Err(error) = ended {
        debug!(error = %Chain(&error), pid = session.peer.pid, "a session ended early");
    }
}

struct Session<'a> {
    connection: Connection,
    peer: Peer,
    own: Uid,
    desk: &'a Desk,
}

impl Session<'_> {
    async fn serve(&mut self, seat: &Seat) -> Result<(), SessionError> {
        limit(HELLO_TIMEOUT, "hello", self.hello()).await?;
        while let Some(header) = self.next_header().await? {
            let frame = limit(FRAME_TIMEOUT, "a frame", self.body(header)).await?;
            // Held until the reply is written: a session that works is not asked to leave.
            let _busy = seat.busy();
            let reply = self.reply_to(frame).await?;
            limit(REPLY_TIMEOUT, "taking a reply", self.write(&reply)).await?;
        }
        Ok(())
    }

    /// Settles on a version. A client that cannot be understood gets one more try; what it sent behind
    /// the hello that was not understood is read past.
    async fn hello(&mut self) -> Result<(), SessionError> {
        let mut tries = 0;
        while let Some(header) = self.header().await? {
            let frame = self.body(header).await?;
            if tries > 0 && frame.kind != HELLO {
                continue;
            }
            let answer = Hello::parse(frame.kind, &frame.body).ok_or(SessionError::NoHello)?.answer();
            self.write(&answer.to_frame()).await?;
            tries += 1;
            match answer {
                HelloReply::Welcome { .. } => return Ok(()),
                HelloReply::Mismatch { .. } if tries < HELLO_TRIES => {}
                HelloReply::Mismatch { .. } => break,
            }
        }
        Err(SessionError::NoHello)
    }

    async fn next_header(&mut self) -> Result<Option<Header>, SessionError> {
        limit(IDLE_TIMEOUT, "the next request", self.header()).await
    }

    /// Reads a header, or `None` where the client closed between two frames.
    async fn header(&mut self) -> Result<Option<Header>, SessionError> {
        let mut bytes = [0; HEADER_LEN];
        let [first, rest @ ..] = &mut bytes;
        if self.connection.read(std::slice::from_mut(first)).await? == 0 {
            return Ok(None);
        }
        limit(FRAME_TIMEOUT, "a frame", async { Ok(self.connection.read_exact(rest).await?) }).await?;
        Ok(Some(Header::parse(bytes)?))
    }

    async fn body(&mut self, header: Header) -> Result<Frame, SessionError> {
        let mut body = Zeroizing::new(vec![0; header.body_len]);
        self.connection.read_exact(&mut body).await?;
        Ok(Frame { kind: header.kind, body })
    }

    async fn reply_to(&self, frame: Frame) -> Result<dph_agent_protocol::Bytes, SessionError> {
        let reply = match self.answer(frame).await {
            Ok(reply) => reply,
            Err(problem) => Reply::Failure(Failure::from(problem)),
        };
        Ok(reply.to_frame()?)
    }

    async fn answer(&self, frame: Frame) -> Result<Reply, Problem> {
        let request = Request::from_body(frame.kind, &frame.body).map_err(unreadable)?;
        drop(frame);
        debug!(request = request.name(), pid = self.peer.pid, "request");
        let permit = authorize(request, &self.peer, &self.own)?;
        Box::pin(handle(permit, self.desk)).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.connection.write_all(bytes).await?;
        Ok(self.connection.flush().await?)
    }
}

async fn limit<T>(
    within: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, SessionError>>,
) -> Result<T, SessionError> {
    timeout(within, work).await.unwrap_or(Err(SessionError::Timeout(what)))
}

fn unreadable(error: DecodeError) -> Problem {
    let hint =
        "client and agent are of different versions: `dph-agent-client version`, then restart the older one";
    let unknown = matches!(error, DecodeError::UnknownKind(_));
    let code = if unknown { ErrorCode::UNKNOWN_REQUEST } else { ErrorCode::BAD_REQUEST };
    Problem::new(code, error.to_string(), hint)
}
