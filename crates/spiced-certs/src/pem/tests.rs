use std::path::Path;

use base64::Engine;
use proptest::prelude::*;

use super::text::LENIENT;
use super::*;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMA4CAwQFBgcICQoLDA0ODw==\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMA4CAwQFBgcICQoLDA0ODw==\n-----END PRIVATE KEY-----\n";

fn deformed(pem: &str) -> Vec<(&'static str, String)> {
    vec![
        ("as it is", pem.to_owned()),
        ("literal \\n", pem.replace('\n', "\\n")),
        ("literal \\r\\n", pem.replace('\n', "\\r\\n")),
        ("blanks", pem.replace('\n', " ")),
        ("one line", pem.replace('\n', "")),
        ("CRLF", pem.replace('\n', "\r\n")),
        ("BOM", format!("\u{feff}{pem}")),
        ("text before", format!("subject=CN = x\nissuer: y\n\n{pem}")),
        ("text after", format!("{pem}\nbye\n")),
        ("indented", pem.replace('\n', "\n    ")),
        (
            "EC PARAMETERS",
            format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{pem}"),
        ),
        ("base64 once more", LENIENT.encode(pem)),
        (
            "base64 with newlines",
            LENIENT
                .encode(pem)
                .as_bytes()
                .chunks(20)
                .map(|c| format!("{}\n", std::str::from_utf8(c).unwrap()))
                .collect(),
        ),
        ("no padding", pem.replace("==", "")),
        ("base64 twice more", LENIENT.encode(LENIENT.encode(pem))),
        (
            "base64 three times more, wrapped",
            format!("{}\n", LENIENT.encode(LENIENT.encode(LENIENT.encode(pem) + "\n"))),
        ),
        ("four dashes", pem.replace("-----", "----")),
        ("six dashes", pem.replace("-----", "------")),
        ("a dash too few at one end", pem.replacen("-----\n", "----\n", 1)),
        ("word processor", pem.replace("-----", "\u{2014}\u{2014}-")),
        (
            "small letters",
            pem.replace("BEGIN", "Begin").replace("CERTIFICATE", "certificate").replace("PRIVATE KEY", "private key"),
        ),
        ("blank before the dashes", pem.replace("-----BEGIN", "  ----- BEGIN").replace("-----\n", " -----\n")),
    ]
}

#[test]
fn deformed_pem_is_read_all_the_same() {
    for (name, text) in deformed(CERTIFICATE) {
        assert_eq!(certificates(&text.into()).map(|c| c[0].len()), Ok(16), "{name}");
    }
    for (name, text) in deformed(KEY) {
        assert!(private_key(&text.into(), None).is_ok(), "{name}");
    }
}

#[test]
fn text_in_other_encodings_is_read() {
    let utf16 = |text: &str, big: bool| -> Vec<u8> {
        text.encode_utf16().flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
    };
    let latin = |pem: &str| [b"# Schl\xfcssel\n".as_slice(), pem.as_bytes(), b"\xfc"].concat();
    for (name, mark, big) in
        [("little, mark", "\u{feff}", false), ("big, mark", "\u{feff}", true), ("little", "", false), ("big", "", true)]
    {
        let coded = |pem: &str| Secret::new(utf16(&format!("{mark}{pem}"), big));
        assert!(certificates(&coded(CERTIFICATE)).is_ok(), "{name}");
        assert!(private_key(&coded(KEY), None).is_ok(), "{name}");
    }
    assert!(certificates(&Secret::new(latin(CERTIFICATE))).is_ok());
    assert!(private_key(&Secret::new(latin(KEY)), None).is_ok());
    assert!(leniencies(&Secret::new(latin(KEY))).iter().any(|odd| odd.contains("UTF-8")));
    assert!(leniencies(&KEY.replace("-----", "----").as_str().into()).iter().any(|odd| odd.contains("line 1 ")));
}

