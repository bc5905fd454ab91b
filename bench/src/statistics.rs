//! Statistics of several rounds: the median, and the spread of the middle half.

/// The median of several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Median {
    pub(crate) value: f64,
    /// Half the distance between the quartiles, relative to the median.
    pub(crate) spread: f64,
}

impl Median {
    /// Returns the median, or `None` without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let value = quantile(&values, 0.5);
        Some(Self { value, spread: (quantile(&values, 0.75) - quantile(&values, 0.25)) / 2.0 / value })
    }
}

/// Interpolates linearly between two values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlier_moves_neither() {
        assert_eq!(Median::of([3.0, 1.0, 2.0, 2.0, 90.0]), Some(Median { value: 2.0, spread: 0.25 }));
        assert_eq!(Median::of([1.0, 2.0]).unwrap().value, 1.5);
        assert_eq!(Median::of([5.0]), Some(Median { value: 5.0, spread: 0.0 }));
        assert_eq!(Median::of([]), None);
    }
}
