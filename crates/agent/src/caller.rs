//! Who asks: which program made a connection, as far as the system tells. It is advice for policies and
//! logs, and no wall: code of the same user can make another program do what it wants.

#[cfg(target_os = "linux")]
mod linux;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dph_agent_ipc::{FarEnd, Peer, Uid};
use tokio::sync::OnceCell;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::Steady;
use crate::error::Problem;
use crate::exchange::blocking;

/// Characters of a path that are shown, so that sixteen who wait fit into a frame.
const SHOWN: usize = 256;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user that it ran as when it connected.
    pub uid: Uid,
    /// Its process.
    pub pid: Option<u32>,
    /// The executable that it runs; of a script, the interpreter.
    pub exe: Option<PathBuf>,
    /// The innermost systemd unit that it is in.
    pub unit: Option<String>,
    /// The executable of the process that started it.
    pub parent: Option<PathBuf>,
    /// The file behind `exe`, or why `exe` is no ground for a decision.
    pub file: Result<FileId, Doubt>,
}

/// A file, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

/// Why an executable is not known, or not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The process is no more, so that its number may be another's.
    #[error("its process has ended")]
    Gone,
    /// Its number means nothing here.
    #[error("its process is out of the agent's sight, in another container perhaps")]
    OutOfSight,
    /// The process does not let the agent look.
    #[error("the system does not let the agent see which executable it runs")]
    Closed,
    /// What the process runs is no longer on the disk.
    #[error("its executable was replaced or deleted since it was started")]
    Replaced,
    /// Nobody wanted to know.
    #[error("nobody has looked which file it runs")]
    NotAsked,
    /// The agent cannot ask.
    #[error("only Linux tells which executable a process runs")]
    NotTold,
}

/// An executable on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// Where it is, without symbolic links.
    pub path: PathBuf,
    /// The file.
    pub file: FileId,
}

/// One connection's caller, looked up once, and only when somebody wants to know.
#[derive(Debug)]
pub struct Asker {
    peer: Peer,
    far_end: FarEnd,
    connected: Steady,
    seen: OnceCell<Arc<Caller>>,
    /// What is known without asking a disk.
    noted: OnceLock<Arc<Caller>>,
    gone: CancellationToken,
}

impl Asker {
    /// Remembers how to ask about the other end of a connection that was made at `connected`.
    pub fn new(peer: Peer, far_end: FarEnd, connected: Steady) -> Self {
        let (seen, noted, gone) = (OnceCell::new(), OnceLock::new(), CancellationToken::new());
        Self { peer, far_end, connected, seen, noted, gone }
    }

    /// Counts as there until what is returned is dropped.
    pub fn stays(&self) -> DropGuard {
        self.gone.clone().drop_guard()
    }

    /// Waits until it has gone.
    pub async fn goes(&self) {
        self.gone.cancelled().await;
    }

    /// Returns who connected, as far as the kernel told at once.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Returns who asks.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn caller(&self) -> Result<Arc<Caller>, Problem> {
        self.seen.get_or_try_init(|| self.look()).await.map(Arc::clone)
    }

    /// Returns who asks, by what the kernel tells at once: not which file the executable is.
    pub fn for_the_record(&self) -> Arc<Caller> {
        let noted = || Arc::new(Caller::noted(self.peer.clone(), &self.far_end, self.connected));
        Arc::clone(self.seen.get().unwrap_or_else(|| self.noted.get_or_init(noted)))
    }

    /// Whether the process still runs what it ran when it was looked up.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn is_unchanged(&self) -> Result<bool, Problem> {
        let (before, now) = (self.caller().await?, self.look().await?);
        Ok((&before.exe, before.file) == (&now.exe, now.file))
    }

    /// An executable may lie on a disk that does not answer.
    async fn look(&self) -> Result<Arc<Caller>, Problem> {
        let (peer, far_end, connected) = (self.peer.clone(), self.far_end.clone(), self.connected);
        blocking(move || Arc::new(Caller::of(peer, &far_end, connected))).await
    }
}

