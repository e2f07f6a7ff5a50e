//! A pool gives back what was put in, whatever the order of things and the limits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "what is skipped is said")]

use dph_agent_secret::{Kind, MAX_SECRET_LEN, Pool, PoolError, SecretMemory, Stored, equal};
use proptest::collection::vec;
use proptest::prelude::*;

/// Every form of memory that this system has.
fn pools() -> Vec<Pool> {
    let encrypted = Pool::new(SecretMemory::Encrypted).unwrap();
    let memfd = Pool::new(SecretMemory::Memfd);
    if let Err(error) = &memfd {
        eprintln!("SKIPPED: memfd: {error}");
    }
    [Ok(encrypted), memfd].into_iter().flatten().collect()
}

#[test]
fn stored_secret_is_what_was_put_in() {
    for pool in pools() {
        for len in [0, 1, 50, 64, 4096, 48 * 1024, MAX_SECRET_LEN] {
            let secret: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            let stored = pool.store(&secret).unwrap();
            stored.with(|bytes| assert_eq!(bytes, secret));
        }
    }
}

#[test]
fn secret_that_is_too_long_is_refused() {
    for pool in pools() {
        let refused = pool.store(&vec![1; MAX_SECRET_LEN + 1]);
        assert!(matches!(refused, Err(PoolError::TooLong { len }) if len == MAX_SECRET_LEN + 1));
    }
}

#[test]
fn secret_outlives_the_handles_of_its_pool() {
    for pool in pools() {
        let stored = pool.store(b"key").unwrap();
        drop(pool);
        stored.with(|bytes| assert_eq!(bytes, b"key"));
    }
}

#[test]
fn secrets_are_compared_by_what_they_are() {
    for pool in pools() {
        let [one, same, other] = [b"key".as_slice(), b"key", b"kez"].map(|it| pool.store(it).unwrap());
        assert_eq!(one, one);
        assert_eq!(one, same);
        assert_ne!(one, other);
    }
    assert!(equal(b"", b"") && !equal(b"key", b"key2"));
}

#[test]
fn secret_is_not_printed() {
    let pool = Pool::new(SecretMemory::Encrypted).unwrap();
    let stored = pool.store(b"hunter2").unwrap();
    assert_eq!(format!("{stored:?}"), "Stored([REDACTED])");
    assert!(!format!("{pool:?}").contains("hunter2"));
}

#[test]
fn pool_says_what_it_is() {
    assert_eq!(Pool::new(SecretMemory::Encrypted).unwrap().kind(), Kind::Encrypted);
    if let Ok(pool) = Pool::new(SecretMemory::Memfd) {
        assert_eq!(pool.kind(), Kind::Memfd);
        assert!(pool.is_locked());
    }
    assert_eq!([Kind::Memfd, Kind::Encrypted].map(Kind::as_str), ["memfd", "encrypted"]);
}

#[test]
fn secret_is_seen_by_many_threads_at_once() {
    for pool in pools() {
        let stored = pool.store(&[7; 2000]).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|_| stored.with(|bytes| assert_eq!(bytes, [7; 2000]))));
            }
        });
    }
}

#[test]
fn panic_while_a_secret_is_seen_leaves_the_pool_usable() {
    for pool in pools() {
        let stored = pool.store(b"key").unwrap();
        let work = || stored.with(|_| panic!("on purpose"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
        stored.with(|bytes| assert_eq!(bytes, b"key"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// A thousand operations a case; those that are not kept are dropped at once.
    #[test]
    fn secrets_keep_apart_whatever_comes_and_goes(
        steps in vec((0..3000_usize, any::<u8>(), any::<prop::sample::Index>()), 1000),
    ) {
        for pool in pools() {
            let mut kept: Vec<(Stored, Vec<u8>)> = Vec::new();
            for (len, byte, which) in &steps {
                let secret = vec![*byte; *len];
                kept.push((pool.store(&secret).unwrap(), secret));
                if kept.len() > 40 {
                    let (stored, secret) = kept.swap_remove(which.index(kept.len()));
                    stored.with(|bytes| assert_eq!(bytes, secret));
                }
            }
            for (stored, secret) in &kept {
                stored.with(|bytes| assert_eq!(bytes, secret));
            }
        }
    }
}
