//! Durations as people write them.

use core::time::Duration;

use overlay_types::SpecError;

/// `12h`, `1h30m`, `45s`, `250ms`, `7d`: numbers with units, longest first or not.
pub(crate) fn parse(field: &'static str, text: &str) -> Result<Duration, SpecError> {
    let refuse = |part: &str, reason: &str| {
        Err(SpecError::new(field, part, reason.to_owned()).found_in(text, part))
    };
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return refuse(rest, "expected a duration like 12h or 1h30m");
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "ms" => 0,
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            "" => return refuse(number, "the unit is missing: ms, s, m, h or d"),
            _ => return refuse(unit, "units are ms, s, m, h and d"),
        };
        let part = number.parse::<u64>().ok().and_then(|number| match seconds {
            0 => Some(Duration::from_millis(number)),
            _ => number.checked_mul(seconds).map(Duration::from_secs),
        });
        let sum = part.and_then(|part| total.checked_add(part));
        total = match (number, sum) {
            ("", _) => return refuse(unit, "a number is missing before the unit"),
            (_, Some(sum)) => sum,
            (_, None) => return refuse(number, "the number is too large"),
        };
        rest = tail;
    }
    if total.is_zero() { refuse(text, "it must be longer than nothing") } else { Ok(total) }
}

/// As [`parse`] reads it, in milliseconds.
pub(crate) fn parse_millis(field: &'static str, text: &str) -> Result<u64, SpecError> {
    let millis = parse(field, text)?.as_millis();
    u64::try_from(millis).map_err(|_| SpecError::new(field, text, "it is too long"))
}

/// As [`parse`] reads it: `1h30m`. What is shorter than a second is left out.
pub(crate) fn shown(duration: Duration) -> String {
    let units = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    let mut left = duration.as_secs();
    let part = |(unit, seconds): (&str, u64)| {
        let count = left / seconds;
        left %= seconds;
        (count > 0).then(|| format!("{count}{unit}"))
    };
    let text: String = units.into_iter().filter_map(part).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("12h", 12 * 3600)]
    #[case("1h30m", 5400)]
    #[case("90s", 90)]
    #[case("7d", 7 * 86400)]
    #[case("0h1s", 1)]
    #[case("1s999ms1001ms", 3)]
    fn duration(#[case] text: &str, #[case] seconds: u64) {
        assert_eq!(parse("rotation-period", text), Ok(Duration::from_secs(seconds)));
    }

    #[rstest]
    #[case("12h", "12h")]
    #[case("90m", "1h30m")]
    #[case("86461s", "1d1m1s")]
    fn written_as_it_is_read(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(shown(parse("rotation-period", text).unwrap()), expected);
        assert_eq!(shown(Duration::from_millis(999)), "0s");
    }

    #[rstest]
    #[case("", "")]
    #[case("12", "12")]
    #[case("h", "h")]
    #[case("12h5", "5")]
    #[case("12x", "x")]
    #[case("12 h", " h")]
    #[case("-1h", "-")]
    #[case("0s", "0s")]
    #[case("99999999999999999999h", "99999999999999999999")]
    #[case("18446744073709551615s18446744073709551615s", "18446744073709551615")]
    fn refused(#[case] text: &str, #[case] value: &str) {
        assert_eq!(parse("rotation-period", text).unwrap_err().value(), value);
    }
}
