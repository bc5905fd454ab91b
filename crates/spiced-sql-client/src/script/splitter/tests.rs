use proptest::prelude::*;

use super::*;

/// Returns the bodies of the pieces that are not blank; the last one may be incomplete.
fn bodies(text: &str) -> Vec<String> {
    let mut splitter = Splitter::default();
    let mut pieces = splitter.push(text);
    pieces.push(splitter.cut());
    pieces.iter().filter(|piece| piece.kind != Kind::Blank).map(|piece| piece.body().to_owned()).collect()
}

fn within(text: &str) -> bool {
    let mut splitter = Splitter::default();
    splitter.push(text);
    splitter.is_within()
}

#[test]
fn statements_end_where_they_end() {
    for (text, expected) in [
        ("", vec![]),
        (" ;; ;\n", vec![]),
        ("SELECT 1", vec!["SELECT 1"]),
        ("SELECT 1; SELECT 2 ;", vec!["SELECT 1", "SELECT 2"]),
        ("SELECT ';'; SELECT 'it''s; x';", vec!["SELECT ';'", "SELECT 'it''s; x'"]),
        (r"SELECT E'it\'s; x', e'\\'; SELECT 'a\';", vec![r"SELECT E'it\'s; x', e'\\'", r"SELECT 'a\'"]),
        (r"SELECT E'a''\';b'; 1", vec![r"SELECT E'a''\';b'", "1"]),
        // The `e` at the end of a longer word has no effect.
        (r"SELECT date'\'; 2", vec![r"SELECT date'\'", "2"]),
        (r#"SELECT ";" , `;` , "a"";"; x"#, vec![r#"SELECT ";" , `;` , "a"";""#, "x"]),
        ("SELECT 1 -- no; end\n; SELECT 2", vec!["SELECT 1 -- no; end", "SELECT 2"]),
        ("-- ; only a comment\n", vec![]),
        ("/* ; /* ; */ ; */ SELECT 1; x", vec!["/* ; /* ; */ ; */ SELECT 1", "x"]),
        ("SELECT 1 /**/; SELECT 2 /***/; 3 */ 4", vec!["SELECT 1 /**/", "SELECT 2 /***/", "3 */ 4"]),
        ("SELECT 4 - -1; SELECT 4/2; SELECT 1-", vec!["SELECT 4 - -1", "SELECT 4/2", "SELECT 1-"]),
        ("SELECT 1-'a;b'; x", vec!["SELECT 1-'a;b'", "x"]),
        ("SELECT $$ a;b $ c $$; x", vec!["SELECT $$ a;b $ c $$", "x"]),
        ("SELECT $t$ ; $$ ; $tt$ ; $$t$; x", vec!["SELECT $t$ ; $$ ; $tt$ ; $$t$", "x"]),
        ("SELECT $1, $name; x", vec!["SELECT $1, $name", "x"]),
        ("SELECT a$$;$$ FROM b; x", vec!["SELECT a$$", "$$ FROM b; x"]),
        ("SELECT 'ü;';\nSELECT $é$;$é$", vec!["SELECT 'ü;'", "SELECT $é$;$é$"]),
    ] {
        assert_eq!(bodies(text), expected, "{text}");
    }
}

#[test]
fn commands_are_lines() {
    for (text, expected) in [
        ("\\d", vec!["\\d"]),
        ("  \\d t; x\nSELECT 1;\n\\q\n", vec!["\\d t; x", "SELECT 1", "\\q"]),
        ("-- c\n\\d\n", vec!["\\d"]),
        ("SELECT '\\d'; SELECT 1 \\d", vec!["SELECT '\\d'", "SELECT 1 \\d"]),
        ("SELECT 1\n\\d\n", vec!["SELECT 1\n\\d"]),
        ("SELECT 1; \\d\nx", vec!["SELECT 1", "\\d", "x"]),
    ] {
        assert_eq!(bodies(text), expected, "{text}");
    }
}

#[test]
fn what_is_open_and_since_when() {
    for (text, open) in [
        ("", false),
        ("SELECT 1;", false),
        ("SELECT 1; \n-- done", false),
        ("-- not begun", false),
        ("SELECT 1", true),
        ("SELECT 1 -- ;", true),
        ("/* a", true),
        ("SELECT '\n;", true),
        ("\\d", false),
    ] {
        assert_eq!(within(text), open, "{text}");
    }
    for (text, message) in [
        ("SELECT 1;\nSELECT 'a\n;", "a text in '…' that begins in line 2 has no end"),
        ("\n\n/* ; ", "a comment that begins in line 3 has no end"),
        ("SELECT \"a;", "a quoted name that begins in line 1 has no end"),
        ("SELECT\n$x$ ; $x ", "a text in $…$ that begins in line 2 has no end"),
    ] {
        let mut splitter = Splitter::default();
        splitter.push(text);
        assert_eq!(splitter.finish().unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn each_piece_knows_its_line() {
    let mut splitter = Splitter::default();
    let mut pieces = splitter.push("SELECT\n1;\n\n-- c\nSELECT 2;\n  \\d\nSELECT 3");
    pieces.extend(splitter.finish().unwrap());
    let told = pieces.iter().filter(|piece| piece.kind != Kind::Blank);
    let lines: Vec<_> = told.map(|piece| (piece.kind, piece.line)).collect();
    assert_eq!(lines, [(Kind::Statement, 1), (Kind::Statement, 5), (Kind::Command, 6), (Kind::Statement, 7)]);
}

/// Generates text of tokens that matter to the splitter, so that quotes and comments open and close.
fn sql() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "'", "\"", "`", "$", "$$", "$t$", "--", "-", "/", "/*", "*/", "*", ";", "\n", " ", "\\", "E'", "e", "a", "ü",
        "1", "''",
    ]);
    prop::collection::vec(words, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn the_pieces_joined_are_the_text(text in prop_oneof![sql(), ".{0,200}"]) {
        let mut splitter = Splitter::default();
        let mut joined: String = splitter.push(&text).into_iter().map(|piece| piece.text).collect();
        joined.push_str(&splitter.pending);
        prop_assert_eq!(joined, text);
    }

    #[test]
    fn it_does_not_matter_how_the_text_comes(text in sql(), at in 0_usize..200) {
        let whole = Splitter::default().push(&text);
        let cut = text.char_indices().map(|(at, _)| at).nth(at).unwrap_or(text.len());
        let mut splitter = Splitter::default();
        let mut parts = splitter.push(&text[..cut]);
        parts.extend(splitter.push(&text[cut..]));
        prop_assert_eq!(parts, whole);
    }

    #[test]
    fn a_piece_split_again_is_the_same_piece(text in sql()) {
        // Whitespace before a command is a piece because of the command; on its own it stays pending.
        for piece in Splitter::default().push(&text).into_iter().filter(|piece| piece.kind != Kind::Blank) {
            let again = Splitter::default().push(&piece.text);
            prop_assert_eq!(again.len(), 1, "{:?}", piece);
            prop_assert_eq!((&again[0].text, again[0].kind), (&piece.text, piece.kind));
        }
    }
}
