//! The manual page: the options from clap, the commands from the tables.

use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::markdown::{Block, blocks, spans};
use super::{Entry, entries};
use crate::error::{Result, message};

/// The page, for `man -l -`.
pub(super) fn roff() -> Result<Vec<u8>> {
    // Without a date, the page of a release is always the same.
    let man = Man::new(crate::command()).date("").source(format!("vmcraft {}", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    let rendered = man
        .render_title(&mut page)
        .and_then(|()| man.render_name_section(&mut page))
        .and_then(|()| man.render_synopsis_section(&mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| man.render_options_section(&mut page))
        .and_then(|()| man.render_subcommands_section(&mut page))
        .and_then(|()| commands().to_writer(&mut page))
        .and_then(|()| man.render_extra_section(&mut page))
        .and_then(|()| man.render_version_section(&mut page));
    rendered.map_err(|e| message(format!("cannot make the manual: {e}")))?;
    Ok(page)
}

/// The chapter of the commands.
fn commands() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    roff.text([roman(
        "These are the commands of the shell. Each but the last ones is a call of the library. Arguments in \
         brackets are optional, and written name:value.",
    )]);
    let mut entries: Vec<_> = entries().collect();
    entries.sort_by_key(|entry| (entry.call.is_none(), entry.name));
    for entry in &entries {
        push_entry(&mut roff, entry);
    }
    roff
}

fn push_entry(roff: &mut Roff, entry: &Entry) {
    roff.control("SS", [entry.name]);
    roff.control("nf", []);
    roff.text([bold(entry.synopsis.clone())]);
    roff.control("fi", []);
    roff.control("PP", []);
    roff.text([roman(format!("{}.", entry.summary))]);
    let notes = entry.notes().join("\n\n");
    for block in blocks(entry.description).into_iter().chain(blocks(&notes)) {
        match block {
            Block::Paragraph(text) => {
                roff.control("PP", []);
                roff.text(inlines(&text));
            }
            Block::Item(text) => {
                roff.control("IP", ["\u{2022}", "2"]);
                roff.text(inlines(&text));
            }
            Block::Code(lines) => {
                roff.control("PP", []);
                roff.control("RS", ["4"]);
                roff.control("nf", []);
                for line in lines {
                    roff.text([roman(line)]);
                }
                roff.control("fi", []);
                roff.control("RE", []);
            }
        }
    }
}

fn inlines(text: &str) -> Vec<Inline> {
    spans(text).map(|(span, is_code)| if is_code { italic(span) } else { roman(span) }).collect()
}
