//! The numbers that decide when tokens are bought; pure.

use std::time::Duration;

/// A held token is bought anew after this share of its life, drawn from here: earlier than the SDKs
/// of IBM, which start to ask at 80 %, and spread so that many agents do not ask together.
pub const REFRESH_SHARE: std::ops::RangeInclusive<f64> = 0.6..=0.7;
/// A refresh waits at least this share of the life.
const MIN_SHARE: f64 = 0.3;
/// A refresh waits at least this long.
const MIN_WAIT: Duration = Duration::from_millis(500);
/// A refresh comes at least this long before the end.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Life that a token must have left when the caller does not say, at most.
const DEFAULT_FRESHNESS: Duration = Duration::from_secs(60);

/// First pause after a failure; doubled after each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest pause after failures.
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// Longest `Retry-After` that is obeyed.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Pause before a refused key or a wrong set-up is tried again unasked.
pub const PROBE_EVERY: Duration = Duration::from_secs(3600);
/// Callers do not cause tries closer together than this.
pub const TRY_SPACING: Duration = Duration::from_secs(1);
/// A token bought this long before a caller asked for a new one is new enough.
pub const NEW_ENOUGH: Duration = Duration::from_secs(10);
/// A token without any expiry is kept this long.
pub const KEPT_WITHOUT_EXPIRY: Duration = Duration::from_secs(60);
/// A 403 counts as a refusal of the key after this many in a row.
pub const FORBIDDEN_TRIES: u32 = 3;
/// A profile counts as used for this many token lives after it was asked for.
const LIVES_IN_USE: u32 = 2;
/// Token life to reckon with while none was seen.
const UNSEEN_LIFE: Duration = Duration::from_secs(300);

/// Returns how long to wait before replacing a token with `life` left; `share` is drawn from
/// [`REFRESH_SHARE`].
pub fn refresh_after(life: Duration, share: f64) -> Duration {
    // The shortest wait comes last: a token that hardly lives must not be bought over and over.
    life.mul_f64(share.max(MIN_SHARE)).min(life.saturating_sub(LAST_MOMENT)).max(MIN_WAIT)
}

/// Returns the life that a token of `life` must have left when the caller does not say.
pub fn default_freshness(life: Duration) -> Duration {
    DEFAULT_FRESHNESS.min(life / 5)
}

/// Returns the pause after the `failures`th failure in a row; `share` of 0 to 1 spreads it over the
/// upper half.
pub fn backoff(failures: u32, share: f64) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(LONGEST_BACKOFF).mul_f64(0.5 + share.clamp(0.0, 1.0) / 2.0)
}

/// Returns how long a profile counts as used after it was asked for.
pub fn in_use_for(life: Option<Duration>) -> Duration {
    life.unwrap_or(UNSEEN_LIFE).saturating_mul(LIVES_IN_USE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn tokens_of_every_life_are_refreshed_between_60_and_70_percent_of_it() {
        for life in [6, 60, 900, 43_164].map(Duration::from_secs) {
            assert_eq!(refresh_after(life, 0.6), life.mul_f64(0.6));
            assert_eq!(refresh_after(life, 0.7), life.mul_f64(0.7));
        }
    }

    #[test]
    fn a_refresh_leaves_the_last_second_and_does_not_come_at_once() {
        assert_eq!(refresh_after(2 * SECOND, 0.7), SECOND);
        for tiny in [Duration::ZERO, SECOND / 2, SECOND, SECOND + SECOND / 4] {
            assert_eq!(refresh_after(tiny, 0.7), MIN_WAIT, "{tiny:?}");
        }
        assert_eq!(refresh_after(100 * SECOND, 0.0), 30 * SECOND);
    }

    #[test]
    fn default_freshness_is_a_fifth_of_a_short_life_and_a_minute_of_a_long_one() {
        assert_eq!(default_freshness(6 * SECOND), Duration::from_millis(1200));
        assert_eq!(default_freshness(3600 * SECOND), 60 * SECOND);
    }

    #[test]
    fn backoff_doubles_to_five_minutes_and_is_spread() {
        assert_eq!(backoff(1, 1.0), SECOND);
        assert_eq!(backoff(2, 1.0), 2 * SECOND);
        assert_eq!(backoff(2, 0.0), SECOND);
        assert_eq!(backoff(10, 1.0), LONGEST_BACKOFF);
        assert_eq!(backoff(u32::MAX, 1.0), LONGEST_BACKOFF);
    }
}
