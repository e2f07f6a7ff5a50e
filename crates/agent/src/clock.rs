//! Wall time to show, steady time to decide by, and an alarm that suspend does not delay.

use std::fmt;
use std::io;
use std::ops::Add;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

/// An instant on a clock that never jumps and counts sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steady(pub Duration);

impl Steady {
    /// Returns the time from `earlier` to here, or zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the instant so long before here, or the beginning of time.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

impl Add<Duration> for Steady {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Why an alarm rang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// The time it was set to has come.
    Due,
    /// The machine woke up, or its wall clock was set.
    Jump,
}

/// Time as the agent sees it.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns the time that decides.
    fn steady(&self) -> Steady;
    /// Returns the time that is shown, in seconds since 1970.
    fn wall(&self) -> i64;
    /// Creates an alarm that follows this clock.
    ///
    /// # Errors
    ///
    /// When the system has no timer left.
    fn alarm(&self) -> io::Result<Box<dyn Alarm>>;
}

/// Rings at one time, which can be changed.
pub trait Alarm: fmt::Debug + Send {
    /// Sets the time, or none.
    ///
    /// # Errors
    ///
    /// When the system refuses it.
    fn set(&mut self, at: Option<Steady>) -> io::Result<()>;
    /// Waits until it rings; once for each setting.
    fn poll_ring(&mut self, cx: &mut Context<'_>) -> Poll<Ring>;
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn steady(&self) -> Steady {
        Steady(system::steady())
    }

    fn wall(&self) -> i64 {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that others are given")]
        let now = SystemTime::now();
        unix_seconds(now)
    }

    fn alarm(&self) -> io::Result<Box<dyn Alarm>> {
        Ok(Box::new(system::SystemAlarm::new()?))
    }
}

/// Returns whole seconds since 1970, negative before.
pub fn unix_seconds(time: SystemTime) -> i64 {
    let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    time.duration_since(SystemTime::UNIX_EPOCH).map_or_else(|before| -whole(before.duration()), whole)
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
        timerfd_create, timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    use super::{Alarm, Ring, Steady};

    pub(super) fn steady() -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    /// Two kernel timers, so that nothing ever wakes up to look at a clock: one counts sleep, the
    /// other is cancelled by the kernel when the wall clock jumps, which it also does on resume.
    #[derive(Debug)]
    pub(super) struct SystemAlarm {
        due: AsyncFd<OwnedFd>,
        jump: AsyncFd<OwnedFd>,
    }

    impl SystemAlarm {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
            let due = register(timerfd_create(TimerfdClockId::Boottime, flags)?)?;
            let jump = register(timerfd_create(TimerfdClockId::Realtime, flags)?)?;
            watch_for_jumps(&jump)?;
            Ok(Self { due, jump })
        }
    }

    #[expect(unsafe_code, reason = "tokio cannot see that an `OwnedFd` stays what it is")]
    fn register(timer: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: an `OwnedFd` is open and names the same timer until it is dropped with its `AsyncFd`.
        Ok(unsafe { AsyncFd::register(timer) }?)
    }

    /// Arms a timer for the end of time, so that only a jump ends it.
    fn watch_for_jumps(timer: &AsyncFd<OwnedFd>) -> io::Result<()> {
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(timer, flags, &once(Timespec { tv_sec: i64::MAX / 4, tv_nsec: 0 }))?;
        Ok(())
    }

    fn once(at: Timespec) -> Itimerspec {
        Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at }
    }

    impl Alarm for SystemAlarm {
        fn set(&mut self, at: Option<Steady>) -> io::Result<()> {
            // All zero would disarm the timer.
            let at = at.map_or(Duration::ZERO, |at| at.0.max(Duration::from_nanos(1)));
            let at = Timespec {
                tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX / 4),
                tv_nsec: i64::from(at.subsec_nanos()),
            };
            timerfd_settime(&self.due, TimerfdTimerFlags::ABSTIME, &once(at))?;
            Ok(())
        }

        fn poll_ring(&mut self, cx: &mut Context<'_>) -> Poll<Ring> {
            if poll_timer(&self.due, cx).is_ready() {
                return Poll::Ready(Ring::Due);
            }
            ready!(poll_timer(&self.jump, cx));
            // Without this the alarm would ring for ever; with no timer there is just no notice of jumps.
            let _armed = watch_for_jumps(&self.jump).is_ok();
            Poll::Ready(Ring::Jump)
        }
    }

    /// Waits until a timer has expired or was cancelled, and takes note of it.
    fn poll_timer(timer: &AsyncFd<OwnedFd>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Ok(mut guard) = ready!(timer.poll_read_ready(cx)) else { return Poll::Pending };
            match rustix::io::read(timer.get_ref(), &mut [0_u8; 8]) {
                Err(Errno::AGAIN) => guard.clear_ready(),
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use tokio::time::{Instant, Sleep, sleep};

    use super::{Alarm, Ring, Steady};

    /// How often a sleep is interrupted to see whether the machine slept, too.
    const LOOK_EVERY: Duration = Duration::from_secs(30);
    /// The two clocks differ by more than this only after a sleep.
    const SLEPT: Duration = Duration::from_secs(2);

    #[cfg(unix)]
    pub(super) fn steady() -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        // On macOS this clock counts sleep, unlike `Instant`.
        let now = clock_gettime(ClockId::Monotonic);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    #[cfg(windows)]
    pub(super) fn steady() -> Duration {
        // The performance counter behind `Instant` counts sleep:
        // https://learn.microsoft.com/windows/win32/api/profileapi/nf-profileapi-queryperformancecounter
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed()
    }

    /// A timer of the runtime, which may stand still while the machine sleeps: looked at twice a minute.
    #[derive(Debug)]
    pub(super) struct SystemAlarm {
        at: Option<Steady>,
        slice: Option<(Pin<Box<Sleep>>, Instant, Duration)>,
    }

    impl SystemAlarm {
        #[expect(clippy::unnecessary_wraps, reason = "the same signature as on Linux")]
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self { at: None, slice: None })
        }

        fn next_slice(&mut self) {
            let wait = self.at.map(|at| at.since(Steady(steady())).min(LOOK_EVERY));
            self.slice = wait.map(|wait| (Box::pin(sleep(wait)), Instant::now(), steady()));
        }
    }

    impl Alarm for SystemAlarm {
        fn set(&mut self, at: Option<Steady>) -> io::Result<()> {
            self.at = at;
            self.next_slice();
            Ok(())
        }

        fn poll_ring(&mut self, cx: &mut Context<'_>) -> Poll<Ring> {
            loop {
                let Some((timer, began, began_steady)) = &mut self.slice else { return Poll::Pending };
                ready!(timer.as_mut().poll(cx));
                let slept = steady().saturating_sub(*began_steady).saturating_sub(began.elapsed()) > SLEPT;
                let due = self.at.is_some_and(|at| at.0 <= steady());
                if due {
                    return Poll::Ready(Ring::Due);
                }
                self.next_slice();
                if slept {
                    return Poll::Ready(Ring::Jump);
                }
            }
        }
    }
}
