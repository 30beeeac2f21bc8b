//! The Markdown of doc comments: paragraphs, lists, code blocks and code spans, and no more.

/// The columns of a page.
const WIDTH: usize = 80;

/// How far the text of a page stands in.
const INDENT: &str = "    ";

/// A piece of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    /// Text, on one line.
    Paragraph(String),
    /// An item of a list, on one line.
    Item(String),
    /// Lines that stay as they are.
    Code(Vec<String>),
}

/// Splits a description into its pieces.
pub(super) fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut code: Option<Vec<String>> = None;
    // Whether the next line goes on with the last piece.
    let mut open = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            match code.take() {
                Some(lines) => blocks.push(Block::Code(lines)),
                None => code = Some(Vec::new()),
            }
            open = false;
            continue;
        }
        if let Some(lines) = &mut code {
            lines.push(line.to_owned());
            continue;
        }
        let line = line.trim();
        let item = line.strip_prefix("- ").or_else(|| line.strip_prefix("* "));
        match (line.is_empty(), item, blocks.last_mut()) {
            (true, _, _) => open = false,
            (false, Some(item), _) => {
                blocks.push(Block::Item(item.to_owned()));
                open = true;
            }
            (false, None, Some(Block::Paragraph(last) | Block::Item(last))) if open => {
                last.push(' ');
                last.push_str(line);
            }
            (false, None, _) => {
                blocks.push(Block::Paragraph(line.to_owned()));
                open = true;
            }
        }
    }
    if let Some(lines) = code {
        blocks.push(Block::Code(lines));
    }
    blocks
}

/// The pieces of a text between backticks, and those that are not: `(text, is_code)`.
pub(super) fn spans(text: &str) -> impl Iterator<Item = (&str, bool)> {
    text.split('`')
        .enumerate()
        .map(|(index, span)| (span, index % 2 == 1))
        .filter(|(span, _)| !span.is_empty())
}

/// A description as a page that a terminal shows.
pub(super) fn plain(text: &str) -> String {
    let mut page = String::new();
    let mut last_was_item = false;
    for (index, block) in blocks(text).iter().enumerate() {
        let is_item = matches!(block, Block::Item(_));
        if index > 0 && !(last_was_item && is_item) {
            page.push('\n');
        }
        last_was_item = is_item;
        match block {
            Block::Paragraph(text) => wrap(&mut page, text, INDENT, INDENT),
            Block::Item(text) => wrap(&mut page, text, &format!("{INDENT}* "), &format!("{INDENT}  ")),
            Block::Code(lines) => lines.iter().for_each(|line| {
                page.push_str(format!("{INDENT}{INDENT}{line}").trim_end());
                page.push('\n');
            }),
        }
    }
    page
}

/// Breaks a text into lines that begin with `first` and then with `next`.
fn wrap(page: &mut String, text: &str, first: &str, next: &str) {
    let text: String = spans(text).map(|(span, _)| span).collect();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            page.push_str(&line);
            page.push('\n');
            line = next.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    page.push_str(&line);
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_paragraphs_lists_and_code() {
        let text = "Prints `it`\nhere.\n\nThese:\n- one\n  more\n- two\n\n```guestfish\ncat  /x\n\n```\nend";
        let expected = "    Prints it here.\n\n    These:\n\n    * one more\n    * two\n\n        cat  /x\n\n\n    end\n";
        assert_eq!(plain(text), expected);
    }

    #[test]
    fn lines_end_before_the_edge() {
        let page = plain(&"word ".repeat(100));
        assert!(page.lines().all(|line| line.starts_with("    word") && line.len() <= WIDTH), "{page}");
        assert_eq!(page.split_whitespace().count(), 100);
    }
}