#[test]
fn other_encodings_are_read_and_told() {
    let utf32 = |text: &str, big: bool| -> Vec<u8> {
        text.chars().flat_map(|c| if big { u32::from(c).to_be_bytes() } else { u32::from(c).to_le_bytes() }).collect()
    };
    let percent = |text: &str, form: bool| -> String {
        text.chars()
            .map(|c| match c {
                ' ' if form => "+".to_owned(),
                c if c.is_ascii_alphanumeric() || c == '-' => c.to_string(),
                c => format!("%{:02X}", u32::from(c)),
            })
            .collect()
    };
    for (name, coded, odd) in [
        ("UTF-32, little", utf32(CERTIFICATE, false), "UTF-32"),
        ("UTF-32, big", utf32(CERTIFICATE, true), "UTF-32"),
        ("UTF-32 with a mark", utf32(&format!("\u{feff}{CERTIFICATE}"), false), "UTF-32"),
        ("URL", percent(CERTIFICATE, false).into_bytes(), "URL"),
        ("form", percent(CERTIFICATE, true).into_bytes(), "URL"),
        ("URL, hyphens, too", percent(CERTIFICATE, false).replace('-', "%2D").into_bytes(), "URL"),
    ] {
        let secret = Secret::new(coded);
        assert_eq!(certificates(&secret).map(|c| c[0].len()), Ok(16), "{name}");
        let odds = leniencies(&secret);
        assert!(odds.iter().any(|one| one.contains(odd)), "{name}: {odds:?}");
        assert!(!odds.iter().any(|one| one.contains("once more")), "{name}: {odds:?}");
    }
    let page = CERTIFICATE.replace("CwwN", "Cw\u{200b}wN");
    assert!(certificates(&page.as_str().into()).is_ok());
}

#[test]
fn damage_is_told_with_its_cause() {
    let lines = |before: &str| {
        let body = CERTIFICATE.replace("BgcI", "BgcI\n");
        body.lines().map(|line| format!("{before}{line}\n")).collect::<String>()
    };
    let conflict = format!("<<<<<<< HEAD\n{CERTIFICATE}=======\n{CERTIFICATE}>>>>>>> other\n");
    let other_length = CERTIFICATE.replace("BgcI", "");
    for (text, said, fix) in [
        (lines("> "), "a reply to a mail", "sed"),
        (lines("+"), "a diff", "sed"),
        (lines("12: "), "its number", "sed"),
        (CERTIFICATE.replace("==", "=3D=3D"), "quoted-printable", "sed"),
        (other_length, "lost or doubled", "copy it again"),
        (conflict, "conflict markers", "sed"),
    ] {
        let error = certificates(&text.as_str().into()).unwrap_err();
        assert_eq!(error.code(), "TLS-PEM-DAMAGED", "{text}");
        assert!(error.to_string().contains(said), "{error}");
        let written = error.fix(Expected::Certificate, Some(Path::new("tls.crt")));
        assert!(written.contains(fix), "{written}");
    }
}

