//! JSON schemas (2020-12) of shapes, as the JSON mapping writes their values.

use serde_json::{Map, Value, json};

use crate::shape::{Case, Docs, Field, Shape, TypeDocs};

/// The numbers that every reader of JSON has exactly.
const EXACT: i64 = (1 << 53) - 1;

/// The schema of a value of this shape, with what is said of its types.
pub(super) fn schema(shape: &Shape, docs: &Docs) -> Value {
    let schema = |shape: &Shape| schema(shape, docs);
    let known = docs.of(shape);
    let undescribed = match shape {
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::U8 => integer(0, u8::MAX.into()),
        Shape::U16 => integer(0, u16::MAX.into()),
        Shape::U32 => integer(0, u32::MAX.into()),
        Shape::S8 => integer(i8::MIN.into(), i8::MAX.into()),
        Shape::S16 => integer(i16::MIN.into(), i16::MAX.into()),
        Shape::S32 => integer(i32::MIN.into(), i32::MAX.into()),
        Shape::U64 => large(0, "^(0|[1-9][0-9]{0,19})$"),
        Shape::S64 => large(-EXACT, "^-?(0|[1-9][0-9]{0,18})$"),
        Shape::F32 | Shape::F64 => json!({
            "oneOf": [{ "type": "number" }, { "enum": ["NaN", "Infinity", "-Infinity"] }],
        }),
        // One scalar value, which some count as two.
        Shape::Char => json!({ "type": "string", "minLength": 1, "maxLength": 2 }),
        Shape::String => json!({ "type": "string" }),
        Shape::Stream(_) | Shape::Future(_) => schema(&shape.whole()),
        Shape::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        Shape::List(item) => json!({ "type": "array", "items": schema(item) }),
        Shape::FixedList(item, length) => json!({
            "type": "array", "items": schema(item), "minItems": length, "maxItems": length,
        }),
        Shape::Tuple(shapes) => json!({
            "type": "array",
            "prefixItems": shapes.iter().map(schema).collect::<Vec<_>>(),
            "items": false,
            "minItems": shapes.len(),
        }),
        Shape::Record(fields) => object(fields, known, docs),
        Shape::Variant(cases) => return variant(cases, known, docs),
        Shape::Enum(cases) => json!({ "type": "string", "enum": cases }),
        Shape::Option(some) => option(some, docs),
        Shape::Result { ok, err } => {
            let side = |name: &str, shape: Option<&Shape>| {
                let payload = shape.map_or_else(|| json!({ "type": "null" }), schema);
                tagged(&[(name, payload)])
            };
            json!({ "oneOf": [side("ok", ok.as_deref()), side("err", err.as_deref())] })
        }
        Shape::Flags(names) => json!({
            "type": "array", "items": { "type": "string", "enum": names }, "uniqueItems": true,
        }),
    };
    described(undescribed, known.and_then(text_of).as_deref())
}

/// A schema with a description, which takes the place of one that it has.
pub(super) fn described(mut schema: Value, text: Option<&str>) -> Value {
    if let (Value::Object(schema), Some(text)) = (&mut schema, text) {
        schema.insert("description".to_owned(), text.into());
    }
    schema
}

/// What is said of a type; the cases of an enum and flags have no schemas of their own, so they are listed here.
fn text_of(docs: &TypeDocs) -> Option<String> {
    let mut text = docs.text.clone().unwrap_or_default();
    if let Shape::Enum(names) | Shape::Flags(names) = &docs.shape {
        for name in names {
            if let Some(member) = docs.member(name) {
                let gap = if text.is_empty() { "" } else { "\n\n" };
                text.push_str(&format!("{gap}- `{name}`: {member}"));
            }
        }
    }
    (!text.is_empty()).then_some(text)
}

fn integer(minimum: i64, maximum: i64) -> Value {
    json!({ "type": "integer", "minimum": minimum, "maximum": maximum })
}

/// A number where readers of JSON have it exactly, else its digits.
fn large(minimum: i64, digits: &str) -> Value {
    json!({ "oneOf": [integer(minimum, EXACT), { "type": "string", "pattern": digits }] })
}

/// An object of fields, those of a record if something is said of it; those that are options may be left out.
pub(super) fn object(fields: &[Field], record: Option<&TypeDocs>, docs: &Docs) -> Value {
    let properties = fields.iter().map(|field| {
        let text = record.and_then(|record| record.member(&field.name));
        let property = described(schema(&field.shape, docs), text);
        (field.key.to_string(), property)
    });
    let required = fields
        .iter()
        .filter(|field| !matches!(field.shape, Shape::Option(_)));
    let required: Vec<_> = required.map(|field| &field.key).collect();
    let mut object = json!({
        "type": "object",
        "properties": properties.collect::<Map<_, _>>(),
        "additionalProperties": false,
    });
    if let (Some(object), false) = (object.as_object_mut(), required.is_empty()) {
        object.insert("required".to_owned(), json!(required));
    }
    object
}

