//! The channel over real named pipes, each of a name of its own.
#![cfg(all(windows, feature = "tokio"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use dph_agent_ipc::{
    BindError, ConnectError, Endpoint, EndpointError, Listener, Peer, Rule, Stream, Surroundings, candidates,
    own_uid, place,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_blocking;

const PATIENCE: Duration = Duration::from_secs(20);

fn endpoint(test: &str) -> Endpoint {
    Endpoint::new(format!(r"\\.\pipe\dph-agent-test-{}-{test}", std::process::id())).unwrap()
}

#[tokio::test]
async fn client_and_agent_exchange_bytes_and_the_agent_knows_who_asks() {
    let endpoint = endpoint("exchange");
    let listener = Listener::bind(&endpoint).await.unwrap();
    let client = spawn_blocking(move || {
        let mut stream = Stream::connect(&endpoint, PATIENCE).unwrap();
        stream.write_all(b"ping").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let agent = tokio::spawn(async move {
        let (mut connection, peer) = listener.accept().await.unwrap();
        let mut question = [0; 4];
        connection.read_exact(&mut question).await.unwrap();
        connection.write_all(b"pong").await.unwrap();
        connection.flush().await.unwrap();
        (question, peer)
    });
    let (question, peer) = agent.await.unwrap();
    assert_eq!((&question, client.await.unwrap().as_str()), (b"ping", "pong"));
    assert_eq!(peer, Peer { uid: own_uid().unwrap(), pid: Some(std::process::id()) });
}

#[tokio::test]
async fn client_that_goes_away_at_once_spoils_nothing_for_the_next() {
    let endpoint = endpoint("fickle");
    let listener = Listener::bind(&endpoint).await.unwrap();
    drop(Stream::connect(&endpoint, PATIENCE).unwrap());
    let _gone = listener.accept().await;
    let next = spawn_blocking(move || Stream::connect(&endpoint, PATIENCE).unwrap());
    let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap();
    assert_eq!(accepted.unwrap().1.uid, own_uid().unwrap());
    drop(next.await.unwrap());
}

#[tokio::test]
async fn silent_agent_does_not_hold_the_client() {
    let endpoint = endpoint("silent");
    let _silent = Listener::bind(&endpoint).await.unwrap();
    let timed_out = spawn_blocking(move || {
        let mut stream = Stream::connect(&endpoint, PATIENCE).unwrap();
        stream.set_timeout(Duration::from_millis(20)).unwrap();
        stream.read(&mut [0; 1]).unwrap_err()
    });
    assert_eq!(timed_out.await.unwrap().kind(), ErrorKind::TimedOut);
}

/// Fails under Wine, which lets anybody add instances to a pipe.
#[tokio::test]
async fn second_agent_is_refused() {
    let endpoint = endpoint("second");
    let _first = Listener::bind(&endpoint).await.unwrap();
    let error = Listener::bind(&endpoint).await.unwrap_err();
    let us = std::process::id();
    assert!(matches!(error, BindError::InUse { pid: Some(pid), .. } if pid == us), "{error}");
}

#[test]
fn absent_agent_is_dead() {
    let error = Stream::connect(&endpoint("absent"), PATIENCE).unwrap_err();
    assert!(matches!(error, ConnectError::Absent) && error.is_dead());
}

#[test]
fn client_and_agent_meet_at_the_pipe_that_bears_the_users_identifier() {
    let surroundings = Surroundings { socket_var: Some(r"\\.\pipe\other".into()), ..Surroundings::default() };
    let rules: Vec<_> = candidates(&surroundings).map(|candidate| candidate.rule).collect();
    assert_eq!(rules, [Rule::SocketVar, Rule::Pipe]);
    let expected = format!(r"\\.\pipe\dph-agent-{}", own_uid().unwrap());
    assert_eq!(place(&surroundings).unwrap().to_string(), expected);
    assert!(own_uid().unwrap().starts_with("S-1-"));
}

#[test]
fn name_that_is_no_local_pipe_is_refused() {
    for name in ["", r"\\.\pipe\", r"C:\agent.sock", r"\\server\pipe\agent", r"\\.\pipe\a\b"] {
        assert!(matches!(Endpoint::new(name), Err(EndpointError::Invalid { .. })), "{name}");
    }
    let long = Endpoint::new(format!(r"\\.\pipe\{}", "x".repeat(300)));
    assert!(matches!(long, Err(EndpointError::TooLong { len: 309, limit: 256, .. })));
}
