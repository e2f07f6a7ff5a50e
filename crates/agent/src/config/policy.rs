//! The keys of a profile that say who may have its tokens. Only the file has them: no command changes them.

use std::path::PathBuf;

use toml_edit::{TableLike, Value};

use super::read::{Reader, span_of_value};
use crate::policy::{CONFIRM_TIMEOUT, Confirm, Policy};

/// The keys of a policy, in a profile's table.
pub(super) const POLICY_KEYS: &[&str] = &["allow", "confirm", "confirm-timeout"];

impl Reader<'_> {
    /// Returns the policy of a profile, or `None` where it has none.
    pub(super) fn policy(&mut self, table: &dyn TableLike) -> Option<Policy> {
        let (allow, confirm) = (self.allow(table), self.confirm(table));
        let confirm_timeout = self.duration(table, "confirm-timeout").unwrap_or(CONFIRM_TIMEOUT);
        (allow.is_some() || confirm.is_some()).then_some(Policy { allow, confirm, confirm_timeout })
    }

    fn allow(&mut self, table: &dyn TableLike) -> Option<Vec<PathBuf>> {
        let item = table.get("allow")?;
        let paths = item.as_array().and_then(|array| array.iter().map(absolute).collect());
        if paths.is_none() {
            let message =
                "`allow` takes a list of whole paths of executables, such as [\"/usr/bin/python3\"]";
            self.fault(span_of_value(table, "allow"), message.to_owned());
        }
        paths
    }

    fn confirm(&mut self, table: &dyn TableLike) -> Option<Confirm> {
        let item = table.get("confirm")?;
        match (item.as_bool(), item.as_value().and_then(absolute)) {
            (Some(wanted), _) => wanted.then_some(Confirm::Approve),
            (None, Some(program)) => Some(Confirm::Askpass(program)),
            (None, None) => {
                let message =
                    "`confirm` takes true, or the whole path of a program such as \"/usr/bin/ssh-askpass\"";
                self.fault(span_of_value(table, "confirm"), message.to_owned());
                None
            }
        }
    }
}

fn absolute(value: &Value) -> Option<PathBuf> {
    value.as_str().map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Fault, parse};
    use super::*;

    const PROFILE: &str = "[profiles.prod]\nplatform = \"ibm-cloud\"\nurl = \"https://dph.example.com\"\n";

    fn policy(keys: &str) -> Option<Policy> {
        parse(&format!("{PROFILE}{keys}")).unwrap().policies.get("prod").map(|policy| (**policy).clone())
    }

    #[test]
    fn a_profile_without_these_keys_has_no_policy() {
        assert_eq!(policy(""), None);
        assert_eq!(policy("confirm = false\nconfirm-timeout = \"5m\"\n"), None);
    }

    #[test]
    fn programs_and_who_is_asked_are_read() {
        let read = policy("allow = [\"/usr/bin/python3\", \"/bin/sh\"]\nconfirm = true\n").unwrap();
        assert_eq!(read.allow, Some(vec!["/usr/bin/python3".into(), "/bin/sh".into()]));
        assert_eq!((read.confirm, read.confirm_timeout), (Some(Confirm::Approve), CONFIRM_TIMEOUT));
        let read = policy("confirm = \"/usr/bin/ssh-askpass\"\nconfirm-timeout = \"2m\"\n").unwrap();
        assert_eq!(read.confirm, Some(Confirm::Askpass("/usr/bin/ssh-askpass".into())));
        assert_eq!((read.allow, read.confirm_timeout), (None, Duration::from_secs(120)));
        assert_eq!(policy("allow = []\n").unwrap().allow, Some(Vec::new()), "nobody");
    }

    #[test]
    fn whatever_else_is_a_fault_with_its_place() {
        for wrong in [
            "allow = \"/bin/sh\"",
            "allow = [\"sh\"]",
            "allow = [\"/bin/sh\", 7]",
            "confirm = 1",
            "confirm = \"askpass\"",
            "confirm-timeout = 60",
        ] {
            let faults = parse(&format!("{PROFILE}{wrong}\n")).unwrap_err();
            let [Fault { line: 4, message, .. }] = &faults[..] else { panic!("{wrong}: {faults:?}") };
            assert!(message.starts_with(&format!("`{}`", wrong.split_once(' ').unwrap().0)), "{message}");
        }
        let faults = parse(&format!("{PROFILE}confrm = true\n")).unwrap_err();
        assert!(faults[0].message.contains("did you mean `confirm`?"), "{faults:?}");
    }
}
