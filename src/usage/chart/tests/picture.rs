use std::path::Path;

use tiny_skia::Pixmap;

use super::super::canvas::{Area, Rgb, shade};
use super::super::picture::{LETTERS, palette, plot, scale};
use super::*;

fn drawn(chart: &Chart) -> Pixmap {
    let bytes = png(chart).unwrap();
    assert!(bytes.len() < 100_000, "{} bytes are much for a phone", bytes.len());
    Pixmap::decode_png(&bytes).unwrap()
}

fn pixel(picture: &Pixmap, x: f32, y: f32) -> Rgb {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "inside of the picture")]
    let pixel = picture.pixel(x as u32, y as u32).unwrap();
    Rgb(pixel.red(), pixel.green(), pixel.blue())
}

/// The colours of one column of the plot from above, at a time.
fn column(picture: &Pixmap, chart: &Chart, time: Timestamp) -> Vec<Rgb> {
    let (plot, x) = (plot(chart), scale(chart).x(time));
    rows(plot).map(|y| pixel(picture, x, y)).collect()
}

fn rows(area: Area) -> impl Iterator<Item = f32> {
    std::iter::successors(Some(area.top), |y| Some(y + 1.0)).take_while(move |&y| y < area.bottom)
}

fn columns(area: Area) -> impl Iterator<Item = f32> {
    rows(Area { top: area.left, bottom: area.right, ..area })
}

/// A chart of each kind.
fn kinds() -> Vec<Chart> {
    let long = "Weekly, a model whose name nobody can read at once on a phone".to_owned();
    let hourly: Vec<Timestamp> = (0..24).map(|hour| blank().from + hour.hours()).collect();
    let used_up = Outlook::Full(week().now);
    vec![
        week(),
        blank(),
        sampled(&[(12, 50.0)]),
        sampled(&[(0, 0.0), (1, 0.0), (2, 0.0), (23, 100.0), (24, 104.0)]),
        Chart { title: long.clone(), label: long.clone(), ..week() },
        Chart {
            title: "Weekly".to_owned(),
            label: long,
            thresholds: (0..=20).map(|step| f64::from(step) * 5.0).collect(),
            ..week()
        },
        Chart { resets: hourly, ..sampled(&[(1, 1e300), (2, -1e300), (3, f64::NAN), (24, f64::INFINITY)]) },
        Chart {
            from: week().to - 2000.hours(),
            window: Some(Window { start: Timestamp::MIN, end: Timestamp::MAX }),
            projection: week().projection.map(|p| Projection { to: Timestamp::MAX, low: used_up, ..p }),
            ..week()
        },
        Chart { now: week().from - 1.hours(), ..week() },
    ]
}

#[test]
fn every_picture_has_its_size_its_margin_and_no_transparency() {
    let whole = Area { left: 0.0, top: 0.0, right: 1200.0, bottom: 720.0 };
    let inside = Area { left: 26.0, top: 20.0, right: 1174.0, bottom: 702.0 };
    for chart in kinds() {
        let picture = drawn(&chart);
        assert_eq!((picture.width(), picture.height()), (WIDTH, HEIGHT));
        assert!(picture.pixels().iter().all(|pixel| pixel.alpha() == u8::MAX));
        for (x, y) in rows(whole).flat_map(|y| columns(whole).map(move |x| (x, y))) {
            let margin = x < inside.left || x >= inside.right || y < inside.top || y >= inside.bottom;
            assert!(!margin || pixel(&picture, x, y) == palette::BACKGROUND, "{x}, {y} of {}", alternative(&chart));
        }
    }
}

#[test]
fn the_same_data_give_the_same_bytes() {
    assert!(png(&week()).unwrap() == png(&week()).unwrap());
}

#[test]
fn the_line_is_where_the_data_are() {
    for percent in [0.0, 37.0, 100.0, 104.0] {
        let chart = sampled(&[(10, percent), (11, percent), (12, percent), (13, percent), (14, percent)]);
        let (picture, scale) = (drawn(&chart), scale(&chart));
        for minutes in [601, 690, 720, 800] {
            let x = scale.x(chart.from + minutes.minutes());
            assert_eq!(pixel(&picture, x, scale.y(percent)), palette::USED, "{percent} % at minute {minutes}");
            assert_ne!(pixel(&picture, x, scale.y(percent) + 9.0), palette::USED);
        }
        assert_ne!(pixel(&picture, scale.x(chart.from + 5.hours()), scale.y(percent)), palette::USED);
    }
}

