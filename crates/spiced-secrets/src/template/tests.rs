//! The grammar: tables of cases, and properties over arbitrary text.

use proptest::prelude::*;
use tls_core::Secret;

use super::{Part, Reference, Template, text_of};

/// Returns the parts as text: literals as they are, references as `<store|KEY>`.
fn shape(text: &str) -> Result<Vec<String>, Vec<String>> {
    let show = |part: &Part| match part {
        Part::Literal(text) => text_of(text).to_owned(),
        Part::Reference(Reference { store, key }) => format!("<{store}|{key}>"),
    };
    match Template::parse(text) {
        Ok(template) => Ok(template.parts().iter().map(show).collect()),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn the_forms_of_the_contract() {
    for (text, parts) in [
        ("", &[] as &[&str]),
        ("plain", &["plain"]),
        ("${env:A}", &["<env|A>"]),
        ("${ secrets : A }", &["<secrets|A>"]),
        ("${\tsecrets:A\t}", &["<secrets|A>"]),
        ("a${x:B}c", &["a", "<x|B>", "c"]),
        ("${a:B}${c:D}", &["<a|B>", "<c|D>"]),
        ("${aws:spice/tls/certificate}", &["<aws|spice/tls/certificate>"]),
        ("${s:AZaz09_.+=@/-}", &["<s|AZaz09_.+=@/->"]),
        ("${env:K}:ro", &["<env|K>", ":ro"]),
        ("$${env:A}", &["${env:A}"]),
        ("$$${env:A}", &["$", "<env|A>"]),
        ("$$$${env:A}", &["$${env:A}"]),
        ("$$$$${env:A}", &["$$", "<env|A>"]),
        ("$", &["$"]),
        ("$$", &["$$"]),
        ("a$b $$c {x} }", &["a$b $$c {x} }"]),
        ("$${", &["${"]),
        ("$${${env:A}}", &["${", "<env|A>", "}"]),
    ] {
        assert_eq!(shape(text).unwrap(), parts, "{text}");
    }
}

#[test]
fn a_malformed_reference_says_where_and_what() {
    for (text, message) in [
        ("ab${", "the `${` at character 3 of the value: there is no `}` after it"),
        ("hunter2${env:A hunter3", "the `${` at character 8 of the value: there is no `}`"),
        ("${A}", "`${A}` at character 1 of the value: it names no store"),
        ("x\ny${}", "`${}` at line 2, character 2 of the value: it names no store"),
        ("é${:A}", "`${:A}` at character 2 of the value: the store's name before the `:` is empty"),
        ("${env:}", "the KEY after the `:` is empty"),
        ("${env: }", "the KEY after the `:` is empty"),
        ("${e v:A}", "the store's name may contain letters"),
        ("${env:A:B}", "KEY may contain letters"),
        ("${env:A B}", "KEY may contain letters"),
        ("${env:É}", "KEY may contain letters"),
        ("${env:${env:A}}", "the `${` at character 1 of the value: references do not nest"),
        ("${env:\nA}", "the `${` at character 1 of the value: KEY may contain"),
    ] {
        let errors = shape(text).unwrap_err();
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert!(errors[0].contains(message), "{text}: {}", errors[0]);
        assert!(!errors[0].contains("hunter"), "{}", errors[0]);
    }
}

#[test]
fn all_malformed_references_come_at_once() {
    let errors = Template::parse("${A} ${env:OK} ${B} ${").unwrap_err();
    assert_eq!(errors.iter().map(|e| (e.line(), e.column())).collect::<Vec<_>>(), [(1, 1), (1, 16), (1, 21)]);
}

#[test]
fn long_text_in_braces_is_not_repeated() {
    let errors = shape(&format!("${{{}}}", "s".repeat(200))).unwrap_err();
    assert!(errors[0].starts_with("the `${` at character 1"), "{}", errors[0]);
}

#[test]
fn what_a_store_gives_is_not_looked_at_again() {
    let template = Template::parse("<${env:A}>").unwrap();
    let value = template.render(|_| Secret::from("${env:B} $${"));
    assert_eq!(value.expose_text(), Ok("<${env:B} $${>"));
}

#[test]
fn literals_of_the_command_line_stay() {
    let template = Template::literal("$${a} ${env:B} ${");
    assert!(template.is_literal());
    assert_eq!(template.as_literal(), Some("$${a} ${env:B} ${"));
    assert_eq!(Template::literal("").as_literal(), Some(""));
}

#[test]
fn a_suffix_is_read_from_the_literal_text_alone() {
    let template = Template::parse("${env:A}:ro").unwrap();
    assert!(template.strip_suffix(":rw").is_none());
    let stripped = template.strip_suffix(":ro").unwrap();
    assert_eq!(stripped.parts().len(), 1);
    assert!(stripped.strip_suffix("A}").is_none());
    assert_eq!(Template::parse("key:ro").unwrap().strip_suffix(":ro").unwrap().as_literal(), Some("key"));
    assert!(Template::parse("").unwrap().strip_suffix(":ro").is_none());
}

#[test]
fn debug_shows_no_literal_text() {
    let shown = format!("{:?}", Template::parse("hunter2${env:A}").unwrap());
    assert!(!shown.contains("hunter2") && shown.contains("\"A\""), "{shown}");
}

/// Escapes literal text so that it parses as itself, depending on whether a reference follows.
fn escaped(text: &str, before_reference: bool) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let dollars = rest[at..].bytes().take_while(|b| *b == b'$').count();
        rest = &rest[at + dollars..];
        let doubled = rest.starts_with('{') || (rest.is_empty() && before_reference);
        out.extend(std::iter::repeat_n('$', dollars * if doubled { 2 } else { 1 }));
    }
    out + rest
}

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    Ask(String, String),
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let text = "[$a{} \n:é]{1,8}".prop_map(Piece::Text);
    let ask = ("[a-zA-Z0-9_-]{1,6}", "[A-Za-z0-9_.+=@/-]{1,10}").prop_map(|(store, key)| Piece::Ask(store, key));
    proptest::collection::vec(prop_oneof![text, ask], 0..8)
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC*", braces in "[${}: aA\\n]{0,40}") {
        let _ = Template::parse(&text);
        let _ = Template::parse(&braces);
    }

    #[test]
    fn text_without_an_opening_is_untouched(text in "[$a{} :\\n]{0,40}") {
        let text = text.replace("${", "$ {");
        let template = Template::parse(&text).unwrap();
        prop_assert_eq!(template.as_literal(), Some(text.as_str()));
    }

    #[test]
    fn what_is_written_is_read_back(pieces in pieces()) {
        let (mut written, mut expected) = (String::new(), String::new());
        let mut references = Vec::new();
        // Adjacent texts form one literal, so they are escaped together.
        let mut literal = String::new();
        for piece in &pieces {
            match piece {
                Piece::Text(text) => literal.push_str(text),
                Piece::Ask(store, key) => {
                    written += &escaped(&std::mem::take(&mut literal), true);
                    written += &format!("${{{store}:{key}}}");
                    references.push((store.clone(), key.clone()));
                }
            }
        }
        written += &escaped(&literal, false);
        for piece in &pieces {
            match piece {
                Piece::Text(text) => expected.push_str(text),
                Piece::Ask(store, key) => expected.push_str(&format!("<{store}|{key}>")),
            }
        }
        let template = Template::parse(&written).unwrap();
        let read: Vec<_> = template.references().map(|r| (r.store().to_owned(), r.key().to_owned())).collect();
        prop_assert_eq!(read, references);
        let value = template.render(|r| Secret::from(format!("<{}|{}>", r.store(), r.key())));
        prop_assert_eq!(value.expose_text().unwrap(), expected);
    }

    #[test]
    fn no_error_repeats_the_text_around(before in "[QXZ]{3,9}", after in "[QXZ]{3,9}", inside in "[a-z$! ]{0,9}") {
        if let Err(errors) = Template::parse(&format!("{before}${{{inside}}}{after}")) {
            for error in errors {
                let shown = format!("{error} {error:?}");
                prop_assert!(!shown.contains(&before) && !shown.contains(&after), "{}", shown);
            }
        }
    }
}
