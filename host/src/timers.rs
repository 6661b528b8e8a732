//! Timers that clients set: each tells by an event that it went off. They end with the server, as EvoStream's do.
//!
//! A number of seconds goes off again and again; a time of day, or of a date, goes off once. Times are those of the
//! server's time zone. They are waited for by the wall clock, so that setting the clock sets them as well.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{Timestamp, Zoned, civil::DateTime, civil::Time, tz::TimeZone};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    events::{Event, Events},
    sync::lock,
};

/// Timers at the same time.
const MAX_TIMERS: usize = 1000;
/// Longest period, in seconds.
const MAX_PERIOD: u64 = 86_399;
/// How often the wall clock is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// When a timer goes off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// Every so many seconds, 1 to 86,399.
    Every(u64),
    /// At a time today, or tomorrow if that is past.
    TimeOfDay(Time),
    /// At a date's time.
    At(DateTime),
}

/// Why a timer can't be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimerError {
    #[error("`{0}` is neither 1 to {MAX_PERIOD} seconds nor a time like 07:30:00 or 2030-10-21T07:30:00")]
    Syntax(String),
    #[error("{0} is past")]
    Past(String),
    #[error("{0} does not exist here")]
    NoSuchTime(String),
    #[error("there are {MAX_TIMERS} timers, and no more are allowed")]
    TooMany,
}

impl FromStr for When {
    type Err = TimerError;

    fn from_str(text: &str) -> Result<Self, TimerError> {
        let syntax = || TimerError::Syntax(text.chars().take(80).collect());
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // Nothing but the two forms: the library reads many more.
        let like = |form: &str| {
            text.len() == form.len()
                && text
                    .bytes()
                    .zip(form.bytes())
                    .all(|(b, f)| if f == b'0' { b.is_ascii_digit() } else { b == f })
        };
        if digits(text) && !text.starts_with('0') {
            let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_PERIOD);
            return seconds.map(When::Every).ok_or_else(syntax);
        }
        if like("00:00:00") {
            return text.parse().map(When::TimeOfDay).map_err(|_| syntax());
        }
        if like("0000-00-00T00:00:00") {
            return text.parse().map(When::At).map_err(|_| syntax());
        }
        Err(syntax())
    }
}

/// A timer as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    pub id: u64,
    /// How often it went off.
    pub trigger_count: u64,
    when: Armed,
    /// The `_name` variables, underscore included.
    pub user: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Armed {
    Every(u64),
    At(Zoned),
}

impl Timer {
    /// As replies and events show it.
    pub fn to_json(&self) -> Value {
        let mut value = json!({ "timerId": self.id, "triggerCount": self.trigger_count });
        value["value"] = match &self.when {
            Armed::Every(seconds) => json!(seconds),
            Armed::At(at) => json!(at.strftime("%Y-%m-%dT%H:%M:%S.000").to_string()),
        };
        for (name, user) in &self.user {
            value[name] = json!(user);
        }
        value
    }
}

/// Where the time comes from.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// All timers. Clones share them.
#[derive(Clone)]
pub struct Timers(Arc<Inner>);

struct Inner {
    events: Events,
    clock: Clock,
    zone: TimeZone,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    /// With the tasks that wait for them.
    armed: BTreeMap<u64, (Timer, Option<AbortOnDropHandle<()>>)>,
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").finish_non_exhaustive()
    }
}

impl Timers {
    pub fn new(events: Events) -> Self {
        Self::with_clock(events, Arc::new(Timestamp::now), TimeZone::system())
    }

    fn with_clock(events: Events, clock: Clock, zone: TimeZone) -> Self {
        Self(Arc::new(Inner { events, clock, zone, state: Mutex::default() }))
    }

