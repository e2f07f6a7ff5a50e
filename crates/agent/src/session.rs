//! One connection from hello to close.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dph_agent_ipc::{Connection, Peer, Uid};
use dph_agent_protocol::frame::{HEADER_LEN, Header};
use dph_agent_protocol::version::HELLO;
use dph_agent_protocol::{
    Bytes, DecodeError, ErrorCode, FRAME_TIMEOUT, Failure, HELLO_TIMEOUT, Hello, HelloReply, IDLE_TIMEOUT,
    MAX_READ_AHEAD, REPLY_TIMEOUT, Reply, Request,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::debug;
use zeroize::Zeroizing;

use crate::audit::account::{Asked, account};
use crate::authorize::{Permit, authorize};
use crate::caller::Asker;
use crate::errands::is_errand;
use crate::error::{Chain, Problem};
use crate::handle::{Desk, handle};
use crate::sessions::Seat;

/// Times that a client may name a version before the agent gives up on it.
const HELLO_TRIES: usize = 2;
/// How long the work on a request goes on for a client that has closed: it may have closed only its
/// sending half, or have asked for something whose answer it does not need. What changes something goes on to its end.
const PARTING_TIME: Duration = Duration::from_secs(1);

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
pub async fn run(connection: Connection, peer: Peer, own: Uid, seat: Seat, desk: &Arc<Desk>) {
    let asker = Asker::new(peer, connection.far_end(), desk.surroundings.clock.steady());
    let _until_it_goes = asker.stays();
    let (reader, writer) = split(connection);
    let (mut incoming, mut outgoing) = (Incoming(reader), Outgoing(writer));
    let session = Session { asker: Arc::new(asker), own, seat: Arc::new(seat), desk: Arc::clone(desk) };
    let ended = tokio::select! {
        ended = session.serve(&mut incoming, &mut outgoing) => ended,
        () = session.seat.asked_to_leave() => Ok(()),
    };
    if let Err(error) = ended {
        debug!(error = %Chain(&error), pid = session.asker.peer().pid, "a session ended early");
    }
}

struct Session {
    asker: Arc<Asker>,
    own: Uid,
    /// Also held by what goes on without the client, so that one who hangs up has no room for more.
    seat: Arc<Seat>,
    desk: Arc<Desk>,
}

/// What the client sends.
struct Incoming(ReadHalf<Connection>);

/// What the client gets.
struct Outgoing(WriteHalf<Connection>);

impl Session {
    async fn serve(&self, incoming: &mut Incoming, outgoing: &mut Outgoing) -> Result<(), SessionError> {
        limit(HELLO_TIMEOUT, "hello", hello(incoming, outgoing)).await?;
        let (ahead, requests) = mpsc::channel(MAX_READ_AHEAD);
        // Reading goes on during the work on a request, to notice a client that has gone.
        tokio::select! {
            ended = read_ahead(incoming, ahead) => ended,
            ended = self.answer_all(requests, outgoing) => ended,
        }
    }

    async fn answer_all(
        &self,
        mut requests: mpsc::Receiver<Frame>,
        outgoing: &mut Outgoing,
    ) -> Result<(), SessionError> {
        while let Some(frame) = requests.recv().await {
            // Held until the reply is written: a session that works is not asked to leave.
            let _busy = self.seat.busy();
            let reply = self.reply_to(frame).await?;
            limit(REPLY_TIMEOUT, "taking a reply", outgoing.write(&reply)).await?;
        }
        Ok(())
    }

    async fn reply_to(&self, frame: Frame) -> Result<Bytes, SessionError> {
        let reply = match self.answer(frame).await {
            Ok(reply) => reply,
            Err(problem) => Reply::Failure(Failure::from(problem)),
        };
        Ok(reply.to_frame()?)
    }

    async fn answer(&self, frame: Frame) -> Result<Reply, Problem> {
        let request = Request::from_body(frame.kind, &frame.body).map_err(unreadable)?;
        drop(frame);
        debug!(request = request.name(), pid = self.asker.peer().pid, "request");
        let (asked, is_errand) = (Asked::of(&request), is_errand(&request));
        let permit = self.permit(request);
        let work = carried_out(asked, permit, Arc::clone(&self.asker), Arc::clone(&self.desk));
        if !is_errand {
            return work.await;
        }
        let seat = Arc::clone(&self.seat);
        let to_its_end = async move {
            let _taken = seat;
            work.await
        };
        self.desk.errands.carry_out(to_its_end).await
    }

    /// By the configuration in force, which need not be the one under which this session began.
    fn permit(&self, request: Request) -> Result<Permit, Problem> {
        let vault = &self.desk.vault;
        authorize(request, self.asker.peer(), &self.own, &vault.in_force().borrow(), vault.is_locked())
    }
}

/// Does what was permitted, and accounts for it.
async fn carried_out(
    asked: Asked,
    permit: Result<Permit, Problem>,
    asker: Arc<Asker>,
    desk: Arc<Desk>,
) -> Result<Reply, Problem> {
    let outcome = match permit {
        Ok(permit) => Box::pin(handle(permit, &asker, &desk)).await,
        Err(problem) => Err(problem),
    };
    account(asked, outcome, &asker, &desk).await
}

/// Reads requests until the client closes; what it still waits for then gets a moment more.
async fn read_ahead(incoming: &mut Incoming, requests: mpsc::Sender<Frame>) -> Result<(), SessionError> {
    while let Some(frame) = limit(IDLE_TIMEOUT, "the next request", incoming.frame()).await? {
        if requests.send(frame).await.is_err() {
            return Ok(());
        }
    }
    drop(requests);
    sleep(PARTING_TIME).await;
    debug!("a client has gone before its answer");
    Ok(())
}

/// Settles on a version. A client that cannot be understood gets one more try; what it sent behind the hello
/// that was not understood is read past.
async fn hello(incoming: &mut Incoming, outgoing: &mut Outgoing) -> Result<(), SessionError> {
    let mut tries = 0;
    while let Some(frame) = incoming.frame().await? {
        if tries > 0 && frame.kind != HELLO {
            continue;
        }
        let answer = Hello::parse(frame.kind, &frame.body).ok_or(SessionError::NoHello)?.answer();
        outgoing.write(&answer.to_frame()).await?;
        tries += 1;
        match answer {
            HelloReply::Welcome { .. } => return Ok(()),
            HelloReply::Mismatch { .. } if tries < HELLO_TRIES => {}
            HelloReply::Mismatch { .. } => break,
        }
    }
    Err(SessionError::NoHello)
}

impl Incoming {
    /// Reads a frame, or `None` where the client closed between two frames.
    async fn frame(&mut self) -> Result<Option<Frame>, SessionError> {
        let mut first = [0];
        if self.0.read(&mut first).await? == 0 {
            return Ok(None);
        }
        let whole = async {
            let mut bytes = [0; HEADER_LEN];
            let [start, rest @ ..] = &mut bytes;
            [*start] = first;
            self.0.read_exact(rest).await?;
            self.body(Header::parse(bytes)?).await.map(Some)
        };
        limit(FRAME_TIMEOUT, "a frame", whole).await
    }

    async fn body(&mut self, header: Header) -> Result<Frame, SessionError> {
        let mut body = Zeroizing::new(vec![0; header.body_len]);
        self.0.read_exact(&mut body).await?;
        Ok(Frame { kind: header.kind, body })
    }
}

impl Outgoing {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.0.write_all(bytes).await?;
        Ok(self.0.flush().await?)
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
