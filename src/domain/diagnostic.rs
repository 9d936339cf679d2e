//! Problems of an input, all of them at once, each with its place and what to do next.
//!
//! How they are shown (terminal, JSON, status) is the caller's matter; nothing here reads or prints.

use std::fmt;

use serde::Serialize;

/// How bad a problem is: an error makes the input unusable, a warning does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The input cannot be used.
    Error,
    /// The input can be used, but probably does not mean what it says.
    Warning,
}

/// Where in a file something stands; lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

/// One problem of an input file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The broken rule, a stable kebab-case word for scripts, e.g. `unknown-field`.
    pub rule: &'static str,
    /// What is wrong, quoting the thing.
    pub message: String,
    /// The file, relative to the source's root.
    pub file: String,
    /// The line, from 1; none where the problem has no place in the file.
    pub line: Option<u32>,
    /// The column, from 1.
    pub column: Option<u32>,
    /// The field path, e.g. `steps[0].files[1].mode`; empty for the whole file.
    pub field: String,
    /// What to do about it.
    pub help: String,
    /// The source line, for the terminal; at most 200 characters.
    #[serde(skip)]
    pub source_line: Option<String>,
}

impl Diagnostic {
    /// An error of `rule` in `file`, without place, field and help yet.
    #[must_use]
    pub fn error(rule: &'static str, file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            rule,
            message: message.into(),
            file: file.into(),
            line: None,
            column: None,
            field: String::new(),
            help: String::new(),
            source_line: None,
        }
    }

    /// A warning of `rule` in `file`.
    #[must_use]
    pub fn warning(rule: &'static str, file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(rule, file, message) }
    }

    /// Adds the place and, from `text`, the source line.
    #[must_use]
    pub fn at(mut self, place: Place, text: &str) -> Self {
        self.line = Some(place.line);
        self.column = Some(place.column);
        self.source_line =
            text.lines().nth(place.line.saturating_sub(1) as usize).map(|line| line.chars().take(200).collect());
        self
    }

    /// Adds the field path.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// `FILE:LINE:COLUMN`, as far as it is known.
    #[must_use]
    pub fn location(&self) -> String {
        match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}", self.file),
            _ => self.file.clone(),
        }
    }

    /// True for an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// One line, `FILE:LINE:COLUMN: FIELD: MESSAGE`, as it stands in a status or an event.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.location())?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// A value with everything that was found wrong on the way; the value is there whenever it makes sense without the
/// broken parts, but is to be used only where [`Checked::into_result`] gives it.
#[derive(Debug)]
pub struct Checked<T> {
    /// The value, as far as it could be built.
    pub value: Option<T>,
    /// All problems, in the order of the files and of their places.
    pub diagnostics: Vec<Diagnostic>,
}

impl<T> Checked<T> {
    /// The value with its warnings, or all diagnostics when one of them is an error.
    pub fn into_result(self) -> Result<(T, Vec<Diagnostic>), Vec<Diagnostic>> {
        match self.value {
            Some(value) if !self.diagnostics.iter().any(Diagnostic::is_error) => Ok((value, self.diagnostics)),
            _ => Err(self.diagnostics),
        }
    }

    /// True when no diagnostic is an error and there is a value.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.value.is_some() && !self.diagnostics.iter().any(Diagnostic::is_error)
    }
}
