//! Every rule of freshness, with time and chance in hand.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const EARLIEST: Dice = Dice { refresh: 0.0, backoff: 1.0 };
const LATEST: Dice = Dice { refresh: 1.0, backoff: 1.0 };

/// A profile, a clock to move, and what came out for each caller.
struct Scene {
    state: Freshness<u32>,
    now: Steady,
    attempts: Vec<Mode>,
    answers: Vec<(u32, Answer)>,
    sold: u32,
}

impl Scene {
    fn new() -> Self {
        Self::with(false, false)
    }

    fn with(always: bool, can_reread: bool) -> Self {
        let now = Steady(HOUR);
        Self { state: Freshness::new(always, can_reread), now, attempts: vec![], answers: vec![], sold: 0 }
    }

    /// A profile that has just bought a token of `life`.
    fn holding(life: Duration) -> Self {
        let mut scene = Self::new();
        scene.ask(0, Need::default());
        scene.sell(life);
        scene.forget_history();
        scene
    }

    fn forget_history(&mut self) {
        self.attempts.clear();
        self.answers.clear();
    }

    fn note(&mut self, effects: Effects<u32>) {
        for effect in effects {
            match effect {
                Effect::Attempt(mode) => self.attempts.push(mode),
                Effect::Answer(caller, answer) => self.answers.push((caller, *answer)),
            }
        }
    }

    fn ask(&mut self, caller: u32, need: Need) {
        let effects = self.state.ask(need, caller, self.now);
        self.note(effects);
    }

    fn ask_for(&mut self, caller: u32, min_life: Duration) {
        self.ask(caller, Need { min_life: Some(min_life), ..Need::default() });
    }

    fn ask_new(&mut self, caller: u32) {
        self.ask(caller, Need { sent_since: Some(self.now.before(NEW_ENOUGH)), ..Need::default() });
    }

    fn reject(&mut self, caller: u32, token: &str) {
        self.ask(caller, Need { not: Some(Secret::new(token.to_owned())), ..Need::default() });
    }

    fn sell(&mut self, life: Duration) {
        self.sold += 1;
        let token = format!("token-{}", self.sold);
        self.sell_this(&token, Some(life));
    }

    fn sell_this(&mut self, token: &str, life: Option<Duration>) {
        let bought = Bought { token: Secret::new(token.to_owned()), sent: self.now, life };
        self.end(Outcome::Bought(bought), EARLIEST);
    }

    fn fail(&mut self, code: ErrorCode) {
        self.end(Outcome::Failed(Problem::new(code, "it failed", "mend it")), LATEST);
    }

    fn end(&mut self, outcome: Outcome, dice: Dice) {
        let effects = self.state.finished(outcome, self.now, dice);
        self.note(effects);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let effects = self.state.due(self.now);
        self.note(effects);
    }

    fn token_of(&self, caller: u32) -> &str {
        self.answers.iter().find(|(who, _)| *who == caller).unwrap().1.as_ref().unwrap().token.expose()
    }

    fn code_of(&self, caller: u32) -> ErrorCode {
        self.refusal_of(caller).problem.code
    }

    fn refusal_of(&self, caller: u32) -> &Refusal {
        self.answers.iter().rev().find(|(who, _)| *who == caller).unwrap().1.as_ref().unwrap_err()
    }
}

#[test]
fn a_hundred_callers_of_a_cold_profile_share_one_exchange() {
    let mut scene = Scene::new();
    (0..100).for_each(|caller| scene.ask(caller, Need::default()));
    assert_eq!(scene.attempts, [Mode::Held]);
    scene.sell(HOUR);
    assert_eq!(scene.answers.len(), 100);
    assert!((0..100).all(|caller| scene.token_of(caller) == "token-1"));
    assert_eq!(scene.state.served, 100);
}

#[test]
fn callers_share_a_failure_too() {
    let mut scene = Scene::new();
    (0..3).for_each(|caller| scene.ask(caller, Need::default()));
    scene.fail(ErrorCode::UNREACHABLE);
    assert!((0..3).all(|caller| scene.code_of(caller) == ErrorCode::UNREACHABLE));
    assert_eq!(scene.attempts.len(), 1);
}

