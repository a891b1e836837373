//! The body of a create or an update, read but not yet judged.
//!
//! Owns: which members there are and of which JSON type. Names are matched in any case and unknown ones are skipped, as
//! Go's decoder does. Must not know: bounds, defaults, runtimes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// What a body asks for; `None` where it says nothing (also `null`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Draft<'b> {
    pub version: Option<String>,
    pub description: Option<String>,
    pub runtime: Option<String>,
    pub timeout_secs: Option<i64>,
    pub memory_mb: Option<i64>,
    pub handler: Option<String>,
    pub concurrency: Option<i64>,
    pub instances_max: Option<i64>,
    pub instances_min: Option<i64>,
    pub environment: Option<BTreeMap<String, String>>,
    /// Empty: the node's default.
    pub network_mode: Option<String>,
    /// `<name>:<version>` each; which layers these are is not judged with the settings.
    pub layers: Option<Vec<String>>,
    /// Base64, borrowed from the body unless it has escapes in it.
    pub code: Option<Cow<'b, str>>,
}

/// Why a body is no draft.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    #[error("request body is not valid JSON: {0}")]
    Json(String),
    #[error("request body has members of the wrong type: {}", .0.join("; "))]
    Types(Vec<String>),
}

/// Reads a body; an empty one asks for nothing.
///
/// # Errors
/// It is no JSON object, or members have the wrong type: all of them are named.
pub fn parse(body: &[u8]) -> Result<Draft<'_>, DraftError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Draft::default());
    }
    let members: Members<'_> =
        serde_json::from_slice(body).map_err(|error| DraftError::Json(error.to_string()))?;
    members.into_draft()
}

#[derive(Default)]
struct Members<'b> {
    code: Option<Cow<'b, str>>,
    /// Known members by their lower-case name.
    others: BTreeMap<&'static str, Value>,
}

const KNOWN: [&str; 13] = [
    "version",
    "description",
    "runtime",
    "timeout",
    "memorysize",
    "handler",
    "podconcurrentquota",
    "maxinstances",
    "mininstances",
    "environment",
    "networkmode",
    "layers",
    "code",
];

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::default();
                while let Some(name) = map.next_key::<String>()? {
                    match KNOWN.into_iter().find(|known| name.eq_ignore_ascii_case(known)) {
                        // A zip of 50 MiB is not copied for being looked at.
                        Some("code") => members.code = map.next_value::<CodeText<'de>>()?.0,
                        Some(known) => {
                            members.others.insert(known, map.next_value()?);
                        }
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct CodeText<'b>(Option<Cow<'b, str>>);

impl<'de> Deserialize<'de> for CodeText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CodeVisitor;
        impl<'de> Visitor<'de> for CodeVisitor {
            type Value = CodeText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("Code as a base64 string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(CodeText(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(CodeText(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(CodeText(None))
            }
        }
        deserializer.deserialize_any(CodeVisitor)
    }
}

