//! Problems of an input as a compiler shows them: what, where, the source line with a caret, what to do.
//!
//! Files come from strangers: nothing of them reaches the terminal that could steer it.

use std::fmt::Write as _;

use super::Printer;
use crate::domain::diagnostic::{Diagnostic, Severity};

/// Says all problems on standard error; warnings only where the person is not to be left in quiet.
pub fn show(printer: &Printer, diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let text = render(printer, diagnostic);
        if diagnostic.is_error() { printer.talk_always(&text) } else { printer.talk(&text) }
    }
}

/// `2 errors, 1 warning`, parts of zero left out; empty when there are none.
#[must_use]
pub fn count(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let part = |number: usize, word: &str| match number {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{number} {word}s")),
    };
    let parts = [part(errors, "error"), part(diagnostics.len() - errors, "warning")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn render(printer: &Printer, diagnostic: &Diagnostic) -> String {
    let heading = match diagnostic.severity {
        Severity::Error => printer.red("error"),
        Severity::Warning => printer.yellow("warning"),
    };
    let mut text = format!("{heading}[{}]: {}", diagnostic.rule, printer.bold(&plain(&diagnostic.message)));
    let number = diagnostic.line.map(|line| line.to_string()).unwrap_or_default();
    let margin = " ".repeat(number.len());
    let _ = write!(text, "\n{margin}{} {}", printer.blue("-->"), plain(&diagnostic.location()));
    if let (Some(line), Some(column)) = (&diagnostic.source_line, diagnostic.column) {
        let bar = printer.blue("|");
        let line = plain(line);
        let _ = write!(text, "\n{margin} {bar}\n{} {bar} {}", printer.blue(&number), line.trim_end());
        let before = column.saturating_sub(1) as usize;
        // A line is shown up to 200 characters; a caret behind its end would point at nothing.
        if before <= line.chars().count() {
            let _ = write!(text, "\n{margin} {bar} {}{}", " ".repeat(before), printer.red("^"));
        }
    }
    let equals = printer.blue("=");
    if !diagnostic.field.is_empty() {
        let _ = write!(text, "\n{margin} {equals} field: {}", plain(&diagnostic.field));
    }
    if !diagnostic.help.is_empty() {
        let _ = write!(text, "\n{margin} {equals} help: {}", plain(&diagnostic.help));
    }
    text.push('\n');
    text
}

/// The text with tabs as one space and other control characters made harmless, one column each.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\t' => ' ',
            _ if letter.is_control() => char::REPLACEMENT_CHARACTER,
            // Letters that turn the direction of writing can make a line read as another.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
            _ => letter,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::domain::diagnostic::Place;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        global: super::super::Global,
    }

    fn printer() -> Printer {
        Printer::new(&Flags::parse_from(["workshop", "--color", "never"]).global)
    }

    #[test]
    fn a_problem_is_shown_as_a_compiler_shows_it() {
        let text = "a:\n\tcomands: [\u{1b}[31m]\n";
        let problem = Diagnostic::error("unknown-field", "w/step-spec.yaml", "unknown field \"comands\"")
            .at(Place { line: 2, column: 2 }, text)
            .field("a.comands")
            .help("did you mean `commands`?");
        assert_eq!(
            render(&printer(), &problem),
            "error[unknown-field]: unknown field \"comands\"
 --> w/step-spec.yaml:2:2
  |
2 |  comands: [\u{fffd}[31m]
  |  ^
  = field: a.comands
  = help: did you mean `commands`?
"
        );
    }

    #[test]
    fn a_problem_without_a_place_has_no_source_line() {
        let problem = Diagnostic::warning("too-large", "w", "large");
        assert_eq!(render(&printer(), &problem), "warning[too-large]: large\n--> w\n");
    }

    #[test]
    fn problems_are_counted_in_words() {
        let (error, warning) = (Diagnostic::error("a", "f", "m"), Diagnostic::warning("a", "f", "m"));
        assert_eq!(count(&[]), "");
        assert_eq!(count(std::slice::from_ref(&error)), "1 error");
        assert_eq!(count(&[error.clone(), error, warning]), "2 errors, 1 warning");
    }
}
