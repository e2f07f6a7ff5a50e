//! What a key was given for: the agent sends it nowhere else, whatever the configuration says later.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use dph_agent_platform::{Target, Trust};
use dph_agent_protocol::{ErrorCode, PlatformKind};
use serde::{Deserialize, Serialize};

use crate::config::Profile;
use crate::error::{Chain, Problem};
use crate::private_file;

/// Longest record that is read, in bytes.
const MAX_RECORDS_LEN: usize = 1024 * 1024;

/// `sha256:` and twelve digits.
const SHORT_LEN: usize = 19;

/// Whom a key may be sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    platform: String,
    origin: String,
    username: Option<String>,
    #[serde(flatten)]
    trust: TrustBinding,
}

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TrustBinding {
    /// This certificate.
    Pin(String),
    /// The system's authorities, and these.
    Roots(BTreeSet<String>),
}

impl Binding {
    /// Returns whom an exchange with `target` would send the key to.
    pub fn of(platform: PlatformKind, target: &Target) -> Self {
        let trust = match &target.trust {
            Trust::Pin(pin) => TrustBinding::Pin(pin.to_string()),
            Trust::Roots { extra } => {
                TrustBinding::Roots(extra.fingerprints().map(|fingerprint| fingerprint.to_string()).collect())
            }
        };
        Self {
            platform: platform.to_string(),
            origin: target.auth_url.origin(),
            username: target.username().map(str::to_owned),
            trust,
        }
    }

    /// Whether both name the same place and user, whatever is believed about its certificate.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.platform, &self.origin, &self.username) == (&other.platform, &other.origin, &other.username)
    }

    /// Whether a key that was given for this may be sent to `now`: the same place, with no more
    /// authorities believed than before.
    pub fn permits(&self, now: &Self) -> bool {
        let trusted = match (&self.trust, &now.trust) {
            (TrustBinding::Pin(then), TrustBinding::Pin(now)) => then == now,
            (TrustBinding::Roots(then), TrustBinding::Roots(now)) => now.is_subset(then),
            (TrustBinding::Pin(_), TrustBinding::Roots(_))
            | (TrustBinding::Roots(_), TrustBinding::Pin(_)) => false,
        };
        trusted && self.is_same_place(now)
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.platform, self.origin)?;
        if let Some(username) = &self.username {
            write!(f, " for {username}")?;
        }
        match &self.trust {
            TrustBinding::Pin(pin) => write!(f, " with the certificate {}…", short(pin)),
            TrustBinding::Roots(extra) if extra.is_empty() => Ok(()),
            TrustBinding::Roots(extra) => {
                let extra: Vec<_> = extra.iter().map(|fingerprint| short(fingerprint)).collect();
                write!(f, " trusting also the authorities {}…", extra.join("…, "))
            }
        }
    }
}

/// Returns as much of a fingerprint as tells two apart at a glance.
fn short(fingerprint: &str) -> &str {
    fingerprint.get(..SHORT_LEN).unwrap_or(fingerprint)
}

/// Returns why a key is not sent.
pub fn changed(profile: &Profile, bound: &Binding, now: &Binding) -> Problem {
    let name = &profile.name;
    Problem::new(
        ErrorCode::ORIGIN_CHANGED,
        format!("the key of profile `{name}` was given for {bound}, but the configuration now says {now}"),
        format!(
            "if that is right: dph-agent-client add --profile {name} --replace; else mend the configuration"
        ),
    )
}

/// The bindings of keys that are not handed over but read: by their source, so that neither another
/// profile nor a renamed one sends the same key elsewhere.
#[derive(Debug)]
pub struct Bindings {
    path: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Records {
    bindings: Vec<Record>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    source: Source,
    profile: String,
    #[serde(flatten)]
    binding: Binding,
}

/// A key source by name, and by the file that this name led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    source: String,
    file: Option<PathBuf>,
}

