//! The command line: what each command takes, and its reading.

use std::env;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use dph_agent_protocol::Selector;
use lexopt::{Arg, Parser};

use crate::exit::Error;
use crate::time::parse_duration;

/// A command.
pub(crate) struct Command {
    /// Its name.
    pub(crate) name: &'static str,
    /// What its operand is called, where it takes one.
    pub(crate) operand: Option<&'static str>,
    /// What it does, in one sentence.
    pub(crate) summary: &'static str,
    /// The options that it takes besides [`COMMON`].
    pub(crate) options: &'static [Opt],
    /// Whether it changes anything, so that it must not reach another agent than the one meant.
    pub(crate) changes: bool,
    /// Carries it out.
    pub(crate) run: fn(&Args) -> Result<(), Error>,
}

/// What to do.
pub(crate) enum Invocation {
    /// Explain a command, or all of them.
    Help(Option<&'static Command>),
    /// Carry one out.
    Run(Args),
}

/// A command with what was given to it.
pub(crate) struct Args {
    /// The command.
    pub(crate) command: &'static Command,
    /// Its operand.
    pub(crate) operand: Option<OsString>,
    options: Vec<(Opt, OsString)>,
}

/// The operand of a command whose arguments are all passed on as they are.
pub(crate) const PASSED_ON: &str = "ARGUMENTS";

const SEE_HELP: &str = "see `dph-agent-client --help`";

/// Options that every command takes.
const COMMON: &[Opt] = &[Opt::Socket, Opt::ServerUid, Opt::Timeout, Opt::Json, Opt::Quiet, Opt::Help];

macro_rules! options {
    ($($id:ident $name:literal $value:literal $help:literal,)*) => {
        /// An option.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Opt { $(#[doc = $help] $id,)* }

        impl Opt {
            const ALL: &[Self] = &[$(Self::$id),*];

            /// Returns the name without dashes, what the value is called (empty: there is none), and
            /// what it is for.
            const fn describe(self) -> (&'static str, &'static str, &'static str) {
                match self { $(Self::$id => ($name, $value, $help),)* }
            }
        }
    };
}

options! {
    Profile "profile" "PROFILE" "the profile meant (else DPH_AGENT_PROFILE, the default, the only one)",
    ForUrl "for-url" "URL" "the profile whose url has this origin",
    Socket "socket" "PATH" "where the agent listens, and nowhere else",
    ServerUid "server-uid" "UID" "the other user whose agent is meant (else DPH_AGENT_SERVER_UID, only this one)",
    Timeout "timeout" "DURATION" "how long the agent may take: 90, 90s, 5m, 1h30m (default 30s)",
    Json "json" "" "print JSON, errors too",
    Quiet "quiet" "" "no warnings, no notes",
    Help "help" "" "print this",
    MinTtl "min-ttl" "DURATION" "life that the token must still have",
    New "new" "" "buy a new token",
    Reject "reject" "" "read from standard input the token that was refused, and get another",
    Format "format" "FORMAT" "raw (default), json, header, curl or zen",
    Platform "platform" "PLATFORM" "software-hub, ibm-cloud or mcsp",
    Url "url" "URL" "where the API is called",
    AuthUrl "auth-url" "URL" "where tokens are bought, when not at the URL or the platform's usual place",
    Username "username" "USER" "the user (software-hub)",
    Scope "scope" "SCOPE" "accounts/ID, subscriptions/ID or services/ID (mcsp)",
    CaFile "ca-file" "FILE" "certificates to trust besides the system's",
    TlsPin "tls-pin" "PIN" "sha256:HEX of the one certificate to trust",
    Proxy "proxy" "URL" "the proxy to use, or none",
    KeySource "key-source" "SOURCE" "keyring (default), sealed, session, file:PATH, credential:NAME or command:[\"PROGRAM\",\"ARGUMENT\"]",
    Refresh "refresh" "WHEN" "while-used or always",
    Replace "replace" "" "change the URL or user name of an existing profile",
    NoVerify "no-verify" "" "neither reach the platform nor prove the key",
    TrustServer "trust-server" "" "show the server's certificate, ask, and pin it",
    Ttl "ttl" "DURATION" "wipe the key after this time (with --key-source session)",
    To "to" "SOURCE" "where the key is to go, as for `add --key-source`",
    KeyStdin "key-stdin" "" "read the key from standard input",
    KeyFile "key-file" "FILE" "read the key once from a file, also IBM Cloud's apikey.json",
    Check "check" "" "fail unless every profile shown works",
    All "all" "" "every profile",
    Yes "yes" "" "do not ask",
    DryRun "dry-run" "" "only print what would be done",
    SetPassphrase "set-passphrase" "" "set the passphrase that opens the agent, or another one",
    PassphraseStdin "passphrase-stdin" "" "read the passphrase from standard input; to set another one, the old line first",
    Pid "pid" "PID" "the process to look at",
    Wait "wait" "" "stay until it is done",
    Cancel "cancel" "" "take it back, if nothing was sent to the platform",
    Ready "ready" "" "fail unless a token request would succeed",
}

impl Opt {
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|option| option.name() == name)
    }

    const fn name(self) -> &'static str {
        self.describe().0
    }

    const fn takes_value(self) -> bool {
        !self.describe().1.is_empty()
    }
}

