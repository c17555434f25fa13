use proptest::prelude::*;

use super::*;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const WEEK: i64 = 168 * 60;

/// So many minutes after the window began.
fn minute(minute: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
}

fn sample(at: i64, percent: f64, resets_at: Option<i64>) -> Sample {
    let resets_at = resets_at.map(minute);
    Sample { at: minute(at), percent, resets_at, source: Source::AnthropicOauth, owner: None, amount: None }
}

fn push(at: i64, percent: f64, resets_at: i64) -> Sample {
    Sample { source: Source::Push, ..sample(at, percent, Some(resets_at)) }
}

fn frame() -> Frame {
    Frame { length: Some(SignedDuration::from_mins(WEEK)), ..Frame::default() }
}

/// Feeds samples and gives the steps after the first.
fn steps(samples: &[Sample]) -> (Cycle, Vec<Step>) {
    let mut cycle = Cycle::found(&samples[0], &frame());
    let steps = samples[1..].iter().map(|sample| cycle.take(sample, &frame())).collect();
    (cycle, steps)
}

/// The one turn that the samples end with.
fn turn(samples: &[Sample]) -> (Turn, Cycle) {
    let (cycle, steps) = steps(samples);
    let turns: Vec<_> = steps.iter().filter(|step| matches!(step, Step::Turned { .. })).collect();
    let [Step::Turned { turn, confirmed: true, .. }] = turns[..] else { panic!("{steps:#?}") };
    (*turn, cycle)
}

#[test]
fn a_scheduled_reset_is_told_with_its_time() {
    let next = Some(2 * WEEK);
    let (turn, cycle) =
        turn(&[sample(WEEK - 3, 60.0, Some(WEEK)), sample(WEEK + 2, 0.0, next), sample(WEEK + 7, 1.0, next)]);
    assert_eq!((turn.shape, turn.when), (Shape::Scheduled, When::At(minute(WEEK))));
    assert_eq!((cycle.window.started_at, cycle.window.ends_at), (minute(WEEK), Some(minute(2 * WEEK))));
    assert!((cycle.window.latest().percent - 1.0).abs() < 1e-9);
}

#[test]
fn a_rolling_window_that_waits_for_its_first_use_begins_with_it() {
    let (mut turned, cycle) =
        turn(&[sample(WEEK - 3, 60.0, Some(WEEK)), sample(WEEK + 2, 0.0, None), sample(WEEK + 7, 0.0, None)]);
    assert_eq!((turned.shape, turned.when), (Shape::Scheduled, When::At(minute(WEEK))));
    let mut waiting = cycle;
    let step = waiting.take(&sample(WEEK + 200, 3.0, Some(WEEK + 190 + WEEK)), &frame());
    assert_eq!(step, Step::GoesOn(Meaning::Anchored));
    assert_eq!(waiting.window.started_at, minute(WEEK + 190));
    // The same, seen only when it has been used again.
    let next = Some(2 * WEEK + 190);
    (turned, waiting) =
        turn(&[sample(WEEK - 3, 60.0, Some(WEEK)), sample(WEEK + 200, 3.0, next), sample(WEEK + 205, 3.0, next)]);
    assert_eq!((turned.shape, turned.when), (Shape::Offline, When::At(minute(WEEK))));
    assert_eq!(waiting.window.started_at, minute(WEEK + 190));
}

#[test]
fn no_window_begins_after_it_was_seen() {
    let far = Some(WEEK + 1441);
    let (cycle, told) = steps(&[sample(0, 0.0, None), sample(60, 0.0, far), sample(61, 70.0, None)]);
    assert_eq!(told[0], Step::GoesOn(Meaning::Anchored));
    assert_eq!(cycle.window.started_at, minute(60));
}

