//! Tables for people and JSON documents for programs, out of the same views.

use std::fmt::Write;

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::json;

use crate::flag::Listing;

/// Characters of an id in a table. 62 random bits: prefixes of this length do not collide.
const SHORT_ID_LEN: usize = 12;

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// A kind of object that `ls` shows.
pub(crate) trait Listed: Serialize {
    /// Headers; the first column is the id.
    const COLUMNS: &'static [&'static str];
    /// The whole id.
    fn id(&self) -> &str;
    /// What the list is sorted by, before the id.
    fn name(&self) -> &str;
    /// Cells of all columns but the first.
    fn cells(&self) -> Vec<String>;
    /// Stands behind the id.
    fn mark(&self) -> &'static str {
        ""
    }
}

/// A kind of object that is shown alone, field by field.
pub(crate) trait Inspected: Serialize {
    /// Titles and values; a value has a line for each of its parts. Those without are left out.
    fn fields(&self) -> Vec<(&'static str, String)>;
}

impl Format {
    /// What `ls` prints.
    pub(crate) fn list<T: Listed>(self, mut items: Vec<T>, listing: Listing) -> String {
        items.sort_by(|a, b| (a.name(), a.id()).cmp(&(b.name(), b.id())));
        match self {
            Self::Json if listing.quiet => document(&items.iter().map(T::id).collect::<Vec<_>>()),
            Self::Json => document(&items),
            Self::Table if listing.quiet => one_a_line(items.iter().map(T::id)),
            Self::Table => table(
                T::COLUMNS,
                items.iter().map(|item| {
                    let id = if listing.no_trunc { item.id() } else { short(item.id()) };
                    let mut row = vec![format!("{id}{}", item.mark())];
                    row.extend(item.cells());
                    row
                }),
            ),
        }
    }

    /// What `inspect` prints: an array, also of one.
    pub(crate) fn inspect<T: Inspected>(self, items: &[T]) -> String {
        match self {
            Self::Json => document(&items),
            Self::Table => items.iter().map(fields).collect::<Vec<_>>().join("\n"),
        }
    }

    /// What a command prints that shows one thing.
    pub(crate) fn one<T: Inspected>(self, item: &T) -> String {
        match self {
            Self::Json => document(item),
            Self::Table => fields(item),
        }
    }

    /// What a command prints that made something: the id alone, for the shell's `$(…)`.
    pub(crate) fn created<T: Listed>(self, item: &T) -> String {
        match self {
            Self::Json => document(item),
            Self::Table => format!("{}\n", item.id()),
        }
    }

    /// What a command prints that removed something: the names as they were given.
    pub(crate) fn removed(self, names: &[String]) -> String {
        match self {
            Self::Json => document(&json!({ "removed": names })),
            Self::Table => one_a_line(names),
        }
    }

    /// What a command prints that changed something: the names.
    pub(crate) fn changed(self, names: &[String]) -> String {
        match self {
            Self::Json => document(&json!({ "changed": names })),
            Self::Table => one_a_line(names),
        }
    }

    /// A sentence for people, a document for programs.
    pub(crate) fn said<T: Serialize>(self, sentence: String, item: &T) -> String {
        match self {
            Self::Json => document(item),
            Self::Table => sentence,
        }
    }
}

/// The first characters of an id.
pub(crate) fn short(id: &str) -> &str {
    id.get(..SHORT_ID_LEN).unwrap_or(id)
}

/// `text` without what moves a terminal's cursor. Labels and names come from other people.
pub(crate) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}

fn one_a_line(texts: impl IntoIterator<Item: AsRef<str>>) -> String {
    texts.into_iter().fold(String::new(), |text, line| text + line.as_ref() + "\n")
}

fn document<T: Serialize + ?Sized>(value: &T) -> String {
    // Views hold text, numbers and maps with text keys, which JSON can always express.
    serde_json::to_string_pretty(value).map_or_else(|e| unreachable!("{e}"), |text| text + "\n")
}

/// Columns under their headers, three blanks apart, as Docker prints them.
pub(crate) fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt() + "\n"
}

fn fields<T: Inspected>(item: &T) -> String {
    let fields: Vec<_> = item.fields().into_iter().filter(|(_, v)| !v.is_empty()).collect();
    let width = fields.iter().map(|(title, _)| title.len()).max().unwrap_or_default() + 1;
    let mut text = String::new();
    for (title, value) in fields {
        let mut head = format!("{title}:");
        for line in printable(&value).lines() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{head:width$} {line}");
            head.clear();
        }
    }
    text
}
