//! Letters as outlines, from a typeface inside of the binary: the picture needs no font of the machine.

use ab_glyph::{Font as _, FontRef, GlyphId, OutlineCurve};
use anyhow::Context as _;
use tiny_skia::{Path, PathBuilder};

/// The typeface.
pub(super) struct Lettering {
    font: FontRef<'static>,
    /// Units of the typeface in the height of one line.
    units: f32,
}

impl Lettering {
    pub(super) fn new() -> anyhow::Result<Self> {
        let font = FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT)
            .context("the typeface inside of the program cannot be read")?;
        let units = font.units_per_em().context("the typeface inside of the program states no size")?;
        Ok(Self { font, units })
    }

    /// Width of a text in pixels, with letters of this size.
    pub(super) fn width(&self, text: &str, size: f32) -> f32 {
        self.placed(text).last().map_or(0.0, |(glyph, at)| at + self.font.h_advance_unscaled(glyph)) * size / self.units
    }

    /// Outlines of a text that begins here on the baseline; `None` where there is nothing to see.
    pub(super) fn path(&self, text: &str, size: f32, (left, baseline): (f32, f32)) -> Option<Path> {
        let scale = size / self.units;
        let mut path = PathBuilder::new();
        for (glyph, at) in self.placed(text) {
            // Every letter begins on a whole pixel: the same letter is the same pixels each time, which compresses well.
            let (left, baseline) = ((left + at * scale).round(), baseline.round());
            let spot = |p: ab_glyph::Point| (left + p.x * scale, baseline - p.y * scale);
            let mut pen = None;
            for curve in self.font.outline(glyph).map(|outline| outline.curves).unwrap_or_default() {
                let (OutlineCurve::Line(start, _) | OutlineCurve::Quad(start, ..) | OutlineCurve::Cubic(start, ..)) =
                    curve;
                // A glyph is several closed outlines in a row: where one does not go on, the next begins.
                if pen != Some(start) {
                    if pen.is_some() {
                        path.close();
                    }
                    let (x, y) = spot(start);
                    path.move_to(x, y);
                }
                pen = Some(follow(&mut path, &curve, spot));
            }
            if pen.is_some() {
                path.close();
            }
        }
        path.finish()
    }

    /// Glyphs with their places, in units of the typeface from the start of the text.
    fn placed(&self, text: &str) -> impl Iterator<Item = (GlyphId, f32)> {
        let mut before: Option<(GlyphId, f32)> = None;
        text.chars().filter(|letter| !letter.is_control()).map(move |letter| {
            let glyph = self.font.glyph_id(letter);
            let at = before.map_or(0.0, |(last, at)| {
                at + self.font.h_advance_unscaled(last) + self.font.kern_unscaled(last, glyph)
            });
            before = Some((glyph, at));
            (glyph, at)
        })
    }
}

/// Adds one piece of an outline and says where it ends, in units of the typeface.
fn follow(
    path: &mut PathBuilder,
    curve: &OutlineCurve,
    spot: impl Fn(ab_glyph::Point) -> (f32, f32),
) -> ab_glyph::Point {
    match *curve {
        OutlineCurve::Line(_, end) => {
            let (x, y) = spot(end);
            path.line_to(x, y);
            end
        }
        OutlineCurve::Quad(_, bend, end) => {
            let ((bend_x, bend_y), (x, y)) = (spot(bend), spot(end));
            path.quad_to(bend_x, bend_y, x, y);
            end
        }
        OutlineCurve::Cubic(_, first, second, end) => {
            let ((first_x, first_y), (second_x, second_y), (x, y)) = (spot(first), spot(second), spot(end));
            path.cubic_to(first_x, first_y, second_x, second_y, x, y);
            end
        }
    }
}
