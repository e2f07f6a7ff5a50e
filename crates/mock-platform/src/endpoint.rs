//! Which call of which IBM service a request is.

use std::time::SystemTime;

use crate::answer::Answer;
use crate::{data_products, iam_keys, ibm_cloud, mcsp, software_hub};

/// A call that the platform answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// Every call, and paths that nobody serves: for scripts only.
    Any,
    /// `POST /icp4d-api/v1/authorize` of Software Hub.
    Authorize,
    /// `GET /icp4d-api/v1/me` of Software Hub.
    Me,
    /// `GET /usermgmt/v1/user/apiKey` of Software Hub, which generates a key.
    GenerateKey,
    /// `GET /zen-data/v3/service_instances/{id}/token` of Software Hub.
    InstanceToken,
    /// `POST /identity/token` of IBM Cloud IAM.
    IamToken,
    /// `GET /v1/apikeys/details` of IBM Cloud IAM.
    IamKeyDetails,
    /// `GET /v1/apikeys` of IBM Cloud IAM.
    ListIamKeys,
    /// `POST /v1/apikeys` of IBM Cloud IAM.
    CreateIamKey,
    /// `DELETE /v1/apikeys/{id}` of IBM Cloud IAM.
    DeleteIamKey,
    /// `POST …/apikeys/token` of MCSP: version 1, version 2 scoped and scope-less.
    McspToken,
    /// `GET /data_product_exchange/v1/data_products` of Data Product Hub.
    DataProducts,
    /// `POST /mock/web-client/generate?user=NAME`, which no IBM service has: it does what the button of
    /// Software Hub's web client does, for people who try the agent with the program.
    WebClient,
}

impl Endpoint {
    /// Returns the endpoint that serves `method` at `path`, or another method there; [`Endpoint::Any`]
    /// where nobody serves it.
    pub(crate) fn at(method: &str, path: &str) -> Self {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match segments.as_slice() {
            ["icp4d-api", "v1", "authorize"] => Self::Authorize,
            ["icp4d-api", "v1", "me"] => Self::Me,
            ["usermgmt", "v1", "user", "apiKey"] => Self::GenerateKey,
            ["zen-data", "v3", "service_instances", _, "token"] => Self::InstanceToken,
            ["identity", "token"] => Self::IamToken,
            ["v1", "apikeys", "details"] => Self::IamKeyDetails,
            ["v1", "apikeys"] if method == "POST" => Self::CreateIamKey,
            ["v1", "apikeys"] => Self::ListIamKeys,
            ["v1", "apikeys", _] => Self::DeleteIamKey,
            ["mock", "web-client", "generate"] => Self::WebClient,
            ["siusermgr", "api", "1.0", "apikeys", "token"]
            | ["api", "2.0", "apikeys", "token"]
            | ["api", "2.0", "accounts" | "subscriptions" | "services", _, "apikeys", "token"] => {
                Self::McspToken
            }
            ["data_product_exchange", "v1", "data_products"] => Self::DataProducts,
            _ => Self::Any,
        }
    }

    /// Returns whether a script for `self` is meant for a request to `other`.
    pub(crate) fn covers(self, other: Self) -> bool {
        self == Self::Any || self == other
    }

    /// Returns the only method that is served.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Authorize | Self::IamToken | Self::McspToken | Self::CreateIamKey | Self::WebClient => {
                "POST"
            }
            Self::DeleteIamKey => "DELETE",
            Self::Any
            | Self::Me
            | Self::GenerateKey
            | Self::InstanceToken
            | Self::IamKeyDetails
            | Self::ListIamKeys
            | Self::DataProducts => "GET",
        }
    }

    /// Returns whether a request here asks for a token.
    #[must_use]
    pub fn is_exchange(self) -> bool {
        match self {
            Self::Authorize | Self::InstanceToken | Self::IamToken | Self::McspToken => true,
            Self::Any
            | Self::Me
            | Self::GenerateKey
            | Self::IamKeyDetails
            | Self::ListIamKeys
            | Self::CreateIamKey
            | Self::DeleteIamKey
            | Self::DataProducts
            | Self::WebClient => false,
        }
    }

    /// Returns an error in the words of the service behind this endpoint.
    pub(crate) fn error(self, status: u16, code: &str, message: &str, now: SystemTime) -> Answer {
        match self {
            Self::Any
            | Self::Authorize
            | Self::Me
            | Self::GenerateKey
            | Self::InstanceToken
            | Self::WebClient => software_hub::error(status, message),
            Self::IamToken => ibm_cloud::error(status, code, message, now),
            Self::IamKeyDetails | Self::ListIamKeys | Self::CreateIamKey | Self::DeleteIamKey => {
                iam_keys::error(status, "mock", Some(code), message)
            }
            Self::McspToken => mcsp::error(status, code, message),
            Self::DataProducts => data_products::error(status, code, message),
        }
    }

    /// Returns the refusal that the service behind this endpoint words as a 401.
    pub(crate) fn unauthorized(self, now: SystemTime) -> Answer {
        match self {
            Self::Any
            | Self::Authorize
            | Self::Me
            | Self::GenerateKey
            | Self::InstanceToken
            | Self::WebClient => software_hub::unauthorized(),
            Self::IamKeyDetails | Self::ListIamKeys | Self::CreateIamKey | Self::DeleteIamKey => {
                iam_keys::unauthorized()
            }
            Self::IamToken => ibm_cloud::error(401, "BXNIM0462E", "Provided API key is disabled.", now),
            Self::McspToken => mcsp::error(401, "BXNIM0415E", mcsp::KEY_NOT_FOUND),
            Self::DataProducts => data_products::token_expired(),
        }
    }
}