impl Source {
    fn of(profile: &Profile) -> Self {
        let file = profile.key_source.file().and_then(|path| fs::canonicalize(path).ok());
        Self { source: profile.key_source.to_string(), file }
    }

    /// Whether both lead to the same key: a link or another spelling is no new source.
    fn meets(&self, other: &Self) -> bool {
        self.source == other.source || (self.file.is_some() && self.file == other.file)
    }
}

impl Bindings {
    /// Names the file in which they are kept.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Checks that the key of `profile` may be sent to `now`. A source that was never used is bound
    /// to its first use, as a container's start is one.
    ///
    /// # Errors
    ///
    /// When it may not, or the record cannot be read or written.
    pub fn check(&self, profile: &Profile, now: &Binding) -> Result<(), Problem> {
        let source = Source::of(profile);
        let records = self.load().map_err(|error| self.unusable(&error))?.bindings;
        let known: Vec<_> = records.iter().filter(|record| record.source.meets(&source)).collect();
        match (known.first(), known.iter().find(|record| record.binding.permits(now))) {
            (None, _) => self.record(profile, now),
            // Mounted secrets lead to another file each time they change.
            (_, Some(record)) if record.source.source == source.source && record.source != source => {
                self.record(profile, now)
            }
            (_, Some(_)) => Ok(()),
            (Some(first), None) => Err(changed(profile, &first.binding, now)),
        }
    }

