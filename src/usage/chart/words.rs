//! The chart in words, and the words inside of the picture.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Chart, FULL, Outlook, Point, Projection};

/// Bars of the line of bars: as many as a phone shows in one line.
const CELLS: u32 = 24;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// A part of the time of which nothing is known.
const UNKNOWN: char = '·';

pub(super) fn alternative(chart: &Chart) -> String {
    let mut lines = vec![state(chart), history(chart)];
    lines.extend(chart.projected().map(|projection| forecast(chart, &projection)));
    lines.join("\n")
}

/// "Weekly, all models (work): 61 % used, 8 points over an even pace; alerts at 75 and 90 %."
fn state(chart: &Chart) -> String {
    let label = if chart.label.is_empty() { String::new() } else { format!(" ({})", chart.label) };
    let last = chart.last();
    let used = last.map_or_else(|| "no data".to_owned(), |last| used(chart, last));
    let pace = last.and_then(|last| pace(chart, last)).map(|pace| format!(", {pace}")).unwrap_or_default();
    let alerts: Vec<String> = chart.alerts().iter().map(ToString::to_string).collect();
    let alerts = match alerts.as_slice() {
        [] => String::new(),
        [only] => format!("; alert at {only} %"),
        [lower @ .., highest] => format!("; alerts at {} and {highest} %", lower.join(", ")),
    };
    format!("{}{label}: {used}{pace}{alerts}.", chart.title)
}

/// How far a sample is from the even pace of its window.
fn pace(chart: &Chart, last: Point) -> Option<String> {
    let window = chart.paced().filter(|window| (window.start..=window.end).contains(&last.at))?;
    let ahead = last.percent - window.pace(last.at);
    let side = if ahead > 0.0 { "over" } else { "under" };
    Some(match format!("{:.0}", ahead.abs()).as_str() {
        "0" => "at an even pace".to_owned(),
        "1" => format!("1 point {side} an even pace"),
        points => format!("{points} points {side} an even pace"),
    })
}

/// The line of bars, the time that it covers, and the resets.
fn history(chart: &Chart) -> String {
    let bars = bars(chart);
    let [from, to] = [chart.from, shown_until(chart)].map(|at| date(at, &chart.zone));
    let offset = || format!("UTC{}", chart.zone.to_offset(chart.now));
    let zone = chart.zone.iana_name().map_or_else(offset, str::to_owned);
    let unknown = if bars.contains(UNKNOWN) { format!(", {UNKNOWN} is no data") } else { String::new() };
    let mut resets = chart.resets.clone();
    resets.retain(|at| (chart.from..=chart.to).contains(at));
    resets.sort();
    let past = match resets.as_slice() {
        [] => String::new(),
        [only] => format!("; reset on {}", date(*only, &chart.zone)),
        [.., last] => format!("; {} resets, the last on {}", resets.len(), date(*last, &chart.zone)),
    };
    let coming = chart.coming().map(|end| format!("; next reset on {}", date(end, &chart.zone))).unwrap_or_default();
    format!("{bars} {from} to {to} ({zone}){unknown}{past}{coming}.")
}

/// What the forecast expects, as a range and not as an instant.
fn forecast(chart: &Chart, projection: &Projection) -> String {
    let full = |outlook| projection.full(outlook).map(|at| date(at, &chart.zone));
    let end = |outlook| whole(projection.end(outlook));
    let median = full(projection.median).map_or_else(|| end(projection.median), |at| format!("full on {at}"));
    let range = match (full(projection.low), full(projection.high)) {
        (Some(late), Some(early)) => format!("full between {early} and {late}"),
        (None, Some(early)) => format!("between {} and full as early as {early}", end(projection.low)),
        _ => format!("between {} and {}", end(projection.low), end(projection.high)),
    };
    format!("Forecast until {}: most likely {median}; 8 times in 10 {range}.", date(projection.to, &chart.zone))
}

