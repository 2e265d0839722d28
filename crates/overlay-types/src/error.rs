//! The one error of this crate: which part of an input is wrong, and how.

use core::{fmt, ops::Range};

/// An input that is not a valid spec. Nothing was changed.
///
/// Names the field as its user knows it (`published`, `subnet`), the offending value, and, when the
/// value was part of a longer text, that text and where in it the value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    field: &'static str,
    value: String,
    reason: String,
    context: Option<(String, Range<usize>)>,
}

impl SpecError {
    /// `value` of `field` is refused for `reason`, a phrase that says what would be right.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and addresses are given by value")]
    pub fn new(field: &'static str, value: impl ToString, reason: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            field,
            value: value.to_string(),
            reason: reason.into(),
            context: None,
        }))
    }

    /// The same, for a value that is the part `at` (in bytes) of `text`.
    pub fn within(
        field: &'static str,
        text: &str,
        at: Range<usize>,
        reason: impl Into<String>,
    ) -> Self {
        let mut error = Self::new(field, text.get(at.clone()).unwrap_or(text), reason);
        error.0.context = Some((text.to_owned(), at));
        error
    }

    /// The same error about `value` as a part of `text`. `value` must be a slice of `text`.
    #[must_use]
    pub fn found_in(mut self, text: &str, value: &str) -> Self {
        let start = (value.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        if start <= text.len() && start + value.len() <= text.len() {
            self.0.context = Some((text.to_owned(), start..start + value.len()));
        }
        self
    }

    /// The same error, known under another field name.
    #[must_use]
    pub fn of_field(mut self, field: &'static str) -> Self {
        self.0.field = field;
        self
    }

    /// Name of the field.
    pub fn field(&self) -> &'static str {
        self.0.field
    }

    /// The offending value as it was given.
    pub fn value(&self) -> &str {
        &self.0.value
    }

    /// What would be right.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The whole text and a line of carets under the offending part, for a terminal.
    pub fn pointer(&self) -> Option<String> {
        let (text, at) = self.0.context.as_ref()?;
        let indent = text.get(..at.start)?.chars().count();
        let width = text.get(at.clone())?.chars().count().max(1);
        Some(format!("{text}\n{:indent$}{}", "", "^".repeat(width)))
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { field, value, reason, context } = &*self.0;
        write!(f, "{field} {value:?}")?;
        if let Some((text, _)) = context.as_ref().filter(|(text, _)| text != value) {
            write!(f, " in {text:?}")?;
        }
        write!(f, ": {reason}")
    }
}

impl std::error::Error for SpecError {}
