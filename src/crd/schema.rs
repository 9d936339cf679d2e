//! Pieces of OpenAPI schema that the derive cannot say, and the clean-up every generated schema gets.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// The texts that both this product and `kubectl` read as a duration.
pub const DURATION_PATTERN: &str = "^([0-9]{1,10}(h|m|s|ms))+$";

/// A duration as text, e.g. `1h30m`.
pub fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "pattern": DURATION_PATTERN,
        "x-kubernetes-validations": [
            { "rule": "duration(self) <= duration('878400h')", "message": "must be at most a hundred years" },
        ],
    })
}

/// Conditions, a list that is merged by `type`.
pub fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let items = generator.subschema_for::<Condition>();
    json_schema!({
        "type": "array",
        "items": items,
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// Makes a generated schema what people expect of a definition: no `nullable`, because a field that is not set is
/// left out and a null is a mistake of the writer; descriptions without the line breaks of the source.
pub fn clean(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("nullable").is_some_and(Value::is_boolean) {
                map.shift_remove("nullable");
                if let Some(Value::Array(values)) = map.get_mut("enum") {
                    values.retain(|value| !value.is_null());
                }
            }
            if let Some(Value::String(description)) = map.get_mut("description") {
                let paragraphs: Vec<String> =
                    description.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
                *description = paragraphs.join("\n\n");
            }
            map.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

/// A Kubernetes quantity above zero, as text.
pub fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "x-kubernetes-validations": [{
            "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
            "message": "must be a quantity above zero, e.g. 500m or 512Mi",
        }],
    })
}

/// A moment, as RFC 3339 text.
pub fn moment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// Steps, in order: the list is replaced as a whole.
pub fn atomic<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let items = generator.subschema_for::<T>();
    json_schema!({ "type": "array", "items": items, "x-kubernetes-list-type": "atomic" })
}
