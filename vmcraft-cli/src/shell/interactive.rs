//! The prompt.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;

use bstr::BString;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use crate::error::{Error, Result, message};
use crate::output::visible;
use crate::report::{self, program};
use crate::shell::complete::{Candidate, Surroundings, complete};
use crate::shell::prompt::Prompt;
use crate::shell::script::{Lines, Script};
use crate::shell::session::Session;
use crate::terminal::Settings;

/// How many lines the history keeps.
const HISTORY_LINES: usize = 10_000;

type LineEditor = Editor<Assistant, FileHistory>;

/// Asks for commands until `exit` or the end of input.
pub(crate) fn run(mut session: Session) -> Result<()> {
    welcome(&mut session);
    let session = Rc::new(RefCell::new(session));
    let editor = Rc::new(RefCell::new(editor(&session)?));
    let history = history_file(&session.borrow());
    if let Some(file) = &history {
        // There is none the first time.
        let _ = editor.borrow_mut().load_history(file);
    }
    let prompt = Prompt::from_environment(&session.borrow());
    let lines = Asked { editor: editor.clone(), prompt };
    let result = ask(&session, &mut Script::new(Box::new(lines), None));
    if let Some(file) = &history
        && let Err(e) = save_history(&mut editor.borrow_mut(), file)
    {
        report::warning(&format!("{}: cannot save the history: {e}", file.display()));
    }
    session.borrow_mut().conclude(result)
}

fn ask(session: &RefCell<Session>, script: &mut Script) -> Result<()> {
    while !session.borrow().wants_exit {
        match script.next_line() {
            Ok(Some(line)) => {
                // Other failures were reported, and the next command can still be given.
                if let Err(Error::BrokenPipe) = session.borrow_mut().run_line(&line, script) {
                    return Err(Error::BrokenPipe);
                }
            }
            Ok(None) => {
                println!();
                break;
            }
            Err(Error::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn welcome(session: &mut Session) {
    println!(
        "{}: a shell for the guests on virtual machine disks.\n\
         {}\n\n\
         help shows how to begin, help --list lists the commands, quit or ^D leaves.\n",
        program().name,
        session.options.guest.promise(),
    );
    let introduction = session.introduction();
    for line in &introduction {
        println!("{}", visible(line.as_bytes()));
    }
    if !introduction.is_empty() {
        println!();
    }
}

fn editor(session: &Rc<RefCell<Session>>) -> Result<LineEditor> {
    let unusable = |e: ReadlineError| message(format!("cannot use the terminal: {e}"));
    let config = Config::builder()
        .auto_add_history(true)
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .completion_show_all_if_ambiguous(true)
        .max_history_size(HISTORY_LINES)
        .map_err(unusable)?
        .build();
    let mut editor = Editor::with_config(config).map_err(unusable)?;
    editor.set_helper(Some(Assistant { session: session.clone() }));
    Ok(editor)
}

/// Where the history is kept: `$VMCRAFT_HISTFILE`, else `vmcraft/history` where the user's programs
/// keep their state. Nowhere if the variable is empty.
fn history_file(session: &Session) -> Option<PathBuf> {
    if let Some(file) = session.variable("VMCRAFT_HISTFILE") {
        return (!file.is_empty()).then(|| file.into());
    }
    let state = session.variable("XDG_STATE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let state = match state {
        Some(dir) => dir,
        None => PathBuf::from(session.variable("HOME")?).join(".local/state"),
    };
    Some(state.join("vmcraft/history"))
}

fn save_history(editor: &mut LineEditor, file: &PathBuf) -> Result<(), ReadlineError> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // Other shells may have added theirs meanwhile.
    editor.append_history(file)
}

/// Lines that a person types.
struct Asked {
    editor: Rc<RefCell<LineEditor>>,
    prompt: Prompt,
}

impl Lines for Asked {
    fn next(&mut self, more: bool) -> Result<Option<BString>> {
        let mut editor = self.editor.borrow_mut();
        let unusable = |e: io::Error| message(format!("cannot use the terminal: {e}"));
        let terminal = io::stdin().as_fd().try_clone_to_owned().map_err(unusable)?;
        // While a line is typed, the terminal is raw, and marks what is pasted.
        let _settings = Settings::keep(terminal.into(), "\x1b[?2004l\n").map_err(unusable)?;
        let line = if more { editor.readline("> ") } else { editor.readline(&self.prompt) };
        match line {
            Ok(line) => Ok(Some(line.into())),
            Err(ReadlineError::Eof) => Ok(None),
            Err(ReadlineError::Interrupted) => Err(Error::Interrupted),
            Err(error) => Err(message(format!("cannot read from the terminal: {error}"))),
        }
    }
}

/// Completes words for the editor.
struct Assistant {
    session: Rc<RefCell<Session>>,
}

impl Completer for Assistant {
    type Candidate = Candidate;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Candidate>)> {
        let begun = line.get(..position).unwrap_or_default();
        // While a command reads further lines, the handle is the command's.
        let mut session = self.session.try_borrow_mut().ok();
        let guest_paths = session.as_ref().is_some_and(|session| !session.options.no_dest_paths);
        let guest = session.as_mut().map(|session| session.guest());
        Ok(complete(begun, &mut Surroundings { guest, guest_paths }))
    }
}

impl Hinter for Assistant {
    type Hint = String;
}
impl Highlighter for Assistant {}
impl Validator for Assistant {}
impl Helper for Assistant {}
