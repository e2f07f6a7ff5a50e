//! The least that a client can do, in C: the floor to measure against.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use dph_agent_protocol::{Hello, Request, TokenRequest};

use crate::bed::{Bed, succeed, workspace};

/// Builds it as static as the system's C compilers can, and says with which.
///
/// # Errors
///
/// When there is no C compiler.
pub(crate) fn build(bed: &Bed) -> io::Result<(PathBuf, &'static str)> {
    let (source, out) = (workspace().join("crates/xtask/bench/client.c"), bed.path().join("client-c"));
    let header = bed.path().join("request.txt");
    fs::write(&header, request()?)?;
    let compile = |compiler: &str| {
        succeed(
            Command::new(compiler)
                .args(["-O2", "-static", "-s", "-DREQUEST="])
                .arg("-include")
                .arg(&header)
                .arg("-o")
                .arg(&out)
                .arg(&source),
        )
    };
    compile("musl-gcc")
        .map(|()| (out.clone(), "musl-gcc"))
        .or_else(|_no_musl| compile("cc").map(|()| (out.clone(), "cc")))
}

/// Returns the macro that holds hello and a token request.
fn request() -> io::Result<String> {
    let token = Request::Token(TokenRequest { deadline_ms: 29_800, ..TokenRequest::default() });
    let frames = [&Hello::OURS.to_frame()[..], &token.to_frame().map_err(io::Error::other)?[..]].concat();
    let bytes: Vec<_> = frames.iter().map(u8::to_string).collect();
    Ok(format!("#undef REQUEST\n#define REQUEST {}\n", bytes.join(",")))
}
