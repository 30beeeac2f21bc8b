//! Sizes as the tools print them with `-h`: rounded to nearest, with one decimal below 10.

/// The letters of the powers of 1024.
const UNITS: &[u8] = b"\0KMGTPEZY";

/// A size for people, such as `5`, `1.0K` or `12M`.
pub(crate) fn human(bytes: u128) -> String {
    let mut unit = 0;
    let mut divisor: u128 = 1;
    while bytes / divisor >= 1024 && unit + 1 < UNITS.len() {
        unit += 1;
        divisor *= 1024;
    }
    if unit == 0 {
        return bytes.to_string();
    }
    let tenths = divide_to_nearest(bytes.saturating_mul(10), divisor);
    if tenths < 100 {
        return format!("{}.{}{}", tenths / 10, tenths % 10, char::from(UNITS[unit]));
    }
    match (divide_to_nearest(bytes, divisor), UNITS.get(unit + 1)) {
        (1024, Some(next)) => format!("1.0{}", char::from(*next)),
        (whole, _) => format!("{whole}{}", char::from(UNITS[unit])),
    }
}

/// Halves go to the even neighbour.
fn divide_to_nearest(value: u128, divisor: u128) -> u128 {
    let (whole, rest) = (value / divisor, value % divisor);
    match (rest * 2).cmp(&divisor) {
        std::cmp::Ordering::Less => whole,
        std::cmp::Ordering::Greater => whole + 1,
        std::cmp::Ordering::Equal => whole + whole % 2,
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test] // What gnulib's human_readable gives, by which the tools print sizes.
    fn sizes_are_rounded_to_nearest() {
        for (bytes, shown) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (5000, "4.9K"),
            (10_188, "9.9K"),
            (10_189, "10K"),
            (12_288, "12K"),
            (3_911_680, "3.7M"),
            (12_477_440, "12M"),
            ((1 << 20) - 1, "1.0M"),
            (1 << 40, "1.0T"),
            (u128::from(u64::MAX), "16E"),
        ] {
            assert_eq!(human(bytes), shown, "{bytes}");
        }
    }
}