#[test]
fn one_sample_is_a_dot() {
    let chart = sampled(&[(12, 50.0)]);
    let (picture, scale) = (drawn(&chart), scale(&chart));
    let (x, y) = (scale.x(chart.from + 12.hours()), scale.y(50.0));
    for (right, down) in [(0.0, 0.0), (7.0, 0.0), (-7.0, 0.0), (0.0, 7.0), (0.0, -7.0)] {
        assert_eq!(pixel(&picture, x + right, y + down), palette::USED);
    }
    assert_ne!(pixel(&picture, x + 30.0, y), palette::USED);
}

#[test]
fn a_gap_is_blank_and_what_is_known_is_not() {
    let chart = sampled(&[(2, 40.0), (3, 41.0), (4, 42.0), (10, 60.0), (11, 61.0), (12, 62.0)]);
    let (with, without) = (drawn(&chart), drawn(&blank()));
    for minutes in [260, 330, 420, 500, 580] {
        let time = chart.from + minutes.minutes();
        assert!(column(&with, &chart, time) == column(&without, &chart, time), "minute {minutes}");
    }
    for minutes in [130, 200, 610, 700] {
        let time = chart.from + minutes.minutes();
        assert!(column(&with, &chart, time) != column(&without, &chart, time), "minute {minutes}");
    }
}

#[test]
fn a_reset_is_marked_and_the_line_starts_again() {
    let resets = vec![blank().from + 12.hours()];
    let chart = Chart {
        interval: SignedDuration::from_hours(4),
        resets: resets.clone(),
        ..sampled(&[(6, 88.0), (10, 90.0), (14, 2.0), (18, 4.0)])
    };
    let bare = Chart { resets, ..blank() };
    let (with, without) = (drawn(&chart), drawn(&bare));
    for minutes in [620, 660, 710, 730, 780, 820] {
        let time = chart.from + minutes.minutes();
        assert!(column(&with, &chart, time) == column(&without, &chart, time), "minute {minutes}");
    }
    assert!(column(&with, &chart, bare.resets[0]).contains(&palette::RESET));
    assert!(!column(&with, &chart, chart.from + 11.hours()).contains(&palette::RESET));
}

#[test]
fn the_forecast_is_a_band_with_its_middle() {
    let mut chart = Chart { to: blank().to + 24.hours(), ..sampled(&[(23, 40.0), (24, 40.0)]) };
    let without = drawn(&chart);
    chart.projection = Some(Projection {
        from: chart.points[1],
        to: chart.to,
        low: Outlook::Percent(50.0),
        median: Outlook::Percent(70.0),
        high: Outlook::Percent(90.0),
    });
    let (with, scale) = (drawn(&chart), scale(&chart));
    let x = scale.x(chart.to - 2.hours());
    let differs = |percent| pixel(&with, x, scale.y(percent)) != pixel(&without, x, scale.y(percent));
    for inside in [52.0, 58.0, 63.0, 77.0, 84.0] {
        assert!(differs(inside), "{inside} %");
    }
    for outside in [20.0, 45.0, 92.0, 98.0] {
        assert!(!differs(outside), "{outside} %");
    }
    let middle = |hour: i32| pixel(&with, scale.x(chart.now + hour.hours()), scale.y(40.0 + 1.25 * f64::from(hour)));
    assert!((3..22).any(|hour| middle(hour) == palette::FORECAST), "the dashes of the middle");
}

#[test]
fn thresholds_the_limit_and_now_have_their_lines() {
    let chart = Chart {
        thresholds: vec![90.0, 75.0, 100.0, 0.0, -5.0, f64::NAN, 75.0],
        now: blank().from + 6.hours(),
        ..blank()
    };
    assert_eq!(chart.alerts(), [75.0, 90.0]);
    let (picture, scale) = (drawn(&chart), scale(&chart));
    let x = scale.x(chart.from + 20.hours());
    for (percent, color) in [(75.0, palette::ALERT), (90.0, palette::ALERT), (100.0, palette::LIMIT)] {
        let near = [-1.0, 0.0].map(|above| pixel(&picture, x, scale.y(percent) + above));
        let light = |Rgb(red, green, blue): Rgb| u32::from(red) + u32::from(green) + u32::from(blue);
        assert!(near.iter().any(|&found| light(found) * 2 > light(color)), "{percent} %: {near:?}");
    }
    assert_eq!(pixel(&picture, scale.x(chart.now), scale.y(33.0)), palette::TEXT);
}

