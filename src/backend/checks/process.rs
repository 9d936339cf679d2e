//! Whether a process runs, by the name of its program as `/proc/PID/comm` has it.
//!
//! What has ended and only waits to be reaped does not run.

use std::fs;

use super::fact::{Fact, failed, reason, value};

/// The kernel keeps this much of a name.
const COMM: usize = 15;

pub fn running(name: &str) -> Fact {
    let entries = match fs::read_dir("/proc") {
        Ok(entries) => entries,
        Err(error) => return failed(format!("cannot read /proc: {}", reason(&error))),
    };
    let is_process = |name: &std::ffi::OsString| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    value(
        entries
            .flatten()
            .map(|entry| entry.file_name())
            .filter(is_process)
            .any(|pid| is_of(&pid.to_string_lossy(), name)),
    )
}

fn is_of(pid: &str, name: &str) -> bool {
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { return false };
    let Some((comm, state)) = comm_and_state(&stat) else { return false };
    if state == b'Z' || state == b'X' {
        return false;
    }
    if comm == name.as_bytes() {
        return true;
    }
    // A longer name is cut there, but whole as the program's.
    let whole = || {
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let program = program.file_name()?.to_str()?.to_owned();
        Some(program.strip_suffix(" (deleted)").map_or(program.clone(), str::to_owned))
    };
    let arguments = || {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<String> =
            line.split(|&byte| byte == 0).take(2).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        Some(words)
    };
    let base = |word: &String| word.rsplit('/').next() == Some(name);
    name.len() > COMM
        && comm == &name.as_bytes()[..COMM]
        && (whole().as_deref() == Some(name) || arguments().is_some_and(|words| words.iter().any(base)))
}

fn comm_and_state(stat: &[u8]) -> Option<(&[u8], u8)> {
    let begin = stat.iter().position(|&byte| byte == b'(')? + 1;
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    Some((stat.get(begin..end)?, *stat.get(end + 2)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_name_and_gone_when_it_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["gosscheck1", "a-name-longer-than-fifteen-bytes"] {
            let program = directory.path().join(name);
            // By a program: what another test starts at this moment would hold a file of ours open for writing.
            let copied = std::process::Command::new("/bin/cp").arg("/bin/sleep").arg(&program).status();
            assert!(copied.unwrap().success());
            let mut child = std::process::Command::new(&program).arg("600").spawn().unwrap();
            assert_eq!(running(name), value(true), "{name}");
            child.kill().unwrap();
            // Not reaped yet.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
            while running(name) == value(true) {
                assert!(std::time::Instant::now() < deadline);
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            child.wait().unwrap();
        }
        assert_eq!(running("no-such-process-here"), value(false));
    }
}
