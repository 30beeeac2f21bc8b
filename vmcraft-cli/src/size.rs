//! Sizes as people read them.

/// The units after bytes, each 1024 times the one before.
const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];

/// A size with three digits as QEMU's tools print it, such as `1.5 GiB`.
pub(crate) fn in_words(bytes: u64) -> String {
    let (value, unit) = scale(bytes);
    let unit = unit.map(|unit| format!("{unit}iB")).unwrap_or_else(|| "B".into());
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let number = format!("{value:.digits$}");
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number} {unit}")
}

/// The size in the largest unit that keeps it below 1000, and that unit.
#[allow(clippy::cast_precision_loss)] // Three digits are shown.
fn scale(bytes: u64) -> (f64, Option<&'static str>) {
    let mut value = bytes as f64;
    let mut unit = None;
    for next in UNITS {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = Some(next);
    }
    (value, unit)
}

/// A size as guestfish's options take it: a number and one of `b`, `K`, `M`, `G`, `T`, `P`, `E` (also
/// in small letters), for powers of 1024, or `sects` for sectors of 512 bytes. Without a unit it is in
/// `K`.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    parse_with(text, 1024)
}

/// The same, with the factor that a number without a unit has.
pub(crate) fn parse_with(text: &str, default_factor: u64) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => default_factor,
        "b" => 1,
        "s" | "sects" => 512,
        unit => match UNITS.iter().position(|name| name.eq_ignore_ascii_case(unit)) {
            // 1 << 60 at most.
            Some(power) => 1 << (10 * (power + 1)),
            None => return Err(format!("{text:?} is not a size such as 100M or 1G")),
        },
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is not a size such as 100M or 1G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1536, "1.5 KiB"),
            (10 << 20, "10 MiB"),
            (25_165_824, "24 MiB"),
            (716_800, "700 KiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(in_words(bytes), text);
        }
    }

    #[test]
    fn sizes_are_read_as_guestfish_reads_them() {
        for (text, bytes) in [
            ("1G", 1 << 30),
            ("100m", 100 << 20),
            ("3", 3 << 10),
            ("3b", 3),
            ("2sects", 1024),
            ("8T", 8 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes));
        }
        for bad in ["", "G", "-1", "1X", "1GB", "99999999999999999999", "16E"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