#[test]
fn the_even_pace_is_a_row_of_dots() {
    let window = Window { start: blank().from - 24.hours(), end: blank().to + 24.hours() };
    let chart = Chart { window: Some(window), ..blank() };
    let dots = |chart: &Chart| {
        let (picture, scale) = (drawn(chart), scale(chart));
        let hits = (60..1380).filter(|&minutes| {
            let time = chart.from + i64::from(minutes).minutes();
            pixel(&picture, scale.x(time), scale.y(window.pace(time))) == palette::TEXT
        });
        hits.count()
    };
    assert!((100..900).contains(&dots(&chart)), "{} of 1320: dots with space between", dots(&chart));
    assert_eq!(dots(&Chart { even_pace: false, ..chart }), 0);
}

#[test]
fn nothing_is_drawn_beside_the_plot() {
    let wild = Chart {
        points: [(1, 150.0), (2, 1e9), (3, -1e9), (4, 150.0)]
            .map(|(hour, percent)| Point { at: blank().from + hour.hours(), percent })
            .to_vec(),
        projection: Some(Projection {
            from: Point { at: blank().from - 3.hours(), percent: 5.0 },
            to: blank().to + 9000.hours(),
            low: Outlook::Percent(-1e6),
            median: Outlook::Percent(50.0),
            high: Outlook::Full(blank().to),
        }),
        window: Some(Window { start: blank().from - 9000.hours(), end: blank().to + 10.hours() }),
        ..blank()
    };
    let tame = sampled(&[(1, 150.0)]);
    let (with, without, plot) = (drawn(&wild), drawn(&tame), plot(&wild));
    let around = Area { left: 0.0, right: 1200.0, bottom: plot.bottom + 12.0, ..plot };
    for (x, y) in rows(around).flat_map(|y| columns(around).map(move |x| (x, y))) {
        let inside = (plot.left..plot.right).contains(&x) && y < plot.bottom;
        assert!(inside || pixel(&with, x, y) == pixel(&without, x, y), "{x}, {y}");
    }
}

/// Contrast of two colours as the WCAG define it, from 1 to 21.
fn contrast(one: Rgb, other: Rgb) -> f64 {
    let light = |Rgb(red, green, blue): Rgb| {
        let [red, green, blue] = [red, green, blue].map(|channel| {
            let part = f64::from(channel) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05
    };
    let (one, other) = (light(one), light(other));
    (one / other).max(other / one)
}

#[test]
fn text_and_marks_stand_out() {
    use palette::{ALERT, BACKGROUND, FORECAST, LIMIT, PLOT, RESET, SOFT, TEXT, USED};
    assert!((contrast(Rgb(0, 0, 0), Rgb(255, 255, 255)) - 21.0).abs() < 1e-9);
    for text in [TEXT, SOFT, USED, ALERT] {
        assert!(contrast(text, BACKGROUND) >= 4.5, "{text:?}: {}", contrast(text, BACKGROUND));
    }
    for mark in [TEXT, USED, FORECAST, ALERT, LIMIT, RESET] {
        assert!(contrast(mark, PLOT) >= 3.0, "{mark:?}: {}", contrast(mark, PLOT));
    }
    const { assert!(LETTERS >= 28.0) };
    for Rgb(red, green, blue) in [BACKGROUND, PLOT, palette::GRID, TEXT, SOFT, USED, FORECAST, ALERT, LIMIT, RESET] {
        assert_eq!([red, green, blue].map(shade), [red, green, blue], "the sheet keeps this shade");
    }
}

/// The picture in the documentation is what this version draws.
#[test]
fn the_picture_in_the_documentation_is_ours() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/usage-chart.png");
    let bytes = png(&week()).unwrap();
    if std::fs::read(&path).unwrap_or_default() != bytes {
        std::fs::write(&path, &bytes).unwrap();
        panic!("{} was out of date and is drawn anew: look at it and commit it", path.display());
    }
}