impl Command {
    fn options(&self) -> impl Iterator<Item = Opt> {
        self.options.iter().chain(COMMON).copied()
    }

    fn see_help(&self) -> String {
        format!("see `dph-agent-client {} --help`", self.name)
    }
}

/// Reads the command line.
pub(crate) fn parse(parser: &mut Parser, commands: &'static [Command]) -> Result<Invocation, Error> {
    let (mut command, mut operand, mut options) = (None::<&Command>, None, Vec::new());
    while let Some(arg) = parser.next().map_err(misread)? {
        match arg {
            Arg::Short('h') => options.push((Opt::Help, OsString::new())),
            Arg::Short(c) => return Err(unknown_option(&c.to_string(), command)),
            Arg::Long(name) => {
                let Some(option) = Opt::named(name) else {
                    return Err(unknown_option(name, command));
                };
                let value =
                    if option.takes_value() { parser.value().map_err(misread)? } else { OsString::new() };
                options.push((option, value));
            }
            Arg::Value(word) => match command {
                None => {
                    let found = find_command(&word, commands)?;
                    command = Some(found);
                    if found.operand == Some(PASSED_ON) {
                        break;
                    }
                }
                Some(command) if command.operand.is_some() && operand.is_none() => operand = Some(word),
                Some(command) => return Err(unexpected_operand(command)),
            },
        }
    }
    settle(command, operand, options)
}

fn settle(
    command: Option<&'static Command>,
    operand: Option<OsString>,
    options: Vec<(Opt, OsString)>,
) -> Result<Invocation, Error> {
    if options.iter().any(|(option, _)| *option == Opt::Help) {
        return Ok(Invocation::Help(command));
    }
    let Some(command) = command else {
        return Err(Error::usage("no command is given", SEE_HELP));
    };
    match options.iter().find(|(given, _)| command.options().all(|taken| taken != *given)) {
        Some((option, _)) => Err(unknown_option(option.name(), Some(command))),
        None => Ok(Invocation::Run(Args { command, operand, options })),
    }
}

/// Whether JSON was asked for, even on a command line that cannot be read.
pub(crate) fn wants_json() -> bool {
    env::args_os().any(|arg| arg == "--json")
}

impl Args {
    /// Whether `option` was given.
    pub(crate) fn has(&self, option: Opt) -> bool {
        self.raw(option).is_some()
    }

    /// Returns the value of `option` as it was given; the last one counts.
    pub(crate) fn raw(&self, option: Opt) -> Option<&OsStr> {
        self.options.iter().rev().find(|(given, _)| *given == option).map(|(_, value)| value.as_os_str())
    }

    /// Returns the value of `option`.
    pub(crate) fn text(&self, option: Opt) -> Result<Option<&str>, Error> {
        match self.raw(option).map(OsStr::to_str) {
            Some(None) => Err(self.bad_value(option, "is not valid UTF-8")),
            text => Ok(text.flatten()),
        }
    }

