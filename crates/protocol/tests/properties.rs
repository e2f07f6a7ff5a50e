//! What holds for every message, and for bytes that are none.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dph_agent_protocol::frame::{Frame, HEADER_LEN, Header, split_frame};
use dph_agent_protocol::{
    Add, AddFor, Added, AgentStatus, AuditMode, AuditState, Certificate, ChangeKey, ChangeMode,
    ChangeOutcome, Changed, DecodeError, ErrorCode, Failure, Kept, KeySourceKind, KeyState, LastError,
    Listing, Lock, LockState, Migrate, MigrateWith, Migrated, Page, PlatformKind, Pong, Prepare, Prepared,
    ProfileEntry, ProfileStatus, RefreshMode, Reply, Request, Secret, SecretMemory, Selector, Settings,
    StatusRequest, Statuses, Token, TokenRequest, TokenState, Trust, Unlock, Waiting, Warning, Zen,
    ZenHeader,
};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn every_request_is_read_as_it_was_written(request in Request::any()) {
        let bytes = request.to_frame().unwrap();
        let (Frame { kind, body }, rest) = split_frame(&bytes).unwrap().unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(kind, request.kind());
        prop_assert_eq!(Request::from_body(kind, body), Ok(request));
    }

    #[test]
    fn every_reply_is_read_as_it_was_written(reply in Reply::any()) {
        let bytes = reply.to_frame().unwrap();
        let (Frame { kind, body }, rest) = split_frame(&bytes).unwrap().unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(kind, reply.kind());
        prop_assert_eq!(Reply::from_body(kind, body), Ok(reply));
    }

    /// A list claims its memory before its elements are read; that must not refuse one that fits.
    #[test]
    fn lists_that_can_be_written_can_be_read(count in 0..66_000_usize, len in 0..9_usize) {
        let done = Reply::Done(vec!["x".repeat(len); count]);
        if let Ok(bytes) = done.to_frame() {
            prop_assert_eq!(Reply::from_body(done.kind(), &bytes[HEADER_LEN..]), Ok(done));
        }
    }

    #[test]
    fn a_truncated_body_is_malformed(request in Request::any(), reply in Reply::any(), cut: prop::sample::Index) {
        let bytes = request.to_frame().unwrap();
        if let body @ [_, ..] = &bytes[HEADER_LEN..] {
            let read = Request::from_body(request.kind(), &body[..cut.index(body.len())]);
            prop_assert_eq!(read, Err(DecodeError::Malformed));
        }
        let bytes = reply.to_frame().unwrap();
        if let body @ [_, ..] = &bytes[HEADER_LEN..] {
            let read = Reply::from_body(reply.kind(), &body[..cut.index(body.len())]);
            prop_assert_eq!(read, Err(DecodeError::Malformed));
        }
    }

    #[test]
    fn bytes_behind_a_body_are_an_error(request in Request::any(), reply in Reply::any(), tail in vec(any::<u8>(), 1..9)) {
        let body = [&request.to_frame().unwrap()[HEADER_LEN..], &tail].concat();
        prop_assert_eq!(Request::from_body(request.kind(), &body), Err(DecodeError::TrailingBytes));
        let body = [&reply.to_frame().unwrap()[HEADER_LEN..], &tail].concat();
        prop_assert_eq!(Reply::from_body(reply.kind(), &body), Err(DecodeError::TrailingBytes));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_what_they_mean_can_be_written(body in vec(any::<u8>(), 0..200)) {
        for (kind, _) in Request::KINDS {
            if let Ok(request) = Request::from_body(*kind, &body) {
                prop_assert!(request.to_frame().unwrap().len() <= HEADER_LEN + body.len());
            }
        }
        for (kind, _) in Reply::KINDS {
            if let Ok(reply) = Reply::from_body(*kind, &body) {
                prop_assert!(reply.to_frame().unwrap().len() <= HEADER_LEN + body.len());
            }
        }
    }

    #[test]
    fn kinds_that_are_none_are_told_apart_from_bad_bodies(kind: u16, body in vec(any::<u8>(), 0..20)) {
        let known = |kinds: &[(u16, &str)]| kinds.iter().any(|(known, _)| *known == kind);
        let unknown = DecodeError::UnknownKind(kind);
        prop_assert_eq!(known(Request::KINDS), Request::from_body(kind, &body) != Err(unknown));
        prop_assert_eq!(known(Reply::KINDS), Reply::from_body(kind, &body) != Err(unknown));
    }

    #[test]
    fn frames_are_the_same_in_whatever_pieces_they_arrive(
        frames in vec((any::<u16>(), vec(any::<u8>(), 0..40)), 0..6),
        pieces in vec(1..30_usize, 1..60),
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, body)| frame(*kind, body)).collect();
        let (mut buffer, mut sent, mut split) = (Vec::new(), bytes.as_slice(), Vec::new());
        let mut lens = pieces.iter().cycle();
        while !sent.is_empty() {
            let (piece, rest) = sent.split_at(sent.len().min(*lens.next().unwrap()));
            buffer.extend_from_slice(piece);
            sent = rest;
            while let Some((Frame { kind, body }, rest)) = split_frame(&buffer).unwrap() {
                split.push((kind, body.to_vec()));
                buffer = rest.to_vec();
            }
        }
        prop_assert_eq!(split, frames);
        prop_assert!(buffer.is_empty());
    }
}

fn frame(kind: u16, body: &[u8]) -> Vec<u8> {
    [&Header { body_len: body.len(), kind }.to_bytes(), body].concat()
}

/// Values of every kind, the borders of their ranges more often than chance has them.
trait Any: Sized {
    fn any() -> BoxedStrategy<Self>;
}

