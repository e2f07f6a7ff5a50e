//! Commands that need no running agent, and more than this program has: the `dph-agent` beside it carries them
//! out, with the same arguments.

use dph_agent_ipc::become_program;
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
    let problem = format!("cannot run the `dph-agent` beside this program: {}", become_program("dph-agent"));
    Err(Error::new(ErrorCode::FAILED, &problem, "install both programs in one folder"))
}