    /// Sets a timer; it runs in a task.
    pub fn set(&self, when: When, user: BTreeMap<String, String>) -> Result<Timer, TimerError> {
        let when = self.arm(when)?;
        let mut state = lock(&self.0.state);
        if state.armed.len() >= MAX_TIMERS {
            return Err(TimerError::TooMany);
        }
        state.last_id += 1;
        let timer = Timer { id: state.last_id, trigger_count: 0, when: when.clone(), user };
        self.tell("timerCreated", &timer);
        state.armed.insert(timer.id, (timer.clone(), None));
        let task = tokio::spawn(self.clone().run(timer.id, when));
        if let Some((_, handle)) = state.armed.get_mut(&timer.id) {
            *handle = Some(AbortOnDropHandle::new(task));
        }
        Ok(timer)
    }

    /// All timers, by id.
    pub fn list(&self) -> Vec<Timer> {
        lock(&self.0.state).armed.values().map(|(timer, _)| timer.clone()).collect()
    }

    /// Removes a timer, which does not go off any more.
    pub fn remove(&self, id: u64) -> Option<Timer> {
        let mut state = lock(&self.0.state);
        let (timer, _) = state.armed.remove(&id)?;
        self.tell("timerClosed", &timer);
        Some(timer)
    }

    fn arm(&self, when: When) -> Result<Armed, TimerError> {
        let now = (self.0.clock)().to_zoned(self.0.zone.clone());
        let here = |time: DateTime| {
            time.to_zoned(self.0.zone.clone()).map_err(|_| TimerError::NoSuchTime(time.to_string()))
        };
        match when {
            When::Every(seconds) => Ok(Armed::Every(seconds)),
            When::At(time) => {
                let at = here(time)?;
                if at <= now { Err(TimerError::Past(time.to_string())) } else { Ok(Armed::At(at)) }
            }
            When::TimeOfDay(time) => {
                let today = here(now.date().to_datetime(time))?;
                if today > now {
                    return Ok(Armed::At(today));
                }
                let tomorrow = now.date().tomorrow().map_err(|_| TimerError::Past(time.to_string()))?;
                here(tomorrow.to_datetime(time)).map(Armed::At)
            }
        }
    }

    async fn run(self, id: u64, when: Armed) {
        match when {
            Armed::Every(seconds) => {
                let period = Duration::from_secs(seconds);
                let start = tokio::time::Instant::now() + period;
                let mut ticks = tokio::time::interval_at(start, period);
                // A machine that slept does not catch up.
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
                loop {
                    ticks.tick().await;
                    self.triggered(id, false);
                }
            }
            Armed::At(at) => {
                while let Ok(left) = Duration::try_from(at.timestamp().duration_since((self.0.clock)()))
                    && !left.is_zero()
                {
                    tokio::time::sleep(left.min(LOOK)).await;
                }
                self.triggered(id, true);
            }
        }
    }

    fn triggered(&self, id: u64, last: bool) {
        let mut state = lock(&self.0.state);
        let Some((timer, _)) = state.armed.get_mut(&id) else { return };
        timer.trigger_count += 1;
        self.tell("timerTriggered", timer);
        if last && let Some((timer, task)) = state.armed.remove(&id) {
            self.tell("timerClosed", &timer);
            // This task, which ends by itself.
            task.map(AbortOnDropHandle::detach);
        }
    }