    /// Returns what the key of `profile` was given for, if that does not permit `now`.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub fn conflict(&self, profile: &Profile, now: &Binding) -> Result<Option<Binding>, Problem> {
        let source = Source::of(profile);
        let records = self.load().map_err(|error| self.unusable(&error))?.bindings;
        let known = || records.iter().filter(|record| record.source.meets(&source));
        let permitted = known().any(|record| record.binding.permits(now));
        Ok(known().next().filter(|_| !permitted).map(|record| record.binding.clone()))
    }

    /// Binds the key of `profile` to `now`, because the user said so.
    ///
    /// # Errors
    ///
    /// When the record cannot be written.
    pub fn record(&self, profile: &Profile, now: &Binding) -> Result<(), Problem> {
        let (source, name) = (Source::of(profile), profile.name.to_string());
        self.change(|records| {
            records.retain(|record| record.profile != name || !record.source.meets(&source));
            records.push(Record { source, profile: name, binding: now.clone() });
        })
    }

    /// Drops what was recorded for a profile.
    ///
    /// # Errors
    ///
    /// When the record cannot be written.
    pub fn forget(&self, profile: &str) -> Result<(), Problem> {
        self.change(|records| records.retain(|record| record.profile != profile))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Record>)) -> Result<(), Problem> {
        let write = || -> io::Result<()> {
            private_file::create_folder_of(&self.path)?;
            let _lock = private_file::lock(&self.path.with_extension("lock"))?;
            let mut records = self.load()?;
            change(&mut records.bindings);
            let text = serde_json::to_vec_pretty(&records)?;
            private_file::replace(&self.path, |file| file.write_all(&text))
        };
        write().map_err(|error| self.unusable(&error))
    }

    fn load(&self) -> io::Result<Records> {
        match private_file::read_regular(&self.path, MAX_RECORDS_LEN) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Records::default()),
            Err(error) => Err(error),
        }
    }

    /// Not knowing whom a key is for, the agent sends it to nobody.
    fn unusable(&self, error: &io::Error) -> Problem {
        // What serde says of a damaged file comes as one of these.
        let damaged = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof, io::ErrorKind::Other];
        let hint = if damaged.contains(&error.kind()) {
            "it is damaged: move it away, and add the keys again"
        } else {
            "look at its owner and mode, at its folder, and at the room on its disk"
        };
        let message =
            format!("cannot use `{}`, which says whom keys are for: {}", self.path.display(), Chain(error));
        Problem::new(ErrorCode::CONFIG, message, hint)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use dph_agent_protocol::Settings;

    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        bindings: Bindings,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("key"), "k").unwrap();
            let bindings = Bindings::new(folder.path().join("state/bindings.json"));
            Self { folder, bindings }
        }

        fn profile(&self, name: &str, file: &str) -> Arc<Profile> {
            let settings = Settings {
                platform: Some(PlatformKind::IBM_CLOUD),
                url: Some("https://dph.example.com".to_owned()),
                key_source: Some(format!("file:{}/{file}", self.folder.path().display())),
                ..Settings::default()
            };
            Arc::new(Profile::build(name.parse().unwrap(), &settings).unwrap())
        }

        fn check(&self, name: &str, file: &str, origin: &str) -> bool {
            self.bindings.check(&self.profile(name, file), &to(origin)).is_ok()
        }
    }

    fn to(origin: &str) -> Binding {
        let trust = TrustBinding::Roots(BTreeSet::new());
        Binding { platform: "ibm-cloud".to_owned(), origin: origin.to_owned(), username: None, trust }
    }

    #[test]
    fn a_source_is_bound_to_its_first_use() {
        let scene = Scene::new();
        assert!(scene.check("a", "key", "https://good"));
        assert!(scene.check("a", "key", "https://good"));
        assert!(!scene.check("a", "key", "https://evil"));
        assert!(!scene.check("b", "key", "https://evil"), "nor by another profile");
    }

    #[test]
    fn another_spelling_or_a_link_is_no_new_source() {
        let scene = Scene::new();
        assert!(scene.check("a", "key", "https://good"));
        fs::create_dir(scene.folder.path().join("d")).unwrap();
        symlink("key", scene.folder.path().join("link")).unwrap();
        for alias in ["./key", "d/../key", "/key", "link"] {
            assert!(!scene.check("b", alias, "https://evil"), "{alias}");
        }
    }

    #[test]
    fn a_mounted_secret_keeps_its_binding_when_its_link_is_swapped() {
        let scene = Scene::new();
        let link = scene.folder.path().join("link");
        for file in ["one", "two", "three"] {
            fs::write(scene.folder.path().join(file), "k").unwrap();
            drop(fs::remove_file(&link));
            symlink(file, &link).unwrap();
            assert!(scene.check("a", "link", "https://good"), "{file}");
            assert!(!scene.check("b", file, "https://evil"), "{file}");
        }
    }

    #[test]
    fn what_the_user_accepted_stands_beside_what_was_accepted_before() {
        let scene = Scene::new();
        assert!(scene.check("a", "key", "https://one"));
        let (other, two) = (scene.profile("b", "key"), to("https://two"));
        assert!(scene.bindings.conflict(&other, &two).unwrap().is_some());
        scene.bindings.record(&other, &two).unwrap();
        assert!(scene.check("a", "key", "https://one") && scene.check("b", "key", "https://two"));
        scene.bindings.forget("b").unwrap();
        assert!(!scene.check("b", "key", "https://two"));
    }

    #[test]
    fn a_damaged_record_lets_no_key_out() {
        let scene = Scene::new();
        assert!(scene.check("a", "key", "https://good"));
        fs::write(scene.folder.path().join("state/bindings.json"), "{").unwrap();
        let problem = scene.bindings.check(&scene.profile("a", "key"), &to("https://good")).unwrap_err();
        assert!(problem.hint.contains("damaged"), "{problem:?}");
    }

    #[test]
    fn fewer_authorities_are_permitted_and_more_are_not() {
        let with = |roots: &[&str]| Binding {
            trust: TrustBinding::Roots(roots.iter().map(|&root| root.to_owned()).collect()),
            ..to("https://good")
        };
        let pinned = Binding { trust: TrustBinding::Pin("p".to_owned()), ..to("https://good") };
        assert!(with(&["a", "b"]).permits(&with(&["b"])));
        assert!(!with(&["a"]).permits(&with(&["a", "b"])));
        assert!(!with(&[]).permits(&pinned) && !pinned.permits(&with(&[])));
    }
}
