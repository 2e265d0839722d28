//! Labels: what users note about networks, services and nodes.

use std::collections::BTreeMap;

use crate::SpecError;

/// Most labels of one object. They are notes, not files: every node holds them all.
pub const MAX_LABELS: usize = 64;
/// Most bytes of a label's key, and of its value.
pub const MAX_LEN: usize = 256;

/// How much of a key that is too long an error shows, in characters.
const SHOWN: usize = 32;

/// Refuses labels that are too many or too long, and one without a key.
pub fn check(labels: &BTreeMap<String, String>) -> Result<(), SpecError> {
    if labels.len() > MAX_LABELS {
        let reason = format!("there are at most {MAX_LABELS} labels");
        return Err(SpecError::new("label", labels.len(), reason));
    }
    let long = |(key, value): &(&String, &String)| key.len().max(value.len()) > MAX_LEN;
    if let Some((key, _)) = labels.iter().find(long) {
        let start: String = key.chars().take(SHOWN).collect();
        let reason = format!("key and value have at most {MAX_LEN} bytes each");
        return Err(SpecError::new("label", start, reason));
    }
    if labels.contains_key("") {
        return Err(SpecError::new("label", "", "a label has a key"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(labels: impl IntoIterator<Item = (String, String)>) -> Option<String> {
        check(&labels.into_iter().collect()).err().map(|error| error.value().to_owned())
    }

    #[test]
    fn r06_labels_are_few_and_short() {
        let labels = |count: usize| (0..count).map(|n| (n.to_string(), String::new()));
        assert_eq!(refused(labels(MAX_LABELS)), None);
        assert_eq!(refused(labels(MAX_LABELS + 1)), Some("65".to_owned()));
        let (fits, long) = ("x".repeat(MAX_LEN), "x".repeat(MAX_LEN + 1));
        assert_eq!(refused([(fits.clone(), fits)]), None);
        assert_eq!(refused([("key".to_owned(), long.clone())]), Some("key".to_owned()));
        assert_eq!(refused([(long, String::new())]), Some("x".repeat(SHOWN)));
        assert_eq!(refused([(String::new(), "x".to_owned())]), Some(String::new()));
    }
}
