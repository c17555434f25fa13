//! Weeks that never were: how people burn a weekly limit, and what a watcher gets to see of it.
//!
//! A person has a usual demand, working hours, weekends and a way to work in bursts; weeks and days differ from the usual.
//! What is seen is one sample in about five minutes, rounded down to a whole per cent, with jitter in the announced end
//! and holes where the provider refused or nobody listened. Now and then the provider gives a part back, resets early or
//! puts the end off. Everything follows from the seed.

use jiff::{SignedDuration, Timestamp};
use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Exp, Gamma, LogNormal, Normal};

use super::bucket::Source;
use super::cycle::{Sample, Shape};

/// Steps of five minutes in a day.
const STEPS: usize = 288;
/// Length of a step.
const STEP: SignedDuration = SignedDuration::from_mins(5);
/// Length of a window.
pub const WEEK: SignedDuration = SignedDuration::from_hours(168);

/// How often the provider and the network spoil a week, each a probability per week.
#[derive(Debug, Clone, PartialEq)]
pub struct Mishaps {
    /// A part of what was used is given back, the end stays.
    pub refund: f64,
    /// The window is reset before its time and a new end announced.
    pub early: f64,
    /// The end is put off by up to half a day.
    pub drift: f64,
    /// Nobody listens for 3 to 20 hours.
    pub outage: f64,
    /// The provider refuses for an hour or more, so many times a week on average.
    pub storms: f64,
}

impl Default for Mishaps {
    fn default() -> Self {
        Self { refund: 0.05, early: 0.02, drift: 0.05, outage: 0.1, storms: 2.0 }
    }
}

impl Mishaps {
    /// Nothing goes wrong.
    pub const NONE: Self = Self { refund: 0.0, early: 0.0, drift: 0.0, outage: 0.0, storms: 0.0 };
}

/// A window as it really was.
#[derive(Debug, Clone, PartialEq)]
pub struct TrueWindow {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// When it was used up, if it was.
    pub exhausted_at: Option<Timestamp>,
    /// What was wanted of it, in per cent of the limit: more than 100 where it ran out.
    pub demand: f64,
    /// How it ended.
    pub shape: Shape,
}

/// What happened and what was seen of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// What was seen, in order.
    pub samples: Vec<Sample>,
    /// The windows that ended, in order.
    pub windows: Vec<TrueWindow>,
}

/// How somebody works. All of it is drawn once for a person.
struct Person {
    /// Percentage points that a usual week wants.
    demand: f64,
    /// What a day of the weekend wants, as a part of a workday.
    weekend: f64,
    /// Hour of the day when work begins.
    wake: f64,
    /// Hours that a workday spans.
    span: f64,
    /// Mean hours of a burst, and of the pause after it.
    burst: f64,
    pause: f64,
}

impl Person {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self {
            demand: log_normal(rng, 118.0, 0.4),
            weekend: rng.random_range(0.1..1.0),
            wake: normal(rng, 9.0, 1.5).clamp(4.0, 14.0),
            span: normal(rng, 10.0, 2.0).clamp(3.0, 14.0),
            burst: rng.random_range(0.5..2.5),
            pause: rng.random_range(0.5..3.0),
        }
    }

    /// What each step of a day wants. `scale`: how much of the usual this week wants.
    fn day(&self, rng: &mut ChaCha8Rng, weekday: u32, scale: f64) -> [f64; STEPS] {
        let mut day = [0.0; STEPS];
        let weight = if weekday >= 5 { self.weekend } else { 1.0 };
        // One day in five is off, the others make up for it. A log-normal of median m has the mean m·e^(σ²/2).
        let intensity = if rng.random_bool(0.2) { 0.0 } else { log_normal(rng, 0.755, 0.75) / 0.8 };
        let total = self.demand * scale * weight / (5.0 + 2.0 * self.weekend) * intensity;
        let end = self.wake + self.span + normal(rng, 0.0, 1.0);
        let mut time = self.wake + normal(rng, 0.0, 1.0);
        let mut sum = 0.0;
        while time < end {
            let until = time + exponential(rng, self.burst);
            while time < until.min(end) {
                let share = Gamma::new(0.7, 1.0).map_or(1.0, |gamma| gamma.sample(rng));
                if let Some(step) = step_of(time).and_then(|step| day.get_mut(step)) {
                    *step += share;
                    sum += share;
                }
                time += 1.0 / 12.0;
            }
            time = time.max(until) + exponential(rng, self.pause);
        }
        if sum > 0.0 {
            for step in &mut day {
                *step *= total / sum;
            }
        }
        day
    }
}

/// Simulates one person for so many windows, and the begin of one more.
#[must_use]
pub fn simulate(seed: u64, weeks: u32, mishaps: &Mishaps) -> Recording {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let person = Person::draw(&mut rng);
    // A Monday, and a reset on any hour of any day after it.
    let monday = Timestamp::from_second(1_767_571_200).unwrap_or(Timestamp::UNIX_EPOCH);
    let begin = monday + SignedDuration::from_mins(10 * rng.random_range(0..1008));
    let mut world = World::begin(begin, mishaps, &mut rng);
    let mut time = monday;
    let (mut scale, mut day) = (1.0, [0.0; STEPS]);
    for count in 0_u32.. {
        let (day_count, step) = (count / 288, count % 288);
        if step == 0 {
            if day_count % 7 == 0 {
                scale = log_normal(&mut rng, 0.923, 0.4);
            }
            day = person.day(&mut rng, day_count % 7, scale);
        }
        if time >= begin {
            world.step(time, day.get(step as usize).copied().unwrap_or_default(), mishaps, &mut rng);
        }
        if world.recording.windows.len() >= weeks as usize && time >= world.window.started_at + STEP * 24 {
            break;
        }
        time += STEP;
    }
    world.recording
}