macro_rules! any_integer {
    ($($of:ident)*) => {
        $(impl Any for $of {
            fn any() -> BoxedStrategy<Self> {
                let borders = [0, 1, 250, 251, u16::MAX.into(), u64::MAX >> 32, (u64::MAX >> 32) + 1, u64::MAX];
                #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "any value will do")]
                let borders = borders.map(|border| border as $of);
                prop_oneof![any::<$of>(), prop::sample::select(borders.to_vec())].boxed()
            }
        })*
    };
}

any_integer! { u32 u64 i64 }

impl Any for bool {
    fn any() -> BoxedStrategy<Self> {
        any::<Self>().boxed()
    }
}

impl Any for String {
    fn any() -> BoxedStrategy<Self> {
        prop_oneof![8 => any::<Self>(), 1 => (0..2000_usize).prop_map(|len| "x".repeat(len))].boxed()
    }
}

impl Any for Secret {
    fn any() -> BoxedStrategy<Self> {
        String::any().prop_map(Self::new).boxed()
    }
}

impl<T: Any + Clone + std::fmt::Debug + 'static> Any for Option<T> {
    fn any() -> BoxedStrategy<Self> {
        prop::option::of(T::any()).boxed()
    }
}

impl<T: Any + std::fmt::Debug + 'static> Any for Vec<T> {
    fn any() -> BoxedStrategy<Self> {
        vec(T::any(), 0..4).boxed()
    }
}

macro_rules! any_open_set {
    ($($name:ident)*) => {
        $(impl Any for $name {
            fn any() -> BoxedStrategy<Self> {
                prop_oneof![prop::sample::select(Self::ALL), any::<u16>().prop_map(Self)].boxed()
            }
        })*
    };
}

any_open_set! { AuditMode ChangeMode ChangeOutcome ErrorCode KeySourceKind KeyState PlatformKind RefreshMode SecretMemory TokenState Trust Warning }

macro_rules! any_struct {
    ($($name:ident { $($field:ident)* })*) => {
        $(impl Any for $name {
            fn any() -> BoxedStrategy<Self> {
                ($(any_struct!(@any $field),)*).prop_map(|($($field,)*)| Self { $($field),* }).boxed()
            }
        })*
    };
    (@any $field:ident) => { Any::any() };
}

any_struct! {
    Selector { profile for_url }
    TokenRequest { selector min_ttl_ms new rejected deadline_ms }
    Page { after }
    StatusRequest { selector page }
    Settings { platform url auth_url username scope ca_file tls_pin proxy key_source refresh }
    Prepare { profile settings replace trust_server reach deadline_ms }
    Add { profile settings key replace verify deadline_ms }
    Kept { selector all dry_run }
    Waiting { selector all deadline_ms }
    Lock { passphrase new_passphrase deadline_ms }
    Unlock { passphrase deadline_ms }
    AddFor { add ttl_ms }
    Migrate { selector to dry_run deadline_ms }
    MigrateWith { migrate passphrase }
    Zen { selector deadline_ms }
    Failure { code message hint retry_after_ms }
    Pong { version pid }
    Token { token profile url username expires_at expires_in_ms ca_file warning }
    Listing { profiles default more }
    ProfileEntry { name platform url username key_source }
    Statuses { agent profiles more }
    AgentStatus { version pid socket locked started_at secret_memory profile_count config_error }
    ProfileStatus {
        entry key_state key_added_at key_expires_at token_state usable_until next_refresh_at served exchanges last_error
    }
    LastError { code message since next_try_at }
    Prepared { profile exists platform url auth_url username key_source wants_key certificate notes }
    Certificate { subject issuer names sha256 not_after trust }
    Added { profile verified token_life_ms notes }
    LockState { locked has_passphrase notes }
    Migrated { profile from to notes }
    AuditState { mode file head lines lost error }
    ChangeKey { selector mode deadline_ms }
    Changed { profile outcome tokens_until notes }
    ZenHeader { header profile url }
}

impl Any for Request {
    fn any() -> BoxedStrategy<Self> {
        prop_oneof![
            Just(Self::Ping),
            Any::any().prop_map(Self::Ready),
            Any::any().prop_map(Self::Token),
            Any::any().prop_map(Self::List),
            Any::any().prop_map(Self::Status),
            Any::any().prop_map(Self::Prepare),
            Any::any().prop_map(Self::Add),
            Any::any().prop_map(Self::SetDefault),
            Any::any().prop_map(Self::Forget),
            Any::any().prop_map(Self::Remove),
            Any::any().prop_map(Self::Refresh),
            Just(Self::Stop),
            Any::any().prop_map(Self::Lock),
            Any::any().prop_map(Self::Unlock),
            Just(Self::LockState),
            Any::any().prop_map(Self::AddFor),
            Any::any().prop_map(Self::Migrate),
            Any::any().prop_map(Self::MigrateWith),
            Just(Self::AuditState),
            Any::any().prop_map(Self::Revoke),
            Any::any().prop_map(Self::Rotate),
            Any::any().prop_map(Self::Zen),
        ]
        .boxed()
    }
}

impl Any for Reply {
    fn any() -> BoxedStrategy<Self> {
        prop_oneof![
            Any::any().prop_map(Self::Failure),
            Any::any().prop_map(Self::Pong),
            Any::any().prop_map(Self::Token),
            Any::any().prop_map(Self::Listing),
            Any::any().prop_map(Self::Statuses),
            Any::any().prop_map(Self::Prepared),
            Any::any().prop_map(Self::Added),
            Any::any().prop_map(Self::Done),
            Just(Self::Stopping),
            Any::any().prop_map(Self::LockState),
            Any::any().prop_map(Self::Migrated),
            Any::any().prop_map(Self::AuditState),
            Any::any().prop_map(Self::Changed),
            Any::any().prop_map(Self::Zen),
        ]
        .boxed()
    }
}
