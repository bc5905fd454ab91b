//! Names that other products use for a setting: `ssl_cert`, `private_key_file`, `cafile`. Such a name is recognized by
//! its words before it is compared letter by letter.

/// Returns the name among `known` that has the meaning of `name`, if there is one.
pub fn meant<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let find = |wanted: &str| known.iter().copied().find(|known| *known == wanted);
    let section =
        SECTIONS.iter().filter(|(theirs, _)| name.eq_ignore_ascii_case(theirs)).find_map(|(_, ours)| find(ours));
    section.or_else(|| candidates(&words(name)?).iter().find_map(|ours| find(ours)))
}

/// Names of other products that correspond to exactly one setting.
const SECTIONS: &[(&str, &str)] = &[
    ("ssl", "tls"),
    ("https", "tls"),
    ("security", "tls"),
    ("authentication", "auth"),
    ("authorization", "auth"),
    ("api_keys", "api_key"),
    ("apikey", "api_key"),
    ("server", "listen"),
    ("bind", "listen"),
    ("ports", "listen"),
    ("endpoints", "listen"),
    ("origins", "allowed_origins"),
    ("tables", "datasets"),
    ("sources", "datasets"),
    ("secret_stores", "secrets"),
    ("source", "from"),
    ("query", "sql"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Certificate,
    Key,
    Authority,
    Client,
    Verify,
    Passphrase,
    List,
    Minimum,
    Version,
    Text,
    /// A word that does not distinguish settings: `ssl`, `file`, `private`.
    Filler,
}

const WORDS: &[(&str, Word)] = &[
    ("certificate", Word::Certificate),
    ("certificates", Word::Certificate),
    ("certs", Word::Certificate),
    ("cert", Word::Certificate),
    ("crt", Word::Certificate),
    ("cer", Word::Certificate),
    ("chain", Word::Certificate),
    ("fullchain", Word::Certificate),
    ("privatekey", Word::Key),
    ("privkey", Word::Key),
    ("keys", Word::Key),
    ("key", Word::Key),
    ("authority", Word::Authority),
    ("authorities", Word::Authority),
    ("cacert", Word::Authority),
    ("cacerts", Word::Authority),
    ("cas", Word::Authority),
    ("ca", Word::Authority),
    ("root", Word::Authority),
    ("roots", Word::Authority),
    ("trusted", Word::Authority),
    ("truststore", Word::Authority),
    ("client", Word::Client),
    ("clients", Word::Client),
    ("peer", Word::Client),
    ("mtls", Word::Client),
    ("mutual", Word::Client),
    ("auth", Word::Verify),
    ("authentication", Word::Verify),
    ("verify", Word::Verify),
    ("verification", Word::Verify),
    ("require", Word::Verify),
    ("required", Word::Verify),
    ("mode", Word::Verify),
    ("passphrase", Word::Passphrase),
    ("password", Word::Passphrase),
    ("passwd", Word::Passphrase),
    ("pass", Word::Passphrase),
    ("crls", Word::List),
    ("crl", Word::List),
    ("revocation", Word::List),
    ("min", Word::Minimum),
    ("minimum", Word::Minimum),
    ("version", Word::Version),
    ("versions", Word::Version),
    ("protocol", Word::Version),
    ("protocols", Word::Version),
    ("pem", Word::Text),
    ("text", Word::Text),
    ("data", Word::Text),
    ("ssl", Word::Filler),
    ("tls", Word::Filler),
    ("https", Word::Filler),
    ("server", Word::Filler),
    ("private", Word::Filler),
    ("public", Word::Filler),
    ("file", Word::Filler),
    ("files", Word::Filler),
    ("filename", Word::Filler),
    ("path", Word::Filler),
    ("location", Word::Filler),
    ("bundle", Word::Filler),
    ("list", Word::Filler),
    ("x509", Word::Filler),
];

/// Splits a name into words: `certFile`, `cert-file`, `certfile`, `CERT_FILE`. Empty if a word is unknown.
fn words(name: &str) -> Option<Vec<Word>> {
    let mut split = String::with_capacity(name.len() + 4);
    let mut before_is_small = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && before_is_small {
            split.push('_');
        }
        before_is_small = letter.is_ascii_lowercase();
        split.push(letter.to_ascii_lowercase());
    }
    let mut found = Vec::new();
    for part in split.split(['_', '-', '.', ' ']).filter(|part| !part.is_empty()) {
        found.extend(glued(part)?);
    }
    Some(found)
}

