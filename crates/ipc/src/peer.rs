//! Who is at the other end, and the rule that accepts them.

/// Identifies a user: the effective user id, as the kernel reports it.
#[cfg(unix)]
pub type Uid = u32;

/// Identifies a user: the security identifier in its string form, `S-1-5-…`.
#[cfg(windows)]
pub type Uid = String;

/// The process at the other end of a connection, as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user that it ran as when it connected.
    pub uid: Uid,
    /// Its process id, for logs only: it may be gone, reused or out of sight of our namespace. Whoever
    /// decides by it holds on to the process meanwhile, with `FarEnd::process` where there is one.
    pub pid: Option<u32>,
}

/// The users whose connections the agent serves. Root is no exception: it is served where it is
/// listed, like anybody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    own: Uid,
    others: Vec<Uid>,
}

impl Accepted {
    /// Returns the rule that serves the user `own` and those in `others`.
    pub fn new(own: Uid, others: Vec<Uid>) -> Self {
        Self { own, others }
    }

    /// Returns whether `peer` is served.
    pub fn permits(&self, peer: &Peer) -> bool {
        peer.uid == self.own || self.others.contains(&peer.uid)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn peer(uid: Uid) -> Peer {
        Peer { uid, pid: None }
    }

    #[test]
    fn only_the_own_user_is_served_by_default_and_root_is_not() {
        let accepted = Accepted::new(1000, Vec::new());
        assert!(accepted.permits(&peer(1000)));
        assert!(!accepted.permits(&peer(1001)));
        assert!(!accepted.permits(&peer(0)));
    }

    #[test]
    fn listed_users_are_served_too() {
        let accepted = Accepted::new(1000, vec![2000, 0]);
        assert!(accepted.permits(&peer(2000)) && accepted.permits(&peer(0)));
        assert!(!accepted.permits(&peer(2001)));
    }
}
