//! From raw to resolved `datasets`.

use tls_core::Sourced;

use crate::problem::Problem;
use crate::problem::shown::may_be_secret;
use crate::raw::spanned::{SecretText, Spanned};
use crate::raw::spicepod::{self, Access};
use crate::settings::Dataset;

pub(super) fn dataset(Spanned(given): Spanned<spicepod::Dataset>, problems: &mut Vec<Problem>) -> Dataset {
    let Sourced { value: dataset, origin } = given;
    for (what, Spanned(text)) in [("name", &dataset.name), ("from", &dataset.from)] {
        if may_be_secret(&text.value) {
            let message = format!("the data set's `{what}` is none; it is not shown: it may be a secret");
            problems.push(Problem::new(text.origin.clone(), message).hint("every data set has a name and a from"));
        }
        if text.value.trim().is_empty() {
            let message = format!("the data set's `{what}` is empty");
            problems.push(Problem::new(text.origin.clone(), message).hint("every data set has a name and a from"));
        }
    }
    Dataset {
        name: dataset.name.0.value,
        from: dataset.from.0.value,
        writable: dataset.access == Access::ReadWrite,
        params: dataset.params.into_iter().map(|(name, SecretText(value))| (name, value)).collect::<_>(),
        columns: dataset.columns,
        origin,
    }
}
