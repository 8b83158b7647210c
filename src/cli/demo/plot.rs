//! A signal in a terminal: for each column of characters, a bar from the least
//! to the greatest sample.

/// Rows of the picture.
const HEIGHT: usize = 11;

/// Draws `samples` over `width` columns, highest values on top; a column
/// without a sample stays empty. Lines carry the value at their height.
pub(super) fn plot(samples: &[f32], width: usize) -> Vec<String> {
    let bars: Vec<Option<(f32, f32)>> = columns(samples, width).map(span).collect();
    let all = bars.iter().flatten().copied();
    let Some((lowest, highest)) = all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else {
        return vec!["(no sample in this window)".into()];
    };
    // A constant gets a height too, or no row would hold it.
    let span = (highest - lowest).max(highest.abs() * 1e-3).max(1e-3);
    let step = span / HEIGHT as f32;
    (0..HEIGHT)
        .rev()
        .map(|row| {
            let bottom = lowest + step * row as f32;
            let cell = |bar: &Option<(f32, f32)>| match bar {
                Some((low, high)) if *low < bottom + step && *high >= bottom => '█',
                _ => ' ',
            };
            let line: String = bars.iter().map(cell).collect();
            format!("{:>8.1} ┤{}", bottom + step / 2.0, line.trim_end())
        })
        .collect()
}

/// The samples of each column, as evenly as they divide.
fn columns(samples: &[f32], width: usize) -> impl Iterator<Item = &[f32]> {
    (0..width).map(move |column| {
        let from = samples.len() * column / width;
        let until = samples.len() * (column + 1) / width;
        samples.get(from..until).unwrap_or_default()
    })
}

/// The least and the greatest sample that is one.
fn span(samples: &[f32]) -> Option<(f32, f32)> {
    let present = samples.iter().filter(|sample| !sample.is_nan());
    present
        .map(|&s| (s, s))
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_rises_and_a_gap_is_empty() {
        let mut samples: Vec<f32> = (0..110).map(|number| number as f32).collect();
        samples[50..60].fill(f32::NAN);
        let lines = plot(&samples, 11);
        assert_eq!(lines.len(), HEIGHT);
        let column = |line: &String, column: usize| line.chars().nth(10 + column);
        assert_eq!(column(&lines[HEIGHT - 1], 0), Some('█'));
        assert_eq!(column(&lines[0], 10), Some('█'));
        assert!(lines.iter().all(|line| column(line, 5) != Some('█')));
    }

    #[test]
    fn nothing_and_constants_are_drawn() {
        assert_eq!(plot(&[f32::NAN; 5], 5).len(), 1);
        assert_eq!(plot(&[], 5).len(), 1);
        assert!(
            plot(&[2.0; 5], 5)
                .iter()
                .any(|line| line.ends_with("█████"))
        );
    }
}
