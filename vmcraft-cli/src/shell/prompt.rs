//! What the prompt looks like: `><fs>`, or what the user's environment says.

use bstr::ByteSlice;

use crate::shell::session::Session;

/// What stands before a line that is typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prompt {
    /// Without what a terminal does not show.
    plain: String,
    /// With it.
    styled: String,
}

impl rustyline::Prompt for Prompt {
    fn raw(&self) -> &str {
        &self.plain
    }
    fn styled(&self) -> &str {
        &self.styled
    }
}

impl Prompt {
    /// The prompt of `$VMCRAFT_PS1` or `$GUESTFISH_PS1`, else the usual one.
    pub(crate) fn from_environment(session: &Session) -> Self {
        let set = ["VMCRAFT_PS1", "GUESTFISH_PS1"].into_iter().find_map(|name| session.variable(name));
        match set {
            Some(text) => Self::decode(text.as_encoded_bytes()),
            None => Self::decode(b"><fs> "),
        }
    }

    /// Reads a prompt in guestfish's form: `\a`, `\e`, `\n`, `\r`, `\NNN`, `\xNN` and `\\` are
    /// characters, and what stands between `\[` and `\]` takes no room on the screen.
    fn decode(text: &[u8]) -> Self {
        let (mut plain, mut styled) = (Vec::new(), Vec::new());
        let mut is_shown = true;
        let mut rest = text;
        while let Some((byte, len, is_bracket)) = next(rest) {
            rest = &rest[len..];
            if is_bracket {
                is_shown = byte == b']';
                continue;
            }
            styled.push(byte);
            if is_shown {
                plain.push(byte);
            }
        }
        Self { plain: plain.to_str_lossy().into_owned(), styled: styled.to_str_lossy().into_owned() }
    }
}

/// The next byte, how long its escape is, and whether it is one of `\[` and `\]`.
fn next(text: &[u8]) -> Option<(u8, usize, bool)> {
    let byte = *text.first()?;
    let number = |digits: Option<&[u8]>, radix| {
        let digits = std::str::from_utf8(digits?).ok()?;
        u8::from_str_radix(digits, radix).ok()
    };
    let escape = (byte == b'\\').then(|| text.get(1)).flatten();
    Some(match escape {
        None => (byte, 1, false),
        Some(bracket @ (b'[' | b']')) => (*bracket, 2, true),
        Some(b'a') => (7, 2, false),
        Some(b'e') => (27, 2, false),
        Some(b'n') => (b'\n', 2, false),
        Some(b'r') => (b'\r', 2, false),
        Some(b'\\') => (b'\\', 2, false),
        Some(b'x') => number(text.get(2..4), 16).map_or((byte, 1, false), |n| (n, 4, false)),
        Some(_) => number(text.get(1..4), 8).map_or((byte, 1, false), |n| (n, 4, false)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_take_escapes_and_hidden_parts() {
        let prompt = Prompt::decode(br"\[\e[1;30m\]><fs>\[\033[0m\] \x41\\\q\");
        assert_eq!(prompt.plain, "><fs> A\\\\q\\");
        assert_eq!(prompt.styled, "\x1b[1;30m><fs>\x1b[0m A\\\\q\\");
    }
}
