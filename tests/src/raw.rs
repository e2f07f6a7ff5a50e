//! A client that says what it likes, also as another user.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use dph_agent_protocol::frame::{HEADER_LEN, Header};
use dph_agent_protocol::{Hello, Reply, Request};
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

use crate::PATIENCE;

/// A connection that has said hello.
#[derive(Debug)]
pub struct Raw(UnixStream);

impl Raw {
    /// Connects as this user.
    pub fn connect(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Somebody who is turned away may hear so before he has spoken.
        drop(stream.write_all(&Hello::OURS.to_frame()));
        Self(stream)
    }

    /// Connects as another user, which only root can.
    pub fn connect_as(uid: u32, socket: &Path) -> Self {
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| {
                // Of this thread alone, which ends here.
                set_thread_res_uid(None, Uid::from_raw(uid), None).unwrap();
                Self::connect(socket)
            });
            connecting.join().unwrap()
        })
    }

    /// Sends a request, which may find the connection closed.
    pub fn send(&mut self, request: &Request) {
        drop(self.0.write_all(&request.to_frame().unwrap()));
    }

    /// Returns the next reply, or nothing where the agent closed the connection.
    pub fn reply(&mut self) -> Option<Reply> {
        loop {
            let mut header = [0; HEADER_LEN];
            self.0.read_exact(&mut header).ok()?;
            let header = Header::parse(header).unwrap();
            let mut body = vec![0; header.body_len];
            self.0.read_exact(&mut body).ok()?;
            // What is no reply is the answer to the hello.
            if let Ok(reply) = Reply::from_body(header.kind, &body) {
                return Some(reply);
            }
        }
    }

    /// Sends a request and returns its reply.
    pub fn ask(&mut self, request: &Request) -> Option<Reply> {
        self.send(request);
        self.reply()
    }
}
