//! A table with its columns lined up.

/// How wide a table may be, with two spaces behind each column, for its columns to be that far apart.
const WIDE: usize = 70;

/// The rows as text: each column as wide as its widest cell, with two spaces between columns, or one
/// in a wide table. An empty cell is a dash.
pub(crate) fn lined_up(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = shown(cell).chars().count().max(*width);
        }
    }
    let is_wide = widths.iter().sum::<usize>() + 2 * columns > WIDE;
    let gap = if is_wide { " " } else { "  " };
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{:<width$}", shown(cell))).collect();
        text.push_str(cells.join(gap).trim_end_matches(' '));
        text.push('\n');
    }
    text
}

fn shown(cell: &str) -> &str {
    if cell.is_empty() { "-" } else { cell }
}
