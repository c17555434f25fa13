//! Puts the chart together: where everything stands and how it looks.
//!
//! Nothing is told apart by its colour alone: the history is a whole line over a tinted ground, the even pace a row of
//! dots, the forecast a band with a dashed middle, an alert a thin line with its per cent, a reset a dashed upright with
//! its time. The colours are those of Okabe and Ito, which colour-blind people can tell apart. All text stands beside
//! the plot, on the plain background.

use jiff::Timestamp;

use super::axis::{Scale, Tick};
use super::canvas::{Anchor, Area, Canvas, Pen, Rgb, Style};
use super::{Chart, FULL, Point, words};

/// Width of the picture in pixels.
pub const WIDTH: u32 = 1200;
/// Height of the picture in pixels.
pub const HEIGHT: u32 = 720;

/// The colours, each channel in one of the shades that the sheet keeps.
pub(super) mod palette {
    use super::Rgb;

    pub(in super::super) const BACKGROUND: Rgb = Rgb(0x10, 0x18, 0x20);
    pub(in super::super) const PLOT: Rgb = Rgb(0x18, 0x28, 0x38);
    pub(in super::super) const GRID: Rgb = Rgb(0x38, 0x48, 0x60);
    pub(in super::super) const TEXT: Rgb = Rgb(0xF0, 0xF8, 0xF8);
    pub(in super::super) const SOFT: Rgb = Rgb(0xB8, 0xC8, 0xD0);
    pub(in super::super) const USED: Rgb = Rgb(0x58, 0xB0, 0xE8);
    pub(in super::super) const FORECAST: Rgb = Rgb(0xE8, 0xA0, 0x00);
    pub(in super::super) const ALERT: Rgb = Rgb(0xF0, 0xE0, 0x40);
    pub(in super::super) const LIMIT: Rgb = Rgb(0xE0, 0x68, 0x10);
    pub(in super::super) const RESET: Rgb = Rgb(0x10, 0xB0, 0x80);
}
use palette::{ALERT, BACKGROUND, FORECAST, GRID, LIMIT, PLOT, RESET, SOFT, TEXT, USED};

/// Height of a line of letters, in pixels: on a phone that shows the picture 380 px wide still 11 px.
pub(super) const LETTERS: f32 = 36.0;
const HEADLINE: f32 = 48.0;

const LABEL: Style = Style { color: TEXT, size: LETTERS, bold: false };
const AXIS: Style = Style { color: SOFT, size: LETTERS, bold: false };
const TITLE: Style = Style { color: TEXT, size: HEADLINE, bold: true };

const HISTORY: Pen = Pen { color: USED, width: 6.0, dash: &[] };
const PACE: Pen = Pen { color: TEXT, width: 5.0, dash: &[0.1, 15.0] };
const EDGE: Pen = Pen { color: FORECAST, width: 2.5, dash: &[] };
const MEDIAN: Pen = Pen { color: FORECAST, width: 5.0, dash: &[16.0, 14.0] };
const THRESHOLD: Pen = Pen { color: ALERT, width: 2.0, dash: &[] };
const CAP: Pen = Pen { color: LIMIT, width: 5.0, dash: &[] };
const TURN: Pen = Pen { color: RESET, width: 4.0, dash: &[4.0, 11.0] };
const NOW: Pen = Pen { color: TEXT, width: 3.0, dash: &[] };
const RULE: Pen = Pen { color: GRID, width: 2.0, dash: &[] };

const MARGIN: f32 = 36.0;
const RIGHT: f32 = 1200.0 - MARGIN;
/// Baselines of the lines of text, from above.
const HEAD: f32 = 74.0;
const LANE: f32 = 140.0;
const TIMES: f32 = 618.0;
const KEY: f32 = 682.0;
/// The plot's upper and lower edge, and how far inside of them the data end: half a line and half a dot are not cut.
const TOP: f32 = 168.0;
const BOTTOM: f32 = 572.0;
const INSET: f32 = 12.0;

