use super::*;

/// The line of bars alone.
fn bars(chart: &Chart) -> String {
    alternative(chart).lines().nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn the_words_say_what_the_picture_shows() {
    assert_eq!(
        alternative(&week()),
        "Weekly, all models (work): 59 % used, 10 points under an even pace; alerts at 75 and 90 %.\n\
         ▆▇▇▇█▁▁▁▂▃▃▃▃▃·▃▃▄▄▄▄▅▅▅ Wed 9 Sep 08:00 to Tue 15 Sep 09:40 (Europe/Berlin), · is no data; \
         reset on Thu 10 Sep 14:00; next reset on Thu 17 Sep 14:00.\n\
         Forecast until Thu 17 Sep 14:00: most likely 92 %; \
         8 times in 10 between 74 % and full as early as Wed 16 Sep 17:00."
    );
}

#[test]
fn no_history_is_said_and_nothing_is_made_up() {
    assert_eq!(
        alternative(&Chart { label: String::new(), ..blank() }),
        "Weekly, all models: no data.\n\
         ························ Tue 15 Sep 00:00 to Wed 16 Sep 00:00 (UTC), · is no data."
    );
}

#[test]
fn one_sample_is_one_bar() {
    let chart = sampled(&[(12, 50.0)]);
    assert_eq!(bars(&chart), "············▅···········");
    assert!(alternative(&chart).contains("50 % used at Tue 12:00"), "twelve hours old: with its time");
}

#[test]
fn the_bars_go_from_empty_to_full_and_beyond() {
    let hours: Vec<(i64, f64)> =
        (0..=24).map(|hour| (hour, 104.0 * f64::from(i32::try_from(hour).unwrap()) / 24.0)).collect();
    let chart = sampled(&hours);
    assert_eq!(bars(&chart), "▁▁▁▂▂▂▃▃▃▄▄▄▅▅▅▆▆▆▇▇▇███");
    assert!(alternative(&chart).starts_with("Weekly, all models (work): 104 % used."));
    assert!(alternative(&sampled(&[(24, 0.0)])).contains(": 0 % used."));
    assert!(alternative(&sampled(&[(24, 100.0)])).contains(": 100 % used."));
    assert!(alternative(&sampled(&[(24, 99.96)])).contains(": 99.9 % used."), "not full before it is");
}

#[test]
fn what_lies_between_two_joined_samples_is_known() {
    assert_eq!(bars(&sampled(&[(0, 0.0), (3, 100.0), (6, 100.0)])), "▁▅▇████·················");
}

#[test]
fn a_reset_in_the_middle_starts_the_bars_again() {
    let mut chart = sampled(&[(10, 96.0), (11, 97.0), (12, 98.0), (13, 1.0), (14, 2.0)]);
    chart.resets = vec![chart.from + 750.minutes()];
    assert_eq!(bars(&chart), "··········███▁▁·········");
    assert!(alternative(&chart).ends_with("; reset on Tue 15 Sep 12:30."));
    chart.resets.push(chart.from + 720.minutes());
    assert!(alternative(&chart).ends_with("; 2 resets, the last on Tue 15 Sep 12:30."));
}

#[test]
fn the_pace_is_told_where_there_is_one() {
    let window = Some(Window { start: blank().from, end: blank().from + 48.hours() });
    let said = |percent, even_pace| {
        let text = alternative(&Chart { window, even_pace, ..sampled(&[(24, percent)]) });
        text.lines().next().unwrap().rsplit(" used").next().unwrap().to_owned()
    };
    assert_eq!(said(50.0, true), ", at an even pace.");
    assert_eq!(said(51.0, true), ", 1 point over an even pace.");
    assert_eq!(said(20.0, true), ", 30 points under an even pace.");
    assert_eq!(said(20.0, false), ".");
}

#[test]
fn a_forecast_is_a_range() {
    let said = |low, median, high| {
        let chart = sampled(&[(24, 40.0)]);
        let projection = Projection { from: chart.points[0], to: chart.to + 24.hours(), low, median, high };
        let text = alternative(&Chart { projection: Some(projection), ..chart });
        text.lines().last().unwrap().strip_prefix("Forecast until Thu 17 Sep 00:00: ").unwrap().to_owned()
    };
    let full = |hour: i64| Outlook::Full(blank().to + hour.hours());
    assert_eq!(
        said(Outlook::Percent(51.4), Outlook::Percent(60.0), Outlook::Percent(71.6)),
        "most likely 60 %; 8 times in 10 between 51 % and 72 %."
    );
    assert_eq!(
        said(Outlook::Percent(80.0), full(20), full(12)),
        "most likely full on Wed 16 Sep 20:00; 8 times in 10 between 80 % and full as early as Wed 16 Sep 12:00."
    );
    assert_eq!(
        said(full(23), full(10), full(2)),
        "most likely full on Wed 16 Sep 10:00; 8 times in 10 full between Wed 16 Sep 02:00 and Wed 16 Sep 23:00."
    );
    assert_eq!(
        said(full(48), full(36), full(30)),
        "most likely 80 %; 8 times in 10 between 70 % and 88 %.",
        "full after the reset is not full"
    );
}

#[test]
fn long_names_are_whole_in_the_words() {
    let title = "a title that is far too long for any picture ".repeat(5);
    assert!(alternative(&Chart { title: title.clone(), ..blank() }).starts_with(&title));
}
