//! The prompt, at a terminal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rexpect::session::{PtySession, spawn_command};

use crate::support::{binary, interruptible, small_guest};

/// How long the terminal is waited for: only a failure takes it.
const PATIENCE_MS: u64 = 60_000;

const PROMPT: &str = "><fs> ";

/// A shell at a terminal, its image, and its history.
struct Shell {
    terminal: PtySession,
    dir: tempfile::TempDir,
}

impl Shell {
    fn start() -> Self {
        let dir = testkit::tempdir();
        let image = small_guest(dir.path());
        let terminal = Self::at_terminal(dir.path(), &image);
        Self { terminal, dir }
    }

    fn at_terminal(dir: &Path, image: &Path) -> PtySession {
        let mut command = interruptible();
        command
            .current_dir(dir)
            .env("VMCRAFT_HISTFILE", dir.join("history"))
            .env("TERM", "xterm")
            .env_remove("VMCRAFT_PS1")
            .env_remove("GUESTFISH_PS1")
            .arg("-a")
            .arg(image)
            .arg("-i");
        let mut terminal = spawn_command(command, Some(PATIENCE_MS)).expect("a terminal");
        terminal.exp_string(PROMPT).expect("a prompt");
        terminal
    }

    /// Types keys as they are.
    fn keys(&mut self, keys: &str) -> &mut Self {
        self.terminal.send(keys).expect("the terminal takes keys");
        self.terminal.flush().expect("the terminal takes keys");
        self
    }

    /// Waits until this is shown.
    fn sees(&mut self, shown: &str) -> &mut Self {
        if let Err(e) = self.terminal.exp_string(shown) {
            panic!("{shown:?} is not shown: {e}");
        }
        self
    }

    /// Types a line, and gives what is shown until the next prompt.
    fn line(&mut self, line: &str) -> String {
        self.keys(line).keys("\r");
        // The line itself is shown first, with the newline after it.
        self.terminal.exp_string("\r\n").expect("the line");
        self.terminal.exp_string(PROMPT).expect("a prompt")
    }
}

#[test]
fn says_what_it_opened_and_when_it_is_written() {
    let dir = testkit::tempdir();
    let image = small_guest(dir.path());
    let mut command = Command::new(binary());
    command.env("VMCRAFT_HISTFILE", "").arg("-a").arg(&image).arg("-i");
    let mut terminal = spawn_command(command, Some(PATIENCE_MS)).expect("a terminal");
    let banner = terminal.exp_string(PROMPT).expect("a prompt");
    for part in [
        "written to the disks by sync",
        "Debian GNU/Linux 12 (bookworm)",
        "/dev/sda1 mounted on /",
        "/srv/data",
    ] {
        assert!(banner.contains(part), "{part} is missing: {banner}");
    }
    terminal.send_control('d').expect("the terminal takes keys");
    terminal.exp_eof().expect("the shell ends");
}

#[test]
fn goes_on_after_failures_until_exit() {
    let mut shell = Shell::start();
    let shown = shell.line("cat /nonesuch");
    assert!(shown.contains("vmcraft: error: cat: /nonesuch"), "{shown}");
    assert!(shell.line("echo a \"b").contains("unterminated"));
    assert!(shell.line("mnt /x").contains("mount"));
    assert!(shell.line("cat /etc/hostname").contains("small-guest.example.com"));
    shell.keys("exit\r");
    shell.terminal.exp_eof().expect("the shell ends");
}

#[test]
fn completes_commands_paths_devices_and_options() {
    let mut shell = Shell::start();
    shell.keys("checksum-dev\t").sees("checksum-device ");
    shell.keys("md5 /dev/sda\t").sees("sda1");
    // The candidates are shown with prompts of their own: only the digest tells that the command ran.
    shell.keys("1\r").terminal.exp_regex("[0-9a-f]{32}").expect("a digest");
    shell.sees(PROMPT);
    shell.keys("cat /etc/hostn\t").sees("/etc/hostname ").keys("\r").sees("small-guest").sees(PROMPT);
    shell.keys("cat \"/t/with\t").sees("with space\" ").keys("\r").sees(PROMPT);
    shell
        .keys("add-drive x read\t")
        .sees("readonly:")
        .keys("t\t")
        .sees("readonly:true ")
        .keys("\u{3}")
        .sees(PROMPT);
    fs::write(shell.dir.path().join("host-file"), "").expect("a file");
    shell.keys("download /t/lines host-f\t").sees("host-file ").keys("\u{3}").sees(PROMPT);
}

#[test]
fn interrupts_calls_and_programs_but_not_itself() {
    let mut shell = Shell::start();
    // A key that comes before the line is taken is one of the line editor's: both say when they have begun.
    shell.line("set-trace true");
    shell.keys("sleep 1000\r").sees("trace: sleep").keys("\u{3}").sees("interrupted").sees(PROMPT);
    shell.line("set-trace false");
    shell.keys("!printf be%s gun; sleep 1000\r").sees("begun").keys("\u{3}").sees("interrupted").sees(PROMPT);
    shell.keys("echo not this").keys("\u{3}").sees(PROMPT);
    assert!(shell.line("echo still here").contains("still here"));
}

#[test] // A guest's owner could otherwise send commands to the terminal of whoever looks at it.
fn keeps_control_characters_off_the_terminal() {
    let mut shell = Shell::start();
    let shown = shell.line("echo-daemon \"\\x1b]0;title\\x07 \\x9b\"");
    assert!(shown.contains("\\x1b]0;title\\x07 \\x9b"), "{shown:?}");
    for command in ["read-file /t/binary", "download /t/binary -", "tar-out /t/dir -"] {
        let shown = shell.line(command);
        assert!(shown.contains("binary data is not written to a terminal"), "{command}: {shown:?}");
    }
    assert!(shell.line("read-file /t/binary | wc -c").contains("33"));
}

#[test]
fn keeps_a_history() {
    let mut shell = Shell::start();
    shell.line("echo remembered");
    shell.line(" echo forgotten");
    shell.keys("\u{4}");
    shell.terminal.exp_eof().expect("the shell ends");
    let history: PathBuf = shell.dir.path().join("history");
    let text = fs::read_to_string(&history).expect("a history");
    assert!(text.contains("echo remembered") && !text.contains("forgotten"), "{text}");
    let image = shell.dir.path().join("small-guest.img");
    shell.terminal = Shell::at_terminal(shell.dir.path(), &image);
    shell.keys("\u{1b}[A").sees("echo remembered").keys("\r").sees("remembered\r\n").sees(PROMPT);
}

#[test]
fn lines_can_go_on() {
    let mut shell = Shell::start();
    shell.keys("echo one \\\r").sees("> ").keys("two\r").sees("one two\r\n").sees(PROMPT);
}

#[test]
fn the_prompt_can_be_set() {
    let dir = testkit::tempdir();
    let mut command = Command::new(binary());
    command
        .env("VMCRAFT_HISTFILE", "")
        .env("TERM", "xterm")
        .env("GUESTFISH_PS1", "\\[\\e[1m\\]\\x3eready\\[\\e[0m\\] ");
    command.current_dir(dir.path());
    let mut terminal = spawn_command(command, Some(PATIENCE_MS)).expect("a terminal");
    terminal.exp_string("\u{1b}[1m>ready\u{1b}[0m ").expect("the prompt");
    terminal.send_line("quit").expect("the terminal takes keys");
    terminal.exp_eof().expect("the shell ends");
}