impl Caller {
    /// Looks up who made a connection at `connected`. It may block.
    #[cfg(target_os = "linux")]
    pub fn of(peer: Peer, far_end: &FarEnd, connected: Steady) -> Self {
        linux::look(peer, far_end.process(), connected)
    }

    /// Returns what the kernel told about who made a connection.
    #[cfg(not(target_os = "linux"))]
    pub fn of(peer: Peer, _far_end: &FarEnd, _connected: Steady) -> Self {
        Self::unknown(peer, Doubt::NotTold)
    }

    /// Looks up who made a connection at `connected`, without asking a disk.
    #[cfg(target_os = "linux")]
    fn noted(peer: Peer, far_end: &FarEnd, connected: Steady) -> Self {
        linux::note(peer, far_end.process(), connected)
    }

    /// Returns what the kernel told about who made a connection.
    #[cfg(not(target_os = "linux"))]
    fn noted(peer: Peer, _far_end: &FarEnd, _connected: Steady) -> Self {
        Self::of_connection(peer)
    }

    /// Returns what the kernel told about who made a connection that nobody looks at any closer.
    pub fn of_connection(peer: Peer) -> Self {
        Self::unknown(peer, Doubt::NotAsked)
    }

    /// Looks up a process as if it had just connected. It may block.
    ///
    /// # Errors
    ///
    /// When there is no such process, or this system tells nothing of it.
    #[cfg(target_os = "linux")]
    pub fn of_process(pid: u32) -> io::Result<Self> {
        linux::look_at(pid)
    }

    /// Tells nothing.
    ///
    /// # Errors
    ///
    /// Always.
    #[cfg(not(target_os = "linux"))]
    pub fn of_process(_pid: u32) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, Doubt::NotTold))
    }

    fn unknown(peer: Peer, doubt: Doubt) -> Self {
        Self { uid: peer.uid, pid: peer.pid, exe: None, unit: None, parent: None, file: Err(doubt) }
    }

    /// Returns the executable in words for people.
    pub fn program(&self) -> String {
        self.exe.as_deref().map_or_else(|| "an unknown program".to_owned(), shown)
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program())?;
        if let Some(pid) = self.pid {
            write!(f, ", process {pid}")?;
        }
        if let Some(unit) = &self.unit {
            write!(f, ", in {unit}")?;
        }
        if let Some(parent) = &self.parent {
            write!(f, ", started by {}", shown(parent))?;
        }
        Ok(())
    }
}

/// Returns a path in words for people: what could move or hide text is replaced, and of a long one the end is
/// kept.
pub fn shown(path: &Path) -> String {
    plain(&path.to_string_lossy())
}

fn plain(text: &str) -> String {
    let is_plain = |c: char| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric();
    let start = text.chars().count().saturating_sub(SHOWN);
    text.chars().skip(start).map(|c| if is_plain(c) { c } else { '?' }).collect()
}

impl Executable {
    /// Looks at an executable on the disk. It may block.
    ///
    /// # Errors
    ///
    /// As the system says.
    pub fn at(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        Ok(Self { file: FileId::at(&path)?, path })
    }
}

impl FileId {
    /// Returns the file that `path` leads to.
    #[cfg(unix)]
    fn at(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let file = std::fs::metadata(path)?;
        Ok(Self { device: file.dev(), inode: file.ino() })
    }

    #[cfg(windows)]
    fn at(_path: &Path) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, Doubt::NotTold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_forge_lines_and_of_a_long_one_the_end_is_shown() {
        assert_eq!(shown(Path::new("/tmp/x\nallow\u{1b}[2J\u{202e}é")), "/tmp/x?allow?[2J?é");
        let long = format!("/{}/program", "x".repeat(5000));
        assert_eq!(shown(Path::new(&long)).chars().count(), SHOWN);
        assert!(shown(Path::new(&long)).ends_with("/program"));
    }
}