    /// Returns the value of `option`, which is a duration.
    pub(crate) fn duration(&self, option: Opt) -> Result<Option<Duration>, Error> {
        match self.raw(option).map(|value| value.to_str().and_then(parse_duration)) {
            Some(None) => Err(self.bad_value(option, "is not a duration such as 90, 90s, 5m or 1h30m")),
            duration => Ok(duration.flatten()),
        }
    }

    /// Returns the value of `option`, which is a number.
    pub(crate) fn number(&self, option: Opt) -> Result<Option<u32>, Error> {
        match self.raw(option).map(|value| value.to_str().and_then(|text| text.parse().ok())) {
            Some(None) => Err(self.bad_value(option, "is not a number")),
            number => Ok(number.flatten()),
        }
    }

    /// Returns the value of `option`, which is one of `words`.
    pub(crate) fn choice<T: Copy>(&self, option: Opt, words: &[(&str, T)]) -> Result<Option<T>, Error> {
        let Some(given) = self.raw(option) else { return Ok(None) };
        match words.iter().find(|(word, _)| given == *word) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                Err(self.bad_choice(option, &given.to_string_lossy(), &words))
            }
        }
    }

    /// Returns which profile is meant.
    pub(crate) fn selector(&self) -> Result<Selector, Error> {
        let for_url = self.text(Opt::ForUrl)?.map(str::to_owned);
        match (self.has(Opt::Profile), for_url) {
            (true, Some(_)) => {
                Err(Error::usage("`--profile` and `--for-url` exclude each other", "give one of them"))
            }
            (false, for_url @ Some(_)) => Ok(Selector { profile: None, for_url }),
            (_, None) => Ok(Selector { profile: self.profile()?, for_url: None }),
        }
    }

    /// Returns which profile is meant, or `None` for `--all`.
    pub(crate) fn selector_or_all(&self) -> Result<Option<Selector>, Error> {
        if !self.has(Opt::All) {
            return self.selector().map(Some);
        }
        if self.has(Opt::Profile) || self.has(Opt::ForUrl) {
            return Err(Error::usage("`--all` leaves nothing to select", "drop `--profile` and `--for-url`"));
        }
        Ok(None)
    }

    /// Returns the name of the profile that is meant, if one is named.
    pub(crate) fn profile(&self) -> Result<Option<String>, Error> {
        match self.text(Opt::Profile)? {
            Some(name) => profile_name(name).map(Some),
            None => match env::var_os("DPH_AGENT_PROFILE") {
                Some(name) if !name.is_empty() => profile_name(&name.to_string_lossy()).map(Some),
                _ => Ok(None),
            },
        }
    }

    /// Returns the number of the other user whose agent is meant, if an option names one.
    pub(crate) fn server_uid(&self) -> Result<Option<&str>, Error> {
        match self.text(Opt::ServerUid)? {
            Some(_) if cfg!(windows) => Err(self.bad_value(Opt::ServerUid, "names nobody under Windows")),
            Some(uid) if uid.parse::<u32>().is_err() => {
                Err(self.bad_value(Opt::ServerUid, "is not the number of a user"))
            }
            uid => Ok(uid),
        }
    }

    /// Returns the error that `option` has a wrong value, which `problem` says.
    pub(crate) fn bad_value(&self, option: Opt, problem: &str) -> Error {
        Error::usage(&format!("the value of `--{}` {problem}", option.name()), &self.command.see_help())
    }

    fn bad_choice(&self, option: Opt, given: &str, words: &[&str]) -> Error {
        let problem = format!("the value of `--{}` is none of {}", option.name(), words.join(", "));
        Error::usage(&problem, &suggest(given, "", &mut words.iter().copied(), self.command.see_help()))
    }
}

/// Checks the name of a profile.
pub(crate) fn profile_name(name: &str) -> Result<String, Error> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(name.to_owned());
    }
    Err(Error::usage(
        "this is not a profile's name",
        "names are 1 to 64 letters, digits, dots, underscores and hyphens; see `dph-agent-client list`",
    ))
}

