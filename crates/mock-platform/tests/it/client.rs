//! A client of a few lines: one request on a connection of its own, trusting the mock's authority.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use dph_agent_mock_platform::MockPlatform;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// Longer than anything here takes; a test that waits this long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) const JSON: &str = "application/json";
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub(crate) fn post(
    platform: &MockPlatform,
    path: &str,
    media_type: &str,
    body: &str,
) -> io::Result<Response> {
    let headers = format!("Content-Type: {media_type}\r\nContent-Length: {}\r\n", body.len());
    exchange(connect(platform)?, &format!("POST {path} HTTP/1.1\r\n{headers}"), body)
}

/// Makes a request with these headers, each on a line that ends in CR and LF.
pub(crate) fn request(
    platform: &MockPlatform,
    line: &str,
    headers: &str,
    body: &str,
) -> io::Result<Response> {
    let len = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    exchange(connect(platform)?, &format!("{line} HTTP/1.1\r\n{headers}{len}"), body)
}

pub(crate) fn get(platform: &MockPlatform, path: &str, authorization: &str) -> io::Result<Response> {
    exchange(connect(platform)?, &format!("GET {path} HTTP/1.1\r\nAuthorization: {authorization}\r\n"), "")
}

/// Buys a token from Software Hub.
pub(crate) fn authorize(platform: &MockPlatform, username: &str, api_key: &str) -> io::Result<Response> {
    let body = serde_json::json!({ "username": username, "api_key": api_key, "password": null });
    post(platform, "/icp4d-api/v1/authorize", JSON, &body.to_string())
}

/// Returns how many bytes of the body came until the connection ended, and how many were announced.
pub(crate) fn exchange_unchecked(stream: &mut (impl Read + Write), head: &str) -> (usize, usize) {
    let mut received = Vec::new();
    send(stream, head, "").unwrap();
    stream.read_to_end(&mut received).unwrap();
    let response = split(&received).unwrap();
    (response.body.len(), response.header("content-length").unwrap().parse().unwrap())
}

/// Sends a request on `stream` and returns how many bytes of the answer came, at most `len`.
pub(crate) fn read_at_least(stream: &mut (impl Read + Write), head: &str, len: u64) -> u64 {
    send(stream, head, "").unwrap();
    io::copy(&mut stream.take(len), &mut io::sink()).unwrap()
}

/// Sends a request on `stream` and reads the answer up to the end that its headers announce.
pub(crate) fn exchange(mut stream: impl Read + Write, head: &str, body: &str) -> io::Result<Response> {
    send(&mut stream, head, body)?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    parse(&received).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn send(stream: &mut impl Write, head: &str, body: &str) -> io::Result<()> {
    stream.write_all(format!("{head}Host: localhost\r\nConnection: close\r\n\r\n{body}").as_bytes())
}

/// Returns the response in `received` if the whole of its body is there.
fn parse(received: &[u8]) -> Option<Response> {
    let response = split(received)?;
    let announced = response.header("content-length").and_then(|len| len.parse().ok());
    announced.is_none_or(|len: usize| len == response.body.len()).then_some(response)
}

fn split(received: &[u8]) -> Option<Response> {
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(received[..end].to_vec()).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Response { status, head, body: received[end + 4..].to_vec() })
}

/// Connects with the mock's authority as the only one that is trusted.
pub(crate) fn connect(platform: &MockPlatform) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(platform.ca_pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    Ok(StreamOwned::new(tls, tcp(platform)?))
}

pub(crate) fn tcp(platform: &MockPlatform) -> io::Result<TcpStream> {
    tcp_to(&platform.url())
}

pub(crate) fn tcp_to(url: &str) -> io::Result<TcpStream> {
    let port = url.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LONG))?;
    Ok(stream)
}
