//! Ten weeks in which nobody listens for hours, again and again.

use super::*;

/// Both ends of what is told of a reset: a second or two is the provider's own jitter.
fn between(when: When) -> (Timestamp, Timestamp) {
    let (after, before) = match when {
        When::At(at) => (at, at),
        When::Between(after, before) => (after, before),
    };
    (after - SignedDuration::from_secs(3), before + SignedDuration::from_secs(3))
}

#[test]
fn no_reset_is_made_up_or_lost_while_nobody_listens() {
    let mut missed = 0;
    for seed in 0..6 {
        let recording = simulate(seed, 10, &Mishaps { refund: 0.2, early: 0.2, drift: 0.3, outage: 0.9, storms: 3.0 });
        let gap = |pair: &[Sample]| pair[1].at.duration_since(pair[0].at) > SignedDuration::from_hours(2);
        let dark: Vec<_> =
            recording.samples.windows(2).filter(|pair| gap(pair)).map(|pair| (pair[0].at, pair[1].at)).collect();
        assert!(dark.len() >= 3, "seed {seed}: {} outages", dark.len());
        let told: Vec<_> = told(&recording.samples, &Settings::default())
            .into_iter()
            .filter_map(|event| match event.news {
                News::Reset { when, .. } => Some(between(when)),
                _ => None,
            })
            .collect();
        assert!(told.len() <= recording.windows.len(), "seed {seed}: {told:#?}");
        for (after, before) in &told {
            let true_one = recording.windows.iter().any(|truth| *after <= truth.ended_at && truth.ended_at <= *before);
            assert!(true_one, "seed {seed}: made up between {after} and {before}");
        }
        for truth in &recording.windows {
            let heard = told.iter().any(|(after, before)| *after <= truth.ended_at && truth.ended_at <= *before);
            assert!(heard, "seed {seed}: lost at {}: {told:#?}", truth.ended_at);
            missed += usize::from(dark.iter().any(|(from, to)| *from < truth.ended_at && truth.ended_at < *to));
        }
    }
    assert!(missed > 0, "some windows have to end in the dark, or this proves nothing");
}
