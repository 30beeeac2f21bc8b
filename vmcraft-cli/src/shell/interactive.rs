//! The prompt.

use std::cell::RefCell;
use std::rc::Rc;

use bstr::BString;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use crate::error::{Error, Result, message};
use crate::options::ShellOptions;
use crate::report::program;
use crate::shell::script::{Lines, Script};
use crate::shell::session::Session;

type LineEditor = Editor<(), FileHistory>;

/// Asks for commands until `exit` or the end of input.
pub(crate) fn run(session: &mut Session, _options: &ShellOptions) -> Result<()> {
    let config = Config::builder().auto_add_history(true).build();
    let editor: LineEditor =
        Editor::with_config(config).map_err(|e| message(format!("cannot use the terminal: {e}")))?;
    let editor = Rc::new(RefCell::new(editor));
    println!(
        "{}: a shell for the guests on virtual machine disks.\n\
         Everything is opened read-only: no disk is changed.\n\n\
         help lists the commands, ^D or quit leaves.\n",
        program().name
    );
    let mut script = Script::new(Box::new(Prompt { editor }), None);
    while !session.wants_exit {
        match script.next_line() {
            Ok(Some(line)) => {
                // Other failures were reported, and the next command can still be given.
                if let Err(Error::BrokenPipe) = session.run_line(&line, &mut script) {
                    return Err(Error::BrokenPipe);
                }
            }
            Ok(None) => break,
            Err(Error::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct Prompt {
    editor: Rc<RefCell<LineEditor>>,
}

impl Lines for Prompt {
    fn next(&mut self, more: bool) -> Result<Option<BString>> {
        let prompt = if more { "> " } else { "><fs> " };
        match self.editor.borrow_mut().readline(prompt) {
            Ok(line) => Ok(Some(line.into())),
            Err(ReadlineError::Eof) => Ok(None),
            Err(ReadlineError::Interrupted) => Err(Error::Interrupted),
            Err(error) => Err(message(format!("cannot read from the terminal: {error}"))),
        }
    }
}
