//! Drift: what happens to a workload that was ready and that nobody here asked for.

mod lookout;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::workload::Snapshot;
use super::{FIELD_MANAGER, Pace, RolloutState, Trouble};

/// Something that happened to a workload which was ready, and that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// It lost its availability.
    Fell {
        /// Available replicas.
        available: i32,
        /// Wanted replicas.
        desired: i32,
        /// Why, as far as pods tell.
        troubles: Vec<Trouble>,
    },
    /// It has all its replicas again after [`Drift::Fell`].
    Recovered {
        /// Available replicas.
        available: i32,
        /// How long it was down.
        after: SignedDuration,
    },
    /// Somebody else scaled it.
    Scaled {
        /// Replicas before.
        from: i32,
        /// Replicas now.
        to: i32,
        /// Who, if the object tells.
        by: Option<String>,
    },
    /// The object is gone.
    Deleted,
}

/// A fall that was told by a process before this one, and whose recovery was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fallen {
    /// Replicas that were wanted.
    pub desired: i32,
    /// When it fell.
    pub since: Timestamp,
}

/// Field manager of `HorizontalPodAutoscaler`s: moving replicas between two numbers above zero is their work.
const AUTOSCALER: &str = "kube-controller-manager";

/// What one look at the object tells about drift.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sight {
    Absent,
    Present(Shape),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    desired: i32,
    available: i32,
    /// As kubectl computes it.
    complete: bool,
    /// A rollout that has passed its own deadline.
    stalled: bool,
    /// Whether a rollout has such a deadline.
    has_deadline: bool,
    /// Replicas of the newest template.
    updated: i32,
    generation: i64,
    /// Last writer of the replicas.
    by: Option<String>,
}

impl From<&Snapshot> for Shape {
    fn from(snapshot: &Snapshot) -> Self {
        let workload = &snapshot.workload;
        Self {
            desired: workload.desired,
            available: workload.available,
            complete: workload.rollout == RolloutState::Complete,
            stalled: workload.rollout == RolloutState::DeadlineExceeded,
            has_deadline: snapshot.tells_stall,
            updated: snapshot.updated,
            generation: workload.version.generation,
            by: workload.scaled_by.as_ref().map(|writer| writer.manager.clone()),
        }
    }
}

impl Shape {
    fn is_up(&self) -> bool {
        self.complete && self.available >= self.desired
    }

    fn is_short(&self) -> bool {
        self.available < self.desired
    }

    fn is_scaled_by_its_owner(&self, from: i32) -> bool {
        match self.by.as_deref() {
            Some(FIELD_MANAGER) => true,
            Some(AUTOSCALER) => from > 0 && self.desired > 0,
            _ => false,
        }
    }

    fn settled(&self) -> State {
        if self.is_up() { State::Up { desired: self.desired, generation: self.generation } } else { State::New }
    }

    /// What somebody's change of the template begins, or carries on.
    fn rolling(&self, now: Timestamp, stall: Duration) -> State {
        let stalls = if self.has_deadline { None } else { now.checked_add(stall).ok() };
        State::Rolling { desired: self.desired, generation: self.generation, updated: self.updated, stalls }
    }

    fn fell(&self) -> Drift {
        Drift::Fell { available: self.available, desired: self.desired, troubles: Vec::new() }
    }
}

/// What is remembered between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not yet seen ready: nothing that it does is news.
    New,
    /// Ready.
    Up { desired: i32, generation: i64 },
    /// Somebody changed the template: falling short is part of it, until it is done or stalls; when, unless another pod is
    /// replaced or the template is changed again, where its controller does not tell.
    Rolling { desired: i32, generation: i64, updated: i32, stalls: Option<Timestamp> },
    /// Told as fallen. Up again since `up`, if at all; falls until it has been steady are the same fall.
    Down { desired: i32, since: Timestamp, up: Option<Timestamp> },
    /// Deleted, and told so.
    Gone,
}

impl State {
    /// Goes on with an earlier fall, unless other replicas are wanted by now: who changed them, and why, nobody here saw.
    fn resume(fallen: Fallen, sight: &Sight) -> Self {
        match sight {
            Sight::Present(shape) if shape.desired != fallen.desired => Self::New,
            _ => Self::Down { desired: fallen.desired, since: fallen.since, up: None },
        }
    }