#[test]
fn a_reset_before_its_time_lies_between_two_samples() {
    let end = Some(WEEK);
    let between = When::Between(minute(100), minute(105));
    for (anchor, shape) in
        [(Some(WEEK + 104), Shape::EarlyMoved), (end, Shape::EarlyUnchanged), (None, Shape::EarlyNull)]
    {
        let (turn, cycle) = turn(&[sample(100, 60.0, end), sample(105, 2.0, anchor), sample(110, 3.0, anchor)]);
        assert_eq!((turn.shape, turn.when), (shape, between));
        assert_eq!(cycle.window.started_at, minute(105));
        assert_eq!(cycle.window.baseline > 0.0, shape != Shape::EarlyMoved);
        assert_eq!(cycle.window.ends_at, anchor.map(minute));
    }
}

#[test]
fn what_is_no_reset_leaves_the_window_alone() {
    let end = Some(WEEK);
    for (second, meaning, ends_at) in [
        (sample(105, 58.0, end), Meaning::Corrected, WEEK),
        (sample(105, 60.0, Some(WEEK + 720)), Meaning::Drifted, WEEK + 720),
        (sample(105, 60.0, Some(WEEK - 720)), Meaning::Drifted, WEEK - 720),
        (sample(105, 61.0, None), Meaning::Same, WEEK),
        (sample(105, 61.0, Some(WEEK + 1)), Meaning::Same, WEEK),
    ] {
        let (cycle, steps) = steps(&[sample(100, 60.0, end), second]);
        assert_eq!(steps, [Step::GoesOn(meaning)]);
        assert_eq!((cycle.window.started_at, cycle.window.ends_at), (minute(0), Some(minute(ends_at))));
    }
}

#[test]
fn a_late_reset_is_told_as_late() {
    let end = Some(WEEK);
    let (turn, cycle) = turn(&[
        sample(WEEK - 2, 60.0, end),
        sample(WEEK + 5, 60.0, end),
        sample(WEEK + 30, 61.0, end),
        sample(WEEK + 35, 0.0, Some(2 * WEEK + 32)),
        sample(WEEK + 40, 0.0, Some(2 * WEEK + 32)),
    ]);
    assert_eq!((turn.shape, turn.when), (Shape::Late, When::Between(minute(WEEK + 30), minute(WEEK + 35))));
    assert_eq!(cycle.window.started_at, minute(WEEK + 32));
}

#[test]
fn an_end_that_is_put_off_when_it_comes_is_no_reset() {
    let (cycle, steps) = steps(&[sample(WEEK - 5, 60.0, Some(WEEK)), sample(WEEK + 1, 60.0, Some(WEEK + 1440))]);
    assert_eq!(steps, [Step::GoesOn(Meaning::Drifted)]);
    assert_eq!(cycle.window.started_at, minute(0));
}

#[test]
fn resets_while_nobody_watched_are_told_when_they_were() {
    let far = Some(4 * WEEK);
    let (scheduled, cycle) = turn(&[
        sample(WEEK - 600, 60.0, Some(WEEK)),
        sample(3 * WEEK + 600, 20.0, far),
        sample(3 * WEEK + 605, 20.0, far),
    ]);
    assert_eq!((scheduled.shape, scheduled.when), (Shape::Offline, When::At(minute(WEEK))));
    assert_eq!(cycle.window.started_at, minute(3 * WEEK));
    let early = Some(2 * WEEK - 300);
    let (early, _) =
        turn(&[sample(WEEK - 600, 60.0, Some(WEEK)), sample(WEEK + 600, 20.0, early), sample(WEEK + 605, 20.0, early)]);
    assert_eq!((early.shape, early.when), (Shape::Offline, When::Between(minute(WEEK - 600), minute(WEEK - 300))));
}