/// Half the height of a capital letter: from a line to the baseline of its label.
const HALF: f32 = 12.0;

pub(super) fn draw(chart: &Chart) -> anyhow::Result<Vec<u8>> {
    render(chart)?.png()
}

fn render(chart: &Chart) -> anyhow::Result<Canvas> {
    let mut canvas = Canvas::new(WIDTH, HEIGHT, BACKGROUND)?;
    let plot = plot(chart);
    let scale = scale(chart);
    let ticks = scale.ticks(&chart.zone);

    canvas.area(plot, PLOT);
    canvas.clip(Some(plot));
    grid(&mut canvas, &scale, plot, &ticks);
    ground(&mut canvas, chart, &scale);
    marks(&mut canvas, chart, &scale, plot);
    lines(&mut canvas, chart, &scale);
    canvas.clip(None);

    head(&mut canvas, chart);
    lane(&mut canvas, chart, &scale);
    percents(&mut canvas, chart, &scale, plot);
    times(&mut canvas, &ticks);
    key(&mut canvas, chart);
    Ok(canvas)
}

/// Where the data are. Beside it on the right there is room for the alerts' per cents, where there are any.
pub(super) fn plot(chart: &Chart) -> Area {
    let gutter = if chart.alerts().is_empty() { 0.0 } else { 92.0 };
    Area { left: MARGIN + 112.0, top: TOP, right: RIGHT - gutter, bottom: BOTTOM }
}

/// 0 % to a little over 100 %, or over the highest value that the history has.
pub(super) fn scale(chart: &Chart) -> Scale {
    let plot = plot(chart);
    let highest = chart.stretches().iter().flatten().map(|point| point.percent).fold(FULL, f64::max);
    let area =
        Area { left: plot.left + INSET, top: plot.top + INSET, right: plot.right - INSET, bottom: plot.bottom - INSET };
    Scale::new((chart.from, chart.to), area, highest.min(1.5 * FULL) + 3.0)
}

fn grid(canvas: &mut Canvas, scale: &Scale, plot: Area, ticks: &[Tick]) {
    for x in ticks.iter().filter_map(|tick| tick.line) {
        canvas.line(&[(x, plot.top), (x, plot.bottom)], RULE);
    }
    for percent in [0.0, 25.0, 50.0, 75.0] {
        canvas.line(&[(plot.left, scale.y(percent)), (plot.right, scale.y(percent))], RULE);
    }
}

/// The areas: below the history, and between the edges of the forecast.
fn ground(canvas: &mut Canvas, chart: &Chart, scale: &Scale) {
    for stretch in chart.stretches() {
        let mut corners = corners(&stretch, scale);
        if let (Some(&(first, _)), Some(&(last, _))) = (corners.first(), corners.last()) {
            corners.extend([(last, scale.y(0.0)), (first, scale.y(0.0))]);
            canvas.polygon(&corners, USED, 64);
        }
    }
    if let Some(projection) = chart.projected() {
        let mut band = corners(&projection.path(projection.low), scale);
        band.extend(corners(&projection.path(projection.high), scale).into_iter().rev());
        canvas.polygon(&band, FORECAST, 84);
    }
}

/// What the data are read against: alerts, the limit, resets, now.
fn marks(canvas: &mut Canvas, chart: &Chart, scale: &Scale, plot: Area) {
    let across = |percent: f64| [(plot.left, scale.y(percent)), (plot.right, scale.y(percent))];
    for percent in chart.alerts() {
        canvas.line(&across(percent), THRESHOLD);
    }
    canvas.line(&across(FULL), CAP);
    let upright = |at: Timestamp| [(scale.x(at), plot.top), (scale.x(at), plot.bottom)];
    for at in turns(chart) {
        canvas.line(&upright(at), TURN);
    }
    if scale.shows(chart.now) {
        canvas.line(&upright(chart.now), NOW);
    }
}

