//! Workspaces as lines of a table.
//!
//! Pure; the values are those of the control API.

use jiff::Timestamp;
use serde_json::Value;

use crate::cli::show::table;

/// The text of a field; empty where there is none.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// One line for each workspace, with its namespace where there are several.
pub fn instances(instances: &[Value], with_namespace: bool, now: Timestamp) -> String {
    let mut header = vec!["NAME", "WORKSHOP", "OWNER", "STEP", "DONE", "PHASE", "ENDS IN", "MESSAGE"];
    let mut rows: Vec<Vec<String>> = instances.iter().map(|instance| row(instance, now)).collect();
    if with_namespace {
        header.insert(0, "NAMESPACE");
        for (row, instance) in rows.iter_mut().zip(instances) {
            row.insert(0, text(instance, "namespace").to_owned());
        }
    }
    table(&header, &rows)
}

fn row(instance: &Value, now: Timestamp) -> Vec<String> {
    let progress = &instance["progress"];
    let number = |field: &str| progress[field].as_u64().unwrap_or(0);
    let phase = if instance["updateAvailable"] == true { "*" } else { "" };
    // One line each: the whole message is in the JSON.
    let message = text(instance, "message").lines().next().unwrap_or_default().chars().take(60).collect();
    vec![
        text(instance, "name").to_owned(),
        text(instance, "template").to_owned(),
        text(instance, "owner").to_owned(),
        text(instance, "step").to_owned(),
        format!("{}/{}", number("completed"), number("total")),
        format!("{}{phase}", text(instance, "phase")),
        text(instance, "expiresAt").parse().ok().map_or_else(|| "-".to_owned(), |end| remaining(now, end)),
        message,
    ]
}

/// `3h05m`, `12m`, `40s`, `over`
fn remaining(now: Timestamp, end: Timestamp) -> String {
    let seconds = end.as_second() - now.as_second();
    match seconds {
        ..=0 => "over".to_owned(),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_workspace_is_one_line_with_what_one_asks_first() {
        let instance = json!({
            "name": "first-ada", "template": "first", "owner": "ada", "step": "look-around", "phase": "Running",
            "progress": {"completed": 1, "total": 6}, "expiresAt": "2026-01-01T03:05:00Z", "message": null,
            "updateAvailable": true,
        });
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let all = instances(&[json!({"namespace": "class", "name": "a"})], true, now);
        assert!(all.starts_with("NAMESPACE  NAME  ") && all.contains("\nclass      a  "), "{all}");
        let shown = instances(&[instance], false, now);
        assert_eq!(
            shown,
            "NAME       WORKSHOP  OWNER  STEP         DONE  PHASE     ENDS IN  MESSAGE\n\
             first-ada  first     ada    look-around  1/6   Running*  3h05m\n"
        );
    }

    #[test]
    fn remaining_time_is_short() {
        let at = |seconds| remaining(Timestamp::UNIX_EPOCH, Timestamp::from_second(seconds).unwrap());
        assert_eq!([at(-1), at(0), at(59), at(3599), at(3600)], ["over", "over", "59s", "59m", "1h00m"]);
    }
}
