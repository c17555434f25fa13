use super::*;
use crate::usage::history::{self, Row};

#[test]
fn the_law_beats_what_it_replaces() {
    let report = run(1..21, &Mishaps::default(), &Contender::usual());
    let row = |name: &str, threshold: Option<f64>| {
        report.rows.iter().find(|row| row.name == name && row.threshold == threshold).unwrap()
    };
    assert!((15..=20).contains(&report.weeks), "{report}");
    assert_eq!(report.weeks + report.cut_short, 20);
    let (line, cold) = (row("ols6h", None), row("shrunken, cold", Some(0.7)));
    assert!(line.false_alarms.value > 2.0 * cold.false_alarms.value, "{report}");
    assert!(cold.brier.value < 0.25 && cold.brier.value < line.brier.value, "{report}");
    assert!(cold.flaps.value < line.flaps.value, "{report}");
    assert!(report.reliability.iter().all(|decile| decile.name.starts_with("shrunken")));
}

/// What the README claims, on seeds that nothing was tuned on. A change that costs more than it may fails here.
#[test]
fn few_weeks_alarm_falsely_most_are_caught_and_what_is_said_is_what_comes() {
    let report = run(100_000..100_300, &Mishaps::default(), &Contender::usual());
    for (name, most) in [("shrunken, cold", 0.18), ("shrunken, learned", 0.14)] {
        let row = report.rows.iter().find(|row| row.name == name && row.threshold == Some(0.7)).unwrap();
        assert!(row.false_alarms.value <= most && row.caught.value >= 0.84, "{report}");
    }
    for decile in &report.reliability {
        assert!((decile.observed.value - decile.predicted).abs() <= 0.1, "{decile:?} of {report}");
    }
}

#[test]
fn the_same_seeds_give_the_same_report() {
    let report = || run(7..9, &Mishaps::default(), &Contender::usual()).json().unwrap();
    assert_eq!(report(), report());
}

#[test]
fn recorded_history_is_scored_like_simulated_weeks() {
    let bucket: Bucket = "work/weekly_all".parse().unwrap();
    let row = |sample: &Sample| Row {
        at: sample.at,
        bucket: bucket.clone(),
        percent: sample.percent,
        resets_at: sample.resets_at,
    };
    let recorded: Vec<Row> = simulate(5, 2, &Mishaps::NONE).samples.iter().map(row).collect();
    let read = history::read(&history::write_csv(&recorded)).unwrap();
    let report = replay(&read, &Contender::usual());
    assert_eq!((report.weeks, report.cut_short), (2, 0));
    assert!(report.to_string().starts_with("recorded history of 1 weekly bucket"));
    assert_eq!(replay(&[], &Contender::usual()).weeks, 0);
    assert!(replay(&[], &Contender::usual()).to_string().contains('–'));
}
