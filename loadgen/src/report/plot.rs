//! Line plots as SVG.
//!
//! Owns: sizes, colours, ticks. Must not know: what is plotted.

use plotters::prelude::*;

/// A plot that could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw a plot: {0}")]
pub struct PlotError(String);

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// What the horizontal axis shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Minus the logarithm of what is left: 1 is p90, 2 is p99.
    Percentile,
    Seconds,
}

/// How values are laid out from bottom to top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// For times: a failure that lasts the time-out must not press everything else to the floor.
    Logarithmic,
}

const SIZE: (u32, u32) = (900, 340);
const FONT: (&str, u32) = ("sans-serif", 14);
/// Decades of a logarithmic axis at least.
const DECADES_MIN: f64 = 1.0;
/// Told apart by people who do not see all colours (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(130, 130, 130),
];

/// Colour of the line in that place, as HTML writes it.
pub(super) fn colour(place: usize) -> String {
    let RGBColor(red, green, blue) = COLOURS[place % COLOURS.len()];
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Draws lines over each other. Which is which is told elsewhere, so that nothing lies over them.
pub(super) fn draw(lines: &[Line], axis: Axis, scale: Scale, unit: &str) -> Result<String, PlotError> {
    let mut svg = String::new();
    let lines: Vec<Line> = lines.iter().map(|line| line.on(scale)).collect();
    draw_into(&mut svg, &lines, axis, scale, unit).map_err(|error| PlotError(error.to_string()))?;
    Ok(svg)
}

fn draw_into(
    svg: &mut String,
    lines: &[Line],
    axis: Axis,
    scale: Scale,
    unit: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (x_max, (y_min, y_max)) = (x_end(lines), y_ends(lines, scale));
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(78)
        .build_cartesian_2d(0.0..x_max, y_min..y_max)?;
    let x_label = |x: &f64| match axis {
        Axis::Seconds => {
            if (x - x.round()).abs() < 1e-6 {
                format!("{x:.0}")
            } else {
                String::new()
            }
        }
        Axis::Percentile => percentile_label(*x),
    };
    let y_label = |y: &f64| match scale {
        Scale::Logarithmic => decade_label(*y),
        Scale::Linear if y_max < 10.0 => format!("{y:.2}"),
        Scale::Linear => format!("{y:.0}"),
    };
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(if axis == Axis::Seconds { "seconds" } else { "percentile" })
        .y_desc(unit)
        .x_labels(if axis == Axis::Percentile { 7 } else { 12 })
        .y_labels(if scale == Scale::Logarithmic { 8 } else { 10 })
        .label_style(FONT)
        .axis_desc_style(FONT)
        .x_label_formatter(&x_label)
        .y_label_formatter(&y_label)
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        if let [only] = line.points[..] {
            // One point makes no line that could be seen.
            chart.draw_series([Circle::new(only, 3, colour.filled())])?;
        }
        chart.draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?;
    }
    drop(chart);
    area.present()?;
    Ok(())
}

impl Line {
    /// The line as it lies on the scale; what has no place there is left out.
    fn on(&self, scale: Scale) -> Self {
        let place = |y: f64| if scale == Scale::Logarithmic { y.log10() } else { y };
        let points = self.points.iter().map(|(x, y)| (*x, place(*y)));
        let points = points.filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        Self { name: self.name.clone(), points }
    }
}

fn x_end(lines: &[Line]) -> f64 {
    lines.iter().flat_map(|line| &line.points).map(|it| it.0).fold(1.0, f64::max)
}

fn y_ends(lines: &[Line], scale: Scale) -> (f64, f64) {
    let values = || lines.iter().flat_map(|line| &line.points).map(|it| it.1);
    let most = values().fold(f64::NEG_INFINITY, f64::max);
    match scale {
        Scale::Linear => (0.0, most.max(1e-3) * 1.05),
        Scale::Logarithmic if most.is_finite() => {
            let (least, most) = (values().fold(most, f64::min).floor(), (most + 0.05).ceil());
            (least, most.max(least + DECADES_MIN))
        }
        Scale::Logarithmic => (0.0, DECADES_MIN),
    }
}

/// 0 is 1, 2 is 100, -1 is 0.1; only whole decades are written.
fn decade_label(decade: f64) -> String {
    if (decade - decade.round()).abs() > 1e-6 {
        return String::new();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's `as` saturates")]
    let decimals = (-decade.round()).max(0.0) as usize;
    format!("{:.decimals$}", 10f64.powf(decade.round()))
}

/// 1 is p90, 2 is p99; only whole nines are written.
fn percentile_label(nines: f64) -> String {
    if (nines - nines.round()).abs() > 1e-6 {
        return String::new();
    }
    let percent = 100.0 * (1.0 - 10f64.powf(-nines.round()));
    format!("p{}", (percent * 1e6).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nines_are_written_as_percentiles() {
        let labels: Vec<String> = [0.0, 1.0, 1.5, 2.0, 3.0, 5.0].into_iter().map(percentile_label).collect();
        assert_eq!(labels, ["p0", "p90", "", "p99", "p99.9", "p99.999"]);
    }

    #[test]
    fn a_logarithmic_axis_has_whole_decades_and_no_place_for_nothing() {
        let points = vec![(0.0, 0.0), (1.0, 0.03), (2.0, 5000.0)];
        let line = Line { name: "times".to_owned(), points }.on(Scale::Logarithmic);
        assert_eq!(line.points.len(), 2);
        let (least, most) = y_ends(&[line], Scale::Logarithmic);
        assert_eq!((decade_label(least), decade_label(most)), ("0.01".to_owned(), "10000".to_owned()));
        assert_eq!((decade_label(0.0), decade_label(0.5)), ("1".to_owned(), String::new()));
    }

    #[test]
    fn every_line_is_drawn() {
        let line = |name: &str| Line {
            name: name.to_owned(),
            points: vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)],
        };
        let svg = draw(&[line("first"), line("second")], Axis::Seconds, Scale::Linear, "ms").unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("NaN"), "{svg}");
        for place in [0, 1] {
            assert!(svg.to_lowercase().contains(&format!("stroke=\"{}\"", colour(place))), "{svg}");
        }
        for scale in [Scale::Linear, Scale::Logarithmic] {
            assert!(
                draw(&[], Axis::Percentile, scale, "ms").is_ok(),
                "nothing to draw is a plot without lines"
            );
        }
    }
}