#[test]
fn tokens_of_every_life_are_bought_again_in_time_while_they_are_used() {
    for life in [6, 60, 900, 43_200].map(Duration::from_secs) {
        for (dice, share) in [(EARLIEST, 0.6), (LATEST, 0.7)] {
            let mut scene = Scene::new();
            scene.ask(0, Need::default());
            let bought = Bought { token: Secret::new("t".into()), sent: scene.now, life: Some(life) };
            scene.end(Outcome::Bought(bought), dice);
            scene.forget_history();
            scene.pass(life.mul_f64(share) - Duration::from_millis(1));
            assert_eq!(scene.attempts, [], "not before, of {life:?}");
            scene.pass(Duration::from_millis(1));
            assert_eq!(scene.attempts, [Mode::Held], "then, of {life:?}");
        }
    }
}

#[test]
fn nobody_buys_for_a_profile_that_is_not_used() {
    let mut scene = Scene::holding(HOUR);
    for _refresh in 0..3 {
        scene.pass(36 * MINUTE);
        scene.sell(HOUR);
    }
    scene.forget_history();
    scene.pass(24 * HOUR);
    assert_eq!(scene.attempts, [], "two lives after the last caller it stopped");
    assert_eq!(scene.state.next_due(), None, "and it does not even wake up");
    scene.ask(1, Need::default());
    assert_eq!(scene.attempts, [Mode::Held]);
}

#[test]
fn a_profile_that_is_always_fresh_is_bought_for_unasked() {
    let mut scene = Scene::with(true, false);
    let effects = scene.state.begin(scene.now);
    scene.note(effects);
    scene.sell(HOUR);
    for _life in 0..10 {
        scene.pass(36 * MINUTE);
        scene.sell(HOUR);
    }
    assert_eq!(scene.attempts.len(), 11);
}

#[test]
fn a_good_token_is_served_for_its_whole_life_while_the_platform_is_down() {
    let mut scene = Scene::holding(100 * SECOND);
    scene.pass(60 * SECOND);
    scene.fail(ErrorCode::UNREACHABLE);
    for caller in 1..=19 {
        scene.pass(SECOND);
        scene.ask(caller, Need::default());
        assert_eq!(scene.token_of(caller), "token-1", "after {} s", 60 + caller);
        if scene.state.next_due().is_none() {
            scene.fail(ErrorCode::UNREACHABLE);
        }
    }
    scene.now = scene.now + 2 * SECOND;
    scene.ask(20, Need::default());
    assert!(
        !scene.answers.iter().any(|(caller, _)| *caller == 20),
        "19 s left are less than a fifth of the life"
    );
    scene.fail(ErrorCode::UNREACHABLE);
    scene.ask_for(21, 10 * SECOND);
    assert_eq!(scene.token_of(21), "token-1", "who asks for less still gets it");
}

#[test]
fn a_token_shorter_than_what_is_asked_costs_one_exchange_and_no_more() {
    let mut scene = Scene::new();
    scene.ask_for(0, 2 * HOUR);
    scene.sell(HOUR);
    assert_eq!(scene.code_of(0), ErrorCode::LIFE_TOO_SHORT);
    for caller in 1..=100 {
        scene.ask_for(caller, HOUR + Duration::from_secs(u64::from(caller)));
        assert_eq!(scene.code_of(caller), ErrorCode::LIFE_TOO_SHORT);
    }
    assert_eq!(scene.attempts.len(), 1);
    assert!(scene.refusal_of(1).problem.message.contains("3600 s"), "the life that was seen is told");
    scene.ask_for(101, MINUTE);
    assert_eq!(scene.token_of(101), "token-1", "and the token is good for others");
}

#[test]
fn strict_freshness_buys_when_the_held_token_is_too_old() {
    let mut scene = Scene::holding(HOUR);
    scene.now = scene.now + 30 * MINUTE;
    scene.ask_for(1, 40 * MINUTE);
    scene.sell(HOUR);
    assert_eq!(scene.token_of(1), "token-2");
}

#[test]
fn new_is_satisfied_by_what_was_bought_a_moment_ago() {
    let mut scene = Scene::holding(HOUR);
    scene.now = scene.now + 9 * SECOND;
    scene.ask_new(1);
    assert_eq!(scene.token_of(1), "token-1");
    scene.now = scene.now + 2 * SECOND;
    scene.ask_new(2);
    scene.ask_new(3);
    assert_eq!(scene.attempts, [Mode::Held]);
    scene.sell(HOUR);
    assert_eq!((scene.token_of(2), scene.token_of(3)), ("token-2", "token-2"));
}

