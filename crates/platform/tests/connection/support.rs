//! Servers with certificates of every kind, and a proxy before them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use dph_agent_platform::{ApiKey, BaseUrl, CaBundle, Kind, Proxy, Target, Trust};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

pub(crate) const KEY: &str = "s3cret-api-key";
pub(crate) const TOKEN: &str = "the-token";
pub(crate) const NEW_KEY: &str = "n3w-s3cret-api-key";

pub(crate) fn key() -> ApiKey {
    ApiKey::new(KEY.into())
}

/// A certificate and a private key, which need not belong together.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) private_key: KeyPair,
}

impl Identity {
    pub(crate) fn self_signed(params: CertificateParams) -> Self {
        let private_key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&private_key).unwrap().der().clone(), private_key }
    }
}

pub(crate) fn params(subject: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = params("Test Authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn sign(&self, params: CertificateParams) -> Identity {
        let private_key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&private_key, &self.issuer).unwrap().der().clone();
        Identity { certificate, private_key }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::Roots { extra: CaBundle::from_pem(self.pem.as_bytes()).unwrap() }
    }
}

/// What came in over something, in the clear or not.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Vec<u8>>>);

impl Record {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Reads one request, and returns whether there was one.
    async fn read_request(&self, stream: &mut (impl AsyncRead + Unpin)) -> bool {
        let mut seen = Vec::new();
        while !is_whole(&seen) && stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {}
        self.0.lock().unwrap().extend_from_slice(&seen);
        is_whole(&seen)
    }
}

/// A `POST` has the key as its last word, in JSON or not, everything else no body.
fn is_whole(request: &[u8]) -> bool {
    if !request.starts_with(b"POST") {
        return request.ends_with(b"\r\n\r\n");
    }
    request.strip_suffix(b"\"}").unwrap_or(request).ends_with(KEY.as_bytes())
}

/// A platform that has one answer for everybody, until the test ends: it fits every request.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// What it was sent, decrypted.
    pub(crate) received: Record,
}

impl Server {
    pub(crate) async fn start(identity: Identity, version: &'static SupportedProtocolVersion) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config(identity, version)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), received: Record::default() };
        let received = server.received.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, received.clone()));
            }
        });
        server
    }

    pub(crate) fn target(&self, trust: Trust) -> Target {
        Target {
            kind: Kind::IbmCloud,
            auth_url: BaseUrl::parse(&format!("https://{}", self.address)).unwrap(),
            trust,
            proxy: Proxy::None,
        }
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, received: Record) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    if received.read_request(&mut stream).await {
        let body = format!(
            r#"{{"access_token":"{TOKEN}","token":"{TOKEN}","expires_in":60,"data":{{"token":"{TOKEN}"}},
               "apiKey":"{NEW_KEY}","id":"ApiKey-1","name":"n","iam_id":"i","account_id":"a","apikeys":[]}}"#
        );
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// Unlike the library's own way, this does not mind a private key that belongs to another certificate.
fn config(identity: Identity, version: &'static SupportedProtocolVersion) -> ServerConfig {
    let der = PrivatePkcs8KeyDer::from(identity.private_key.serialize_der());
    let provider = Arc::new(ring::default_provider());
    let signer = provider.key_provider.load_private_key(der.into()).unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(
            vec![identity.certificate],
            signer,
        ))))
}

/// Starts a proxy that makes tunnels to `to`, wherever it is asked to; returns its address and what it
/// got to see before and in the tunnel's first direction.
pub(crate) async fn tunnel(to: SocketAddr) -> (SocketAddr, Record) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Record::default());
    let record = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if record.read_request(&mut stream).await {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut server = TcpStream::connect(to).await.unwrap();
                // Either side may hang up first.
                let _ended = copy_bidirectional(&mut stream, &mut server).await;
            }
        }
    });
    (address, seen)
}
