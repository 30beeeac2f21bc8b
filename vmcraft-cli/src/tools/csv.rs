//! Comma-separated values, quoted where the tools quote them.

/// Adds a cell to a line, after a comma unless the line is empty.
///
/// A cell with a comma, a space, a quote or a line's end is quoted.
pub(super) fn push_cell(line: &mut Vec<u8>, is_first: bool, cell: &[u8]) {
    if !is_first {
        line.push(b',');
    }
    if !cell.iter().any(|byte| matches!(byte, b',' | b' ' | b'"' | b'\n')) {
        line.extend_from_slice(cell);
        return;
    }
    line.push(b'"');
    for byte in cell {
        if *byte == b'"' {
            line.push(b'"');
        }
        line.push(*byte);
    }
    line.push(b'"');
}

/// A whole line with its end.
pub(super) fn line<T: AsRef<[u8]>>(cells: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut line = Vec::new();
    for (index, cell) in cells.into_iter().enumerate() {
        push_cell(&mut line, index == 0, cell.as_ref());
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    #[test]
    fn cells_with_separators_are_quoted() {
        assert_eq!(
            super::line(["a", "", "b c", "d,e", "f\"g", "h\ni"]),
            b"a,,\"b c\",\"d,e\",\"f\"\"g\",\"h\ni\"\n"
        );
    }
}
