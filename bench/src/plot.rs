//! Draws curves as SVG pictures and writes their page of the docs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use plotters::prelude::*;

use crate::Outcome;
use crate::args::Scale;
use crate::growth::Curve;
use crate::machine::Machine;
use crate::statistics::Median;

const SIZE: (u32, u32) = (760, 360);

/// Distinguishable without red-green vision (Okabe and Ito).
const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115)];

/// Draws `curve` into the file.
pub(crate) fn draw(curve: &Curve, file: &Path) -> Outcome {
    let mut svg = String::new();
    drawn(curve, &mut svg).map_err(|e| format!("{}: {e}", curve.name))?;
    fs::write(file, svg).map_err(|e| format!("{}: {e}", file.display()))
}

fn drawn(curve: &Curve, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let points = || curve.lines.iter().flat_map(|line| &line.points);
    let (least, most) = points().fold((u64::MAX, 1), |(least, most), (at, _)| (least.min(*at), most.max(*at)));
    let high = points().fold(0.0, |high: f64, (_, median)| high.max(median.value));
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{} ({})", curve.title.replace('`', ""), curve.unit), ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d((least as f64..most as f64 * 1.2).log_scale(), 0.0..high * 1.15)?;
    let count = |at: &f64| quantity(*at as u64);
    chart.configure_mesh().x_desc(curve.along).x_label_formatter(&count).light_line_style(TRANSPARENT).draw()?;
    for (line, colour) in curve.lines.iter().zip(COLOURS.iter().cycle()) {
        let places: Vec<(f64, f64)> = line.points.iter().map(|(at, median)| (*at as f64, median.value)).collect();
        let series = LineSeries::new(places.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(series)?
            .label(line.who)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        chart.draw_series(places.iter().map(|place| Circle::new(*place, 3, colour.filled())))?;
    }
    if curve.lines.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .border_style(BLACK.mix(0.3))
            .background_style(WHITE.mix(0.8))
            .draw()?;
    }
    area.present()?;
    Ok(())
}

/// Formats a quantity, such as `12 k` or `6.5 k`.
fn quantity(value: u64) -> String {
    let (unit, name) = match value {
        1_000_000_000.. => (1_000_000_000, " G"),
        1_000_000.. => (1_000_000, " M"),
        1_000.. => (1_000, " k"),
        _ => (1, ""),
    };
    let decimals = usize::from(value % unit * 20 >= unit);
    format!("{:.decimals$}{name}", value as f64 / unit as f64)
}

/// Returns the page of the docs, with the pictures in the given directory next to it.
pub(crate) fn page(curves: &[Curve], machine: &Machine, scale: Scale, folder: &str) -> String {
    let mut page = format!(
        "# How cost grows

What `spiced` costs with more connections, streams, bytes and certificates, measured in one run of

```
just bench growth --write
```

Measured {} on {} cores of {},
Linux {}: {}.

- Each point is the median of {} rounds, and `±` is half the interquartile range. Memory is measured once.
- CPU is user and system time of the server's process. The servers and clients are those of [the figures](figures.md).
- Results larger than the 1 GB table repeat the table (`UNION ALL`), so they pass through the query threads.
- With many certificates, the cost of a handshake includes polling their files, at most four times a second.
",
        machine.date, machine.cores, machine.processor, machine.kernel, machine.spiced, scale.rounds
    );
    curves.iter().for_each(|curve| section(curve, folder, &mut page));
    page
}

fn section(curve: &Curve, folder: &str, page: &mut String) {
    let _ = write!(
        page,
        "\n## {}\n\n![{}, by {}]({folder}/{}.svg)\n\n| {} |",
        curve.title,
        curve.title.replace('`', ""),
        curve.along,
        curve.name,
        curve.along
    );
    let _ = writeln!(
        page,
        "{}",
        curve.lines.iter().map(|line| format!(" {}, {} |", line.who, curve.unit)).collect::<String>()
    );
    let _ = writeln!(page, "|--:|{}", "--:|".repeat(curve.lines.len()));
    let places = curve.lines.iter().map(|line| &line.points).max_by_key(|points| points.len());
    for (at, _) in places.into_iter().flatten() {
        let _ = write!(page, "| {} |", quantity(*at));
        for line in &curve.lines {
            let _ = match line.points.iter().find(|(place, _)| place == at) {
                // A single value has no spread.
                Some((_, Median { value, spread: 0.0 })) => write!(page, " {} |", short(*value)),
                Some((_, Median { value, spread })) => write!(page, " {} ±{:.0}% |", short(*value), spread * 100.0),
                None => write!(page, " – |"),
            };
        }
        page.push('\n');
    }
}

/// Formats a value with at least three significant digits.
fn short(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::growth::Line;

    use super::*;

    #[test]
    fn quantities_are_short() {
        let said = [64, 1_000, 6_500, 99_999_744, 10_000_000_000].map(quantity);
        assert_eq!(said, ["64", "1 k", "6.5 k", "100.0 M", "10 G"]);
    }

    #[test]
    fn a_curve_is_a_picture_and_a_table() {
        let points = |values: [f64; 2]| {
            let medians = values.map(|value| Median { value, spread: 0.01 });
            vec![(10, medians[0]), (10_000, medians[1])]
        };
        let lines = vec![
            Line { who: "spiced", points: points([12.5, 11.0]) },
            Line { who: "nginx", points: points([40.0, 39.0])[..1].to_vec() },
        ];
        let curve = Curve { name: "memory", title: "Memory", along: "connections", unit: "KiB", lines };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.svg");
        draw(&curve, &file).unwrap();
        let picture = fs::read_to_string(file).unwrap();
        assert!(["<svg", "Memory (KiB)", "spiced", "nginx", "10 k"].iter().all(|part| picture.contains(part)));
        let mut page = String::new();
        section(&curve, "growth", &mut page);
        let once = Line { who: "once", points: vec![(10, Median { value: 7.0, spread: 0.0 })] };
        section(&Curve { lines: vec![once], ..curve }, "growth", &mut page);
        assert!(page.contains("| 10 | 7.000 |\n"), "{page}");
        assert!(page.contains("| 10 | 12.5 ±1% | 40.0 ±1% |\n| 10 k | 11.0 ±1% | – |\n"), "{page}");
    }
}
