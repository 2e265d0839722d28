//! Measurements for people, and for the next comparison.

use super::measurement::Measurement;

const HEADER: [&str; 5] = ["bench", "value", "unit", "target", "verdict"];

/// The column of numbers, set to the right.
const VALUE: usize = 1;

/// An aligned table and a line that counts.
pub(crate) fn render(measured: &[Measurement]) -> String {
    let rows: Vec<_> =
        std::iter::once(HEADER.map(str::to_owned)).chain(measured.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..HEADER.len()).filter_map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == VALUE { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    let count = |verdict: &str| measured.iter().filter(|m| m.verdict() == verdict).count();
    text + &format!(
        "{} met, {} missed, {} without a target",
        count("met"),
        count("missed"),
        count("")
    )
}

/// The lines of the benches with the verdict as a fifth field, below a header.
pub(crate) fn tab_separated(measured: &[Measurement]) -> String {
    let rows = std::iter::once(HEADER.map(str::to_owned)).chain(measured.iter().map(row));
    rows.map(|row| row.join("\t") + "\n").collect()
}

fn row(measurement: &Measurement) -> [String; 5] {
    let target = measurement.target.as_ref().map(ToString::to_string).unwrap_or_default();
    let Measurement { name, text, unit, .. } = measurement;
    [name.clone(), text.clone(), unit.clone(), target, measurement.verdict().to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Vec<Measurement> {
        let lines =
            ["esp/1400\t1.3\t× raw\t<= 1.25", "a\t3100000\tframes/s\t>= 3e6", "b\t94\tns\t"];
        lines.iter().map(|line| Measurement::parse(line).unwrap()).collect()
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(
            render(&measured()),
            "\
bench       value  unit      target   verdict
esp/1400      1.3  × raw     <= 1.25  missed
a         3100000  frames/s  >= 3e6   met
b              94  ns
1 met, 1 missed, 1 without a target"
        );
    }

    #[test]
    fn saved_lines_are_measurements_with_a_verdict() {
        let saved = tab_separated(&measured());
        let last: Vec<_> = saved.lines().skip(1).collect();
        assert_eq!(last[0], "esp/1400\t1.3\t× raw\t<= 1.25\tmissed");
        assert_eq!(last[2], "b\t94\tns\t\t");
    }
}
