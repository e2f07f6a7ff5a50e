//! All that the platform knows, behind one lock, and what it answers to a request.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::accounts::Accounts;
use crate::answer::Answer;
use crate::mint::{BadToken, Mint, Minted, Owner, TokenForm};
use crate::recorded::Recorded;
use crate::script::{Fault, Scripts};
use crate::{Endpoint, Options, data_products, iam_keys, ibm_cloud, mcsp, random, software_hub};

/// All that the platform knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) accounts: Accounts,
    pub(crate) mint: Mint,
    pub(crate) scripts: Scripts,
    pub(crate) requests: Vec<Recorded>,
    pub(crate) exchanges: usize,
    pub(crate) violations: Vec<String>,
    pub(crate) clock_skew: i64,
    pub(crate) key_generation_allowed: bool,
    pub(crate) zen_api_key_accepted: bool,
    /// What Software Hub says in `expire_at` of a new key.
    pub(crate) expire_at: Value,
    bearers_die_with_key: bool,
    /// The most keys on a page of IBM Cloud's list.
    pub(crate) iam_page_len: usize,
}

impl State {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            mint: Mint::new(options.token_life),
            zen_api_key_accepted: options.accept_zen_api_key,
            bearers_die_with_key: options.bearers_die_with_key,
            iam_page_len: options.iam_page_len.unwrap_or(iam_keys::MAX_PAGE_LEN),
            ..Self::default()
        }
    }

    /// Returns the time on the platform's clock.
    #[expect(clippy::disallowed_methods, reason = "the platform is the outside world and has its own clock")]
    pub(crate) fn now(&self) -> SystemTime {
        let skew = Duration::from_secs(self.clock_skew.unsigned_abs());
        let now = SystemTime::now();
        if self.clock_skew < 0 { now - skew } else { now + skew }
    }

    /// Records that `request` has arrived and returns its number.
    pub(crate) fn arrived(&mut self, request: &Recorded) -> usize {
        self.requests.push(request.clone());
        self.exchanges += usize::from(request.endpoint.is_exchange());
        if request.endpoint == Endpoint::GenerateKey && !self.key_generation_allowed {
            self.violations.push(format!("{} {} generates a key unasked", request.method, request.path));
        }
        self.requests.len() - 1
    }

    /// Returns the answer to `request`, spoilt by `fault`.
    pub(crate) fn answer(&mut self, request: &Recorded, fault: Option<&Fault>) -> Answer {
        let now = self.now();
        match fault {
            None => self.genuine_answer(request, TokenForm::Usual),
            Some(fault) => fault.apply(request.endpoint, now, |form| self.genuine_answer(request, form)),
        }
    }

    fn genuine_answer(&mut self, request: &Recorded, form: TokenForm) -> Answer {
        let endpoint = request.endpoint;
        if endpoint != Endpoint::Any && request.method != endpoint.method() {
            return Answer::text(405, "Method Not Allowed")
                .with_header("allow", endpoint.method().to_owned());
        }
        match endpoint {
            Endpoint::Any => Answer::text(404, "404 page not found"),
            Endpoint::Authorize => software_hub::authorize(self, request, form),
            Endpoint::Me => software_hub::me(self, request),
            Endpoint::GenerateKey => software_hub::generate_key(self, request),
            Endpoint::InstanceToken => software_hub::instance_token(self, request, form),
            Endpoint::IamToken => ibm_cloud::token(self, request, form),
            Endpoint::IamKeyDetails => iam_keys::details(self, request),
            Endpoint::ListIamKeys => iam_keys::list(self, request),
            Endpoint::CreateIamKey => iam_keys::create(self, request),
            Endpoint::DeleteIamKey => iam_keys::delete(self, request),
            Endpoint::WebClient => software_hub::web_client(self, request),
            Endpoint::McspToken => mcsp::token(self, request, form),
            Endpoint::DataProducts => data_products::list(self, request),
        }
    }

    /// Gives a user of Software Hub a new key in place of the old, and returns it.
    pub(crate) fn generate_key(&mut self, username: &str) -> String {
        let api_key = random::api_key();
        self.accounts.add_hub_user(username, &api_key);
        if self.bearers_die_with_key {
            self.mint.forget(&Owner::SoftwareHub { username: username.to_owned() });
        }
        api_key
    }

    /// Returns a token for `owner`.
    pub(crate) fn issue(
        &mut self,
        owner: &Owner,
        claims: Value,
        usual_life: Duration,
        form: TokenForm,
    ) -> Minted {
        let now = self.now();
        self.mint.issue(owner, claims, usual_life, now, form)
    }

    /// Returns whose bearer token came with `request`.
    pub(crate) fn bearer(&self, request: &Recorded) -> Result<&Owner, BadToken> {
        let token = request.authorization("Bearer").ok_or(BadToken::Unknown)?;
        self.mint.owner(token, self.now())
    }
}
