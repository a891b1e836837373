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

const SIZE: (u32, u32) = (900, 340);
/// Told apart by people who do not see all colours (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// Draws lines over each other.
pub(super) fn draw(lines: &[Line], axis: Axis, unit: &str) -> Result<String, PlotError> {
    let mut svg = String::new();
    draw_into(&mut svg, lines, axis, unit).map_err(|error| PlotError(error.to_string()))?;
    Ok(svg)
}

fn draw_into(
    svg: &mut String,
    lines: &[Line],
    axis: Axis,
    unit: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let most = |pick: fn(&(f64, f64)) -> f64, least: f64| {
        let all = lines.iter().flat_map(|line| line.points.iter().map(pick));
        all.filter(|value| value.is_finite()).fold(least, f64::max)
    };
    let (x_max, y_max) = (most(|it| it.0, 1.0), most(|it| it.1, 1e-3) * 1.05);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(78)
        .build_cartesian_2d(0.0..x_max, 0.0..y_max)?;
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
    let y_label = |y: &f64| if y_max < 10.0 { format!("{y:.2}") } else { format!("{y:.0}") };
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(if axis == Axis::Seconds { "seconds" } else { "percentile" })
        .y_desc(unit)
        .x_labels(if axis == Axis::Percentile { 7 } else { 12 })
        .x_label_formatter(&x_label)
        .y_label_formatter(&y_label)
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points = line.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(180, 180, 180))
        .draw()?;
    drop(chart);
    area.present()?;
    Ok(())
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
    fn every_line_is_drawn_and_named() {
        let line = |name: &str| Line {
            name: name.to_owned(),
            points: vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)],
        };
        let svg = draw(&[line("first"), line("second")], Axis::Seconds, "ms").unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("first") && svg.contains("second") && !svg.contains("NaN"), "{svg}");
        // Two lines and their two legends.
        assert!(svg.matches("<polyline").count() >= 4, "{svg}");
        assert!(draw(&[], Axis::Percentile, "ms").is_ok(), "nothing to draw is a plot without lines");
    }
}