#[test]
fn another_account_closes_the_window_without_a_reset() {
    let theirs = Some(WEEK - 2000);
    let (turned, cycle) = turn(&[sample(3000, 60.0, Some(WEEK)), sample(3005, 9.0, theirs), sample(3010, 9.0, theirs)]);
    assert_eq!((turned.shape, cycle.window.started_at), (Shape::Switched, minute(-1999)), "a minute later");
    let owned = |owner: &str, sample: Sample| Sample { owner: Some(owner.to_owned()), ..sample };
    let (turned, _) = turn(&[
        owned("a", sample(3000, 60.0, Some(WEEK))),
        owned("b", sample(3005, 59.0, Some(WEEK))),
        owned("b", sample(3010, 59.0, Some(WEEK))),
    ]);
    assert_eq!(turned.shape, Shape::Switched);
    // What never resets belongs to somebody, too.
    let once = Frame { reset: Reset::OneTimeExpiry, ..frame() };
    let mut cycle = Cycle::found(&owned("a", sample(0, 60.0, Some(WEEK))), &once);
    assert!(matches!(cycle.take(&owned("b", sample(5, 60.0, Some(WEEK))), &once), Step::Waits(_)));
    assert!(matches!(cycle.take(&owned("b", sample(10, 60.0, Some(WEEK))), &once), Step::Turned { .. }));
    assert!(cycle.window.switched);
}

#[test]
fn where_the_source_says_that_it_is_the_same_account_no_value_makes_it_another() {
    let owned = |sample: Sample| Sample { owner: Some("a".to_owned()), ..sample };
    let later = Some(WEEK + 6 * 1440);
    let (turned, cycle) = turn(&[
        owned(sample(3000, 20.0, Some(WEEK))),
        owned(sample(9000, 40.0, later)),
        owned(sample(9005, 41.0, later)),
    ]);
    assert_eq!((turned.shape, cycle.window.switched), (Shape::EarlyMoved, false));
    let (cycle, told) = steps(&[
        owned(sample(3000, 60.0, Some(WEEK))),
        owned(sample(3005, 9.0, Some(WEEK - 2000))),
        owned(sample(3010, 9.0, Some(WEEK - 2000))),
    ]);
    assert!(!told.iter().any(|step| matches!(step, Step::Turned { .. })), "{told:?} {cycle:?}");
}

#[test]
fn a_source_that_does_not_say_whose_it_is_agrees_and_does_not_contradict() {
    let owned = |owner: &str, sample: Sample| Sample { owner: Some(owner.to_owned()), ..sample };
    let next = Some(2 * WEEK);
    let (turned, _) = turn(&[
        owned("a", sample(WEEK - 5, 60.0, Some(WEEK))),
        owned("a", sample(WEEK + 5, 1.0, next)),
        sample(WEEK + 10, 1.0, next),
    ]);
    assert_eq!(turned.shape, Shape::Scheduled);
    let (turned, _) = turn(&[
        owned("a", sample(3000, 60.0, Some(WEEK))),
        owned("b", sample(3005, 60.0, Some(WEEK))),
        sample(3007, 60.0, Some(WEEK)),
        owned("b", sample(3010, 60.0, Some(WEEK))),
    ]);
    assert_eq!(turned.shape, Shape::Switched);
}

#[test]
fn an_unused_window_whose_old_end_is_still_told_ends_once() {
    let stale = Some(WEEK);
    let samples: Vec<_> = (-1..30).map(|count| sample(WEEK + 5 * count, 0.0, stale)).collect();
    let (cycle, told) = steps(&samples);
    assert_eq!(told.iter().filter(|step| matches!(step, Step::Turned { .. })).count(), 1, "{told:#?}");
    assert_eq!(cycle.window.ends_at, None);
}

#[test]
fn one_sample_proves_nothing() {
    let end = Some(WEEK);
    let glitch = [sample(100, 60.0, end), sample(105, 0.0, end), sample(110, 60.0, end), sample(115, 0.0, end)];
    let (cycle, glitched) = steps(&glitch);
    assert!(!glitched.iter().any(|step| matches!(step, Step::Turned { .. })), "{glitched:#?}");
    assert!((cycle.window.latest().percent - 60.0).abs() < 1e-9);
    let mut close = sample(105, 0.0, end);
    close.at += SignedDuration::from_secs(59);
    let (_, close) = steps(&[sample(100, 60.0, end), sample(105, 0.0, end), close]);
    assert!(matches!(close[..], [Step::Waits(_), Step::Waits(_)]), "{close:#?}");
}

