//! Which way a key takes out of this machine.

use std::{env, process::Command};

use crate::support::{Authority, KEY, Server, TOKEN, key, params, tunnel};
use dph_agent_platform::{BaseUrl, Cause, PlatformError, Proxy, ProxyEnv, Target};
use rustls::version::TLS13;

const CPD: &str = "https://cpd.invalid";

/// A server for a name that exists nowhere, so that only the proxy gets there.
async fn start() -> (Server, Target) {
    let authority = Authority::new();
    let server = Server::start(authority.sign(params("cpd", &["cpd.invalid", "127.0.0.1"])), &TLS13).await;
    let target = Target { auth_url: BaseUrl::parse(CPD).unwrap(), ..server.target(authority.trust()) };
    (server, target)
}

#[tokio::test]
async fn a_proxy_makes_the_tunnel_and_sees_no_key() {
    let (server, target) = start().await;
    let (proxy, seen) = tunnel(server.address).await;
    let url = format!("http://alice:pass@{proxy}");
    let target = Target { proxy: Proxy::Url(url.parse().unwrap()), ..target };
    assert_eq!(target.buy_token(&key()).await.unwrap().value.expose(), TOKEN);
    let asked = seen.text();
    assert!(asked.starts_with("CONNECT cpd.invalid:443 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("Basic YWxpY2U6cGFzcw=="), "{asked}");
    assert!(!asked.contains(KEY), "{asked}");
}

#[tokio::test]
async fn the_environments_proxy_is_used_but_for_the_names_that_it_excepts() {
    let (server, target) = start().await;
    let (proxy, seen) = tunnel(server.address).await;
    let environment = |no_proxy: &str| {
        Proxy::Environment(ProxyEnv {
            https_proxy: Some(proxy.to_string().parse()),
            no_proxy: Some(no_proxy.to_owned()),
        })
    };
    for excepted in ["cpd.invalid", ".invalid", "other.example.com, invalid", "*"] {
        let target = Target { proxy: environment(excepted), ..target.clone() };
        let nowhere = PlatformError::Unreachable { cause: Cause::Dns, retry_after: None };
        assert_eq!(target.buy_token(&key()).await, Err(nowhere), "{excepted}");
        assert_eq!(seen.text(), "");
    }
    let target = Target { proxy: environment("10.0.0.0/8,example.com"), ..target };
    assert_eq!(target.buy_token(&key()).await.unwrap().value.expose(), TOKEN);
    assert!(seen.text().starts_with("CONNECT "));
}

#[tokio::test]
async fn without_a_proxy_the_server_itself_is_asked() {
    let (server, target) = start().await;
    let auth_url = BaseUrl::parse(&format!("https://{}", server.address)).unwrap();
    let target = Target { auth_url, ..target };
    assert_eq!(target.buy_token(&key()).await.unwrap().value.expose(), TOKEN);
}

/// Runs the test above again where every variable that a library might look at names a dead proxy.
#[test]
fn variables_of_the_process_change_nothing() {
    let variables = ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "proxy::without_a_proxy_the_server_itself_is_asked"])
        .envs(variables.map(|name| (name, "http://127.0.0.1:1")))
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("1 passed"), "{report}");
}
