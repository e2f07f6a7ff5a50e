//! Where the agent's files are.

use std::path::PathBuf;

use directories::ProjectDirs;

/// The folders and files of this user.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The configuration.
    pub config: PathBuf,
    /// Whether somebody named it, so that it is to be there.
    pub named: bool,
    /// What survives a restart: no secret is in it.
    pub state: PathBuf,
    /// What is the user's to keep: sealed keys.
    pub data: PathBuf,
}

impl Paths {
    /// Finds the files; `config` overrides `DPH_AGENT_CONFIG`, which overrides the user's folder.
    /// `None` for a user without a home.
    pub fn find(config: Option<PathBuf>) -> Option<Self> {
        let folders = ProjectDirs::from("", "", "dph-agent")?;
        let from_env =
            || std::env::var_os("DPH_AGENT_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        let named = config.or_else(from_env);
        let is_named = named.is_some();
        let config = named.unwrap_or_else(|| folders.config_dir().join("config.toml"));
        let state = folders.state_dir().unwrap_or_else(|| folders.data_local_dir()).to_owned();
        let data = folders.data_local_dir().to_owned();
        Some(Self { config: std::path::absolute(config).ok()?, named: is_named, state, data })
    }

    /// Says whom keys that are read are for.
    pub fn bindings(&self) -> PathBuf {
        self.state.join("bindings.json")
    }

    /// Whether the agent is locked, and what opens it.
    pub fn lock_record(&self) -> PathBuf {
        self.state.join("lock.json")
    }

    /// What is to be done to keys at their platforms.
    pub fn changes(&self) -> PathBuf {
        self.state.join("changes")
    }

    /// Keys that the passphrase opens, a file for each profile.
    pub fn sealed(&self) -> PathBuf {
        self.data.join("sealed")
    }

    /// Held by the one agent of this user.
    pub fn lock(&self) -> PathBuf {
        self.state.join("agent.lock")
    }

    /// The folder of the audit log.
    pub fn audit(&self) -> PathBuf {
        self.state.clone()
    }

    /// What an agent in the background says.
    pub fn log(&self) -> PathBuf {
        self.state.join("agent.log")
    }
}
