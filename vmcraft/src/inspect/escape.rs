//! Bytes that stand in a text as a backslash and three characters.

/// Replaces `\` and three octal digits by the byte: fstab has them for blanks.
pub(super) fn from_octal(text: &[u8]) -> Vec<u8> {
    replaced(text, |digits| digit_value(digits, 8))
}

/// Replaces `\x` and two hexadecimal digits by the byte: udev has them in the names of its links.
pub(super) fn from_hexadecimal(text: &[u8]) -> Vec<u8> {
    replaced(text, |escape| digit_value(escape.strip_prefix(b"x")?, 16))
}

fn digit_value(digits: &[u8], radix: u32) -> Option<u8> {
    let value = digits
        .iter()
        .try_fold(0, |value, digit| Some(value * radix + char::from(*digit).to_digit(radix)?))?;
    u8::try_from(value).ok()
}

/// Replaces each backslash by the byte that `decode` makes of the three characters behind it, if it makes one.
fn replaced(text: &[u8], decode: impl Fn(&[u8]) -> Option<u8>) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let escaped = (*byte == b'\\').then(|| after.split_at_checked(3)).flatten();
        let (value, behind) =
            escaped.and_then(|(escape, behind)| Some((decode(escape)?, behind))).unwrap_or((*byte, after));
        plain.push(value);
        rest = behind;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // What is no escape stays.
    fn escapes_are_replaced() {
        assert_eq!(from_octal(br"a\040b\134040\400\08x\04"), br"a b\040\400\08x\04");
        assert_eq!(from_hexadecimal(br"a\x20b\x5cx20\x+1\xg0\x2"), br"a b\x20\x+1\xg0\x2");
    }
}