/// What the picture may say beside the forecast's mark, the longest first.
pub(super) fn outlook(chart: &Chart, projection: &Projection) -> Vec<String> {
    let full = |outlook: Outlook| projection.full(outlook).map(|at| clock(at, &chart.zone));
    match (full(projection.low), full(projection.median), full(projection.high)) {
        (Some(late), _, Some(early)) => vec![format!("full {early} – {late}"), format!("full from {early}")],
        (_, Some(_), Some(early)) => vec![format!("full from {early}")],
        _ => {
            let (low, high) = (whole(projection.end(projection.low)), whole(projection.end(projection.high)));
            vec![if low == high { high } else { format!("{}–{high}", low.trim_end_matches(" %")) }]
        }
    }
}

/// "61 % used", or with its time where it is too old to speak for now.
pub(super) fn used(chart: &Chart, last: Point) -> String {
    if chart.is_stale(last) {
        format!("{} used at {}", percent(last.percent), clock(last.at, &chart.zone))
    } else {
        format!("{} used", percent(last.percent))
    }
}

/// A line of bars over what is shown of the past: the highest value of each part of the time.
fn bars(chart: &Chart) -> String {
    let stretches = chart.stretches();
    let whole = shown_until(chart).duration_since(chart.from).as_secs_f64();
    let cell = whole / f64::from(CELLS);
    let seconds = |at: Timestamp| at.duration_since(chart.from).as_secs_f64();
    (0..CELLS)
        .map(|index| {
            let (start, end) = (cell * f64::from(index), cell * f64::from(index + 1));
            let last = index + 1 == CELLS;
            let inside = |at: f64| at >= start && (at < end || last);
            let measured =
                stretches.iter().flatten().filter(|point| inside(seconds(point.at))).map(|point| point.percent);
            let between = stretches.iter().flat_map(|stretch| stretch.windows(2)).filter_map(|pair| {
                let (before, after) = (seconds(pair[0].at), seconds(pair[1].at));
                let middle = start.midpoint(end);
                let part = (middle - before) / (after - before);
                (before < start && end <= after).then(|| pair[0].percent + part * (pair[1].percent - pair[0].percent))
            });
            measured.chain(between).reduce(f64::max).map_or(UNKNOWN, bar)
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the eight bars before")]
fn bar(percent: f64) -> char {
    BARS[(percent / FULL * 8.0).clamp(0.0, 7.0) as usize]
}

/// Right edge of the past.
fn shown_until(chart: &Chart) -> Timestamp {
    if chart.now > chart.from { chart.now.min(chart.to) } else { chart.to }
}

/// A measured value: never rounded up to something that it has not reached.
pub(super) fn percent(value: f64) -> String {
    let whole = value.round();
    if (value - whole).abs() < 1e-9 {
        format!("{whole:.0} %")
    } else {
        format!("{:.1} %", (value * 10.0).floor() / 10.0)
    }
}

/// An expected value: no more digits than it deserves.
fn whole(value: f64) -> String {
    format!("{value:.0} %")
}

/// "Thu 14:00".
pub(super) fn clock(at: Timestamp, zone: &TimeZone) -> String {
    zone.to_datetime(at).strftime("%a %H:%M").to_string()
}

/// The time of a mark in the picture, and a shorter form: with the day of the week where it says which day is meant.
pub(super) fn mark(chart: &Chart, at: Timestamp) -> [String; 2] {
    let days = chart.to.duration_since(chart.from).as_hours() / 24;
    let forms = if days > 10 { ["%-d %b %H:%M", "%-d %b"] } else { ["%a %H:%M", "%H:%M"] };
    forms.map(|form| chart.zone.to_datetime(at).strftime(form).to_string())
}

/// "Thu 17 Sep 14:00".
fn date(at: Timestamp, zone: &TimeZone) -> String {
    zone.to_datetime(at).strftime("%a %-d %b %H:%M").to_string()
}
