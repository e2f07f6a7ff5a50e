//! Commands that need no running agent, and more than this program has: the `dph-agent` beside it carries them
//! out, with the same arguments.

use std::env;
use std::io;
use std::process::Command as Program;

use dph_agent_protocol::ErrorCode;

use crate::cli::{Args, Command, PASSED_ON};
use crate::exit::Error;

pub(crate) const AUDIT: Command = Command {
    name: "audit",
    operand: Some(PASSED_ON),
    summary: "Shows what the agent recorded, or verifies it: `audit --help`, `audit verify`.",
    options: &[],
    changes: false,
    run,
};

fn run(_args: &Args) -> Result<(), Error> {
    let failed = |error: io::Error| {
        let problem = format!("cannot run the `dph-agent` beside this program: {error}");
        Error::new(ErrorCode::FAILED, &problem, "install both programs in one folder")
    };
    let program =
        env::current_exe().map_err(failed)?.with_file_name(format!("dph-agent{}", env::consts::EXE_SUFFIX));
    let mut program = Program::new(program);
    program.args(env::args_os().skip(1));
    become_it(program).map_err(failed)
}

#[cfg(unix)]
fn become_it(mut program: Program) -> io::Result<()> {
    Err(std::os::unix::process::CommandExt::exec(&mut program))
}

#[cfg(windows)]
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "its status is ours; nothing secret is in this process"
)]
fn become_it(mut program: Program) -> io::Result<()> {
    let status = program.status()?.code().unwrap_or(1);
    std::process::exit(status)
}
