//! A sheet of pixels: filled shapes, lines, dots and text. The only file that names the rasteriser.

use anyhow::Context as _;
use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Mask, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, StrokeDash, Transform,
};

use super::lettering::Lettering;

/// Distance of two shades of a channel.
const SHADE: u8 = 8;

/// An opaque colour, as red, green, blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rgb(pub(super) u8, pub(super) u8, pub(super) u8);

/// A rectangle, in pixels from the top left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) left: f32,
    pub(super) top: f32,
    pub(super) right: f32,
    pub(super) bottom: f32,
}

impl Area {
    fn path(self) -> Option<Path> {
        Some(PathBuilder::from_rect(Rect::from_ltrb(self.left, self.top, self.right, self.bottom)?))
    }
}

/// What a line is drawn with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pen {
    pub(super) color: Rgb,
    /// Pixels.
    pub(super) width: f32,
    /// Pixels of stroke and space in turn, an even number of them; none: a whole line.
    pub(super) dash: &'static [f32],
}

/// Which point of a text stands where it is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    End,
}

/// How a text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) color: Rgb,
    /// Height of a line of letters, in pixels.
    pub(super) size: f32,
    pub(super) bold: bool,
}

/// The sheet. Shapes without an area are left out: nothing to draw is no fault.
pub(super) struct Canvas {
    pixmap: Pixmap,
    clip: Option<Mask>,
    lettering: Lettering,
}

impl Canvas {
    pub(super) fn new(width: u32, height: u32, background: Rgb) -> anyhow::Result<Self> {
        let mut pixmap = Pixmap::new(width, height).context("a picture needs a width and a height")?;
        pixmap.fill(Color::from_rgba8(background.0, background.1, background.2, u8::MAX));
        Ok(Self { pixmap, clip: None, lettering: Lettering::new()? })
    }

    /// From now on shapes and lines show inside of this area alone; `None`: everywhere. Text is not cut.
    pub(super) fn clip(&mut self, area: Option<Area>) {
        self.clip = area.and_then(|area| {
            let mut mask = Mask::new(self.pixmap.width(), self.pixmap.height())?;
            mask.fill_path(&area.path()?, FillRule::Winding, false, Transform::identity());
            Some(mask)
        });
    }

    pub(super) fn area(&mut self, area: Area, color: Rgb) {
        if let Some(path) = area.path() {
            self.fill(&path, color, u8::MAX);
        }
    }

    /// A closed shape through these corners. `alpha`: 0 is nothing, 255 covers what is below.
    pub(super) fn polygon(&mut self, corners: &[(f32, f32)], color: Rgb, alpha: u8) {
        if let Some(path) = joined(corners, true) {
            self.fill(&path, color, alpha);
        }
    }

    pub(super) fn dot(&mut self, (x, y): (f32, f32), radius: f32, color: Rgb) {
        if let Some(path) = PathBuilder::from_circle(x, y, radius) {
            self.fill(&path, color, u8::MAX);
        }
    }

    pub(super) fn line(&mut self, corners: &[(f32, f32)], pen: Pen) {
        let Some(path) = joined(corners, false) else { return };
        let stroke = Stroke {
            width: pen.width,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            dash: StrokeDash::new(pen.dash.to_vec(), 0.0),
            ..Stroke::default()
        };
        let paint = paint(pen.color, u8::MAX);
        self.pixmap.stroke_path(&path, &paint, &stroke, Transform::identity(), self.clip.as_ref());
    }

    /// Width of a text in pixels.
    pub(super) fn width(&self, text: &str, style: Style) -> f32 {
        self.lettering.width(text, style.size)
    }

    /// Writes on a baseline.
    pub(super) fn text(&mut self, text: &str, (x, baseline): (f32, f32), anchor: Anchor, style: Style) {
        let left = match anchor {
            Anchor::Start => x,
            Anchor::End => x - self.width(text, style),
        };
        let Some(path) = self.lettering.path(text, style.size, (left, baseline)) else { return };
        let paint = paint(style.color, u8::MAX);
        self.pixmap.fill_path(&path, &paint, FillRule::Winding, Transform::identity(), None);
        // The typeface is a light one; drawn around as well it has the weight that small letters need.
        let weight = if style.bold { 0.055 } else { 0.026 };
        let stroke = Stroke { width: style.size * weight, line_join: LineJoin::Round, ..Stroke::default() };
        self.pixmap.stroke_path(&path, &paint, &stroke, Transform::identity(), None);
    }

    /// The text, cut with an ellipsis where it is wider than `room` pixels; empty where not even that fits.
    pub(super) fn cut(&self, text: &str, room: f32, style: Style) -> String {
        if self.width(text, style) <= room {
            return text.to_owned();
        }
        let letters: Vec<char> = text.chars().collect();
        (1..letters.len())
            .rev()
            .map(|kept| letters[..kept].iter().collect::<String>().trim_end().to_owned() + "…")
            .find(|cut| self.width(cut, style) <= room)
            .unwrap_or_default()
    }

    /// The sheet as a PNG. Its shades are the multiples of [`SHADE`] and white: edges need no finer ones, a quarter of the
    /// bytes is saved, and the last bit of a machine's arithmetic does not show.
    pub(super) fn png(mut self) -> anyhow::Result<Vec<u8>> {
        for channel in self.pixmap.data_mut() {
            *channel = shade(*channel);
        }
        self.pixmap.encode_png().context("the picture cannot be written as a PNG")
    }

    fn fill(&mut self, path: &Path, color: Rgb, alpha: u8) {
        let paint = paint(color, alpha);
        self.pixmap.fill_path(path, &paint, FillRule::Winding, Transform::identity(), self.clip.as_ref());
    }
}

/// The nearest shade.
pub(super) fn shade(channel: u8) -> u8 {
    channel.checked_add(SHADE / 2).map_or(u8::MAX, |above| above / SHADE * SHADE)
}

fn paint(Rgb(red, green, blue): Rgb, alpha: u8) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(red, green, blue, alpha);
    paint
}

fn joined(corners: &[(f32, f32)], closed: bool) -> Option<Path> {
    let (first, rest) = corners.split_first()?;
    let mut path = PathBuilder::new();
    path.move_to(first.0, first.1);
    for corner in rest {
        path.line_to(corner.0, corner.1);
    }
    if closed {
        path.close();
    }
    path.finish()
}