/// Returns the help text for `command`, or for all of `commands`.
pub(crate) fn help(command: Option<&Command>, commands: &[Command]) -> String {
    let mut text = String::new();
    if let Some(command) = command {
        let operand = command.operand.map(|operand| format!(" [{operand}]")).unwrap_or_default();
        let Command { name, summary, .. } = command;
        text += &format!("Usage: dph-agent-client {name} [OPTIONS]{operand}\n\n{summary}\n\nOptions:\n");
        for option in command.options() {
            let (name, value, help) = option.describe();
            add_row(&mut text, &format!("--{name} {value}"), help);
        }
    } else {
        text += "Usage: dph-agent-client COMMAND [OPTIONS]\n\nCommands:\n";
        for command in commands {
            add_row(&mut text, command.name, command.summary);
        }
        text += "\n`dph-agent-client COMMAND --help` tells the rest.\n";
    }
    text
}

fn add_row(text: &mut String, left: &str, right: &str) {
    *text += &format!("  {left:<20} {right}\n");
}

fn find_command(word: &OsStr, commands: &'static [Command]) -> Result<&'static Command, Error> {
    commands.iter().find(|command| word == command.name).ok_or_else(|| {
        let mut names = commands.iter().map(|command| command.name);
        let hint = suggest(&word.to_string_lossy(), "", &mut names, SEE_HELP.to_owned());
        Error::usage("there is no such command", &hint)
    })
}

fn unknown_option(name: &str, command: Option<&Command>) -> Error {
    let taken = |option: &Opt| command.is_none_or(|command| command.options().any(|taken| taken == *option));
    let mut names = Opt::ALL.iter().copied().filter(taken).map(Opt::name);
    let see_help = command.map_or_else(|| SEE_HELP.to_owned(), Command::see_help);
    let owner = command.map_or("dph-agent-client", |command| command.name);
    let dashes = if name.chars().nth(1).is_none() { "-" } else { "--" };
    let problem = format!("`{owner}` takes no option `{dashes}{name}`");
    Error::usage(&problem, &suggest(name, "--", &mut names, see_help))
}

/// What was given is not repeated: it may be a key.
fn unexpected_operand(command: &Command) -> Error {
    Error::usage(&format!("`{}` is given an argument too many", command.name), &command.see_help())
}

/// Values are not repeated: they may be a key.
fn misread(error: lexopt::Error) -> Error {
    let message = if let lexopt::Error::MissingValue { option: Some(option) } = error {
        format!("option `{option}` needs a value")
    } else if let lexopt::Error::UnexpectedValue { option, .. } = error {
        format!("option `{option}` takes no value")
    } else {
        "the command line cannot be read".to_owned()
    };
    Error::usage(&message, SEE_HELP)
}

/// Returns the hint that names the one of `words` that `given` was most likely meant to be.
fn suggest(given: &str, dashes: &str, words: &mut dyn Iterator<Item = &str>, otherwise: String) -> String {
    nearest(given, words).map_or(otherwise, |word| format!("did you mean `{dashes}{word}`?"))
}

/// Returns the one of `words` that `given` was most likely meant to be.
fn nearest<'a>(given: &str, words: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, word) =
        words.map(|word| (distance(given, word), word)).min_by_key(|(distance, _)| *distance)?;
    (distance <= 2 && distance < given.chars().count()).then_some(word)
}

