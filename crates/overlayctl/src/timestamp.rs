//! Points in time for people.

/// `2026-11-23 14:00:00 UTC` of milliseconds since 1970. Empty for 0, which means "none".
pub(crate) fn utc(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return String::new();
    }
    let seconds = unix_ms / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from 1 March, so that the leap day is the last of its year, in eras of 400
/// years (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let since_era_0 = days + 719_468;
    let (era, day_of_era) = (since_era_0 / 146_097, since_era_0 % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // What `date -u -d @SECONDS` prints.
    #[rstest]
    #[case(0, "")]
    #[case(1, "1970-01-01 00:00:00 UTC")]
    #[case(951_782_399_000, "2000-02-28 23:59:59 UTC")]
    #[case(951_782_400_000, "2000-02-29 00:00:00 UTC")]
    #[case(1_709_251_199_999, "2024-02-29 23:59:59 UTC")]
    #[case(1_795_478_400_000, "2026-11-24 00:00:00 UTC")]
    #[case(4_107_542_400_000, "2100-03-01 00:00:00 UTC")]
    fn shown(#[case] unix_ms: u64, #[case] expected: &str) {
        assert_eq!(utc(unix_ms), expected);
    }
}