#[test]
fn what_expires_once_never_resets() {
    let once = Frame { reset: Reset::OneTimeExpiry, ..frame() };
    let mut cycle = Cycle::found(&sample(0, 60.0, Some(WEEK)), &once);
    for at in [10, 20, WEEK + 10, WEEK + 20] {
        assert!(matches!(cycle.take(&sample(at, 0.0, Some(2 * WEEK)), &once), Step::GoesOn(_)));
    }
}

#[test]
fn of_pushes_the_fullest_counts_and_none_resets_early() {
    let (cycle, told) =
        steps(&[push(100, 40.0, WEEK), push(101, 30.0, WEEK), push(102, 0.0, WEEK), push(103, 0.0, WEEK + 103)]);
    assert!(told.iter().all(|step| matches!(step, Step::GoesOn(_) | Step::Ignored)), "{told:#?}");
    assert!((cycle.window.latest().percent - 40.0).abs() < 1e-9);
    // On time, two of them suffice where nobody better speaks; that is no proof.
    let next = 2 * WEEK;
    let (_, told) = steps(&[push(WEEK - 9, 40.0, WEEK), push(WEEK + 5, 0.0, next), push(WEEK + 7, 0.0, next)]);
    assert!(matches!(told[..], [Step::Waits(_), Step::Turned { confirmed: false, .. }]), "{told:#?}");
}

#[test]
fn a_push_of_the_window_before_says_nothing_of_the_new_one() {
    let next = Some(2 * WEEK);
    let joined = [sample(WEEK - 3, 60.0, Some(WEEK)), sample(WEEK + 2, 0.0, next), sample(WEEK + 7, 1.0, next)];
    let alone = [push(WEEK - 9, 96.0, WEEK), push(WEEK + 5, 0.0, 2 * WEEK), push(WEEK + 7, 1.0, 2 * WEEK)];
    for samples in [&joined, &alone] {
        let (mut cycle, _) = steps(samples);
        assert_eq!(cycle.window.started_at, minute(WEEK));
        let before = cycle.clone();
        for (at, percent) in [(WEEK + 20, 96.0), (WEEK + 30, 100.0)] {
            assert_eq!(cycle.take(&push(at, percent, WEEK), &frame()), Step::Ignored);
        }
        assert_eq!(cycle, before);
        assert_eq!(cycle.window.exhausted_at, None);
        // The same client, when it has asked again.
        assert_eq!(cycle.take(&push(WEEK + 40, 2.0, 2 * WEEK), &frame()), Step::GoesOn(Meaning::Same));
        assert!((cycle.window.latest().percent - 2.0).abs() < 1e-9);
    }
}

#[test]
fn what_was_given_back_is_not_pushed_in_again() {
    let end = Some(WEEK);
    let (mut cycle, told) = steps(&[sample(100, 60.0, end), sample(105, 20.0, end), sample(110, 20.0, end)]);
    assert!(matches!(told[1], Step::Turned { confirmed: true, .. }));
    // A client that has not asked since then.
    for (at, percent) in [(111, 60.0), (112, 40.0)] {
        assert_eq!(cycle.take(&push(at, percent, WEEK), &frame()), Step::Ignored);
        assert!((cycle.window.latest().percent - 20.0).abs() < 1e-9);
    }
    // More than there ever was cannot be of before, and once that much is proven every push counts again.
    assert_eq!(cycle.take(&push(113, 61.0, WEEK), &frame()), Step::GoesOn(Meaning::Same));
    let (mut cycle, _) = steps(&[sample(100, 60.0, end), sample(105, 20.0, end), sample(110, 20.0, end)]);
    cycle.take(&sample(500, 60.0, end), &frame());
    assert_eq!(cycle.take(&push(501, 60.0, WEEK), &frame()), Step::GoesOn(Meaning::Same));
}

