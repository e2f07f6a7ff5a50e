//! One connection from hello to close.

use std::io;
use std::time::Duration;

use dph_agent_ipc::{Connection, Peer, Uid};
use dph_agent_protocol::frame::{HEADER_LEN, Header};
use dph_agent_protocol::{DecodeError, ErrorCode, Failure, Hello, HelloReply, Reply, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tracing::debug;
use zeroize::Zeroizing;

use crate::authorize::authorize;
use crate::error::{Chain, Problem};
use crate::handle::{Desk, handle};
use crate::sessions::Seat;

/// How long a client may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the rest of a frame may take once it has begun.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to take a reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may stay silent between requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

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

    /// Settles on a version. A client that cannot be understood gets one more try.
    async fn hello(&mut self) -> Result<(), SessionError> {
        for _try in 0..2 {
            let header = self.header().await?.ok_or(SessionError::NoHello)?;
            let frame = self.body(header).await?;
            let hello = Hello::parse(frame.kind, &frame.body).ok_or(SessionError::NoHello)?;
            let answer = hello.answer();
            self.write(&answer.to_frame()).await?;
            match answer {
                HelloReply::Welcome { .. } => return Ok(()),
                HelloReply::Mismatch { .. } => self.discard_frame().await?,
            }
        }
        Err(SessionError::NoHello)
    }

    /// Reads past the frame behind a hello that was not understood.
    async fn discard_frame(&mut self) -> Result<(), SessionError> {
        let header = self.header().await?.ok_or(SessionError::NoHello)?;
        self.body(header).await.map(drop)
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