/// The lines of the data: even pace, forecast, history.
fn lines(canvas: &mut Canvas, chart: &Chart, scale: &Scale) {
    if let Some(window) = chart.paced() {
        let (start, end) = (window.start.max(chart.from), window.end.min(chart.to));
        if start < end {
            canvas.line(&[start, end].map(|at| (scale.x(at), scale.y(window.pace(at)))), PACE);
        }
    }
    if let Some(projection) = chart.projected() {
        for (outlook, pen) in [(projection.low, EDGE), (projection.high, EDGE), (projection.median, MEDIAN)] {
            canvas.line(&corners(&projection.path(outlook), scale), pen);
        }
    }
    let stretches = chart.stretches();
    for stretch in &stretches {
        match stretch.as_slice() {
            [alone] => canvas.dot(corner(*alone, scale), HISTORY.width, USED),
            _ => canvas.line(&corners(stretch, scale), HISTORY),
        }
    }
    if let Some(&last) = stretches.last().and_then(|stretch| stretch.last()) {
        canvas.dot(corner(last, scale), 14.0, PLOT);
        canvas.dot(corner(last, scale), 11.0, USED);
    }
}

/// The first line: what is limited, whose it is, and how full it is.
fn head(canvas: &mut Canvas, chart: &Chart) {
    let text = chart.last().map_or_else(|| "no data".to_owned(), |last| words::used(chart, last));
    let style = Style { color: USED, ..TITLE };
    canvas.text(&text, (RIGHT, HEAD), Anchor::End, style);
    let room = RIGHT - MARGIN - canvas.width(&text, style) - 40.0;
    let title = canvas.cut(&chart.title, room, TITLE);
    canvas.text(&title, (MARGIN, HEAD), Anchor::Start, TITLE);
    let left = canvas.width(&title, TITLE) + 24.0;
    let label = canvas.cut(&chart.label, room - left, AXIS);
    canvas.text(&label, (MARGIN + left, HEAD), Anchor::Start, AXIS);
}

/// The line above the plot: now and the resets, each over its mark, all in the longest form in which none touches another.
/// Where not even the shortest has room, the more important ones stay; every mark stays.
fn lane(canvas: &mut Canvas, chart: &Chart, scale: &Scale) {
    let mut marks = Vec::new();
    if scale.shows(chart.now) {
        marks.push((scale.x(chart.now), TEXT, ["now", "now", "now"].map(str::to_owned)));
    }
    for at in turns(chart) {
        let [time, short] = words::mark(chart, at);
        let verb = if Some(at) == chart.coming() { "resets" } else { "reset" };
        marks.push((scale.x(at), RESET, [format!("{verb} {time}"), time, short]));
    }
    let row = |form: usize| {
        let mut row: Vec<(f32, f32, &str)> = Vec::new();
        for (x, _, forms) in &marks {
            let width = canvas.width(&forms[form], LABEL);
            let free =
                |left: &f32| row.iter().all(|&(start, end, _)| left + width + 22.0 < start || end + 22.0 < *left);
            let places = [x - width / 2.0, x - 20.0, x - width + 20.0, x + 14.0, x - width - 14.0];
            if let Some(left) = places.map(|left| left.clamp(MARGIN, RIGHT - width)).into_iter().find(free) {
                row.push((left, left + width, &forms[form]));
            }
        }
        row
    };
    let rows = [row(0), row(1), row(2)];
    let best = rows.iter().find(|row| row.len() == marks.len()).unwrap_or(&rows[2]);
    for &(left, _, text) in best {
        canvas.text(text, (left, LANE), Anchor::Start, LABEL);
    }
    for &(x, color, _) in &marks {
        canvas.polygon(&[(x - 11.0, TOP - 16.0), (x + 11.0, TOP - 16.0), (x, TOP - 1.0)], color, u8::MAX);
    }
}

/// Resets inside of the picture, in the order of their importance: the coming one, then from the newest to the oldest.
fn turns(chart: &Chart) -> Vec<Timestamp> {
    let mut turns = chart.resets.clone();
    turns.extend(chart.coming());
    turns.retain(|at| (chart.from..=chart.to).contains(at));
    turns.sort_by(|a, b| b.cmp(a));
    turns.dedup();
    turns
}

