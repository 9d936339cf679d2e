//! An error with its sources as text: one place that knows how causes are told.

use std::error::Error;

/// The messages of `error` and of its sources; one that an earlier message already contains is left out, because
/// some libraries repeat their source's text in their own.
#[must_use]
pub fn messages(error: &dyn Error) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        if !messages.iter().any(|earlier| earlier.contains(&message)) {
            messages.push(message);
        }
        next = error.source();
    }
    messages
}

/// The whole chain in one line, as it stands in a status, an event or a report.
#[must_use]
pub fn line(error: &dyn Error) -> String {
    messages(error).join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        source: Option<Box<Told>>,
    }

    fn told(texts: &[&'static str]) -> Told {
        let source = (texts.len() > 1).then(|| Box::new(told(&texts[1..])));
        Told { text: texts[0], source }
    }

    #[test]
    fn causes_are_told_once_each() {
        assert_eq!(
            line(&told(&["failed to read \"a\"", "permission denied"])),
            "failed to read \"a\": permission denied"
        );
        assert_eq!(line(&told(&["failed: timed out", "timed out", "late"])), "failed: timed out: late");
    }
}
