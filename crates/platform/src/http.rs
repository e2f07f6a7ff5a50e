//! The only I/O: one connection, at most one request on it, and an answer of bounded size.

use std::{
    error::Error,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use reqwest::{Client, Response, header::ACCEPT, redirect, retry};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    CallError, Cause, Misconfiguration, PlatformError, Probe, Target, Verdict,
    answer::{Answer, Body, Request},
    tls::{self, Seen},
};

/// Largest body that is read; a token with ten thousand groups in it has some hundred kilobytes.
const MAX_BODY_LEN: usize = 256 * 1024;

const USER_AGENT: &str = concat!("dph-agent/", env!("CARGO_PKG_VERSION"));

/// How long a server may take.
#[derive(Clone, Copy)]
pub(crate) struct Timeouts {
    /// To accept the connection and shake hands.
    pub(crate) connect: Duration,
    /// To have answered in full, connecting included.
    pub(crate) total: Duration,
}

pub(crate) const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(10), total: Duration::from_secs(30) };

/// Sends a request that carries a secret, and reads the answer.
pub(crate) async fn send(target: &Target, request: Request, timeouts: Timeouts) -> Result<Answer, CallError> {
    let (url, response) = ask(target, request, timeouts).await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = match read(response).await {
        Ok(body) => body,
        Err(error) if status.is_success() => return Err(CallError::Unclear(failure(error))),
        Err(_) => Body::Broken,
    };
    Ok(Answer::new(url, status.as_u16(), &headers, body))
}

/// Sends a request whose answer's body is for nobody, and hangs up on it.
pub(crate) async fn send_unheard(
    target: &Target,
    request: Request,
    timeouts: Timeouts,
) -> Result<Answer, CallError> {
    let (url, response) = ask(target, request, timeouts).await?;
    Ok(Answer::new(url, response.status().as_u16(), response.headers(), Body::Unread))
}

/// Sends a request on a connection of its own, once, and returns as soon as the answer's head is there.
async fn ask(target: &Target, request: Request, timeouts: Timeouts) -> Result<(Url, Response), CallError> {
    let Request { method, url, headers, body } = request;
    let client = client(target, Seen::default(), timeouts).await.map_err(CallError::NotSent)?;
    let mut builder = client.request(method, url.clone()).headers(headers).header(ACCEPT, "application/json");
    if !body.is_empty() {
        builder = builder.body(Bytes::from_owner(body));
    }
    let response = builder.send().await.map_err(unanswered)?;
    Ok((url, response))
}

/// Tells whether a request without an answer may have reached the platform. The library has a kind of
/// its own for all that fails before its first byte is written: name, connection, tunnel, handshake.
fn unanswered(error: reqwest::Error) -> CallError {
    let unsent = error.is_connect() || error.is_builder();
    let error = failure(error);
    if unsent { CallError::NotSent(error) } else { CallError::Unclear(error) }
}

/// Connects, asks for `/`, and tells what certificate was shown.
pub(crate) async fn probe(target: &Target, timeouts: Timeouts) -> Result<Probe, PlatformError> {
    let seen = Seen::default();
    let client = client(target, Seen::clone(&seen), timeouts).await?;
    let answered = client.get(target.auth_url.with_path("/")).send().await;
    let certificate = seen.get().cloned();
    let untrusted = certificate.as_ref().is_some_and(|it| matches!(it.verdict, Verdict::Untrusted(_)));
    match answered {
        Err(error) if !untrusted => Err(failure(error)),
        Ok(_) | Err(_) => Ok(Probe { certificate }),
    }
}

/// Makes a client for one connection; whatever it could decide by itself is decided here.
async fn client(target: &Target, seen: Seen, timeouts: Timeouts) -> Result<Client, PlatformError> {
    let tls = tls_config(target, seen).await?;
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(target.auth_url.is_https())
        .http1_only()
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(retry::never())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .connect_timeout(timeouts.connect)
        .timeout(timeouts.total)
        .user_agent(USER_AGENT)
        // Plain HTTP goes to this name, so no name server may say where it is.
        .resolve_to_addrs(
            "localhost",
            &[SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))],
        );
    if let Some(proxy) = target.proxy.towards(&target.auth_url)? {
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(failure)
}

