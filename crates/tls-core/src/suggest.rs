//! Suggests the known name that a misspelled name was most likely meant to be.

/// Returns the name of `known` that is closest to `name`, ignoring case, if at most a third of its characters differ
/// (Damerau-Levenshtein distance, at least one); otherwise the first that `name` begins, if `name` has four characters.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let mut nearest: Option<(usize, &str)> = None;
    let mut longer = None;
    for candidate in known {
        let lower = candidate.to_lowercase();
        let distance = strsim::damerau_levenshtein(&name, &lower);
        if distance <= (name.len() / 3).max(1) && nearest.is_none_or(|(least, _)| distance < least) {
            nearest = Some((distance, candidate));
        }
        if name.len() >= 4 && lower.starts_with(&name) {
            longer.get_or_insert(candidate);
        }
    }
    nearest.map(|(_, candidate)| candidate).or(longer)
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
            ("cert", Some("certificate_file")),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), suggested, "{name}");
        }
    }
}