#[test]
fn formats_are_told_by_their_content() {
    let code = |bytes: &[u8]| certificates(&Secret::new(bytes.to_vec())).unwrap_err().code();
    let table: [(&[u8], &str); 26] = [
        (b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n", "TLS-PUTTY"),
        (b"PK\x03\x04\x14\0\0\0\xff\xfe", "TLS-ARCHIVE"),
        (b"\x1f\x8b\x08\0\xff", "TLS-ARCHIVE"),
        (b"\xfd7zXZ\0\0", "TLS-ARCHIVE"),
        (&[b"PK\x03\x04".as_slice(), CERTIFICATE.as_bytes()].concat(), "TLS-ARCHIVE"),
        (&[[0; 257].as_slice(), b"ustar", CERTIFICATE.as_bytes()].concat(), "TLS-ARCHIVE"),
        (b"{\"data\": \"ENC[AES256_GCM,data:x]\", \"sops\": {}}", "TLS-FILE-ENCRYPTED"),
        (b"data: ENC[AES256_GCM,data:x]\nsops:\n    age: []\n", "TLS-FILE-ENCRYPTED"),
        (b"age-encryption.org/v1\n-> X25519 abc\n", "TLS-FILE-ENCRYPTED"),
        (b"age-encryption.org/v1\n-> X25519 abc\n\xff\xfe", "TLS-FILE-ENCRYPTED"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n", "TLS-FILE-ENCRYPTED"),
        (b"$ANSIBLE_VAULT;1.1;AES256\n6133\n", "TLS-FILE-ENCRYPTED"),
        (b"-----BEGIN PGP MESSAGE-----\n\nhQEM\n=ab12\n-----END PGP MESSAGE-----\n", "TLS-FILE-ENCRYPTED"),
        (b"\0GITCRYPT\0\xff\xfe", "TLS-FILE-ENCRYPTED"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "TLS-GIT-LFS"),
        (b"apiVersion: v1\ndata:\n  tls.crt: LS0t\nkind: Secret\nmetadata:\n  name: db\n", "TLS-KUBERNETES-SECRET"),
        (b"{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"Secret\",\n  \"data\": {}\n}", "TLS-KUBERNETES-SECRET"),
        (b"kind: SealedSecret\n", "TLS-KUBERNETES-SECRET"),
        (b"Certificate:\n    Data:\n        Version: 3 (0x2)\n", "TLS-TEXT-OUTPUT"),
        (b"Private-Key: (256 bit)\npriv:\n", "TLS-TEXT-OUTPUT"),
        (b"ssh-ed25519 AAAA me@here\n", "TLS-SSH-PUBLIC-KEY"),
        (b"\"/etc/tls/tls.crt\"", "TLS-PATH-AS-PEM"),
        (b"-----BEGIN PKCS7-----\nMAEC\n-----END PKCS7-----\n", "TLS-PKCS7"),
        (&[0x30, 0x82, 4, 0xe2, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2, 0xff], "TLS-PKCS7"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nMAEC\n-----END CERTIFICATE REQUEST-----\n", "TLS-NO-CERTIFICATE"),
        (b"hello\n", "TLS-NOT-PEM"),
    ];
    for (bytes, expected) in table {
        assert_eq!(code(bytes), expected, "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn what_is_not_there_is_said() {
    let fails = |text: &str| certificates(&text.into()).unwrap_err().to_string();
    assert_eq!(fails(" \n"), "it is empty");
    assert!(fails(KEY).contains("swapped"));
    assert!(fails("/etc/tls/tls.crt").contains("looks like a path"));
    assert!(fails("<!DOCTYPE html><html>").contains("web page"));
    assert!(fails("-----BEGIN CERTIFICATE-----\nMAEC").contains("no end"));
    assert!(fails("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----").contains("not base64"));
    let binary = |bytes: &[u8]| certificates(&Secret::new(bytes.to_vec())).unwrap_err().code();
    assert_eq!(binary(&[0x30, 0x82, 0xff, 0xfe, 0x30]), "TLS-DER");
    assert_eq!(binary(&[0x30, 0x82, 0x0b, 0xfe, 0x02, 0x01, 0x03, 0x30, 0x82]), "TLS-PKCS12");
    assert_eq!(binary(&[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2]), "TLS-JKS");
    assert_eq!(binary(&[0xff, 0xfe]), "TLS-NOT-PEM");
    let key = |text: &str| private_key(&text.into(), None).unwrap_err();
    assert_eq!(key(&format!("{KEY}{KEY}")), PemError::SeveralKeys { count: 2 });
    assert_eq!(key(&KEY.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")), PemError::Encrypted);
    let dsa = format!(
        "-----BEGIN DSA PRIVATE KEY-----\n{}\n-----END DSA PRIVATE KEY-----",
        LENIENT.encode([0x30, 18, 2, 1, 0, 2, 1, 7, 2, 1, 7, 2, 1, 7, 2, 1, 7, 2, 1, 7,])
    );
    assert_eq!(key(&dsa), PemError::UnknownKey { kind: "DSA".to_owned() });
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00FF\n\nMAEC\n-----END RSA PRIVATE KEY-----";
    assert_eq!(key(legacy), PemError::Encrypted);
}

proptest! {
    /// Valid PEM with a few characters changed, removed or doubled.
    #[test]
    fn damage_does_no_harm(key in any::<bool>(), cuts in prop::collection::vec((0..120_usize, any::<char>(), 0..3_u8), 1..4)) {
        let mut text: Vec<char> = if key { KEY } else { CERTIFICATE }.chars().collect();
        for (at, letter, what) in cuts {
            let at = at % text.len();
            match what {
                0 => text[at] = letter,
                1 => text.truncate(at + 1),
                _ => text.insert(at, letter),
            }
        }
        let secret = Secret::from(text.into_iter().collect::<String>());
        let _ = certificates(&secret);
        let _ = private_key(&secret, None);
        let _ = revocation_lists(&secret);
        let _ = leniencies(&secret);
    }

    #[test]
    fn bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let secret = Secret::new(bytes);
        let _ = (certificates(&secret), private_key(&secret, None).err(), revocation_lists(&secret));
    }

    #[test]
    fn nothing_panics_and_nothing_leaks(text in ".{0,200}") {
        for candidate in [text.clone(), format!("-----BEGIN {text}"), format!("-----BEGIN X-----{text}-----END X-----")] {
            let secret = Secret::from(candidate);
            let _ = certificates(&secret);
            let _ = private_key(&secret, None);
            let _ = private_key(&secret, Some(&Secret::from("passphrase")));
        }
    }
}