#[test]
fn new_does_not_settle_for_an_exchange_that_began_long_before() {
    let mut scene = Scene::new();
    scene.ask(0, Need::default());
    let began = scene.now;
    scene.now = scene.now + 20 * SECOND;
    scene.ask_new(1);
    let bought = Bought { token: Secret::new("slow".into()), sent: began, life: Some(HOUR) };
    scene.end(Outcome::Bought(bought), EARLIEST);
    assert_eq!(scene.token_of(0), "slow");
    assert_eq!(scene.attempts.len(), 2, "another exchange is made for the second caller");
    scene.sell(HOUR);
    assert_eq!(scene.token_of(1), "token-1");
}

#[test]
fn a_hundred_callers_who_saw_the_same_401_cause_one_exchange() {
    let mut scene = Scene::holding(HOUR);
    (1..=100).for_each(|caller| scene.reject(caller, "token-1"));
    assert_eq!(scene.attempts.len(), 1);
    scene.sell(HOUR);
    assert!((1..=100).all(|caller| scene.token_of(caller) == "token-2"));
    scene.reject(101, "token-1");
    assert_eq!(scene.token_of(101), "token-2", "a latecomer gets what the others got");
    assert_eq!(scene.attempts.len(), 1);
}

#[test]
fn the_same_token_again_is_told_to_those_who_rejected_it_only() {
    let mut scene = Scene::holding(HOUR);
    scene.reject(1, "token-1");
    scene.ask(2, Need::default());
    scene.sell_this("token-1", Some(HOUR));
    assert_eq!(scene.code_of(1), ErrorCode::STILL_REJECTED);
    assert_eq!(scene.token_of(2), "token-1");
}

#[test]
fn a_caller_during_a_pause_causes_a_try_but_not_twice_in_a_second() {
    let mut scene = Scene::new();
    scene.ask(0, Need::default());
    scene.fail(ErrorCode::UNREACHABLE);
    scene.ask(1, Need::default());
    assert_eq!(scene.code_of(1), ErrorCode::UNREACHABLE, "one has just failed");
    scene.now = scene.now + SECOND;
    scene.ask(2, Need::default());
    assert_eq!(scene.attempts.len(), 2);
    scene.sell(HOUR);
    assert_eq!(scene.token_of(2), "token-1");
    assert!(scene.state.trouble().is_none());
}

