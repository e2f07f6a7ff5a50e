//! What a profile's policy says to a caller: a decision without any effect.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dph_agent_protocol::ErrorCode;

use crate::caller::{Caller, Doubt, Executable};
use crate::error::Problem;

/// How long a request waits to be confirmed where the configuration does not say.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(60);

/// Who may have a profile's tokens, besides what holds for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The executables that may; absent: all.
    pub allow: Option<Vec<PathBuf>>,
    /// Who is asked; absent: nobody.
    pub confirm: Option<Confirm>,
    /// How long a request waits for that.
    pub confirm_timeout: Duration,
}

/// Who is asked whether a request may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// Whoever runs `approve` or `deny`.
    Approve,
    /// The user, by this program; and whoever runs `approve` or `deny`.
    Askpass(PathBuf),
}

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Answer it.
    Allowed,
    /// Ask somebody first.
    Confirm,
    /// Refuse it.
    Denied(Denial),
}

/// Why `allow` refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The executable is none of those that may.
    #[error("it is not among them")]
    NotListed,
    /// It has the name of one that may, and is another file.
    #[error("it is another file than the one of that name")]
    Changed,
    /// It is not known.
    #[error("{0}")]
    Doubt(Doubt),
}

impl Policy {
    /// Decides about a caller. `on_disk` looks at an executable that the policy names.
    pub fn decide(&self, caller: &Caller, on_disk: impl Fn(&Path) -> Option<Executable>) -> Decision {
        let denial = self.allow.as_deref().and_then(|allow| denial(allow, caller, on_disk));
        match (denial, &self.confirm) {
            (Some(denial), _) => Decision::Denied(denial),
            (None, Some(_)) => Decision::Confirm,
            (None, None) => Decision::Allowed,
        }
    }
}

/// Both name and file have to be right: the file alone would let in a link from elsewhere, the name alone what
/// was put in its place.
fn denial(
    allow: &[PathBuf],
    caller: &Caller,
    on_disk: impl Fn(&Path) -> Option<Executable>,
) -> Option<Denial> {
    let (exe, file) = match (&caller.exe, caller.file) {
        (Some(exe), Ok(file)) => (exe, file),
        (None, Ok(_)) => return Some(Denial::Doubt(Doubt::Closed)),
        (_, Err(doubt)) => return Some(Denial::Doubt(doubt)),
    };
    let mut namesakes = allow.iter().filter_map(|rule| on_disk(rule)).filter(|rule| rule.path == *exe);
    let is_it = |rule: Executable| -> bool { rule.file == file };
    match namesakes.next() {
        None => Some(Denial::NotListed),
        Some(rule) => (!is_it(rule)).then_some(Denial::Changed),
    }
}

/// Returns what a caller is told whom `allow` refuses: the rule, and of the rest only what is its own.
pub fn refused(profile: &str, caller: &Caller, denial: Denial) -> Problem {
    let message = format!(
        "`allow` of profile `{profile}` lets only certain programs have its tokens; {} is refused: {denial}",
        caller.program()
    );
    Problem::new(ErrorCode::DENIED, message, allow_hint(denial))
}

fn allow_hint(denial: Denial) -> &'static str {
    match denial {
        Denial::NotListed => {
            "the executable that connects is what counts, for a script its interpreter: add it to `allow` in \
             config.toml and reload, or see dph-agent-client policy explain"
        }
        Denial::Changed | Denial::Doubt(Doubt::Replaced) => "start the program again",
        Denial::Doubt(Doubt::Gone | Doubt::OutOfSight | Doubt::Closed | Doubt::NotAsked | Doubt::NotTold) => {
            "run it as the agent's own user, in the same container, and let it wait for the answer; without `allow`, who \
             asks does not matter"
        }
    }
}

/// Returns what a caller is told when somebody said no.
pub fn not_confirmed(profile: &str) -> Problem {
    Problem::new(
        ErrorCode::DENIED,
        format!("`confirm` of profile `{profile}`: the request was denied"),
        "ask whoever denied it",
    )
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::FileId;

    fn on_disk(path: &str) -> Executable {
        Executable::at(Path::new(path)).unwrap()
    }

    fn caller(exe: &str, file: Result<FileId, Doubt>) -> Caller {
        Caller { uid: 1000, pid: Some(7), exe: Some(exe.into()), unit: None, parent: None, file }
    }

    fn policy(allow: &[&str], confirm: Option<Confirm>) -> Policy {
        let allow = Some(allow.iter().map(PathBuf::from).collect());
        Policy { allow, confirm, confirm_timeout: CONFIRM_TIMEOUT }
    }

    fn decide(policy: &Policy, caller: &Caller) -> Decision {
        policy.decide(caller, |path| Executable::at(path).ok())
    }

    #[test]
    fn an_executable_is_let_in_by_name_and_file_together() {
        let policy = policy(&["/nowhere", "/bin/sh"], None);
        let (sh, cat) = (on_disk("/bin/sh"), on_disk("/bin/cat"));
        let name = |of: &Executable| of.path.display().to_string();
        assert_eq!(decide(&policy, &caller(&name(&sh), Ok(sh.file))), Decision::Allowed);
        let denied = |caller: &Caller| match decide(&policy, caller) {
            Decision::Denied(denial) => denial,
            Decision::Allowed | Decision::Confirm => panic!("let in: {caller}"),
        };
        assert_eq!(denied(&caller(&name(&cat), Ok(cat.file))), Denial::NotListed);
        assert_eq!(denied(&caller(&name(&sh), Ok(cat.file))), Denial::Changed);
        assert_eq!(denied(&caller("/tmp/link-to-sh", Ok(sh.file))), Denial::NotListed);
    }

    #[test]
    fn who_is_not_known_is_refused_by_allow_and_by_nothing_else() {
        let doubts = [Doubt::Gone, Doubt::OutOfSight, Doubt::Closed, Doubt::Replaced, Doubt::NotTold];
        for doubt in doubts {
            let stranger = caller("/bin/sh", Err(doubt));
            let closed = policy(&["/bin/sh"], Some(Confirm::Approve));
            assert_eq!(decide(&closed, &stranger), Decision::Denied(Denial::Doubt(doubt)));
            let asking = Policy { allow: None, ..closed };
            assert_eq!(decide(&asking, &stranger), Decision::Confirm);
            assert_eq!(decide(&Policy { confirm: None, ..asking }, &stranger), Decision::Allowed);
        }
    }

    #[test]
    fn an_empty_list_lets_nobody_in_and_one_who_is_let_in_is_still_asked_about() {
        let sh = on_disk("/bin/sh");
        let caller = caller(&sh.path.display().to_string(), Ok(sh.file));
        assert_eq!(decide(&policy(&[], None), &caller), Decision::Denied(Denial::NotListed));
        assert_eq!(decide(&policy(&["/bin/sh"], Some(Confirm::Approve)), &caller), Decision::Confirm);
    }

    #[test]
    fn a_refusal_names_the_rule_and_no_other_program() {
        let sh = on_disk("/bin/sh");
        let problem = refused("prod", &caller("/opt/other", Ok(sh.file)), Denial::NotListed);
        assert_eq!(problem.code, ErrorCode::DENIED);
        let text = format!("{}{}", problem.message, problem.hint);
        assert!(text.contains("`allow` of profile `prod`") && text.contains("/opt/other"), "{text}");
        assert!(!text.contains("/bin/sh"), "{text}");
    }
}
