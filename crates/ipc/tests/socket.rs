//! The channel over real sockets, in folders of its own.
#![cfg(all(unix, feature = "tokio"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;

#[cfg(target_os = "linux")]
use dph_agent_ipc::{Accepted, Surroundings, candidates};
use dph_agent_ipc::{
    BindError, ConnectError, Endpoint, EndpointError, Listener, Peer, Stream, own_uid, prepare_folder,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for an event that should not come to have come.
const MOMENT: Duration = Duration::from_millis(100);
const HELPER_SOCKET: &str = "DPH_TEST_HELPER_SOCKET";

fn folder() -> TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

fn endpoint_in(folder: &TempDir) -> Endpoint {
    Endpoint::new(folder.path().join("agent.sock")).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[expect(clippy::print_stderr, reason = "a test that proves nothing says so")]
fn is_root() -> bool {
    let root = own_uid().unwrap() == 0;
    if !root {
        eprintln!("skipped: only root can play another user");
    }
    root
}

/// Runs `work` on a thread that is another user for the kernel.
#[cfg(target_os = "linux")]
fn as_uid<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            rustix::thread::set_thread_uid(rustix::thread::Uid::from_raw(uid)).unwrap();
            work()
        });
        other.join().unwrap()
    })
}

#[tokio::test]
async fn client_and_agent_exchange_bytes_and_the_agent_knows_who_asks() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let listener = Listener::bind(&endpoint).await.unwrap();
    let client = tokio::task::spawn_blocking({
        let endpoint = endpoint.clone();
        move || {
            let mut stream = Stream::connect(&endpoint, PATIENCE).unwrap();
            stream.write_all(b"ping").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        }
    });
    let (mut connection, peer) = listener.accept().await.unwrap();
    assert_eq!(peer, Peer { uid: own_uid().unwrap(), pid: Some(std::process::id()) });
    let mut question = [0; 4];
    connection.read_exact(&mut question).await.unwrap();
    connection.write_all(b"pong").await.unwrap();
    connection.shutdown().await.unwrap();
    assert_eq!((question.as_slice(), client.await.unwrap().as_str()), (b"ping".as_slice(), "pong"));
}

#[tokio::test]
async fn socket_and_lock_are_for_the_user_alone() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let _listener = Listener::bind(&endpoint).await.unwrap();
    assert_eq!(mode(endpoint.path()), 0o600);
    assert_eq!(mode(&folder.path().join("agent.sock.lock")), 0o600);
}

#[test]
fn folder_is_made_for_the_user_alone() {
    let folder = folder();
    let endpoint = Endpoint::new(folder.path().join("new/agent.sock")).unwrap();
    prepare_folder(&endpoint).unwrap();
    assert_eq!(mode(&folder.path().join("new")), 0o700);
}

#[test]
fn folder_that_others_can_write_to_is_refused() {
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    prepare_folder(&endpoint_in(&folder)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let error = prepare_folder(&endpoint_in(&folder)).unwrap_err();
    assert!(matches!(error, EndpointError::Exposed { mode: 0o1777, .. }), "{error}");
}

#[test]
fn folder_that_is_a_link_or_a_file_is_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let prepare = |name| prepare_folder(&Endpoint::new(at(name).join("agent.sock")).unwrap());
    fs::create_dir(at("real")).unwrap();
    symlink(at("real"), at("link")).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    fs::write(at("file"), "").unwrap();
    assert!(matches!(prepare("link"), Err(EndpointError::Symlink { .. })));
    assert!(matches!(prepare("dangling"), Err(EndpointError::Symlink { .. })));
    assert!(matches!(prepare("file"), Err(EndpointError::NotAFolder { .. })));
}

#[test]
fn folder_of_another_user_is_refused_and_its_owner_named() {
    let folder = folder();
    if is_root() {
        std::os::unix::fs::chown(folder.path(), Some(12345), None).unwrap();
        let error = prepare_folder(&endpoint_in(&folder)).unwrap_err();
        assert!(error.to_string().contains("belongs to uid 12345"), "{error}");
    }
}

#[tokio::test]
async fn live_socket_is_not_stolen_and_its_holder_is_named() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let _first = Listener::bind(&endpoint).await.unwrap();
    let error = Listener::bind(&endpoint).await.unwrap_err();
    assert!(error.to_string().ends_with(&format!("in use by process {}", std::process::id())), "{error}");
    assert!(Stream::connect(&endpoint, PATIENCE).is_ok());
}