/// Per cents beside the plot: the scale on the left, the alerts on the right, moved apart where they would touch.
fn percents(canvas: &mut Canvas, chart: &Chart, scale: &Scale, plot: Area) {
    for percent in [0.0, 25.0, 50.0, 75.0, FULL] {
        let style = if percent < FULL { AXIS } else { Style { bold: true, ..LABEL } };
        let spot = (plot.left - 14.0, scale.y(percent) + HALF);
        canvas.text(&words::percent(percent), spot, Anchor::End, style);
    }
    let mut above = f32::MIN;
    for percent in chart.alerts().into_iter().rev() {
        let line = scale.y(percent);
        let baseline = (line + HALF).max(above + LETTERS);
        if baseline > plot.bottom {
            break;
        }
        above = baseline;
        canvas.line(&[(plot.right, line), (plot.right + 9.0, baseline - HALF)], THRESHOLD);
        let text = words::percent(percent);
        canvas.text(&text, (plot.right + 16.0, baseline), Anchor::Start, Style { color: ALERT, ..LABEL });
    }
}

fn times(canvas: &mut Canvas, ticks: &[Tick]) {
    let mut free = MARGIN;
    for tick in ticks {
        let width = canvas.width(&tick.label, AXIS);
        let left = (tick.middle - width / 2.0).clamp(MARGIN, RIGHT - width);
        if width <= tick.room && left >= free {
            canvas.text(&tick.label, (left, TIMES), Anchor::Start, AXIS);
            free = left + width + 12.0;
        }
    }
}

/// What a mark in the key is drawn as.
#[derive(Debug, Clone, Copy)]
enum Sign {
    Line(Pen),
    Band,
}

/// The last line: what each mark means, for those that the picture has.
fn key(canvas: &mut Canvas, chart: &Chart) {
    let (sign, gap, between) = (50.0, 10.0, 28.0);
    let width = |text: &str| sign + gap + canvas.width(text, LABEL);
    let mut entries = vec![(Sign::Line(HISTORY), "used".to_owned())];
    entries.extend(chart.paced().map(|_| (Sign::Line(PACE), "even pace".to_owned())));
    entries.extend(chart.alerts().first().map(|_| (Sign::Line(THRESHOLD), "alert".to_owned())));
    let room = RIGHT - MARGIN - entries.iter().map(|(_, text)| width(text) + between).sum::<f32>();
    entries.extend(chart.projected().map(|projection| {
        let texts = words::outlook(chart, &projection).into_iter().map(|outlook| format!("forecast {outlook}"));
        (Sign::Band, texts.into_iter().find(|text| width(text) <= room).unwrap_or_else(|| "forecast".to_owned()))
    }));
    let mut x = MARGIN;
    for (mark, text) in entries {
        let (middle, end) = (KEY - HALF, x + sign);
        match mark {
            Sign::Line(pen) => canvas.line(&[(x + 4.0, middle), (end - 4.0, middle)], pen),
            Sign::Band => {
                let band = [(x, middle - 14.0), (end, middle - 14.0), (end, middle + 14.0), (x, middle + 14.0)];
                canvas.polygon(&band, FORECAST, 84);
                canvas.line(&band[..2], EDGE);
                canvas.line(&band[2..], EDGE);
                canvas.line(&[(x + 4.0, middle), (end - 4.0, middle)], MEDIAN);
            }
        }
        canvas.text(&text, (end + gap, KEY), Anchor::Start, LABEL);
        x = end + gap + canvas.width(&text, LABEL) + between;
    }
}

fn corner(point: Point, scale: &Scale) -> (f32, f32) {
    (scale.x(point.at), scale.y(point.percent))
}

fn corners(points: &[Point], scale: &Scale) -> Vec<(f32, f32)> {
    points.iter().map(|point| corner(*point, scale)).collect()
}