/// The provider, and the watcher in front of it.
struct World {
    window: TrueWindow,
    used: f64,
    poll: Timestamp,
    refund: Option<Timestamp>,
    early: Option<Timestamp>,
    drift: Option<Timestamp>,
    outage: Option<Timestamp>,
    recording: Recording,
}

impl World {
    fn begin(at: Timestamp, mishaps: &Mishaps, rng: &mut ChaCha8Rng) -> Self {
        let mut world = Self {
            window: window(at),
            used: 0.0,
            poll: at + SignedDuration::from_secs(rng.random_range(1..300)),
            refund: None,
            early: None,
            drift: None,
            outage: None,
            recording: Recording { samples: Vec::new(), windows: Vec::new() },
        };
        world.plan(mishaps, rng);
        world
    }

    /// Draws what will go wrong in the window that begins.
    fn plan(&mut self, mishaps: &Mishaps, rng: &mut ChaCha8Rng) {
        let start = self.window.started_at;
        let mut draw = |chance: f64| {
            rng.random_bool(chance).then(|| start + SignedDuration::from_mins(rng.random_range(720..9000)))
        };
        self.refund = draw(mishaps.refund);
        self.early = draw(mishaps.early);
        self.drift = draw(mishaps.drift);
        self.outage = draw(mishaps.outage);
    }

    fn step(&mut self, time: Timestamp, wanted: f64, mishaps: &Mishaps, rng: &mut ChaCha8Rng) {
        if time >= self.window.ended_at {
            self.turn(self.window.ended_at, Shape::Scheduled, window(self.window.ended_at));
            self.used = 0.0;
            self.plan(mishaps, rng);
        }
        if self.drift.take_if(|at| time >= *at).is_some() {
            self.window.ended_at += STEP * rng.random_range(12..144);
        }
        if self.refund.take_if(|at| time >= *at).is_some() && self.used >= 15.0 {
            let next = TrueWindow { ended_at: self.window.ended_at, ..window(time) };
            self.turn(time, Shape::EarlyUnchanged, next);
            self.used *= rng.random_range(0.0..0.5);
        }
        if self.early.take_if(|at| time >= *at).is_some() && self.used >= 7.0 {
            self.turn(time, Shape::EarlyMoved, window(time));
            self.used = 0.0;
        }
        self.used += wanted;
        self.window.demand += wanted;
        if self.used >= 100.0 {
            self.used = 100.0;
            self.window.exhausted_at.get_or_insert(time);
        }
        while self.poll < time + STEP {
            self.look(rng);
            self.poll += SignedDuration::from_secs(rng.random_range(270..=330));
            if rng.random_bool(mishaps.storms / 2016.0) {
                self.poll += SignedDuration::from_secs(rng.random_range(3600..5400));
            }
            if self.outage.take_if(|at| time >= *at).is_some() {
                self.poll += SignedDuration::from_mins(rng.random_range(180..1200));
            }
        }
    }

    fn look(&mut self, rng: &mut ChaCha8Rng) {
        if self.poll < self.window.started_at {
            return;
        }
        let jitter = SignedDuration::from_millis(rng.random_range(-1900..1900));
        let ends_at = self.window.ended_at + jitter;
        self.recording.samples.push(Sample {
            at: self.poll,
            percent: self.used.floor(),
            resets_at: Some(ends_at),
            source: Source::AnthropicOauth,
            owner: None,
            amount: None,
        });
    }

    fn turn(&mut self, at: Timestamp, shape: Shape, next: TrueWindow) {
        let old = std::mem::replace(&mut self.window, next);
        self.recording.windows.push(TrueWindow { ended_at: at, shape, ..old });
    }
}

fn window(started_at: Timestamp) -> TrueWindow {
    TrueWindow { started_at, ended_at: started_at + WEEK, exhausted_at: None, demand: 0.0, shape: Shape::Scheduled }
}

fn log_normal(rng: &mut ChaCha8Rng, median: f64, deviation: f64) -> f64 {
    LogNormal::new(0.0, deviation).map_or(median, |law| median * law.sample(rng))
}

fn normal(rng: &mut ChaCha8Rng, mean: f64, deviation: f64) -> f64 {
    Normal::new(mean, deviation).map_or(mean, |law| law.sample(rng))
}

fn exponential(rng: &mut ChaCha8Rng, mean: f64) -> f64 {
    Exp::new(1.0 / mean).map_or(mean, |law| law.sample(rng))
}

/// The step of the day in which an hour lies; `None` after midnight.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an hour of a day, times twelve")]
fn step_of(hour: f64) -> Option<usize> {
    (0.0..24.0).contains(&hour).then_some((hour * 12.0) as usize)
}