    fn desired(self) -> Option<i32> {
        match self {
            Self::Up { desired, .. } | Self::Rolling { desired, .. } | Self::Down { desired, .. } => Some(desired),
            Self::New | Self::Gone => None,
        }
    }

    /// When it must be looked at again even if nothing changes.
    fn due(self, steady: Duration) -> Option<Timestamp> {
        match self {
            Self::Down { up: Some(up), .. } => up.checked_add(steady).ok(),
            Self::Rolling { stalls, .. } => stalls,
            _ => None,
        }
    }
}

/// Decides what a look means. `quiet`: Pilothouse itself is at work on the target and tells what happens.
fn decide(state: State, sight: &Sight, quiet: bool, now: Timestamp, pace: &Pace) -> (State, Option<Drift>) {
    let shape = match sight {
        Sight::Present(shape) => shape,
        Sight::Absent => {
            return if state.desired().is_some() { (State::Gone, Some(Drift::Deleted)) } else { (state, None) };
        }
    };
    let Some(desired) = state.desired() else { return (shape.settled(), None) };
    if shape.desired != desired {
        let is_news = !quiet && !shape.is_scaled_by_its_owner(desired);
        let scaled = Drift::Scaled { from: desired, to: shape.desired, by: shape.by.clone() };
        return (shape.settled(), is_news.then_some(scaled));
    }
    if let State::Down { since, up, .. } = state {
        return stay_down(shape, since, up, now, pace.steady);
    }
    if shape.is_up() || quiet {
        return (shape.settled(), None);
    }
    let down = State::Down { desired, since: now, up: None };
    match state {
        State::Up { generation, .. } if generation != shape.generation => (shape.rolling(now, pace.stall), None),
        State::Up { .. } if shape.is_short() => (down, Some(shape.fell())),
        State::Rolling { generation, updated, .. } if generation != shape.generation || updated < shape.updated => {
            (shape.rolling(now, pace.stall), None)
        }
        State::Rolling { stalls, .. } if shape.stalled || stalls.is_some_and(|stalls| now >= stalls) => {
            if shape.is_short() { (down, Some(shape.fell())) } else { (shape.rolling(now, pace.stall), None) }
        }
        state => (state, None),
    }
}

