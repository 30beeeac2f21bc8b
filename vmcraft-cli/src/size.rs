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
}
