//! Suggests the known name that a misspelled name was most likely meant to be.

/// Returns the name of `known` that is closest to `name`, ignoring case, if at most a third of its characters differ
/// (Damerau-Levenshtein distance, at least one).
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_a_near_name_or_none() {
        let known = ["certificate_file", "key_file", "enabled"];
        for (name, suggested) in [
            ("keyfile", Some("key_file")),
            ("key_fiel", Some("key_file")),
            ("ENABELD", Some("enabled")),
            ("certificat_file", Some("certificate_file")),
            ("port", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), suggested, "{name}");
        }
    }
}
