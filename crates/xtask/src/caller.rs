//! A caller that asks the same again and again on one connection, and how quickly it is answered.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use dph_agent_protocol::frame::{HEADER_LEN, Header};
use dph_agent_protocol::{Hello, Request};

/// A caller that stays connected.
pub(crate) struct Caller<S> {
    stream: S,
    request: Vec<u8>,
}

/// Connects to an agent that listens at `socket`, to ask it `request`.
///
/// # Errors
///
/// When there is none.
#[cfg(unix)]
pub(crate) fn connect(socket: &Path, request: &Request) -> io::Result<Caller<impl Read + Write + use<>>> {
    Caller::greeting(std::os::unix::net::UnixStream::connect(socket)?, request)
}

/// Elsewhere nothing is measured.
///
/// # Errors
///
/// Always.
#[cfg(not(unix))]
pub(crate) fn connect(_socket: &Path, _request: &Request) -> io::Result<Caller<impl Read + Write + use<>>> {
    Err::<Caller<std::net::TcpStream>, _>(io::ErrorKind::Unsupported.into())
}

impl<S: Read + Write> Caller<S> {
    fn greeting(mut stream: S, request: &Request) -> io::Result<Self> {
        let request = request.to_frame().map_err(io::Error::other)?.to_vec();
        stream.write_all(&Hello::OURS.to_frame())?;
        let mut caller = Self { stream, request };
        caller.skip_frame()?;
        Ok(caller)
    }

    /// Returns the time that one answer takes, from `count` of them.
    ///
    /// # Errors
    ///
    /// When the agent hangs up.
    pub(crate) fn time_of_one(&mut self, count: u32) -> io::Result<Duration> {
        let began = Instant::now();
        for _ in 0..count {
            self.stream.write_all(&self.request)?;
            self.skip_frame()?;
        }
        Ok(began.elapsed() / count.max(1))
    }

    fn skip_frame(&mut self) -> io::Result<()> {
        let mut header = [0; HEADER_LEN];
        self.stream.read_exact(&mut header)?;
        let header = Header::parse(header).map_err(io::Error::other)?;
        self.stream.read_exact(&mut vec![0; header.body_len])
    }
}
