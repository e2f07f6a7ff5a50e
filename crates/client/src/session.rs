//! One connection to the agent: hello, requests and replies, all within `--timeout`.

use std::env;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use dph_agent_ipc::Stream;
use dph_agent_protocol::{ErrorCode, Hello, HelloReply, MAX_DEADLINE_MS, Reply, Request, version};

use crate::cli::{Args, Opt};
use crate::discovery;
use crate::exit::Error;
use crate::output::write_both;
use crate::received::Received;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// What the agent's answer may take on its way back.
const RETURN_TIME: Duration = Duration::from_millis(200);

/// A connection to the agent.
pub(crate) struct Session {
    wire: Wire,
    received: Received,
    greeted: bool,
}

impl Session {
    /// Connects to the agent that `args` mean.
    pub(crate) fn open(args: &Args) -> Result<Self, Error> {
        let timeout = args.duration(Opt::Timeout)?.unwrap_or(DEFAULT_TIMEOUT);
        let deadline = Instant::now() + timeout.min(Duration::from_millis(MAX_DEADLINE_MS.into()));
        let wire = Wire { stream: discovery::find_agent(args, deadline)?, deadline };
        Ok(Self { wire, received: Received::new(), greeted: false })
    }

    /// Returns how long the agent may take from now on, in milliseconds.
    pub(crate) fn deadline_ms(&self) -> u32 {
        let left = self.wire.deadline.saturating_duration_since(Instant::now()).saturating_sub(RETURN_TIME);
        u32::try_from(left.as_millis()).unwrap_or(MAX_DEADLINE_MS)
    }

    /// Sends `request` and returns its reply, unless that is a failure.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Reply, Error> {
        let frame =
            request.to_frame().map_err(|error| Error::usage(&error.to_string(), "shorten what is sent"))?;
        if self.greeted {
            self.send(&frame, &[])?;
        } else {
            self.greet(&frame, request.carries_secret())?;
        }
        let (kind, body) = self.received.frame(&mut self.wire).map_err(|error| broken(&error))?;
        match Reply::from_body(kind, body) {
            Ok(Reply::Failure(failure)) => Err(failure.into()),
            Ok(reply) => Ok(reply),
            Err(error) => Err(misunderstood(&error.to_string())),
        }
    }

    /// Sends hello and `frame` in a version that both speak.
    fn greet(&mut self, frame: &[u8], secret: bool) -> Result<(), Error> {
        if let HelloReply::Mismatch { min, max } = self.say_hello(Hello::OURS, frame, secret)? {
            let encoded = common_version(min, max).ok_or_else(|| no_common_version(min, max))?;
            match self.say_hello(Hello { encoded, ..Hello::OURS }, frame, secret)? {
                HelloReply::Welcome { .. } => {}
                HelloReply::Mismatch { min, max } => return Err(no_common_version(min, max)),
            }
        }
        self.greeted = true;
        Ok(())
    }

    /// Sends hello and `frame` at once, or, where that is `secret`, only once the agent is known.
    fn say_hello(&mut self, hello: Hello, frame: &[u8], secret: bool) -> Result<HelloReply, Error> {
        self.send(&hello.to_frame(), if secret { &[] } else { frame })?;
        let reply = self.hello_reply()?;
        if secret && matches!(reply, HelloReply::Welcome { .. }) {
            self.send(frame, &[])?;
        }
        Ok(reply)
    }

    fn hello_reply(&mut self) -> Result<HelloReply, Error> {
        let (kind, body) = self.received.frame(&mut self.wire).map_err(|error| unwelcome(&error))?;
        match HelloReply::parse(kind, body) {
            Some(reply) => Ok(reply),
            None => match Reply::from_body(kind, body) {
                Ok(Reply::Failure(failure)) => Err(failure.into()),
                _ => Err(misunderstood("what listens there is no dph-agent")),
            },
        }
    }

    fn send(&mut self, first: &[u8], second: &[u8]) -> Result<(), Error> {
        // Only reading sets a timeout of its own: what we send fits into the buffer of the socket.
        match write_both(&mut self.wire.stream, first, second) {
            // What the agent said before it hung up is still there to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(|error| broken(&error)),
        }
    }
}

/// Asks the agent that `args` mean one thing.
pub(crate) fn ask(args: &Args, request: &Request) -> Result<Reply, Error> {
    Session::open(args)?.ask(request)
}

/// A stream that ends at a deadline.
struct Wire {
    stream: Stream,
    deadline: Instant,
}

impl Wire {
    fn time_left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Wire {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.stream.set_timeout(self.time_left()?)?;
        self.stream.read(room)
    }
}

/// Returns the newest version that we and an agent speak that knows `min` to `max`.
fn common_version(min: u16, max: u16) -> Option<u16> {
    let newest = max.min(version::CURRENT);
    (newest >= min.max(version::MIN)).then_some(newest)
}

fn no_common_version(min: u16, max: u16) -> Error {
    let (ours_min, ours_max) = (version::MIN, version::CURRENT);
    Error::new(
        ErrorCode::FAILED,
        &format!("the agent speaks versions {min} to {max}, this client {ours_min} to {ours_max}"),
        "install the agent and the client of the same release, and restart the agent",
    )
}

/// Returns the error that the agent's answer does not fit the request.
pub(crate) fn unexpected_reply() -> Error {
    misunderstood("the answer is not to what was asked")
}

fn misunderstood(problem: &str) -> Error {
    Error::new(
        ErrorCode::FAILED,
        &format!("the agent's answer cannot be understood: {problem}"),
        "install the agent and the client of the same release",
    )
}

/// Returns the error of a connection that broke before the agent's hello.
fn unwelcome(error: &io::Error) -> Error {
    if !matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
        return broken(error);
    }
    let hint = sudo_hint()
        .unwrap_or_else(|| "it serves only the user that it runs as; its log says more".to_owned());
    Error::new(ErrorCode::DENIED, "the agent hung up without an answer", &hint)
}

fn broken(error: &io::Error) -> Error {
    if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) {
        return timed_out();
    }
    let problem = format!("the connection to the agent broke: {error}");
    Error::new(ErrorCode::FAILED, &problem, "try again; the agent's log says more")
}

/// Returns the error that the agent did not answer in time.
pub(crate) fn timed_out() -> Error {
    Error::new(
        ErrorCode::DEADLINE,
        "the agent did not answer in time",
        "try again, or allow more with `--timeout`",
    )
}

/// Returns what to do when `sudo` put us into the place of another user than the agent's.
pub(crate) fn sudo_hint() -> Option<String> {
    let uid = env::var_os("SUDO_UID")?;
    let uid = uid.to_string_lossy();
    Some(format!(
        "an agent serves only its own user, and this is not user {uid} under sudo: run it without sudo"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_version_that_both_speak_is_chosen() {
        assert_eq!(common_version(version::MIN, version::CURRENT + 3), Some(version::CURRENT));
        assert_eq!(common_version(version::CURRENT + 1, version::CURRENT + 3), None);
        assert_eq!(common_version(0, version::MIN - 1), None);
    }
}