#[tokio::test]
async fn live_socket_without_a_lock_is_not_stolen_either() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let _activated = UnixListener::bind(endpoint.path()).unwrap();
    let error = Listener::bind(&endpoint).await.unwrap_err();
    let us = std::process::id();
    assert!(matches!(error, BindError::InUse { pid: Some(pid), .. } if pid == us), "{error}");
}

#[tokio::test]
async fn file_that_is_no_socket_is_left_alone() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    fs::write(endpoint.path(), "precious").unwrap();
    assert!(matches!(Listener::bind(&endpoint).await, Err(BindError::NotASocket { .. })));
    assert_eq!(fs::read_to_string(endpoint.path()).unwrap(), "precious");
}

#[tokio::test]
async fn socket_of_a_killed_agent_is_taken_over() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let mut helper = spawn_helper(&endpoint);
    let error = Listener::bind(&endpoint).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { pid: Some(pid), .. } if pid == helper.id()), "{error}");
    helper.kill().unwrap();
    helper.wait().unwrap();
    assert!(fs::symlink_metadata(endpoint.path()).unwrap().file_type().is_socket());
    let refused = Stream::connect(&endpoint, PATIENCE).unwrap_err();
    assert!(matches!(refused, ConnectError::Refused) && refused.is_dead());
    let _successor = Listener::bind(&endpoint).await.unwrap();
    assert!(Stream::connect(&endpoint, PATIENCE).is_ok());
}

/// Runs this test binary again as an agent that listens until it is killed.
fn spawn_helper(endpoint: &Endpoint) -> Child {
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_listens", "--ignored", "--nocapture"])
        .env(HELPER_SOCKET, endpoint.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(helper.stdout.as_mut().unwrap());
    assert!(stdout.lines().any(|line| line.unwrap().ends_with("listening")), "the helper ended");
    helper
}

#[tokio::test]
#[ignore = "no test of its own: other tests run it as the agent that they kill"]
async fn helper_that_listens() {
    let path = PathBuf::from(std::env::var_os(HELPER_SOCKET).expect("it is run by another test"));
    let _listener = Listener::bind(&Endpoint::new(path).unwrap()).await.unwrap();
    writeln!(std::io::stdout(), "listening").unwrap();
    std::future::pending().await
}

#[test]
fn of_twenty_agents_that_start_at_once_exactly_one_wins() {
    const AGENTS: usize = 20;
    for _ in 0..10 {
        let folder = folder();
        let endpoint = endpoint_in(&folder);
        drop(UnixListener::bind(endpoint.path()).unwrap()); // all find the socket of a killed one
        let start = Barrier::new(AGENTS);
        let bind = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            start.wait();
            let bound = runtime.block_on(Listener::bind(&endpoint));
            (bound, runtime)
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let agents: Vec<_> = (0..AGENTS).map(|_| scope.spawn(bind)).collect();
            agents.into_iter().map(|agent| agent.join().unwrap()).collect()
        });
        let in_use = |result: &Result<_, _>| matches!(result, Err(BindError::InUse { .. }));
        assert_eq!(results.iter().filter(|(bound, _)| bound.is_ok()).count(), 1);
        assert_eq!(results.iter().filter(|(bound, _)| in_use(bound)).count(), AGENTS - 1);
        assert!(Stream::connect(&endpoint, PATIENCE).is_ok());
    }
}

#[test]
fn absent_agent_is_told_from_a_dead_one() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let absent = Stream::connect(&endpoint, PATIENCE).unwrap_err();
    assert!(matches!(absent, ConnectError::Absent) && absent.is_dead());
    drop(UnixListener::bind(endpoint.path()).unwrap());
    assert!(matches!(Stream::connect(&endpoint, PATIENCE), Err(ConnectError::Refused)));
}

#[test]
fn silent_agent_does_not_hold_the_client() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let _silent = UnixListener::bind(endpoint.path()).unwrap();
    let mut stream = Stream::connect(&endpoint, PATIENCE).unwrap();
    stream.set_timeout(Duration::from_millis(20)).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::TimedOut);
    stream.set_timeout(Duration::ZERO).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(stream.write_all(&vec![0; 1 << 24]).unwrap_err().kind(), ErrorKind::TimedOut);
}