#[test]
fn a_program_confirms_where_it_is_the_only_one_and_not_beside_the_endpoint() {
    let said = |at, percent, end| Sample { source: Source::Command, ..sample(at, percent, Some(end)) };
    let samples = [said(WEEK - 3, 60.0, WEEK), said(WEEK + 2, 0.0, 2 * WEEK), said(WEEK + 7, 0.0, 2 * WEEK)];
    for endpoint in [false, true] {
        let frame = Frame { endpoint, ..frame() };
        let mut cycle = Cycle::found(&samples[0], &frame);
        assert!(matches!(cycle.take(&samples[1], &frame), Step::Waits(_)));
        let Step::Turned { confirmed, .. } = cycle.take(&samples[2], &frame) else { panic!("it has turned") };
        assert_eq!(confirmed, !endpoint);
        // The endpoint's word proves it then.
        let told = [12, 17].map(|at| cycle.take(&sample(WEEK + at, 0.0, Some(2 * WEEK)), &frame));
        assert_eq!(told.contains(&Step::Confirmed), endpoint, "{told:?}");
    }
}

#[test]
fn of_money_a_month_ends_where_the_amount_falls_and_not_where_the_limit_is_raised() {
    let monthly = Frame { length: None, reset: Reset::Calendar, ..frame() };
    let spent =
        |at, amount: f64, limit: f64| Sample { amount: Some(amount), ..sample(at, amount / limit * 100.0, None) };
    let mut cycle = Cycle::found(&spent(0, 4000.0, 5000.0), &monthly);
    let begun = cycle.window.started_at;
    assert_eq!(cycle.take(&spent(5, 4000.0, 10_000.0), &monthly), Step::GoesOn(Meaning::Rebased));
    assert_eq!(cycle.take(&spent(10, 4100.0, 10_000.0), &monthly), Step::GoesOn(Meaning::Same));
    // A little is refunded.
    assert_eq!(cycle.take(&spent(15, 4050.0, 10_000.0), &monthly), Step::GoesOn(Meaning::Corrected));
    assert_eq!((cycle.window.started_at, cycle.window.peak), (begun, 41.0));
    assert!(matches!(cycle.take(&spent(20, 0.0, 10_000.0), &monthly), Step::Waits(_)));
    let Step::Turned { turn, confirmed: true, .. } = cycle.take(&spent(25, 10.0, 10_000.0), &monthly) else {
        panic!("it has turned")
    };
    assert_eq!((turn.shape, turn.when), (Shape::Monthly, When::Between(minute(15), minute(20))));
    // Of so little a month is seen only in the amount.
    cycle.take(&spent(30, 20.0, 10_000.0), &monthly);
    assert!(matches!(cycle.take(&spent(35, 0.0, 10_000.0), &monthly), Step::Waits(_)));
    // A state from before amounts were kept knows none: that is no month.
    cycle.window.amount = None;
    assert_eq!(cycle.take(&spent(40, 0.0, 10_000.0), &monthly), Step::GoesOn(Meaning::Corrected));
}

#[test]
fn the_freshest_of_two_sources_wins_and_only_one_proves() {
    let end = Some(WEEK);
    let (cycle, told) = steps(&[
        sample(100, 40.0, end),
        push(103, 45.0, WEEK),
        push(104, 38.0, WEEK),
        sample(105, 44.0, end),
        push(106, 20.0, WEEK),
    ]);
    assert!(told.iter().all(|step| matches!(step, Step::GoesOn(_))), "{told:#?}");
    assert!((cycle.window.latest().percent - 45.0).abs() < 1e-9, "the fullest push is the freshest word");
    let next = Some(2 * WEEK);
    let (_, told) = steps(&[
        sample(WEEK - 3, 40.0, end),
        push(WEEK + 1, 0.0, 2 * WEEK),
        push(WEEK + 3, 0.0, 2 * WEEK),
        sample(WEEK + 4, 0.0, next),
        sample(WEEK + 9, 0.0, next),
    ]);
    assert!(matches!(told[..], [Step::Ignored, Step::Ignored, Step::Waits(_), Step::Turned { confirmed: true, .. }]));
}