impl<'b> Members<'b> {
    fn into_draft(mut self) -> Result<Draft<'b>, DraftError> {
        let mut wrong = Vec::new();
        let draft = Draft {
            version: self.text("version", "Version", &mut wrong).filter(|text| !text.is_empty()),
            description: self.text("description", "Description", &mut wrong),
            runtime: self.text("runtime", "Runtime", &mut wrong).filter(|text| !text.is_empty()),
            timeout_secs: self.number("timeout", "Timeout", &mut wrong),
            memory_mb: self.number("memorysize", "MemorySize", &mut wrong),
            handler: self.text("handler", "Handler", &mut wrong).filter(|text| !text.is_empty()),
            concurrency: self.number("podconcurrentquota", "PodConcurrentQuota", &mut wrong),
            instances_max: self.number("maxinstances", "MaxInstances", &mut wrong),
            instances_min: self.number("mininstances", "MinInstances", &mut wrong),
            environment: self.environment(&mut wrong),
            network_mode: self.text("networkmode", "NetworkMode", &mut wrong),
            layers: self.texts("layers", "Layers", &mut wrong),
            code: self.code.filter(|code| !code.is_empty()),
        };
        if wrong.is_empty() { Ok(draft) } else { Err(DraftError::Types(wrong)) }
    }

    fn text(&mut self, key: &str, name: &str, wrong: &mut Vec<String>) -> Option<String> {
        match self.others.remove(key)? {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => {
                wrong.push(format!("{name} must be a string, not {other}"));
                None
            }
        }
    }

    fn texts(&mut self, key: &str, name: &str, wrong: &mut Vec<String>) -> Option<Vec<String>> {
        let Value::Array(items) = self.others.remove(key).filter(|value| !value.is_null())? else {
            wrong.push(format!("{name} must be a list of strings"));
            return None;
        };
        let texts: Option<Vec<String>> =
            items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect();
        if texts.is_none() {
            wrong.push(format!("{name} must be a list of strings"));
        }
        texts
    }

    fn number(&mut self, key: &str, name: &str, wrong: &mut Vec<String>) -> Option<i64> {
        match self.others.remove(key)? {
            Value::Null => None,
            Value::Number(number) if number.is_i64() => number.as_i64(),
            other => {
                wrong.push(format!("{name} must be a whole number, not {other}"));
                None
            }
        }
    }

    fn environment(&mut self, wrong: &mut Vec<String>) -> Option<BTreeMap<String, String>> {
        let variables = match self.others.remove("environment")? {
            Value::Null => return None,
            Value::Object(members) => members
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case("variables"))
                .map(|(_, value)| value),
            other => {
                wrong.push(format!("Environment must be an object with Variables, not {other}"));
                return None;
            }
        };
        match variables {
            None => None,
            Some(Value::Null) => Some(BTreeMap::new()),
            Some(Value::Object(members)) => {
                let mut read = BTreeMap::new();
                for (name, value) in members {
                    match value {
                        Value::String(text) => {
                            read.insert(name, text);
                        }
                        other => {
                            wrong.push(format!("Environment variable {name} must be a string, not {other}"))
                        }
                    }
                }
                Some(read)
            }
            Some(other) => {
                wrong.push(format!("Environment.Variables must be an object, not {other}"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_is_there() {
        let body = br#"{"Version":"1","description":"d","RUNTIME":"nodejs10","Timeout":5,"MemorySize":128,"Handler":"h",
            "PodConcurrentQuota":10,"MaxInstances":3,"MinInstances":1,"Environment":{"Variables":{"A":"b"}},"NetworkMode":"full","Layers":["a:1"],"Code":"UEs=","Nope":[1]}"#;
        let draft = parse(body).unwrap();
        assert_eq!(draft.version.as_deref(), Some("1"));
        assert_eq!((draft.timeout_secs, draft.memory_mb, draft.concurrency), (Some(5), Some(128), Some(10)));
        assert_eq!((draft.instances_max, draft.instances_min), (Some(3), Some(1)));
        assert_eq!(draft.network_mode.as_deref(), Some("full"));
        assert_eq!(draft.layers, Some(vec!["a:1".to_owned()]));
        assert!(parse(br#"{"Layers":"a:1"}"#).is_err() && parse(br#"{"Layers":[1]}"#).is_err());
        assert_eq!(draft.environment.unwrap()["A"], "b");
        assert!(matches!(draft.code, Some(Cow::Borrowed("UEs="))), "not copied");
        assert_eq!(draft.runtime.as_deref(), Some("nodejs10"));
    }

    #[test]
    fn nothing_and_null_ask_for_nothing() {
        assert_eq!(parse(b"").unwrap(), Draft::default());
        assert_eq!(parse(b" \n").unwrap(), Draft::default());
        assert_eq!(parse(b"{}").unwrap(), Draft::default());
        let nulls =
            br#"{"Version":null,"Timeout":null,"Environment":null,"Code":null,"Runtime":"","Code":""}"#;
        assert_eq!(parse(nulls).unwrap(), Draft::default());
    }

    #[test]
    fn code_with_escapes_is_read_too() {
        // FaaSter's documents show base64 with line feeds.
        let draft = parse(br#"{"Code":"UE\ns="}"#).unwrap();
        assert_eq!(draft.code.as_deref(), Some("UE\ns="));
    }

    #[test]
    fn every_wrong_type_is_named() {
        let error =
            parse(br#"{"Timeout":"5","MemorySize":1.5,"Handler":1,"Environment":{"Variables":{"A":1}}}"#);
        let text = error.unwrap_err().to_string();
        for part in [
            "Timeout must be a whole number, not \"5\"",
            "MemorySize",
            "Handler",
            "variable A must be a string",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(matches!(parse(b"{\"Version\":"), Err(DraftError::Json(_))));
        assert!(matches!(parse(b"[]"), Err(DraftError::Json(_))));
        assert!(matches!(parse(br#"{"Code":1}"#), Err(DraftError::Json(_))));
        assert!(parse(br#"{"Environment":[]}"#).is_err());
        assert!(parse(br#"{"Environment":{"Variables":"x"}}"#).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _read = parse(&body);
        }
    }
}