/// A workload that fell is down until it has been up for long enough.
fn stay_down(
    shape: &Shape,
    since: Timestamp,
    up: Option<Timestamp>,
    now: Timestamp,
    steady: Duration,
) -> (State, Option<Drift>) {
    if !shape.is_up() {
        return (State::Down { desired: shape.desired, since, up: None }, None);
    }
    let up = up.unwrap_or(now);
    if SignedDuration::try_from(steady).is_ok_and(|steady| now.duration_since(up) >= steady) {
        let recovered = Drift::Recovered { available: shape.available, after: up.duration_since(since) };
        return (shape.settled(), Some(recovered));
    }
    (State::Down { desired: shape.desired, since, up: Some(up) }, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A story of one workload: what is seen at which second, and what is told then.
    struct Story {
        state: State,
        told: Vec<(i64, Drift)>,
    }

    impl Story {
        fn begin() -> Self {
            Self { state: State::New, told: Vec::new() }
        }

        fn see(self, second: i64, shape: &Shape) -> Self {
            self.look(second, &Sight::Present(shape.clone()), false)
        }

        fn see_quiet(self, second: i64, shape: &Shape) -> Self {
            self.look(second, &Sight::Present(shape.clone()), true)
        }

        fn look(mut self, second: i64, sight: &Sight, quiet: bool) -> Self {
            let now = Timestamp::from_second(second).unwrap();
            let (state, drift) = decide(self.state, sight, quiet, now, &Pace::default());
            self.state = state;
            self.told.extend(drift.map(|drift| (second, drift)));
            self
        }
    }

    fn up(desired: i32) -> Shape {
        Shape {
            desired,
            available: desired,
            complete: true,
            stalled: false,
            has_deadline: true,
            updated: desired,
            generation: 1,
            by: Some("helm".into()),
        }
    }

    fn short(desired: i32, available: i32) -> Shape {
        Shape { available, complete: false, ..up(desired) }
    }

    fn by(manager: &str, shape: &Shape) -> Shape {
        Shape { by: Some(manager.into()), generation: 2, ..shape.clone() }
    }

    fn fell(available: i32, desired: i32) -> Drift {
        Drift::Fell { available, desired, troubles: vec![] }
    }

    fn recovered(available: i32, seconds: i64) -> Drift {
        Drift::Recovered { available, after: SignedDuration::from_secs(seconds) }
    }

    fn scaled(from: i32, to: i32, by: &str) -> Drift {
        Drift::Scaled { from, to, by: Some(by.into()) }
    }

    #[test]
    fn what_was_never_ready_cannot_fall() {
        let story = Story::begin().see(0, &short(2, 0)).see(5, &short(2, 1)).see(9, &short(2, 0));
        assert_eq!(story.told, []);
    }

    #[test]
    fn a_fall_is_told_at_once_and_a_recovery_when_it_lasts() {
        let story = Story::begin()
            .see(0, &up(2))
            .see(10, &short(2, 1))
            .see(24, &up(2))
            .see(50, &up(2))
            .see(84, &up(2))
            .see(99, &up(2));
        assert_eq!(story.told, [(10, fell(1, 2)), (84, recovered(2, 14))]);
        assert_eq!(story.state.due(Duration::from_mins(1)), None);
    }

    #[test]
    fn flapping_is_one_fall() {
        let mut story = Story::begin().see(0, &up(1));
        for round in 0..10 {
            story = story.see(10 + 40 * round, &short(1, 0)).see(30 + 40 * round, &up(1));
        }
        let due = story.state.due(Duration::from_mins(1)).unwrap().as_second();
        let story = story.see(due, &up(1));
        assert_eq!(story.told, [(10, fell(0, 1)), (450, recovered(1, 380))]);
    }

    #[test]
    fn who_scales_by_hand_is_told_and_who_may_is_not() {
        let told = |from: i32, to: i32, manager: &str| {
            Story::begin()
                .see(0, &up(from))
                .see(10, &by(manager, &short(to, from.min(to))))
                .see(20, &by(manager, &up(to)))
                .told
        };
        assert_eq!(told(1, 3, "kubectl"), [(10, scaled(1, 3, "kubectl"))]);
        assert_eq!(told(2, 0, "kubectl"), [(10, scaled(2, 0, "kubectl"))]);
        assert_eq!(told(0, 1, "kubectl"), [(10, scaled(0, 1, "kubectl"))]);
        assert_eq!(told(2, 0, FIELD_MANAGER), []);
        assert_eq!(told(1, 3, AUTOSCALER), []);
        assert_eq!(told(1, 0, AUTOSCALER), [(10, scaled(1, 0, AUTOSCALER))]);
    }

    #[test]
    fn after_being_scaled_it_must_be_ready_once_before_it_can_fall() {
        let story = Story::begin()
            .see(0, &up(1))
            .see(10, &by("kubectl", &short(3, 1)))
            .see(20, &by("kubectl", &short(3, 2)))
            .see(30, &by("kubectl", &up(3)))
            .see(40, &by("kubectl", &short(3, 2)));
        assert_eq!(story.told, [(10, scaled(1, 3, "kubectl")), (40, fell(2, 3))]);
    }

    #[test]
    fn a_rollout_of_somebody_else_is_no_fall_unless_it_stalls() {
        let rolling = Shape { generation: 2, ..short(1, 0) };
        let story = Story::begin().see(0, &up(1)).see(10, &rolling).see(20, &rolling);
        assert_eq!(story.told, []);
        let done = Shape { generation: 2, ..up(1) };
        assert_eq!(Story { ..story }.see(30, &done).see(40, &rolling).told, [(40, fell(0, 1))]);
        let story = Story::begin().see(0, &up(1)).see(10, &rolling);
        let stalled = Shape { stalled: true, ..rolling };
        assert_eq!(story.see(600, &stalled).see(601, &stalled).told, [(600, fell(0, 1))]);
    }

    #[test]
    fn a_stalled_rollout_whose_old_pods_serve_is_no_fall() {
        let stalled = Shape { stalled: true, generation: 2, complete: false, ..up(1) };
        assert_eq!(Story::begin().see(0, &up(1)).see(10, &stalled).see(600, &stalled).told, []);
    }

    /// A StatefulSet of two during the rollout of this generation.
    fn replacing(generation: i64, updated: i32, available: i32) -> Shape {
        Shape { has_deadline: false, generation, updated, ..short(2, available) }
    }

    #[test]
    fn a_rollout_without_a_deadline_of_its_own_is_a_fall_when_no_pod_is_replaced_for_long() {
        let begun = || Story::begin().see(0, &up(2)).see(10, &replacing(2, 0, 1)).see(20, &replacing(2, 1, 1));
        assert_eq!(begun().state.due(Duration::from_mins(1)).unwrap().as_second(), 620, "the one replaced is slow");
        let story = begun().see(619, &replacing(2, 1, 1)).see(620, &replacing(2, 1, 1)).see(9000, &replacing(2, 1, 1));
        assert_eq!(story.told, [(620, fell(1, 2))], "once");
        let done = Shape { generation: 3, ..up(2) };
        let story = story.see(9010, &replacing(3, 1, 1)).see(9020, &done).see(9080, &done);
        assert_eq!(story.told[1..], [(9080, recovered(2, 8400))]);
    }

    #[test]
    fn a_rollout_that_goes_on_or_is_tried_again_is_no_fall() {
        let begun = || Story::begin().see(0, &up(2)).see(10, &replacing(2, 1, 1));
        let story = begun().see(600, &replacing(2, 2, 1)).see(1199, &replacing(2, 2, 1));
        assert_eq!(story.told, [], "another pod was replaced");
        let story = begun().see(600, &replacing(3, 1, 1)).see(1199, &replacing(3, 1, 1));
        assert_eq!(story.told, [], "the template was changed again");
        let story = begun().see(610, &replacing(2, 1, 2));
        assert_eq!(story.told, [], "all of its pods serve");
        assert!(
            story.state.due(Duration::from_mins(1)).unwrap().as_second() > 610,
            "it is not looked at without a rest"
        );
    }

    #[test]
    fn own_work_is_not_told() {
        let story = Story::begin().see(0, &up(1)).see_quiet(10, &short(1, 0)).see(20, &short(1, 0)).see(30, &up(1));
        assert_eq!(story.told, [], "still on its way after the quiet has ended");
        assert_eq!(story.see(40, &short(1, 0)).told, [(40, fell(0, 1))]);
    }

    #[test]
    fn a_deletion_is_told_once_and_a_new_object_begins_anew() {
        let story = Story::begin().look(0, &Sight::Absent, false);
        assert_eq!(story.told, [], "it never was");
        let story = story.see(5, &up(1)).look(10, &Sight::Absent, false).look(20, &Sight::Absent, false);
        assert_eq!(story.told, [(10, Drift::Deleted)]);
        let story = story.see(30, &short(1, 0)).see(40, &up(1)).see(50, &short(1, 0));
        assert_eq!(story.told, [(10, Drift::Deleted), (50, fell(0, 1))]);
    }

    #[test]
    fn a_fall_before_a_restart_goes_on_unless_other_replicas_are_wanted_by_now() {
        let resumed = |sight: &Sight| {
            let fallen = Fallen { desired: 1, since: Timestamp::from_second(10).unwrap() };
            Story { state: State::resume(fallen, sight), told: vec![] }.look(30, sight, false)
        };
        let story = resumed(&Sight::Present(short(1, 0))).see(40, &short(1, 0)).see(50, &up(1)).see(110, &up(1));
        assert_eq!(story.told, [(110, recovered(1, 40))]);
        assert_eq!(resumed(&Sight::Present(up(1))).see(90, &up(1)).told, [(90, recovered(1, 20))]);
        assert_eq!(resumed(&Sight::Absent).told, [(30, Drift::Deleted)]);
        let scaled = resumed(&Sight::Present(up(3)));
        assert_eq!(scaled.see(120, &up(3)).see(130, &short(3, 1)).told, [(130, fell(1, 3))]);
    }

    #[test]
    fn what_is_down_and_is_stopped_here_is_not_told_again() {
        let story = Story::begin()
            .see(0, &up(1))
            .see(10, &short(1, 0))
            .see_quiet(20, &by(FIELD_MANAGER, &up(0)))
            .see(90, &by(FIELD_MANAGER, &up(0)));
        assert_eq!(story.told, [(10, fell(0, 1))]);
    }
}
