//! What an instance runs with: its template's defaults, with its own overrides on top.

use serde_json::Value;

use super::Workspace;

/// Settings that do not read as such, though they were checked when they were written.
#[derive(Debug, thiserror::Error)]
#[error("the settings of the workspace cannot be read")]
pub struct InvalidSettings(#[source] serde_json::Error);

/// `defaults` with each field that `overrides` sets in its place; both in the shape of workspace.yaml. Lists are
/// replaced whole.
pub fn effective(defaults: &Value, overrides: Option<&Value>) -> Result<Workspace, InvalidSettings> {
    let mut settings = defaults.clone();
    if let Some(overrides) = overrides {
        lay(&mut settings, overrides);
    }
    if settings.is_null() {
        return Ok(Workspace::default());
    }
    serde_json::from_value(settings).map_err(InvalidSettings)
}

fn lay(under: &mut Value, over: &Value) {
    match (under, over) {
        (_, Value::Null) => {}
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                match under.get_mut(name) {
                    Some(present) => lay(present, value),
                    None => {
                        under.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (under, over) => *under = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn overrides_lie_on_the_defaults_field_by_field() {
        let defaults = json!({
            "lifecycle": {"ttl": "2h", "idleSuspend": false},
            "network": {"egress": [{"cidr": "10.0.0.0/8"}, {"cidr": "192.0.2.0/24"}]},
        });
        let overrides = json!({"lifecycle": {"ttl": "8h"}, "network": {"egress": []}, "resources": {"cpu": "1"}});
        let settings = effective(&defaults, Some(&overrides)).unwrap();
        assert_eq!(settings.lifecycle.ttl.to_string(), "8h");
        assert_eq!((settings.lifecycle.idle_suspend, settings.network.egress), (false, Some(Vec::new())));
        assert_eq!((settings.resources.cpu.as_str(), settings.resources.memory.as_str()), ("1", "512Mi"));
        assert_eq!(effective(&Value::Null, None).unwrap(), Workspace::default());
        assert_eq!(effective(&json!({}), Some(&Value::Null)).unwrap(), Workspace::default());
        assert!(effective(&json!({"lifecycle": {"ttl": 5}}), None).is_err());
    }
}
