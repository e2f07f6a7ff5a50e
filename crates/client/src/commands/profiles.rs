//! `list`, `default`, `refresh`: the profiles.

use dph_agent_protocol::{ErrorCode, Listing, Page, ProfileEntry, Reply, Request, Selector, Waiting};

use crate::cli::{Args, Command, Opt, profile_name};
use crate::exit::Error;
use crate::json::Json;
use crate::output::{self, visible};
use crate::session::{self, Session, unexpected_reply};
use crate::wiped::Wiped;

pub(crate) const LIST: Command = Command {
    name: "list",
    operand: None,
    summary: "Prints the profiles; a star marks the default.",
    options: &[],
    changes: false,
    run: list,
};

pub(crate) const DEFAULT: Command = Command {
    name: "default",
    operand: Some("PROFILE"),
    summary: "Prints the default profile, or makes PROFILE the default.",
    options: &[],
    changes: true,
    run: default,
};

pub(crate) const REFRESH: Command = Command {
    name: "refresh",
    operand: None,
    summary: "Buys a new token now, also where the agent had given up.",
    options: &[Opt::Profile, Opt::ForUrl, Opt::All],
    changes: true,
    run: refresh,
};

fn list(args: &Args) -> Result<(), Error> {
    let listing = fetch(args)?;
    if args.has(Opt::Json) {
        return output::print(&render_json(&listing));
    }
    output::print(render_table(&listing).as_bytes())
}

/// Returns all pages as one.
pub(crate) fn fetch(args: &Args) -> Result<Listing, Error> {
    let mut session = Session::open(args)?;
    let mut whole = Listing { profiles: Vec::new(), default: None, more: true };
    while whole.more {
        let after = whole.profiles.last().map(|last| last.name.clone()).unwrap_or_default();
        let reply = session.ask(&Request::List(Page { after }))?;
        let Reply::Listing(page) = reply else { return Err(unexpected_reply()) };
        whole.more = page.more && !page.profiles.is_empty();
        whole.default = page.default;
        whole.profiles.extend(page.profiles);
    }
    Ok(whole)
}

fn render_table(listing: &Listing) -> String {
    let longest =
        |of: fn(&ProfileEntry) -> &str| listing.profiles.iter().map(|p| of(p).len()).max().unwrap_or(0);
    let (names, urls) = (longest(|p| &p.name), longest(|p| &p.url));
    let mut table = String::new();
    for profile in &listing.profiles {
        let star = if is_default(listing, profile) { '*' } else { ' ' };
        let ProfileEntry { name, platform, url, username, key_source } = profile;
        let (platform, source) = (platform.to_string(), key_source.to_string());
        let user = username.as_deref().unwrap_or("-");
        let row = format!("{star} {name:<names$}  {platform:<12}  {url:<urls$}  {source:<10}  {user}");
        table += &visible(&row);
        table += "\n";
    }
    table
}

fn render_json(listing: &Listing) -> Wiped {
    let mut json = Json::with_capacity(1024);
    json.array("");
    for profile in &listing.profiles {
        json.object("");
        add_entry(&mut json, profile);
        json.boolean("default", is_default(listing, profile)).close("}");
    }
    json.close("]");
    json.finish()
}

fn default(args: &Args) -> Result<(), Error> {
    match &args.operand {
        Some(name) => set_default(args, profile_name(&name.to_string_lossy())?),
        None => print_default(args),
    }
}

fn set_default(args: &Args, name: String) -> Result<(), Error> {
    let selector = Selector { profile: Some(name), for_url: None };
    let reply = session::ask(args, &Request::SetDefault(selector))?;
    let Reply::Done(names) = reply else { return Err(unexpected_reply()) };
    report_done(args, "default", &names)
}

fn print_default(args: &Args) -> Result<(), Error> {
    let Reply::Listing(listing) = session::ask(args, &Request::List(Page::default()))? else {
        return Err(unexpected_reply());
    };
    match listing.default {
        Some(name) => print_names(args, &[name]),
        None => Err(Error::new(
            ErrorCode::NO_SUCH_PROFILE,
            "no default profile is set",
            "set one with `dph-agent-client default PROFILE`",
        )),
    }
}

fn refresh(args: &Args) -> Result<(), Error> {
    let selector = args.selector_or_all()?;
    let mut session = Session::open(args)?;
    let all = selector.is_none();
    let waiting = Waiting { selector: selector.unwrap_or_default(), all, deadline_ms: session.deadline_ms() };
    let Reply::Done(names) = session.ask(&Request::Refresh(waiting))? else { return Err(unexpected_reply()) };
    report_done(args, "refreshed", &names)
}

/// Says what was done to the profiles of these `names`.
pub(crate) fn report_done(args: &Args, done: &str, names: &[String]) -> Result<(), Error> {
    if args.has(Opt::Json) {
        return print_names(args, names);
    }
    let names = if names.is_empty() { "nothing".into() } else { names.join(", ") };
    output::tell(args, &format!("{done}: {names}"));
    Ok(())
}

/// Prints `names`, one on each line.
pub(crate) fn print_names(args: &Args, names: &[String]) -> Result<(), Error> {
    if args.has(Opt::Json) {
        let mut json = Json::with_capacity(256);
        json.object("").array("profiles");
        for name in names {
            json.text("", name);
        }
        json.close("]").close("}");
        return output::print(&json.finish());
    }
    let lines: String = names.iter().map(|name| visible(name) + "\n").collect();
    output::print(lines.as_bytes())
}

/// Adds the members that `list` and `status` share.
pub(crate) fn add_entry(json: &mut Json, profile: &ProfileEntry) {
    json.text("name", &profile.name)
        .text("platform", &profile.platform.to_string())
        .text("url", &profile.url);
    json.optional_text("username", profile.username.as_deref());
    json.text("key_source", &profile.key_source.to_string());
}

fn is_default(listing: &Listing, profile: &ProfileEntry) -> bool {
    listing.default.as_ref() == Some(&profile.name)
}

#[cfg(test)]
mod tests {
    use dph_agent_protocol::{KeySourceKind, PlatformKind};

    use super::*;

    fn listing() -> Listing {
        let entry = |name: &str, url: &str, username: Option<&str>| ProfileEntry {
            name: name.into(),
            platform: PlatformKind::IBM_CLOUD,
            url: url.into(),
            username: username.map(str::to_owned),
            key_source: KeySourceKind(77),
        };
        let profiles =
            vec![entry("a", "https://a.example", None), entry("long", "https://b", Some("al\u{1b}ice"))];
        Listing { profiles, default: Some("long".into()), more: false }
    }

    #[test]
    fn table_lines_up_and_marks_the_default() {
        assert_eq!(
            render_table(&listing()),
            "  a     ibm-cloud     https://a.example  77          -\n* long  ibm-cloud     https://b          77          alice\n"
        );
    }

    #[test]
    fn json_is_an_array_of_objects() {
        let text = String::from_utf8(render_json(&listing()).to_vec()).unwrap();
        assert!(text.starts_with(r#"[{"name":"a","platform":"ibm-cloud","url":"https://a.example","username":null,"key_source":"77","default":false},{"#), "{text}");
        assert!(text.ends_with("\"default\":true}]\n"), "{text}");
    }
}