/// An object that has exactly these keys.
fn tagged(entries: &[(&str, Value)]) -> Value {
    let properties = entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()));
    json!({
        "type": "object",
        "required": entries.iter().map(|(key, _)| key).collect::<Vec<_>>(),
        "properties": properties.collect::<Map<_, _>>(),
        "additionalProperties": false,
    })
}

/// Some or all of the cases of a variant.
pub(super) fn variant(cases: &[Case], of: Option<&TypeDocs>, docs: &Docs) -> Value {
    let case = |case: &Case| {
        let tag = json!({ "const": case.name });
        let object = match &case.payload {
            Some(payload) => tagged(&[("tag", tag), ("val", schema(payload, docs))]),
            None => tagged(&[("tag", tag)]),
        };
        described(object, of.and_then(|of| of.member(&case.name)))
    };
    match cases {
        [only] => case(only),
        cases => {
            let all = json!({ "oneOf": cases.iter().map(case).collect::<Vec<_>>() });
            described(all, of.and_then(|of| of.text.as_deref()))
        }
    }
}

fn option(some: &Shape, docs: &Docs) -> Value {
    let schema = |shape: &Shape| schema(shape, docs);
    if matches!(some, Shape::Option(_)) {
        let some = tagged(&[("tag", json!({ "const": "some" })), ("val", schema(some))]);
        let none = tagged(&[("tag", json!({ "const": "none" }))]);
        return json!({ "oneOf": [none, some] });
    }
    json!({ "anyOf": [schema(some), { "type": "null" }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_has_its_schema() {
        let field = |name: &str, shape| Field {
            name: name.into(),
            key: name.into(),
            shape,
        };
        let boxed = |shape| Some(Box::new(shape));
        for (shape, expected) in [
            (Shape::U8, r#"{"type":"integer","minimum":0,"maximum":255}"#),
            (
                Shape::U64,
                r#"{"oneOf":[{"type":"integer","minimum":0,"maximum":9007199254740991},{"type":"string","pattern":"^(0|[1-9][0-9]{0,19})$"}]}"#,
            ),
            (
                Shape::Record(
                    [
                        field("a", Shape::Bool),
                        field("b", Shape::Option(Box::new(Shape::Bool))),
                    ]
                    .into(),
                ),
                r#"{"type":"object","properties":{"a":{"type":"boolean"},"b":{"anyOf":[{"type":"boolean"},{"type":"null"}]}},
                    "additionalProperties":false,"required":["a"]}"#,
            ),
            (
                Shape::Option(Box::new(Shape::Option(Box::new(Shape::Bool)))),
                r#"{"oneOf":[{"type":"object","required":["tag"],"properties":{"tag":{"const":"none"}},"additionalProperties":false},
                    {"type":"object","required":["tag","val"],"properties":{"tag":{"const":"some"},
                     "val":{"anyOf":[{"type":"boolean"},{"type":"null"}]}},"additionalProperties":false}]}"#,
            ),
            (
                Shape::Result {
                    ok: boxed(Shape::Bool),
                    err: None,
                },
                r#"{"oneOf":[{"type":"object","required":["ok"],"properties":{"ok":{"type":"boolean"}},"additionalProperties":false},
                    {"type":"object","required":["err"],"properties":{"err":{"type":"null"}},"additionalProperties":false}]}"#,
            ),
            (
                Shape::Tuple([Shape::Bool, Shape::String].into()),
                r#"{"type":"array","prefixItems":[{"type":"boolean"},{"type":"string"}],"items":false,"minItems":2}"#,
            ),
            (
                Shape::Flags(["a".into()].into()),
                r#"{"type":"array","items":{"type":"string","enum":["a"]},"uniqueItems":true}"#,
            ),
        ] {
            let expected: Value = serde_json::from_str(expected).unwrap();
            assert_eq!(schema(&shape, &Docs::default()), expected, "{shape}");
        }
    }

    #[test]
    fn what_is_said_of_types_is_in_their_schemas() {
        let docs = |shape: &str, text: Option<&str>, members: &[(&str, &str)]| TypeDocs {
            shape: shape.parse().unwrap(),
            text: text.map(str::to_owned),
            members: members
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
        };
        let record = "record { unit-price: u8, kind: enum { a, b } }";
        let all = Docs::new(
            None,
            std::collections::BTreeMap::new(),
            [
                docs(record, Some("An item."), &[("unit-price", "In cents.")]),
                docs("enum { a, b }", Some("Kinds."), &[("b", "The other.")]),
                docs("variant { x, y(u8) }", None, &[("y", "Why.")]),
            ],
        );
        let of = |shape: &str| schema(&shape.parse().unwrap(), &all);
        let record = of(record);
        assert_eq!(record["description"], "An item.");
        let properties = &record["properties"];
        assert_eq!(properties["unitPrice"]["description"], "In cents.");
        let kinds = "Kinds.\n\n- `b`: The other.";
        assert_eq!(properties["kind"]["description"], kinds);
        let variant = of("list<variant { x, y(u8) }>");
        let cases = &variant["items"]["oneOf"];
        assert_eq!(cases[0].get("description"), None);
        assert_eq!(cases[1]["description"], "Why.");
    }
}
