use proptest::prelude::*;
use rstest::rstest;

use super::*;

/// Digest 0x0102…20, secret 0xa0a1…af. The digest, secret and check parts were computed with
/// Python's integers and hashlib.
const TEXT: &str =
    "OVTKN-1-00wjzlh5yt3uk0mzpcor0i12ol0rrpxdydzggt4b2fvr8yealc-9icnoovcmqb60dzmdhbsjm9wv-46hea";

fn token() -> JoinToken {
    JoinToken::new(
        RootDigest::from_bytes(core::array::from_fn(|i| i as u8 + 1)),
        JoinSecret::from_bytes(core::array::from_fn(|i| i as u8 + 0xa0)),
    )
}

#[test]
fn c02_text_is_what_others_compute() {
    assert_eq!(token().to_text().as_str(), TEXT);
    assert_eq!(TEXT.parse(), Ok(token()));
    assert_eq!(format!("  {TEXT}\n").parse(), Ok(token()));
}

fn with_part(part: usize, change: impl Fn(&str) -> String) -> String {
    let parts: Vec<String> = TEXT
        .split('-')
        .enumerate()
        .map(|(i, text)| if i == part { change(text) } else { text.to_owned() })
        .collect();
    parts.join("-")
}

fn shorter(text: &str) -> String {
    text[1..].to_owned()
}

fn longer(text: &str) -> String {
    format!("0{text}")
}

fn upper(text: &str) -> String {
    format!("{}A", &text[..text.len() - 1])
}

fn accent(text: &str) -> String {
    format!("{}é{}", &text[..2], &text[3..])
}

fn largest(text: &str) -> String {
    "z".repeat(text.len())
}

#[rstest]
#[case::empty(String::new(), TokenError::Prefix)]
#[case::docker(TEXT.replace("OVTKN", "SWMTKN"), TokenError::Prefix)]
#[case::lower_prefix(TEXT.replace("OVTKN", "ovtkn"), TokenError::Prefix)]
#[case::version(TEXT.replace("N-1-", "N-2-"), TokenError::Version)]
#[case::prefix_only("OVTKN".to_owned(), TokenError::Version)]
#[case::cut_off(TEXT[..60].to_owned(), TokenError::Parts { found: 4 })]
#[case::twice(format!("{TEXT}-{TEXT}"), TokenError::Parts { found: 10 })]
#[case::inner_space(TEXT.replacen("-0", "- ", 1),
    TokenError::Character { part: TokenPart::Digest, position: 1 })]
#[case(with_part(2, shorter), TokenError::Length { part: TokenPart::Digest, found: 49, expected: 50 })]
#[case(with_part(2, longer), TokenError::Length { part: TokenPart::Digest, found: 51, expected: 50 })]
#[case(with_part(2, upper), TokenError::Character { part: TokenPart::Digest, position: 50 })]
#[case(with_part(2, largest), TokenError::Range { part: TokenPart::Digest })]
#[case(with_part(3, shorter), TokenError::Length { part: TokenPart::Secret, found: 24, expected: 25 })]
#[case(with_part(3, upper), TokenError::Character { part: TokenPart::Secret, position: 25 })]
#[case(with_part(3, accent), TokenError::Character { part: TokenPart::Secret, position: 3 })]
#[case(with_part(3, largest), TokenError::Range { part: TokenPart::Secret })]
#[case(with_part(4, shorter), TokenError::Length { part: TokenPart::Check, found: 4, expected: 5 })]
#[case(with_part(4, |_| "00000".to_owned()), TokenError::Check)]
fn c02_a_mistyped_token_says_where(#[case] text: String, #[case] expected: TokenError) {
    assert_eq!(text.parse::<JoinToken>(), Err(expected));
}

#[test]
fn c02_every_single_wrong_character_is_mistyped_not_refused_later() {
    for at in TEXT.find("-1-").unwrap() + 3..TEXT.len() {
        for other in ['0', 'z', '7'] {
            let mut text = TEXT.to_owned();
            text.replace_range(at..=at, &other.to_string());
            if text != TEXT {
                assert!(text.parse::<JoinToken>().is_err(), "{text}");
            }
        }
    }
}

#[test]
fn c02_errors_and_debug_do_not_show_the_secret() {
    let secret = TEXT.split('-').nth(3).unwrap();
    assert!(!format!("{:?}", token()).contains(secret));
    assert!(!format!("{:?}", token()).contains("160"), "first byte of the secret");
    for change in [shorter, upper, accent, largest] {
        let error = with_part(3, change).parse::<JoinToken>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret[5..20]), "{error}");
    }
}

proptest! {
    #[test]
    fn c02_tokens_round_trip(digest: [u8; 32], secret: [u8; 16]) {
        let token = JoinToken::new(RootDigest::from_bytes(digest), JoinSecret::from_bytes(secret));
        prop_assert_eq!(token.to_text().parse(), Ok(token));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(OVTKN-1-)?[-0-9a-zé ]{0,100}") {
        let _ = text.parse::<JoinToken>();
    }
}