/// Parses a part as one word, or as several words without separators.
fn glued(part: &str) -> Option<Vec<Word>> {
    if let Some((_, word)) = WORDS.iter().find(|(text, _)| *text == part) {
        return Some(vec![*word]);
    }
    WORDS.iter().find_map(|(text, word)| {
        let rest = part.strip_prefix(text)?;
        let mut words = vec![*word];
        words.extend(glued(rest)?);
        Some(words)
    })
}

/// Returns the settings that the words may mean, the most likely first.
fn candidates(words: &[Word]) -> &'static [&'static str] {
    let has = |word| words.contains(&word);
    if has(Word::List) {
        &["client_crl_files"]
    } else if has(Word::Passphrase) {
        if words.iter().all(|word| matches!(word, Word::Passphrase | Word::Key | Word::Filler | Word::Certificate)) {
            &["key_passphrase"]
        } else {
            &[]
        }
    } else if has(Word::Version) {
        &["min_version"]
    } else if has(Word::Authority) {
        if has(Word::Text) {
            &["client_auth_ca", "client_auth_ca_file", "tls_client_auth_ca"]
        } else {
            &["client_auth_ca_file", "tls_client_auth_ca_file", "tls_root_certificate_file"]
        }
    } else if has(Word::Client) && has(Word::Key) {
        &["client_key_file"]
    } else if has(Word::Client) && has(Word::Certificate) && !has(Word::Verify) {
        &["client_certificate_file", "client_auth_ca_file", "tls_client_auth_ca_file"]
    } else if has(Word::Client) || has(Word::Verify) {
        &["client_auth_mode", "tls_client_auth_mode"]
    } else if has(Word::Key) {
        if has(Word::Text) { &["key", "tls_key"] } else { &["key_file", "tls_key_file"] }
    } else if has(Word::Certificate) {
        if has(Word::Text) && words.len() > 1 {
            &["certificate", "tls_certificate"]
        } else {
            &["certificate_file", "tls_certificate_file"]
        }
    } else {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_products_call_it() {
        let tls = [
            "enabled",
            "certificate_file",
            "certificate",
            "key_file",
            "key",
            "key_passphrase",
            "min_version",
            "client_auth_mode",
            "client_auth_ca_file",
            "client_auth_ca",
            "client_crl_files",
        ];
        for (theirs, ours) in [
            ("cert_file", Some("certificate_file")),
            ("cert", Some("certificate_file")),
            ("certFile", Some("certificate_file")),
            ("certfile", Some("certificate_file")),
            ("ssl_cert", Some("certificate_file")),
            ("ssl_cert_file", Some("certificate_file")),
            ("ssl_certificate", Some("certificate_file")),
            ("sslcert", Some("certificate_file")),
            ("tls_cert", Some("certificate_file")),
            ("tls-cert-file", Some("certificate_file")),
            ("crt", Some("certificate_file")),
            ("fullchain", Some("certificate_file")),
            ("certificate_path", Some("certificate_file")),
            ("cert_pem", Some("certificate")),
            ("private_key_file", Some("key_file")),
            ("private_key", Some("key_file")),
            ("privateKeyFile", Some("key_file")),
            ("privkey", Some("key_file")),
            ("ssl_key", Some("key_file")),
            ("ssl_key_file", Some("key_file")),
            ("ssl_certificate_key", Some("key_file")),
            ("keyfile", Some("key_file")),
            ("key_path", Some("key_file")),
            ("key_pem", Some("key")),
            ("ca_file", Some("client_auth_ca_file")),
            ("ca", Some("client_auth_ca_file")),
            ("cafile", Some("client_auth_ca_file")),
            ("ssl_ca_file", Some("client_auth_ca_file")),
            ("client_ca_file", Some("client_auth_ca_file")),
            ("sslrootcert", Some("client_auth_ca_file")),
            ("trusted_ca", Some("client_auth_ca_file")),
            ("ca_pem", Some("client_auth_ca")),
            ("ssl_crl_file", Some("client_crl_files")),
            ("key_password", Some("key_passphrase")),
            ("ssl_passphrase", Some("key_passphrase")),
            ("ssl_min_protocol_version", Some("min_version")),
            ("verify_client", Some("client_auth_mode")),
            ("client_auth", Some("client_auth_mode")),
            ("certificat_file", None),
            ("keyy", None),
            ("enable", None),
        ] {
            assert_eq!(meant(theirs, &tls), ours, "{theirs}");
        }
        assert_eq!(meant("ssl", &["listen", "tls"]), Some("tls"));
        assert_eq!(meant("key", &["enabled", "keys"]), None);
        assert_eq!(meant("cert-file", &["tls_certificate_file", "tls_key_file"]), Some("tls_certificate_file"));
    }
}
