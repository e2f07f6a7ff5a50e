//! The server: accepts, decrypts, records, and does what the script says.

use std::future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc::UnboundedReceiver, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::Endpoint;
use crate::answer::{AnswerBody, Dropped};
use crate::recorded::Recorded;
use crate::script::Fault;
use crate::state::State;

const MAX_REQUEST_LEN: usize = 1 << 20;
const BACKLOG: u32 = 1024;

/// What tests and the server's thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Told of every request that arrives.
    pub(crate) arrival: Condvar,
    /// Which endpoint holds its requests.
    pub(crate) paused: watch::Sender<Option<Endpoint>>,
    on_answer: Option<fn(&Recorded)>,
}

/// What the server's thread is told; it sends when that is done.
#[derive(Debug)]
pub(crate) enum Command {
    StopListening(mpsc::Sender<()>),
    ListenAgain(mpsc::Sender<()>),
}

impl Shared {
    pub(crate) fn new(state: State, on_answer: Option<fn(&Recorded)>) -> Self {
        let (arrival, paused) = (Condvar::new(), watch::Sender::new(None));
        Self { state: Mutex::new(state), arrival, paused, on_answer }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived(&self, request: &Recorded) -> usize {
        let number = self.state().arrived(request);
        self.arrival.notify_all();
        number
    }

    fn answered(&self, number: usize, status: Option<u16>) {
        let answered = self.state().requests.get_mut(number).map(|request| {
            request.status = status;
            request.clone()
        });
        if let (Some(tell), Some(request)) = (self.on_answer, answered) {
            tell(&request);
        }
    }

    async fn resumed(&self, endpoint: Endpoint) {
        let mut paused = self.paused.subscribe();
        // It fails only when the sender is gone, which lives as long as `self`.
        let _resumed = paused.wait_for(|paused| !paused.is_some_and(|at| at.covers(endpoint))).await;
    }
}

/// The port: listening, or kept for later while connections to it are refused.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    listener: Option<TcpListener>,
    /// Bound from beginning to end, so that nobody else is given the number in between. Windows has no
    /// bind beside another that is safe, and there the number is left to luck.
    #[cfg(unix)]
    _kept: TcpSocket,
}

impl Port {
    /// Opens `port` on loopback; 0 lets the system choose.
    #[cfg(unix)]
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let kept = bind(port)?;
        let number = kept.local_addr()?.port();
        Ok(Self { number, listener: Some(listen(number)?), _kept: kept })
    }

    #[cfg(not(unix))]
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let listener = listen(port)?;
        Ok(Self { number: listener.local_addr()?.port(), listener: Some(listener) })
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// Refuses connections from now on.
    fn close(&mut self) {
        if let Some(listener) = self.listener.take() {
            hang_up(&listener);
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        if self.listener.is_none() {
            self.listener = Some(listen(self.number)?);
        }
        Ok(())
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        match &self.listener {
            Some(listener) => listener.accept().await.map(|(stream, _)| stream),
            None => future::pending().await,
        }
    }
}

/// Stops listening at once. Closing alone would not: another thread may be starting a program, and for
/// a moment that has copies of every descriptor.
fn hang_up(listener: &TcpListener) {
    #[cfg(unix)]
    // What has no such call for a listener closes it a moment later.
    let _best_effort = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
    #[cfg(not(unix))]
    let _ = listener;
}

fn listen(port: u16) -> io::Result<TcpListener> {
    bind(port)?.listen(BACKLOG)
}

fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // On Windows the option would let others take the port over.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // Others than Linux let two sockets have one address by this option only.
    #[cfg(all(unix, not(target_os = "linux")))]
    socket.set_reuseport(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket)
}

/// Serves `port` until the sender of commands is gone.
pub(crate) async fn run(
    mut port: Port,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    mut commands: UnboundedReceiver<Command>,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return Ok(()),
                Some(Command::StopListening(done)) => {
                    connections.shutdown().await;
                    port.close();
                    report(&done);
                }
                Some(Command::ListenAgain(done)) => {
                    port.reopen()?;
                    report(&done);
                }
            },
            // A peer may be gone before it is accepted; the next one is served all the same.
            accepted = port.accept() => if let Ok(stream) = accepted {
                connections.spawn(connection(stream, tls.clone(), Arc::clone(&shared)));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

fn report(done: &mpsc::Sender<()>) {
    // Nobody waits any more if the test has panicked.
    let _unheard = done.send(());
}

/// Serves one connection; how it ends is the peer's business.
async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Without it the second half of an answer may wait for the peer's acknowledgement.
    let _best_effort = stream.set_nodelay(true);
    match tls {
        None => requests(stream, shared).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                requests(stream, shared).await;
            }
        }
    }
}

async fn requests(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(request, &shared));
    let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<AnswerBody>, Dropped> {
    let request = read(request).await?;
    let number = shared.arrived(&request);
    shared.resumed(request.endpoint).await;
    let fault = shared.state().scripts.take(request.endpoint);
    if let Err(dropped) = withhold(fault.as_ref()).await {
        shared.answered(number, None);
        return Err(dropped);
    }
    let (answer, now) = {
        let mut state = shared.state();
        (state.answer(&request, fault.as_ref()), state.now())
    };
    if let Some(Fault::Late(delay)) = fault {
        tokio::time::sleep(delay).await;
    }
    if fault == Some(Fault::DropAnswer) {
        shared.answered(number, None);
        return Err(Dropped);
    }
    shared.answered(number, Some(answer.status));
    Ok(answer.into_response(now))
}

async fn read(request: Request<Incoming>) -> Result<Recorded, Dropped> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST_LEN).collect().await.map_err(|_incomplete| Dropped)?;
    Ok(Recorded::new(&head, body.to_bytes().into()))
}

/// Does what a fault does before there is an answer.
async fn withhold(fault: Option<&Fault>) -> Result<(), Dropped> {
    match fault {
        Some(Fault::Slow(delay)) => tokio::time::sleep(*delay).await,
        Some(Fault::Hang) => future::pending().await,
        Some(Fault::DropConnection) => return Err(Dropped),
        _ => {}
    }
    Ok(())
}
