//! Rust files as the textual checks see them.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// Where Rust files of this repository live.
const FOLDERS: [&str; 6] = ["benches", "crates", "examples", "fuzz", "tests", "xtask"];

/// One Rust file.
pub(crate) struct Source {
    /// From the root of the workspace, with `/`.
    pub(crate) path: String,
    /// The text with comments, strings and characters turned into spaces; same lines.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: impl Into<String>, text: &str) -> Self {
        Self { path: path.into(), code: without_literals(text) }
    }

    /// All files, sorted by path.
    pub(crate) fn load_all(root: &Path) -> Result<Vec<Self>> {
        let mut sources = Vec::new();
        for folder in FOLDERS {
            collect(root, folder, &mut sources)?;
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(sources)
    }

    /// Whether the file holds tests, examples or benches only: they read clocks and their
    /// functions tell stories.
    pub(crate) fn is_test(&self) -> bool {
        let mut folders: Vec<_> = self.path.split('/').collect();
        let file = folders.pop();
        file == Some("tests.rs")
            || folders.iter().any(|f| ["tests", "examples", "benches"].contains(f))
    }

    /// The numbers, from 1, of lines in whose code `word` stands by itself.
    pub(crate) fn lines_with(&self, word: &str) -> Vec<usize> {
        let at = words(&self.code, word);
        at.map(|at| self.code[..at].matches('\n').count() + 1).collect()
    }
}

fn collect(root: &Path, folder: &str, sources: &mut Vec<Source>) -> Result<()> {
    let Ok(entries) = fs::read_dir(root.join(folder)) else {
        return Ok(()); // not every folder of FOLDERS has to exist
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("reading folder {folder}"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{folder}/{name}");
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(root, &path, sources)?;
            }
        } else if Path::new(&name).extension().is_some_and(|ext| ext == "rs") {
            let text = fs::read_to_string(entry.path()).with_context(|| path.clone())?;
            sources.push(Source::new(path, &text));
        }
    }
    Ok(())
}

/// Byte positions of `word` in `code` where it is not part of a longer word.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word_char) && !after.is_some_and(is_word_char)
    })
}

pub(crate) fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `text` with a space for each character of comments and literals, line ends kept.
fn without_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(len) = literal_len(rest) {
            code.extend(rest[..len].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[len..];
        } else {
            // A word at once, so that `r` at the end of `for` does not start a raw string.
            let word = rest.find(|c| !is_word_char(c)).unwrap_or(rest.len());
            let (taken, left) = rest.split_at(word.max(first.len_utf8()));
            code.push_str(taken);
            rest = left;
        }
    }
    code
}

/// Length of the comment or literal that `text` starts with. What does not end takes all of it.
fn literal_len(text: &str) -> Option<usize> {
    let to_end = text.len();
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(to_end));
    }
    if text.starts_with("/*") {
        return Some(block_comment_len(text));
    }
    if text.starts_with('\'') {
        return character_len(text);
    }
    if let Some(body) = text.strip_prefix('"') {
        let mut escaped = false;
        let end = body.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        return Some(end.map_or(to_end, |end| 1 + end + 1));
    }
    let raw = ["br", "cr", "r"].into_iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let inner = raw.trim_start_matches('#');
    let close = format!("\"{}", "#".repeat(raw.len() - inner.len()));
    let body = inner.strip_prefix('"')?;
    Some(body.find(&close).map_or(to_end, |end| to_end - body.len() + end + close.len()))
}

/// Block comments nest.
fn block_comment_len(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// `'a'`, `'\''`, `'\u{e9}'`, but not the lifetime `'a`.
fn character_len(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    if chars.next()?.1 == '\\' {
        let (escaped, _) = chars.next()?;
        return text[escaped + 1..].find('\'').map(|close| escaped + 1 + close + 1);
    }
    let (at, close) = chars.next()?;
    (close == '\'').then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `code` is what must be left of `text`, runs of spaces aside.
    fn check(text: &str, code: &str) {
        let left = without_literals(text);
        assert_eq!(left.split(' ').filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" "), code);
        assert_eq!(left.chars().count(), text.chars().count(), "{text}");
    }

    #[test]
    fn comments_and_literals_become_spaces() {
        check("a // fn {\nb", "a \nb");
        check("a /* /* { */ } */ b", "a b");
        check("/* never closed {", "");
        check(r#"f("{\"}\\") }"#, "f( ) }");
        check("f(\"a\nb\") }", "f( \n ) }");
        check("f(r\"\\\") }", "f( ) }");
        check("f(br##\"\"#{\"##) }", "f( ) }");
        check("f('{', '\\'', '\\u{7b}', 'é') }", "f( , , , ) }");
        check("b'{' }", "b }");
    }

    #[test]
    fn what_only_looks_like_a_literal_stays() {
        check("fn f<'a, 'b>(r: &'a str)", "fn f<'a, 'b>(r: &'a str)");
        check("'outer: loop { break 'outer }", "'outer: loop { break 'outer }");
        check("r#fn + for_r + br", "r#fn + for_r + br");
        check("a / b * c", "a / b * c");
    }

    #[test]
    fn words_are_found_by_line() {
        let source = Source::new("x.rs", "unsafe_code\nis_unsafe_code // unsafe_code\nunsafe_code");
        assert_eq!(source.lines_with("unsafe_code"), [1, 3]);
    }

    #[test]
    fn tests_are_known_by_their_place() {
        let is_test = |path: &str| Source::new(path, "").is_test();
        assert!(is_test("crates/a/src/foo/tests.rs"));
        assert!(is_test("crates/a/tests/suite/main.rs"));
        assert!(is_test("examples/three-node.rs"));
        assert!(!is_test("crates/a/src/attests.rs"));
    }
}