#[cfg(target_os = "linux")]
#[test]
fn agent_that_does_not_accept_does_not_hold_the_client() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let busy = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&busy, &SocketAddrUnix::new(endpoint.path()).unwrap()).unwrap();
    listen(&busy, 0).unwrap();
    let _queued = Stream::connect(&endpoint, PATIENCE).unwrap();
    let late = Stream::connect(&endpoint, Duration::from_millis(20)).unwrap_err();
    assert!(matches!(late, ConnectError::Timeout) && !late.is_dead());
}

#[cfg(target_os = "linux")]
#[test]
fn server_of_another_user_is_refused_by_the_client() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    if is_root() {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let impostor = as_uid(12345, || UnixListener::bind(endpoint.path()).unwrap());
        let error = Stream::connect(&endpoint, PATIENCE).unwrap_err();
        assert!(matches!(error, ConnectError::ForeignServer { owner: 12345 }) && !error.is_dead());
        let (mut victim, _) = impostor.accept().unwrap();
        assert_eq!(victim.read(&mut [0; 1]).unwrap(), 0, "not a byte was sent");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn server_of_a_trusted_user_is_spoken_to_and_nobody_elses() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    if is_root() {
        let listener = Listener::bind(&endpoint).await.unwrap();
        listener.open_to_others(true).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let connect = |trusted| {
            as_uid(12345, || Stream::connect_trusting(&endpoint, |owner| *owner == trusted, PATIENCE))
        };
        assert!(connect(0).is_ok());
        assert!(matches!(connect(12346), Err(ConnectError::ForeignServer { owner: 0 })));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn socket_is_opened_to_others_and_closed_again() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let listener = Listener::bind(&endpoint).await.unwrap();
    listener.open_to_others(true).unwrap();
    assert_eq!(mode(endpoint.path()), 0o666);
    fs::remove_file(endpoint.path()).unwrap();
    listener.open_to_others(true).unwrap();
    let listener = listener.rebind().await.unwrap();
    assert_eq!(mode(endpoint.path()), 0o600);
    listener.open_to_others(true).unwrap();
    listener.open_to_others(false).unwrap();
    assert_eq!(mode(endpoint.path()), 0o600);
    if is_root() {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = as_uid(12345, || Stream::connect(&endpoint, PATIENCE).unwrap_err());
        assert!(matches!(error, ConnectError::Closed { owner: 0 }) && !error.is_dead(), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn client_of_another_user_is_known_even_where_the_socket_is_open_to_all() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    if is_root() {
        let listener = Listener::bind(&endpoint).await.unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(endpoint.path(), fs::Permissions::from_mode(0o666)).unwrap();
        let _stream = as_uid(12345, || UnixStream::connect(endpoint.path()).unwrap());
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.uid, 12345);
        assert!(!Accepted::new(own_uid().unwrap(), Vec::new()).permits(&peer));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn unreachable_folder_of_another_user_is_named() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    if is_root() {
        let refused = as_uid(12345, || Stream::connect(&endpoint, PATIENCE).unwrap_err());
        assert!(refused.to_string().contains("belongs to uid 0") && !refused.is_dead(), "{refused}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn folder_in_tmp_that_somebody_else_made_first_is_no_place_for_the_client() {
    if is_root() {
        let uid = 1_000_000 + std::process::id();
        let planted = PathBuf::from(format!("/tmp/dph-agent-{uid}"));
        let last = || as_uid(uid, || candidates(&Surroundings::default()).last().unwrap().endpoint);
        assert!(last().is_ok(), "nothing is there yet");
        fs::create_dir(&planted).unwrap();
        let refused = last();
        fs::remove_dir(&planted).unwrap();
        assert!(matches!(refused, Err(EndpointError::Foreign { owner: 0, .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn removed_socket_is_noticed_and_made_anew_under_the_same_lock() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let listener = Listener::bind(&endpoint).await.unwrap();
    fs::write(folder.path().join("unrelated"), "").unwrap();
    fs::remove_file(folder.path().join("unrelated")).unwrap();
    assert!(timeout(MOMENT, listener.removed()).await.is_err(), "nothing happened to the socket");
    fs::remove_file(endpoint.path()).unwrap();
    timeout(PATIENCE, listener.removed()).await.unwrap();
    assert!(matches!(Listener::bind(&endpoint).await, Err(BindError::InUse { .. })));
    let listener = listener.rebind().await.unwrap();
    assert!(Stream::connect(&endpoint, PATIENCE).is_ok());
    assert!(timeout(MOMENT, listener.removed()).await.is_err(), "the new one is there");
}

#[tokio::test]
async fn removal_is_noticed_while_waiting() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let listener = Listener::bind(&endpoint).await.unwrap();
    let waiting = tokio::spawn(async move { listener.removed().await });
    tokio::task::yield_now().await;
    fs::rename(endpoint.path(), folder.path().join("elsewhere")).unwrap();
    timeout(PATIENCE, waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn socket_is_made_anew_with_its_folder_and_lock() {
    let outer = folder();
    let endpoint = Endpoint::new(outer.path().join("inner/agent.sock")).unwrap();
    prepare_folder(&endpoint).unwrap();
    let listener = Listener::bind(&endpoint).await.unwrap();
    fs::remove_dir_all(outer.path().join("inner")).unwrap();
    timeout(PATIENCE, listener.removed()).await.unwrap();
    let _listener = listener.rebind().await.unwrap();
    assert_eq!(mode(&outer.path().join("inner")), 0o700);
    assert!(matches!(Listener::bind(&endpoint).await, Err(BindError::InUse { .. })));
}

#[tokio::test]
async fn rebind_gives_way_to_an_agent_that_took_over() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let listener = Listener::bind(&endpoint).await.unwrap();
    fs::remove_file(endpoint.path()).unwrap();
    fs::remove_file(folder.path().join("agent.sock.lock")).unwrap();
    let _successor = Listener::bind(&endpoint).await.unwrap();
    timeout(PATIENCE, listener.removed()).await.unwrap();
    assert!(matches!(listener.rebind().await, Err(BindError::InUse { .. })));
    assert!(Stream::connect(&endpoint, PATIENCE).is_ok());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn far_end_is_a_handle_on_the_process_until_the_connection_closes() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let listener = Listener::bind(&endpoint).await.unwrap();
    let _stream = Stream::connect(&endpoint, PATIENCE).unwrap();
    let (connection, _) = listener.accept().await.unwrap();
    let far_end = connection.far_end();
    let process = far_end.process().unwrap();
    rustix::process::pidfd_send_signal(&process, rustix::process::Signal::WINCH).unwrap();
    let flags = rustix::io::fcntl_getfd(&process).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "programs that the agent runs must not have it");
    drop(connection);
    assert_eq!(far_end.process().unwrap_err().kind(), ErrorKind::NotConnected);
}

#[tokio::test]
async fn close_removes_the_own_socket_and_leaves_a_successors_alone() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    Listener::bind(&endpoint).await.unwrap().close();
    assert!(!endpoint.path().exists());
    let listener = Listener::bind(&endpoint).await.unwrap();
    fs::remove_file(endpoint.path()).unwrap();
    let _successor = UnixListener::bind(endpoint.path()).unwrap();
    listener.close();
    assert!(Stream::connect(&endpoint, PATIENCE).is_ok());
}

#[tokio::test]
async fn passed_on_socket_is_used_and_never_removed() {
    let folder = folder();
    let endpoint = endpoint_in(&folder);
    let listener = Listener::from_fd(UnixListener::bind(endpoint.path()).unwrap().into()).unwrap();
    assert_eq!(listener.endpoint(), &endpoint);
    let _stream = Stream::connect(&endpoint, PATIENCE).unwrap();
    let (_, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.uid, own_uid().unwrap());
    let listener = listener.rebind().await.unwrap();
    assert!(timeout(MOMENT, listener.removed()).await.is_err());
    let before = mode(endpoint.path());
    listener.open_to_others(true).unwrap();
    assert_eq!(mode(endpoint.path()), before, "its mode is for its maker to choose");
    listener.close();
    assert!(endpoint.path().exists());
}

#[tokio::test]
async fn descriptor_that_is_no_listening_socket_with_a_path_is_refused() {
    let (connected, _other) = UnixStream::pair().unwrap();
    assert_eq!(Listener::from_fd(connected.into()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let file = tempfile::tempfile().unwrap();
    assert!(Listener::from_fd(file.into()).is_err());
}
