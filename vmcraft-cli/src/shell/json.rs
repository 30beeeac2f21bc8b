//! How a result looks with `--json`: one JSON document a line, for programs.
//!
//! Text is a string. Bytes that are not UTF-8 are `{"base64": "…"}` instead, wherever text could
//! stand; only a key cannot be an object, so a key that is not UTF-8 has each of its bad bytes as
//! `\xNN`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bstr::ByteSlice;
use serde_json::{Map, Number, Value as Json};
use vmcraft::value::{Field, Struct, Value};

/// The result as JSON; `None` if the call returns nothing.
pub(crate) fn to_json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Unit | Value::FileIn(_) | Value::FileOut(_) | Value::Key(_) => return None,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Int(number) => Json::Number((*number).into()),
        Value::String(text) => bytes(text),
        Value::Buffer(content) => bytes(content),
        Value::List(items) => Json::Array(items.iter().map(|item| bytes(item)).collect()),
        Value::Hash(pairs) => {
            Json::Object(pairs.iter().map(|(name, value)| (key(name), bytes(value))).collect())
        }
        Value::Struct(record) => object(record),
        Value::Structs(records) => Json::Array(records.iter().map(object).collect()),
    })
}

fn object(record: &Struct) -> Json {
    Json::Object(record.fields.iter().map(|(name, value)| ((*name).to_owned(), field(value))).collect())
}

fn field(field: &Field) -> Json {
    match field {
        Field::Int(number) => Json::Number((*number).into()),
        Field::Unsigned(number) => Json::Number((*number).into()),
        Field::Char(letter) => Json::String(char::from(*letter).to_string()),
        Field::Text(text) => bytes(text),
        Field::Buffer(content) => bytes(content),
        Field::Percent(percent) => {
            // By way of its text: 0.1 must not become 0.10000000149011612.
            let exact = percent.and_then(|percent| percent.to_string().parse().ok());
            exact.and_then(Number::from_f64).map_or(Json::Null, Json::Number)
        }
    }
}

/// Text as a string, and other bytes as an object.
pub(crate) fn bytes(bytes: &[u8]) -> Json {
    match bytes.to_str() {
        Ok(text) => Json::String(text.to_owned()),
        Err(_) => Json::Object(Map::from_iter([("base64".to_owned(), Json::String(BASE64.encode(bytes)))])),
    }
}

fn key(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &Value) -> String {
        to_json(value).unwrap().to_string()
    }

    #[test]
    fn text_is_a_string_and_other_bytes_are_base64() {
        assert_eq!(json(&Value::String("a\"b\n".into())), r#""a\"b\n""#);
        assert_eq!(json(&Value::Buffer(vec![0xff, 0])), r#"{"base64":"/wA="}"#);
        assert_eq!(
            json(&Value::List(vec!["a".into(), b"\xe9".as_slice().into()])),
            r#"["a",{"base64":"6Q=="}]"#
        );
        assert_eq!(json(&Value::Hash(vec![(b"/\xe9".as_slice().into(), "x".into())])), r#"{"/\\xe9":"x"}"#);
        assert_eq!(to_json(&Value::Unit), None);
    }

    #[test]
    fn records_are_objects_in_the_order_of_their_fields() {
        let record = Struct {
            name: "x",
            fields: vec![
                ("z", Field::Unsigned(u64::MAX)),
                ("a", Field::Char(b'd')),
                ("p", Field::Percent(None)),
                ("q", Field::Percent(Some(0.1))),
            ],
        };
        assert_eq!(
            json(&Value::Structs(vec![record])),
            r#"[{"z":18446744073709551615,"a":"d","p":null,"q":0.1}]"#
        );
    }
}
