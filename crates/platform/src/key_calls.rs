//! What a platform can do with a key besides selling tokens for it.

use crate::{HubKeys, IamKeys, Kind, Target};

/// The calls about keys that a platform has.
#[derive(Clone, Copy, Debug)]
pub enum KeyCalls<'a> {
    /// Software Hub makes a new key, which ends the old one.
    SoftwareHub(HubKeys<'a>),
    /// IBM Cloud describes, lists, makes and deletes keys.
    IbmCloud(IamKeys<'a>),
    /// None that is documented: its users have to go to the web client.
    None,
}

impl<'a> KeyCalls<'a> {
    /// A service instance has keys of its own. Generating is for the user's one platform key, which may
    /// well be another key than the one that the instance was given, so there is nothing to call.
    pub(crate) fn of(target: &'a Target) -> Self {
        match target.kind {
            Kind::SoftwareHub { instance: None, .. } => Self::SoftwareHub(HubKeys::new(target)),
            Kind::IbmCloud => Self::IbmCloud(IamKeys::new(target)),
            Kind::SoftwareHub { instance: Some(_), .. } | Kind::Mcsp { .. } => Self::None,
        }
    }
}