#[test]
fn an_unproven_window_is_proven_later() {
    let next = Some(2 * WEEK);
    let (_, told) = steps(&[
        push(WEEK - 9, 40.0, WEEK),
        push(WEEK + 5, 0.0, 2 * WEEK),
        push(WEEK + 7, 0.0, 2 * WEEK),
        sample(WEEK + 9, 0.0, next),
        sample(WEEK + 14, 0.0, next),
        sample(WEEK + 19, 0.0, next),
    ]);
    assert_eq!(told.iter().filter(|step| **step == Step::Confirmed).count(), 1, "{told:#?}");
}

#[test]
fn a_wrong_clock_does_not_silence_the_bucket() {
    let (mut cycle, _) = steps(&[sample(0, 10.0, Some(WEEK)), sample(5000, 20.0, Some(WEEK))]);
    assert_eq!(cycle.take(&sample(10, 20.0, Some(WEEK)), &frame()), Step::Ignored);
    cycle.forget_the_future(minute(10), MINUTE);
    assert_eq!(cycle.take(&sample(11, 21.0, Some(WEEK)), &frame()), Step::GoesOn(Meaning::Same));
    assert_eq!(cycle.window.latest(), Point { at: minute(11), percent: 21.0 });
}

#[test]
fn shapes_are_read_as_they_are_written() {
    for shape in Shape::ALL {
        assert_eq!(Shape::of(shape.word()), Some(shape));
        assert_eq!(serde_json::to_value(shape).unwrap(), shape.word());
    }
}

proptest! {
    #[test]
    fn jitter_resets_nothing_and_keeps_the_id(
        jitters in prop::collection::vec(-29_000..29_000_i64, 2..20), rises in prop::collection::vec(0.0..1.0_f64, 20),
    ) {
        let mut percent = 0.0;
        let mut cycle: Option<Cycle> = None;
        for (at, (jitter, rise)) in (0..).step_by(5).zip(jitters.iter().zip(rises)) {
            percent += rise;
            let mut sample = sample(at, percent, Some(WEEK));
            sample.resets_at = sample.resets_at.map(|end| end + SignedDuration::from_millis(*jitter));
            // A restart between two samples changes nothing.
            cycle = cycle.map(|cycle| serde_json::from_str(&serde_json::to_string(&cycle).unwrap()).unwrap());
            let cycle = cycle.get_or_insert_with(|| Cycle::found(&sample, &frame()));
            let step = cycle.take(&sample, &frame());
            prop_assert!(matches!(step, Step::Ignored | Step::GoesOn(Meaning::Same)), "{step:?}");
            prop_assert_eq!(cycle.window.started_at, minute(0));
        }
    }

    #[test]
    fn whatever_is_said_windows_follow_each_other(
        samples in prop::collection::vec(
            (1..900_i64, 0.0..101.0_f64, prop::option::of(-3000..12_000_i64), 0..3_u8), 2..60),
    ) {
        let mut now = 0;
        let mut cycle: Option<Cycle> = None;
        let mut ended = Timestamp::MIN;
        for (pause, percent, end, source) in samples {
            now += pause;
            let source = [Source::AnthropicOauth, Source::Push, Source::Import][usize::from(source)];
            let sample = Sample { source, ..sample(now, percent, end.map(|end| now + end)) };
            let Some(cycle) = &mut cycle else {
                cycle = Some(Cycle::found(&sample, &frame()));
                continue;
            };
            let before = cycle.clone();
            let step = cycle.take(&sample, &frame());
            if let Step::Turned { old, turn, .. } = step {
                let closed = old.close("a/weekly_all".parse().unwrap(), &turn);
                prop_assert!(closed.started_at <= closed.ended_at);
                prop_assert!(turn.shape == Shape::Switched || closed.ended_at + MINUTE >= ended);
                prop_assert_ne!(cycle.window.started_at, closed.started_at);
                prop_assert!(turn.started_at <= sample.at + HOUR);
                ended = if turn.shape == Shape::Switched { Timestamp::MIN } else { closed.ended_at };
            }
            let after = cycle.clone();
            prop_assert_eq!(cycle.take(&sample, &frame()), Step::Ignored, "a sample said again");
            prop_assert!(after == *cycle || before == after);
        }
    }
}