    fn tell(&self, kind: &'static str, timer: &Timer) {
        self.0.events.send(Event::new(kind, timer.to_json()));
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// Timers whose clock stands at that time when simulated time begins, and what they tell.
    fn timers(
        now: &str,
        zone: &str,
    ) -> (Timers, tokio::sync::broadcast::Receiver<Arc<crate::events::Published>>) {
        let (begun, now) = (Instant::now(), now.parse::<Timestamp>().unwrap());
        let events = Events::default();
        let told = events.subscribe();
        let clock = Arc::new(move || now + begun.elapsed());
        (Timers::with_clock(events, clock, TimeZone::get(zone).unwrap()), told)
    }

    fn set(timers: &Timers, value: &str) -> Result<Timer, TimerError> {
        timers.set(value.parse()?, BTreeMap::from([("_who".to_owned(), "me".to_owned())]))
    }

    #[test]
    fn three_forms_and_no_other() {
        let is = |text: &str| text.parse::<When>();
        assert_eq!((is("1"), is("86399")), (Ok(When::Every(1)), Ok(When::Every(86_399))));
        assert_eq!(is("07:30:00"), Ok(When::TimeOfDay(jiff::civil::time(7, 30, 0, 0))));
        assert_eq!(is("2030-10-21T07:30:00"), Ok(When::At(jiff::civil::date(2030, 10, 21).at(7, 30, 0, 0))));
        for bad in [
            "",
            "0",
            "01",
            "-1",
            "1.5",
            "86400",
            "99999999999999999999",
            "7:30:00",
            "24:00:00",
            "07:60:00",
            "07:30",
            "2030-02-30T00:00:00",
            "2030-10-21 07:30:00",
            "2030-10-21T07:30:00Z",
            "20301021T073000",
            "x",
            "０７:30:00",
        ] {
            assert_eq!(is(bad), Err(TimerError::Syntax(bad.into())), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn seconds_go_off_again_and_again_until_removed() {
        let (timers, mut told) = timers("2026-01-01T00:00:00Z", "UTC");
        let begun = Instant::now();
        let timer = set(&timers, "10").unwrap();
        assert_eq!(timer.to_json(), json!({ "_who": "me", "timerId": 1, "triggerCount": 0, "value": 10 }));
        assert_eq!(told.recv().await.unwrap().kind, "timerCreated");
        for i in 1..=100 {
            let event = told.recv().await.unwrap();
            let event: Value = serde_json::from_str(&event.json).unwrap();
            assert_eq!(
                (&event["type"], &event["payload"]["triggerCount"]),
                (&"timerTriggered".into(), &i.into())
            );
            assert_eq!(event["payload"]["_who"], "me");
            assert_eq!(begun.elapsed().as_secs(), 10 * i);
        }
        assert_eq!(timers.list()[0].trigger_count, 100);
        assert_eq!(timers.remove(1).unwrap().trigger_count, 100);
        assert_eq!(told.recv().await.unwrap().kind, "timerClosed");
        assert!(timers.remove(1).is_none() && timers.list().is_empty());
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(told.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_goes_off_once_in_the_server_s_zone() {
        // 08:00 in Berlin, on the day before its clocks go forward at 02:00.
        for (value, seconds, shown) in [
            ("08:00:01", 1, "2026-03-28T08:00:01.000"),
            ("08:00:00", 23 * 3600, "2026-03-29T08:00:00.000"),
            ("07:30:00", 23 * 3600 - 1800, "2026-03-29T07:30:00.000"),
            ("2026-03-29T08:00:00", 23 * 3600, "2026-03-29T08:00:00.000"),
        ] {
            let (timers, mut told) = timers("2026-03-28T07:00:00Z", "Europe/Berlin");
            let begun = Instant::now();
            assert_eq!(set(&timers, value).unwrap().to_json()["value"], shown, "{value}");
            let mut kinds = Vec::new();
            for _ in 0..3 {
                kinds.push(told.recv().await.unwrap().kind);
            }
            assert_eq!(kinds, ["timerCreated", "timerTriggered", "timerClosed"]);
            assert_eq!(begun.elapsed().as_secs(), seconds, "{value}");
            assert!(timers.list().is_empty());
        }
        let (timers, _) = timers("2026-03-28T07:00:00Z", "Europe/Berlin");
        assert!(matches!(set(&timers, "2026-03-28T08:00:00"), Err(TimerError::Past(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_an_end_to_timers() {
        let (timers, _told) = timers("2026-01-01T00:00:00Z", "UTC");
        (0..MAX_TIMERS).for_each(|_| drop(set(&timers, "60").unwrap()));
        assert_eq!(set(&timers, "60"), Err(TimerError::TooMany));
        timers.remove(1).unwrap();
        set(&timers, "60").unwrap();
    }
}
