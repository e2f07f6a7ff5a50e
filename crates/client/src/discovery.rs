//! Finding the agent: the first place that answers.

use std::time::Instant;
use std::{env, iter};

use dph_agent_ipc::{ConnectError, Endpoint, EndpointError, Rule, Stream, Surroundings, Uid, candidates};

use crate::cli::{Args, Opt};
use crate::exit::{Code, Error};
use crate::output;
use crate::session::{sudo_hint, timed_out};

/// A place to look at, and the rule that names it; none: `--socket`.
type Place = (Option<Rule>, Result<Endpoint, EndpointError>);

/// Connects to the agent that `args` or the environment name.
pub(crate) fn find_agent(args: &Args, deadline: Instant) -> Result<Stream, Error> {
    let server = args.server_uid()?;
    let mut search =
        Search { args, server, deadline, tried: String::new(), dead_variable: false, advice: None };
    if let Some(path) = args.raw(Opt::Socket) {
        return search.run(&mut iter::once((None, Endpoint::new(path))));
    }
    let surroundings = Surroundings::from_env();
    search.run(&mut candidates(&surroundings).map(|found| (Some(found.rule), found.endpoint)))
}

struct Search<'a> {
    args: &'a Args,
    /// The other user whose agent is meant, where an option says so.
    server: Option<&'a str>,
    deadline: Instant,
    /// Where no agent answers, and why.
    tried: String,
    /// Whether `DPH_AGENT_SOCK` is among them.
    dead_variable: bool,
    /// What to do about an agent of another user, which listens where we were told to look.
    advice: Option<String>,
}

impl Search<'_> {
    fn run(&mut self, places: &mut dyn Iterator<Item = Place>) -> Result<Stream, Error> {
        for (rule, endpoint) in places {
            let (endpoint, error) = match endpoint {
                Ok(endpoint) => match self.connect(&endpoint) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => (Some(endpoint), error),
                },
                Err(error) => (None, ConnectError::UnsafeFolder(error)),
            };
            self.note_failure(rule, endpoint.as_ref(), &error)?;
        }
        Err(self.no_agent())
    }

    fn connect(&self, endpoint: &Endpoint) -> Result<Stream, ConnectError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ConnectError::Timeout);
        }
        let stream = Stream::connect_trusting(endpoint, |owner| self.trusts(owner), left)?;
        if self.dead_variable {
            output::warn(self.args, &format!("{}; asking the agent at `{endpoint}`", self.tried));
        }
        Ok(stream)
    }

    /// Whether the agent of `owner`, another user than this one, is meant.
    fn trusts(&self, owner: &Uid) -> bool {
        let owner = owner.to_string();
        let variable = || env::var_os("DPH_AGENT_SERVER_UID").is_some_and(|named| named == *owner);
        cfg!(unix) && self.server.map_or_else(variable, |named| named == owner)
    }

    /// Remembers why a place has no agent for us, unless that ends the search.
    fn note_failure(
        &mut self,
        rule: Option<Rule>,
        endpoint: Option<&Endpoint>,
        error: &ConnectError,
    ) -> Result<(), Error> {
        if matches!(error, ConnectError::Timeout) {
            return Err(timed_out());
        }
        self.describe(rule, endpoint, error);
        if matches!(rule, None | Some(Rule::SocketVar)) {
            self.advice = advice(error);
        }
        if rule != Some(Rule::SocketVar) {
            return Ok(());
        }
        self.dead_variable = true;
        if self.args.command.changes || !error.is_dead() { Err(self.no_agent()) } else { Ok(()) }
    }

    fn describe(&mut self, rule: Option<Rule>, endpoint: Option<&Endpoint>, error: &ConnectError) {
        if !self.tried.is_empty() {
            self.tried += "; ";
        }
        self.tried += &rule.map_or_else(|| "--socket".to_owned(), |rule| rule.to_string());
        if let Some(endpoint) = endpoint {
            self.tried += &format!(" `{endpoint}`");
        }
        self.tried += &format!(": {error}");
        if let ConnectError::Other(source)
        | ConnectError::UnsafeFolder(EndpointError::Folder { source, .. }) = error
        {
            self.tried += &format!(": {source}");
        }
    }

    fn no_agent(&mut self) -> Error {
        let start = if self.dead_variable {
            "start one with `dph-agent start`, and set or unset DPH_AGENT_SOCK accordingly"
        } else {
            "start one with `dph-agent start`"
        };
        let hint = sudo_hint().or_else(|| self.advice.take()).unwrap_or_else(|| start.to_owned());
        Error::with(Code::NoAgent, &format!("no agent answers: {}", self.tried), &hint)
    }
}

/// Returns what to do about an agent of another user.
fn advice(error: &ConnectError) -> Option<String> {
    match error {
        ConnectError::ForeignServer { owner } if cfg!(unix) => {
            Some(format!("if the agent of user {owner} is the one meant, add `--server-uid {owner}`"))
        }
        ConnectError::Closed { owner } => {
            Some(format!("user {owner} must list this one in `allow-uid` of the agent's configuration"))
        }
        ConnectError::ForeignServer { .. }
        | ConnectError::Absent
        | ConnectError::Refused
        | ConnectError::UnsafeFolder(_)
        | ConnectError::Timeout
        | ConnectError::Other(_) => None,
    }
}