/// Loads roots away from the thread that serves everybody, since they are a few hundred files.
async fn tls_config(target: &Target, seen: Seen) -> Result<rustls::ClientConfig, PlatformError> {
    let trust = target.trust.clone();
    let config = tokio::task::spawn_blocking(move || tls::client_config(&trust, seen)).await;
    config.unwrap_or_else(|_stopped| Err(unreachable(Cause::Network(io::ErrorKind::Interrupted))))
}

async fn read(mut response: Response) -> Result<Body, reqwest::Error> {
    // Allocated once, since a buffer that grows leaves copies of the token behind.
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY_LEN));
    while let Some(chunk) = response.chunk().await? {
        if chunk.len() > MAX_BODY_LEN - body.len() {
            return Ok(Body::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(body))
}

/// Keeps of the library's error only what it is about: the rest could quote anything.
pub(crate) fn failure(error: reqwest::Error) -> PlatformError {
    if let Some(error) = chain(&error).find_map(|source| source.downcast_ref()) {
        return tls::failure(error);
    }
    if error.is_timeout() {
        return unreachable(Cause::TimedOut);
    }
    if error.is_dns() {
        return unreachable(Cause::Dns);
    }
    if let Some(tunnel) = chain(&error).map(ToString::to_string).find(|text| text.starts_with("tunnel error"))
    {
        return tunnel_failure(&tunnel);
    }
    let io = chain(&error).filter_map(|source| source.downcast_ref::<io::Error>()).last();
    unreachable(io.map_or(Cause::Broken, |io| Cause::Network(io.kind())))
}

/// The tunnel's error has a private type, so that only its text tells which it is.
fn tunnel_failure(text: &str) -> PlatformError {
    if text.contains("authorization required") {
        return Misconfiguration::ProxyAuthentication.into();
    }
    unreachable(Cause::Proxy)
}

fn unreachable(cause: Cause) -> PlatformError {
    PlatformError::Unreachable { cause, retry_after: None }
}

/// Returns the error and what caused it, down to the bottom. An I/O error skips the error that it is
/// made from when asked for its source, and just there sits the TLS library's.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{ApiKey, BaseUrl, CaBundle, KeyCalls, Kind, Proxy, Token, TokenText, Trust};

    const SHORT: Timeouts =
        Timeouts { connect: Duration::from_millis(500), total: Duration::from_millis(300) };
    const LONG: Timeouts = Timeouts { connect: Duration::from_secs(20), total: Duration::from_secs(20) };

    fn target(address: SocketAddr) -> Target {
        Target {
            kind: Kind::IbmCloud,
            auth_url: BaseUrl::parse(&format!("http://{address}")).unwrap(),
            trust: Trust::Roots { extra: CaBundle::default() },
            proxy: Proxy::None,
        }
    }

    /// Buys a token from a server that answers its one request with these bytes and hangs up; returns
    /// what it was sent, too.
    async fn buy(answer: Vec<u8>) -> (Result<Token, PlatformError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = request(&mut stream).await;
            // The client may hang up first, as it does on what is too large.
            let _sent = stream.write_all(&answer).await;
            request
        };
        tokio::join!(exchange(&target, LONG), server)
    }

    async fn exchange(target: &Target, timeouts: Timeouts) -> Result<Token, PlatformError> {
        let platform = target.kind.platform();
        let request = platform.request(&target.auth_url, &ApiKey::new("s3cret".into()))?;
        platform.read(&send(target, request, timeouts).await?)
    }

    async fn request(stream: &mut TcpStream) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(b"s3cret") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "a whole request comes first");
        }
        String::from_utf8(seen).unwrap()
    }

    fn answer(head: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn the_key_travels_in_the_body_and_nowhere_else() {
        let (token, request) = buy(answer("200 OK", r#"{"access_token":"abc","expires_in":9}"#)).await;
        assert_eq!(token.unwrap().value.expose(), "abc");
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(body.ends_with("apikey=s3cret"));
        assert!(!head.contains("s3cret"));
        for header in [
            "POST /identity/token HTTP/1.1",
            "content-type: application/x-www-form-urlencoded",
            "accept: application/json",
            concat!("user-agent: dph-agent/", env!("CARGO_PKG_VERSION")),
        ] {
            assert!(head.to_ascii_lowercase().contains(&header.to_ascii_lowercase()), "{head}");
        }
    }

    fn bearer() -> TokenText {
        TokenText::new("the-token".into())
    }

    fn hub(address: SocketAddr) -> Target {
        let kind = Kind::SoftwareHub { username: "alice".into(), instance: None };
        Target { kind, ..target(address) }
    }

    /// Asks for a new key.
    async fn generate(target: &Target) -> Result<crate::Generated, CallError> {
        match target.key_calls() {
            KeyCalls::SoftwareHub(keys) => keys.generate(&bearer()).await,
            KeyCalls::IbmCloud(_) | KeyCalls::None => panic!("not a software hub"),
        }
    }

    /// Asks for a new key and does not listen.
    async fn discard(target: &Target) -> Result<(), CallError> {
        match target.key_calls() {
            KeyCalls::SoftwareHub(keys) => keys.generate_and_discard(&bearer()).await,
            KeyCalls::IbmCloud(_) | KeyCalls::None => panic!("not a software hub"),
        }
    }

    /// Reads a request without a body.
    async fn head(stream: &mut TcpStream) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "a whole request comes first");
        }
        String::from_utf8(seen).unwrap()
    }

    fn is_unasked(listener: TcpListener) -> bool {
        let nobody = listener.into_std().unwrap().accept().map_err(|error| error.kind());
        nobody.err() == Some(io::ErrorKind::WouldBlock)
    }

    #[tokio::test]
    async fn a_call_that_is_cut_off_after_it_was_read_is_unclear_and_never_made_again() {
        for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"api"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = hub(listener.local_addr().unwrap());
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let asked = head(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                asked
            };
            let (outcome, asked) = tokio::join!(generate(&target), server);
            assert!(matches!(outcome, Err(CallError::Unclear(_))), "{outcome:?}");
            assert!(asked.starts_with("GET /usermgmt/v1/user/apiKey HTTP/1.1\r\n"), "{asked}");
            assert!(!asked.to_ascii_lowercase().contains("content-length"), "{asked}");
            assert!(is_unasked(listener), "the call was made twice");
        }
    }

    #[tokio::test]
    async fn a_call_that_is_not_answered_in_time_is_unclear() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap());
        let request = Request::new(reqwest::Method::GET, target.auth_url.with_path("/x"));
        let outcome = send(&target, request, SHORT).await.err();
        assert_eq!(outcome, Some(CallError::Unclear(unreachable(Cause::TimedOut))));
        assert!(!is_unasked(listener));
    }

    #[tokio::test]
    async fn a_call_that_met_no_server_was_not_made() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let refused = unreachable(Cause::Network(io::ErrorKind::ConnectionRefused));
        assert_eq!(generate(&hub(gone)).await, Err(CallError::NotSent(refused)));
        let elsewhere = |url: &str| Target {
            auth_url: BaseUrl::parse(url).unwrap(),
            trust: Trust::Pin(pin()),
            ..hub(gone)
        };
        let nameless = elsewhere("https://no-such-host.invalid");
        assert_eq!(generate(&nameless).await, Err(CallError::NotSent(unreachable(Cause::Dns))));
        let proxy = Proxy::Url(gone.to_string().parse().unwrap());
        let behind = Target { proxy, ..elsewhere("https://cpd.example.com") };
        assert_eq!(generate(&behind).await, Err(CallError::NotSent(unreachable(Cause::Proxy))));
        let bad = TokenText::new("a\nb".into());
        let target = hub(gone);
        let KeyCalls::SoftwareHub(keys) = target.key_calls() else { panic!("not a software hub") };
        assert_eq!(keys.generate(&bad).await, Err(CallError::NotSent(Misconfiguration::BadToken.into())));
    }

    #[tokio::test]
    async fn a_key_that_nobody_wants_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = hub(listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n").await.unwrap();
            // What is hung up on reads as its end, whether or not as a clean one.
            stream.read(&mut [0]).await.unwrap_or_default()
        };
        let (outcome, more) = tokio::join!(discard(&target), server);
        assert_eq!((outcome, more), (Ok(()), 0));
    }

    /// Lists keys at a server that answers so to each request; returns the queries, too.
    async fn find(pages: &[&str]) -> (Result<usize, PlatformError>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap());
        let KeyCalls::IbmCloud(keys) = target.key_calls() else { panic!("not IBM Cloud") };
        let server = async {
            let mut asked = Vec::new();
            for page in pages {
                let (mut stream, _) = listener.accept().await.unwrap();
                let query = head(&mut stream).await;
                asked.push(query.split(' ').nth(1).unwrap().to_owned());
                stream.write_all(&answer("200 OK", page)).await.unwrap();
            }
            asked
        };
        let token = bearer();
        let (found, asked) = tokio::join!(keys.find(&token, "1f2e", "IBMid-5", "laptop"), server);
        assert!(is_unasked(listener));
        (found.map(|found| found.len()), asked)
    }

    #[tokio::test]
    async fn a_list_is_followed_page_by_page_to_its_end_and_no_further_than_that() {
        let key = r#"{"id":"ApiKey-1","name":"laptop","iam_id":"IBMid-5","account_id":"1f2e"}"#;
        let first = format!(r#"{{"next":"https://other.example.com/?pagetoken=two","apikeys":[{key}]}}"#);
        let last = format!(r#"{{"apikeys":[{key}]}}"#);
        let (found, asked) = find(&[&first, &last]).await;
        assert_eq!(found, Ok(2));
        assert!(!asked[0].contains("pagetoken") && asked[1].ends_with("&pagetoken=two"), "{asked:?}");
        let (endless, _) = find(&[&*first; 20]).await;
        assert_eq!(endless, Err(Misconfiguration::TooLarge.into()));
    }

    #[tokio::test]
    async fn the_connection_ends_with_the_exchange() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(&answer("200 OK", r#"{"access_token":"abc"}"#)).await.unwrap();
            stream.read(&mut [0]).await.unwrap()
        };
        let (token, more) = tokio::join!(exchange(&target, LONG), server);
        assert!(token.is_ok());
        assert_eq!(more, 0);
    }

    #[tokio::test]
    async fn plain_http_goes_through_no_proxy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            proxy: Proxy::Url("127.0.0.1:1".parse().unwrap()),
            ..target(listener.local_addr().unwrap())
        };
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(&answer("200 OK", r#"{"access_token":"abc"}"#)).await.unwrap();
        };
        let (token, ()) = tokio::join!(exchange(&target, LONG), server);
        assert!(token.is_ok());
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_the_limit_and_no_further() {
        let json = r#"{"access_token":"abc"}"#;
        let padded = |len: usize| json.to_owned() + &" ".repeat(len - json.len());
        let (largest, _) = buy(answer("200 OK", &padded(MAX_BODY_LEN))).await;
        assert_eq!(largest.unwrap().value.expose(), "abc");
        let (larger, _) = buy(answer("200 OK", &padded(MAX_BODY_LEN + 1))).await;
        assert_eq!(larger, Err(Misconfiguration::TooLarge.into()));
        let (refused, _) = buy(answer("401 No", &padded(MAX_BODY_LEN + 1))).await;
        assert!(matches!(refused, Err(PlatformError::Refused { .. })));
    }

    #[tokio::test]
    async fn a_body_without_end_is_hung_up_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await.unwrap();
            while stream.write_all(&[b' '; 4096]).await.is_ok() {}
        };
        let (outcome, ()) = tokio::join!(exchange(&target, LONG), server);
        assert_eq!(outcome, Err(Misconfiguration::TooLarge.into()));
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_an_outage_unless_the_status_said_enough() {
        let torn = |status| format!("HTTP/1.1 {status}\r\ncontent-length: 99\r\n\r\n{{\"acc").into_bytes();
        for bytes in [torn("200 OK"), Vec::new(), b"HTTP/1.1 2".to_vec(), b"SSH-2.0-x\r\n".to_vec()] {
            let (outcome, _) = buy(bytes).await;
            assert!(matches!(outcome, Err(PlatformError::Unreachable { .. })), "{outcome:?}");
        }
        let (outcome, _) = buy(torn("401 No")).await;
        assert!(matches!(outcome, Err(PlatformError::Refused { .. })), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("http://{}", elsewhere.local_addr().unwrap());
        for status in [301, 302, 303, 307, 308] {
            let (outcome, _) = buy(answer(&format!("{status} Go\r\nlocation: {to}/x"), "")).await;
            let Err(PlatformError::Misconfigured(Misconfiguration::Redirected { to: told, .. })) = outcome
            else {
                panic!("{outcome:?}");
            };
            assert_eq!(told.as_deref(), Some(to.as_str()));
        }
        let nobody = elsewhere.into_std().unwrap().accept().map_err(|error| error.kind());
        assert_eq!(nobody.err(), Some(io::ErrorKind::WouldBlock), "somebody went where it points");
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_left_at_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap());
        let outcome = exchange(&target, SHORT).await;
        assert_eq!(outcome, Err(unreachable(Cause::TimedOut)));
    }

    #[tokio::test]
    async fn a_server_that_stops_in_the_middle_is_left_at_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{").await.unwrap();
            stream
        };
        let (outcome, _open) = tokio::join!(exchange(&target, SHORT), server);
        assert_eq!(outcome, Err(unreachable(Cause::TimedOut)));
    }

    #[tokio::test]
    async fn a_closed_port_is_told_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap());
        drop(listener);
        let refused = unreachable(Cause::Network(io::ErrorKind::ConnectionRefused));
        assert_eq!(exchange(&target, LONG).await, Err(refused.clone()));
        assert_eq!(probe(&target, LONG).await, Err(refused));
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_told_as_such() {
        let auth_url = BaseUrl::parse("https://no-such-host.invalid").unwrap();
        let target = Target { auth_url, trust: Trust::Pin(pin()), ..target(([127, 0, 0, 1], 1).into()) };
        assert_eq!(exchange(&target, LONG).await, Err(unreachable(Cause::Dns)));
    }

    #[tokio::test]
    async fn a_server_without_tls_is_a_misconfiguration() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let auth_url = BaseUrl::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
        let target = Target { auth_url, trust: Trust::Pin(pin()), ..target(([127, 0, 0, 1], 1).into()) };
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        };
        let (outcome, ()) = tokio::join!(exchange(&target, LONG), server);
        assert!(
            matches!(outcome, Err(PlatformError::Misconfigured(Misconfiguration::Tls { .. }))),
            "{outcome:?}"
        );
    }

    #[tokio::test]
    async fn a_proxy_that_wants_a_password_is_a_misconfiguration_and_one_that_fails_an_outage() {
        for (head, expected) in [
            ("407 Who", PlatformError::from(Misconfiguration::ProxyAuthentication)),
            ("502 Bad", unreachable(Cause::Proxy)),
        ] {
            let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = Target {
                auth_url: BaseUrl::parse("https://cpd.example.com").unwrap(),
                trust: Trust::Pin(pin()),
                proxy: Proxy::Url(proxy.local_addr().unwrap().to_string().parse().unwrap()),
                ..target(([127, 0, 0, 1], 1).into())
            };
            let server = async {
                let (mut stream, _) = proxy.accept().await.unwrap();
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\n") {
                    assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
                }
                stream.write_all(&answer(head, "")).await.unwrap();
                String::from_utf8(seen).unwrap()
            };
            let (outcome, asked) = tokio::join!(exchange(&target, LONG), server);
            assert_eq!(outcome, Err(expected));
            assert!(asked.starts_with("CONNECT cpd.example.com:443 "), "{asked}");
        }
    }

    #[tokio::test]
    async fn a_proxy_that_is_down_is_not_taken_for_the_platform() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let target = Target {
            auth_url: BaseUrl::parse("https://cpd.example.com").unwrap(),
            trust: Trust::Pin(pin()),
            proxy: Proxy::Url(gone.to_string().parse().unwrap()),
            ..target(gone)
        };
        assert_eq!(exchange(&target, LONG).await, Err(unreachable(Cause::Proxy)));
    }

    fn pin() -> crate::Fingerprint {
        crate::Fingerprint::of(b"")
    }
}
