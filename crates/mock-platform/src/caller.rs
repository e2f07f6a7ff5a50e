//! A script's part: one call with a token.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use url::Url;

/// How long the platform may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Makes a GET request with a bearer token and returns the status. The server's certificate must be
/// vouched for by one in `ca_pem`.
///
/// # Errors
///
/// When there is no answer.
pub fn call(url: &str, ca_pem: &str, token: &str) -> io::Result<u16> {
    let url = Url::parse(url).map_err(io::Error::other)?;
    let host = url.host_str().unwrap_or("localhost").to_owned();
    let stream = TcpStream::connect((host.as_str(), url.port_or_known_default().unwrap_or(443)))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = format!(
        "GET {}?{} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n",
        url.path(),
        url.query().unwrap_or_default()
    );
    if url.scheme() == "http" {
        return ask(stream, &request);
    }
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let client = ClientConnection::new(Arc::new(config(ca_pem)?), name).map_err(io::Error::other)?;
    ask(StreamOwned::new(client, stream), &request)
}

fn config(ca_pem: &str) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth())
}

fn ask(mut stream: impl io::Read + io::Write, request: &str) -> io::Result<u16> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    // The server may close without saying goodbye.
    let _unclean = io::Read::by_ref(&mut stream).take(64 * 1024).read_to_end(&mut answer).is_err();
    let head = String::from_utf8_lossy(&answer);
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::other("no answer"))
}
