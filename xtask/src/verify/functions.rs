//! Finds function bodies by matching braces.

use super::source::{is_word_char, words};

/// A function that has a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Of the `fn`, from 1.
    pub(crate) line: usize,
    /// From the line of `fn` to the line of the closing brace, both counted.
    pub(crate) lines: usize,
}

/// The functions in `code`, which must be free of comments and literals; inner functions count for
/// themselves and for the function around them.
///
/// Knows no grammar. A brace in a signature outside of `()` and `[]` (`Foo<{ N }>`) is taken for
/// the body, which can only make a function look shorter.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let rest = &code[at..];
        let name = rest["fn".len()..].trim_start();
        // `$` because a macro's functions count too; no name at all is the type `fn(…)`.
        let end = name.find(|c| !is_word_char(c) && c != '$' && c != '#').unwrap_or(name.len());
        let name = &name[..end];
        let raw_identifier = code[..at].ends_with('#');
        let Some(len) = len_with_body(rest).filter(|_| !name.is_empty() && !raw_identifier) else {
            continue;
        };
        found.push(Function {
            name: name.to_owned(),
            line: code[..at].matches('\n').count() + 1,
            lines: rest[..len].matches('\n').count() + 1,
        });
    }
    found
}

/// Length up to the brace that closes the first block; none when a `;` comes before it.
fn len_with_body(text: &str) -> Option<usize> {
    let mut nested = 0_usize; // in () and []
    let mut braces = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' if braces == 0 => nested += 1,
            ')' | ']' if braces == 0 => nested = nested.checked_sub(1)?,
            ';' if braces == 0 && nested == 0 => return None,
            '{' if nested == 0 => braces += 1,
            '}' if nested == 0 => {
                braces = braces.checked_sub(1)?;
                if braces == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::source::Source;

    fn check(text: &str, expected: &[(&str, usize, usize)]) {
        let found = functions(&Source::new("x.rs", text).code);
        let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn bodies_are_measured() {
        check("fn a() {}", &[("a", 1, 1)]);
        check("\nfn a() {\n    b(\"}\");\n}\nfn c() {\n}", &[("a", 2, 3), ("c", 5, 2)]);
        check("fn a(\n    b: u8,\n) -> u8\nwhere\n    u8: Copy,\n{\n    b\n}", &[("a", 1, 8)]);
        check("fn a() {\n    fn b() {\n    }\n}", &[("a", 1, 4), ("b", 2, 2)]);
        check("fn a() -> [u8; { 1 + 1 }] {\n}", &[("a", 1, 2)]);
        check("fn a() {\n    if b { c(')') } // }\n}", &[("a", 1, 3)]);
        check("const fn $name() {\n}", &[("$name", 1, 2)]);
    }

    #[test]
    fn what_has_no_body_is_no_function() {
        check("trait T { fn a(&self) -> [u8; 4];\n fn b() {}\n}", &[("b", 2, 1)]);
        check("type F = fn(u8) -> u8; struct S { f: fn(), g: u8 }", &[]);
        check("let r#fn = 1; let x = fn_name { a };", &[]);
        check("fn unfinished() {", &[]);
    }
}