#[test]
fn failures_are_tried_again_ever_less_often_up_to_five_minutes() {
    let mut scene = Scene::with(true, false);
    scene.ask(0, Need::default());
    let mut pauses = Vec::new();
    for _failure in 0..12 {
        scene.fail(ErrorCode::UNREACHABLE);
        let next = scene.state.next_due().unwrap();
        pauses.push(next.since(scene.now).as_secs());
        scene.pass(next.since(scene.now));
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
}

#[test]
fn what_the_platform_says_about_when_to_come_back_is_obeyed_for_at_most_an_hour() {
    for (said, obeyed) in [(90 * SECOND, 90 * SECOND), (48 * HOUR, HOUR)] {
        let mut scene = Scene::new();
        scene.ask(0, Need::default());
        let throttled = Problem::new(ErrorCode::THROTTLED, "throttled", "wait");
        scene.end(Outcome::Failed(Problem { retry_after: Some(said), ..throttled }), LATEST);
        scene.now = scene.now + 30 * SECOND;
        scene.ask(1, Need::default());
        assert_eq!(scene.refusal_of(1).retry_after, Some(obeyed - 30 * SECOND));
        assert_eq!(scene.attempts.len(), 1, "nobody gets round it");
        scene.pass(obeyed - 30 * SECOND);
        scene.ask(2, Need::default());
        assert_eq!(scene.attempts.len(), 2);
    }
}

#[test]
fn a_refused_key_is_not_tried_again_for_an_hour() {
    let mut scene = Scene::new();
    scene.ask(0, Need::default());
    scene.fail(ErrorCode::KEY_REFUSED);
    for caller in 1..1000 {
        scene.now = scene.now + 3 * SECOND;
        scene.ask(caller, Need::default());
        assert_eq!(scene.code_of(caller), ErrorCode::KEY_REFUSED);
    }
    assert_eq!(scene.attempts.len(), 1);
    scene.now = scene.now + 11 * MINUTE;
    scene.ask(1000, Need::default());
    assert_eq!(scene.attempts, [Mode::Held, Mode::Reread], "then the source is asked again");
}

#[test]
fn a_file_with_another_key_ends_the_refusal_at_once() {
    let mut scene = Scene::with(false, true);
    scene.ask(0, Need::default());
    scene.fail(ErrorCode::KEY_REFUSED);
    scene.now = scene.now + SECOND;
    scene.ask(1, Need::default());
    assert_eq!(scene.attempts, [Mode::Held, Mode::IfChanged]);
    scene.end(Outcome::Unchanged, LATEST);
    assert_eq!(scene.code_of(1), ErrorCode::KEY_REFUSED);
    scene.now = scene.now + SECOND;
    scene.ask(2, Need::default());
    scene.sell(HOUR);
    assert_eq!(scene.token_of(2), "token-1");
}

#[test]
fn a_token_whose_key_is_refused_already_is_served_with_a_warning() {
    let mut scene = Scene::holding(HOUR);
    scene.pass(40 * MINUTE);
    scene.fail(ErrorCode::KEY_REFUSED);
    scene.ask(1, Need::default());
    let grant = scene.answers[0].1.as_ref().unwrap();
    assert_eq!(grant.warning, Some(Warning::KEY_REFUSED));
}

#[test]
fn three_answers_of_403_count_as_a_refusal() {
    let mut scene = Scene::new();
    let forbidden =
        || Problem { doubtful: true, ..Problem::new(ErrorCode::UNREACHABLE, "status 403", "wait") };
    for (caller, expected) in
        [ErrorCode::UNREACHABLE, ErrorCode::UNREACHABLE, ErrorCode::KEY_REFUSED].iter().enumerate()
    {
        let caller = u32::try_from(caller).unwrap();
        scene.now = scene.now + SECOND;
        scene.ask(caller, Need::default());
        scene.end(Outcome::Failed(forbidden()), LATEST);
        assert_eq!(scene.code_of(caller), *expected);
    }
    scene.now = scene.now + MINUTE;
    scene.ask(9, Need::default());
    assert_eq!(scene.attempts.len(), 3);
}

#[test]
fn a_wrong_set_up_is_tried_again_when_told_or_after_an_hour() {
    let mut scene = Scene::new();
    scene.ask(0, Need::default());
    scene.fail(ErrorCode::MISCONFIGURED);
    scene.now = scene.now + 30 * MINUTE;
    scene.ask(1, Need::default());
    assert_eq!((scene.code_of(1), scene.attempts.len()), (ErrorCode::MISCONFIGURED, 1));
    let effects = scene.state.retry(2, scene.now);
    scene.note(effects);
    assert_eq!(scene.attempts.len(), 2);
    scene.sell(HOUR);
    assert_eq!(scene.token_of(2), "token-1");
}

#[test]
fn refresh_waits_for_an_attempt_that_began_after_it() {
    let mut scene = Scene::new();
    scene.ask(0, Need::default());
    scene.now = scene.now + SECOND;
    let effects = scene.state.retry(1, scene.now);
    scene.note(effects);
    scene.fail(ErrorCode::UNREACHABLE);
    assert_eq!(scene.code_of(0), ErrorCode::UNREACHABLE);
    assert_eq!(scene.attempts, [Mode::Held, Mode::Reread], "what was mended meanwhile is seen");
    scene.sell(HOUR);
    assert_eq!(scene.token_of(1), "token-1");
}

#[test]
fn a_machine_that_woke_up_does_not_sit_out_a_pause() {
    let mut scene = Scene::with(true, false);
    scene.ask(0, Need::default());
    for _failure in 0..10 {
        scene.fail(ErrorCode::UNREACHABLE);
        scene.pass(scene.state.next_due().unwrap().since(scene.now));
    }
    scene.fail(ErrorCode::UNREACHABLE);
    scene.forget_history();
    let effects = scene.state.look_again(scene.now + SECOND);
    scene.note(effects);
    assert_eq!(scene.attempts, [Mode::Held]);
}

#[test]
fn a_token_that_was_used_up_during_sleep_is_bought_on_waking() {
    let mut scene = Scene::holding(HOUR);
    scene.now = scene.now + 90 * MINUTE;
    assert_eq!(scene.state.token_state(scene.now), TokenState::EXPIRED);
    let effects = scene.state.look_again(scene.now);
    scene.note(effects);
    assert_eq!(scene.attempts, [Mode::Held]);
}

#[test]
fn a_token_without_expiry_is_kept_for_a_minute_and_promises_nothing() {
    let mut scene = Scene::new();
    scene.ask(0, Need::default());
    scene.sell_this("endless", None);
    assert_eq!(scene.answers[0].1.as_ref().unwrap().left, None);
    scene.ask_for(1, SECOND);
    scene.sell_this("endless", None);
    assert_eq!(scene.code_of(1), ErrorCode::LIFE_TOO_SHORT);
    scene.now = scene.now + 61 * SECOND;
    assert_eq!(scene.state.next_due(), None);
    scene.ask(2, Need::default());
    assert_eq!(scene.attempts.len(), 3);
}

#[test]
fn dropping_the_key_ends_the_wait_and_the_token() {
    let mut scene = Scene::holding(HOUR);
    scene.ask_new(1);
    scene.now = scene.now + 20 * SECOND;
    scene.ask_new(2);
    let effects = scene.state.dropped(&Problem::new(ErrorCode::NO_KEY, "forgotten", "add"));
    scene.note(effects);
    assert_eq!(scene.code_of(2), ErrorCode::NO_KEY);
    assert_eq!(scene.state.token_state(scene.now), TokenState::NONE);
    assert_eq!(scene.state.next_due(), None);
}

#[test]
fn a_platform_that_asks_for_no_pause_is_not_asked_without_pause() {
    let mut scene = Scene::with(true, false);
    scene.ask(0, Need::default());
    let busy = Problem::new(ErrorCode::UNREACHABLE, "status 503", "wait");
    scene.end(Outcome::Failed(Problem { retry_after: Some(Duration::ZERO), ..busy }), LATEST);
    assert_eq!(scene.state.next_due(), Some(scene.now + SECOND));
}

#[test]
fn who_waits_for_a_newer_attempt_obeys_the_platforms_pause_too() {
    let mut scene = Scene::new();
    scene.ask(0, Need::default());
    scene.now = scene.now + 20 * SECOND;
    scene.ask_new(1);
    let throttled = Problem::new(ErrorCode::THROTTLED, "status 429", "wait");
    scene.end(Outcome::Failed(Problem { retry_after: Some(HOUR), ..throttled }), LATEST);
    assert_eq!(scene.refusal_of(1).retry_after, Some(HOUR));
    assert_eq!(scene.attempts.len(), 1);
}

#[test]
fn a_token_sold_again_is_not_asked_for_again_at_once() {
    let mut scene = Scene::holding(HOUR);
    scene.reject(1, "token-1");
    scene.sell_this("token-1", Some(HOUR));
    for caller in 2..20 {
        scene.reject(caller, "token-1");
        assert_eq!(scene.code_of(caller), ErrorCode::STILL_REJECTED);
    }
    assert_eq!(scene.attempts.len(), 1);
    scene.now = scene.now + NEW_ENOUGH;
    scene.reject(20, "token-1");
    assert_eq!(scene.attempts.len(), 2);
}

#[test]
fn no_life_at_all_can_be_asked_of_a_token_without_expiry() {
    let mut scene = Scene::new();
    scene.ask_for(0, Duration::ZERO);
    scene.sell_this("endless", None);
    (1..10).for_each(|caller| scene.ask_for(caller, Duration::ZERO));
    assert!((0..10).all(|caller| scene.token_of(caller) == "endless"));
    assert_eq!(scene.attempts.len(), 1);
}

#[test]
fn a_caller_is_not_stranded_when_the_refusal_was_forgiven_meanwhile() {
    let mut scene = Scene::with(false, true);
    scene.ask(0, Need::default());
    scene.fail(ErrorCode::KEY_REFUSED);
    scene.now = scene.now + SECOND;
    scene.ask(1, Need::default());
    let effects = scene.state.forgive(scene.now);
    scene.note(effects);
    scene.end(Outcome::Unchanged, LATEST);
    scene.sell(HOUR);
    assert_eq!(scene.token_of(1), "token-1");
}

#[test]
fn forgiving_lets_a_profile_in_use_go_on_being_refreshed() {
    let mut scene = Scene::holding(HOUR);
    scene.pass(40 * MINUTE);
    scene.fail(ErrorCode::MISCONFIGURED);
    scene.forget_history();
    let effects = scene.state.forgive(scene.now);
    scene.note(effects);
    scene.pass(Duration::ZERO);
    assert_eq!(scene.attempts, [Mode::Held]);
}

#[test]
fn a_profile_that_is_always_fresh_replaces_a_token_without_expiry() {
    let mut scene = Scene::with(true, false);
    scene.ask(0, Need::default());
    scene.sell_this("endless", None);
    scene.pass(MINUTE);
    assert_eq!(scene.attempts.len(), 2);
}

#[test]
fn callers_who_have_gone_are_not_kept() {
    let mut scene = Scene::new();
    (0..10).for_each(|caller| scene.ask(caller, Need::default()));
    scene.state.prune(|caller| caller % 2 == 0);
    scene.sell(HOUR);
    assert_eq!(scene.answers.len(), 5);
}

#[test]
fn who_rejects_every_token_causes_one_more_exchange_in_ten_seconds() {
    let mut scene = Scene::holding(HOUR);
    scene.reject(1, "token-1");
    assert_eq!(scene.attempts, [Mode::Held], "the first time at once");
    scene.sell(HOUR);
    assert_eq!(scene.token_of(1), "token-2");
    scene.forget_history();
    scene.pass(SECOND);
    for caller in 2..100 {
        scene.reject(caller, "token-2");
    }
    scene.ask(100, Need::default());
    assert_eq!(scene.token_of(100), "token-2", "it is held up by nobody");
    scene.pass(NEW_ENOUGH - 2 * SECOND);
    assert_eq!(scene.attempts, []);
    scene.pass(SECOND);
    assert_eq!(scene.attempts, [Mode::Held]);
    scene.sell(HOUR);
    assert!((2..100).all(|caller| scene.token_of(caller) == "token-3"));
}

#[test]
fn who_asks_for_nearly_the_whole_life_causes_one_more_exchange_in_ten_seconds() {
    let mut scene = Scene::holding(HOUR);
    let nearly = HOUR - SECOND / 2;
    let mut asked = 0;
    for _second in 0..60 {
        scene.pass(SECOND);
        if scene.state.running.is_some() {
            scene.sell(HOUR);
        }
        asked += 1;
        scene.ask_for(asked, nearly);
        if scene.state.running.is_some() {
            scene.sell(HOUR);
        }
    }
    assert!(scene.attempts.len() <= 7, "{:?}", scene.attempts);
    assert!(scene.answers.iter().all(|(_, answer)| answer.is_ok()), "what is asked for is strict");
    assert!(scene.answers.len() >= 50);
}

#[test]
fn who_refreshes_again_and_again_causes_one_exchange_a_second() {
    let mut scene = Scene::holding(HOUR);
    let retry = |scene: &mut Scene, caller| {
        let effects = scene.state.retry(caller, scene.now);
        scene.note(effects);
    };
    retry(&mut scene, 1);
    assert_eq!(scene.attempts, [Mode::Reread], "the first time at once");
    scene.sell(HOUR);
    for caller in 2..100 {
        scene.pass(Duration::from_millis(5));
        retry(&mut scene, caller);
    }
    assert_eq!(scene.attempts, [Mode::Reread]);
    scene.pass(SECOND / 2);
    scene.pass(SECOND / 2);
    assert_eq!(scene.attempts, [Mode::Reread, Mode::Reread]);
    scene.sell(HOUR);
    assert!((2..100).all(|caller| scene.token_of(caller) == "token-3"));
    scene.pass(SECOND);
    retry(&mut scene, 100);
    scene.fail(ErrorCode::KEY_REFUSED);
    retry(&mut scene, 101);
    assert_eq!(scene.attempts.len(), 4, "what may have been mended is tried at once");
}

#[test]
fn a_token_that_is_used_up_is_bought_however_soon_that_is() {
    let mut scene = Scene::holding(6 * SECOND);
    scene.reject(1, "token-1");
    scene.sell(6 * SECOND);
    scene.forget_history();
    scene.reject(2, "token-2");
    assert_eq!(scene.attempts, []);
    scene.now = scene.now + 6 * SECOND;
    scene.ask(3, Need::default());
    assert_eq!(scene.attempts, [Mode::Held]);
    scene.sell(6 * SECOND);
    assert_eq!((scene.token_of(2), scene.token_of(3)), ("token-3", "token-3"));
}

#[test]
fn nothing_is_bought_for_those_who_have_gone_before_it_was_time() {
    let mut scene = Scene::holding(HOUR);
    scene.reject(1, "token-1");
    scene.sell(HOUR);
    scene.forget_history();
    scene.reject(2, "token-2");
    scene.state.prune(|_| true);
    scene.pass(NEW_ENOUGH);
    assert_eq!(scene.attempts, []);
}
