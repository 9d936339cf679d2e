//! Kernel parameters, from `/proc/sys`.

use super::fact::{Fact, failed, read_text, reason, unknown, value};

/// The value of `net.ipv4.ip_forward`; a slash is as good as a dot, and where both occur a slash stands for a dot.
pub fn value_of(name: &str) -> Fact {
    let first = name.find(['.', '/']).map(|index| &name[index..=index]);
    let path = match first {
        Some(".") => name
            .chars()
            .map(|it| {
                if it == '.' {
                    '/'
                } else if it == '/' {
                    '.'
                } else {
                    it
                }
            })
            .collect(),
        _ => name.to_owned(),
    };
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return unknown(format!("\"{name}\" is no name of a kernel parameter"));
    }
    match read_text(format!("/proc/sys/{path}"), 1 << 20) {
        Ok(Some(text)) => value(text.trim_end_matches('\n')),
        Ok(None) => failed(format!("there is no kernel parameter \"{name}\"")),
        Err(error) => failed(format!("cannot read the kernel parameter \"{name}\": {}", reason(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_by_either_spelling() {
        assert_eq!(value_of("kernel.ostype"), value("Linux"));
        assert_eq!(value_of("kernel/ostype"), value("Linux"));
        assert!(value_of("kernel.no_such_thing").is_err());
        assert!(value_of("../../etc/passwd").is_err());
        assert!(value_of("kernel.//etc").is_err());
    }
}