/// Returns how many characters must be inserted, dropped or replaced to make `a` from `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let (mut corner, mut left) = (i, i + 1);
        for (cell, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let above = *cell;
            left = (corner + usize::from(from != to)).min(above + 1).min(left + 1);
            (corner, *cell) = (above, left);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    static COMMANDS: &[Command] = &[
        Command {
            name: "fetch",
            operand: None,
            summary: "Fetches.",
            options: &[Opt::Profile, Opt::ForUrl, Opt::MinTtl, Opt::Format],
            changes: false,
            run: |_| Ok(()),
        },
        Command {
            name: "set",
            operand: Some("NAME"),
            summary: "Sets.",
            options: &[],
            changes: true,
            run: |_| Ok(()),
        },
    ];

    fn parsed(line: &str) -> Result<Invocation, Error> {
        parse(&mut Parser::from_args(line.split_whitespace()), COMMANDS)
    }

    fn args(line: &str) -> Args {
        match parsed(line) {
            Ok(Invocation::Run(args)) => args,
            Ok(Invocation::Help(_)) => panic!("{line}: help"),
            Err(error) => panic!("{line}: {error:?}"),
        }
    }

    fn refused(line: &str) -> Error {
        parsed(line).err().unwrap_or_else(|| panic!("{line} is accepted"))
    }

    #[test]
    fn options_may_stand_before_and_behind_the_command() {
        let args = args("--profile a fetch --min-ttl=5m --profile b");
        assert_eq!(args.command.name, "fetch");
        assert_eq!(args.text(Opt::Profile).unwrap(), Some("b"));
        assert_eq!(args.duration(Opt::MinTtl).unwrap(), Some(Duration::from_secs(300)));
        assert!(!args.has(Opt::Json));
    }

    #[test]
    fn every_option_is_found_by_its_name() {
        for option in Opt::ALL {
            let (name, _, help) = option.describe();
            assert_eq!(Opt::named(name), Some(*option));
            assert!(!help.is_empty(), "{name}");
        }
        assert_eq!(Opt::named(""), None);
    }

    #[test]
    fn only_a_command_with_an_operand_takes_one() {
        assert_eq!(args("set prod").operand.as_deref(), Some(OsStr::new("prod")));
        assert_eq!(args("set").operand, None);
        assert_eq!(refused("set prod test").message, "`set` is given an argument too many");
        assert!(!format!("{:?}", refused("fetch my-api-key")).contains("my-api-key"));
        assert!(!format!("{:?}", refused("fetch --json=my-api-key")).contains("my-api-key"));
    }

    #[test]
    fn mistyped_word_is_answered_with_the_nearest() {
        assert_eq!(refused("fetch --min-tll 5").hint, "did you mean `--min-ttl`?");
        assert_eq!(refused("fethc").hint, "did you mean `fetch`?");
        assert_eq!(refused("fetch --nonsense").hint, "see `dph-agent-client fetch --help`");
    }

    #[test]
    fn option_of_another_command_is_refused() {
        assert_eq!(refused("set x --min-ttl 5").message, "`set` takes no option `--min-ttl`");
        assert_eq!(refused("fetch -x").message, "`fetch` takes no option `-x`");
    }

    #[test]
    fn value_that_is_missing_or_too_much_is_refused() {
        assert_eq!(refused("fetch --profile").message, "option `--profile` needs a value");
        assert_eq!(refused("fetch --json=yes").message, "option `--json` takes no value");
        assert_eq!(refused("").message, "no command is given");
    }

    #[test]
    fn choice_is_one_of_the_words() {
        let words = &[("raw", 1), ("json", 2)];
        assert_eq!(args("fetch --format json").choice(Opt::Format, words).unwrap(), Some(2));
        assert_eq!(args("fetch").choice(Opt::Format, words).unwrap(), None);
        let error = args("fetch --format jsn").choice(Opt::Format, words).unwrap_err();
        assert_eq!(
            (error.message.as_str(), error.hint.as_str()),
            ("the value of `--format` is none of raw, json", "did you mean `json`?")
        );
    }

    #[test]
    fn profile_and_url_exclude_each_other() {
        let selector = args("fetch --for-url https://a.example").selector().unwrap();
        assert_eq!(selector, Selector { profile: None, for_url: Some("https://a.example".into()) });
        assert!(args("fetch --profile a --for-url https://a.example").selector().is_err());
    }

    #[test]
    fn profile_names_are_checked() {
        let longest = "a".repeat(64);
        for name in ["a", "prod.eu-1_x", &longest] {
            assert!(profile_name(name).is_ok(), "{name}");
        }
        let too_long = "a".repeat(65);
        for name in ["", "a b", "a/b", "é", "a\n", &too_long] {
            assert!(profile_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn help_names_every_option_of_the_command() {
        let Ok(Invocation::Help(Some(command))) = parsed("fetch --help") else { panic!("no help") };
        let text = help(Some(command), COMMANDS);
        for option in ["--min-ttl DURATION", "--json", "--timeout DURATION"] {
            assert!(text.contains(option), "{text}");
        }
        assert!(help(None, COMMANDS).contains("fetch"));
    }

    #[test]
    fn distance_counts_single_changes() {
        for (a, b, expected) in
            [("", "abc", 3), ("abc", "abc", 0), ("abc", "axc", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
