//! What `-x` shows of a call: its words and its result, in the shape of libguestfs's traces.

use bstr::{BString, ByteSlice};
use vmcraft::Result;
use vmcraft::call::{ArgumentKind, Call};
use vmcraft::value::Value;

/// How many bytes of a text are shown.
const MOST_BYTES: usize = 256;
/// What stands for a key.
const HIDDEN: &str = "\"***\"";

/// The call, before it is made.
pub(crate) fn call(call: &Call, words: &[BString]) -> String {
    let mut text = call.name.to_owned();
    let mut words = words.iter();
    for argument in call.arguments.iter().filter(|argument| !argument.optional) {
        let shown = match argument.kind {
            ArgumentKind::Key => Some(HIDDEN.to_owned()),
            _ => words.next().map(|word| quoted(word)),
        };
        text.extend(shown.map(|shown| format!(" {shown}")));
    }
    for word in words {
        let (name, value) = word.split_once_str(":").unwrap_or((b"", word));
        text.push_str(&format!(" {}:{}", name.as_bstr(), quoted(value)));
    }
    text
}

/// What it returned, after it was made.
pub(crate) fn result(name: &str, result: &Result<Value>) -> String {
    match result {
        Err(_) => format!("{name} = -1 (error)"),
        Ok(value) => format!("{name} = {}", shown(value)),
    }
}

fn shown(value: &Value) -> String {
    let joined = |items: Vec<String>| format!("[{}]", items.join(", "));
    match value {
        Value::Unit => "0".to_owned(),
        Value::Bool(truth) => i32::from(*truth).to_string(),
        Value::Int(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Buffer(bytes) => quoted(bytes),
        Value::List(items) => joined(items.iter().map(|item| quoted(item)).collect()),
        Value::Hash(pairs) => {
            joined(pairs.iter().flat_map(|(key, value)| [quoted(key), quoted(value)]).collect())
        }
        Value::Struct(record) => format!("<struct {}>", record.name),
        Value::Structs(records) => match records.first() {
            Some(first) => format!("<{} struct {}>", records.len(), first.name),
            None => "<no structs>".to_owned(),
        },
        Value::FileIn(file) => format!("{file:?}"),
        Value::FileOut(file) => format!("{file:?}"),
        Value::Key(_) => HIDDEN.to_owned(),
    }
}

fn quoted(text: &[u8]) -> String {
    let shown = format!("{:?}", text[..text.len().min(MOST_BYTES)].as_bstr());
    if text.len() > MOST_BYTES { format!("{shown}<truncated, {} bytes>", text.len()) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_quote_their_words() {
        let add = Call::find("add-drive").unwrap();
        assert_eq!(call(add, &["a b".into(), "format:raw".into()]), r#"add-drive "a b" format:"raw""#);
        assert_eq!(result("cat", &Ok(Value::String("a\n".into()))), r#"cat = "a\n""#);
        let long = result("cat", &Ok(Value::String("x".repeat(300).into())));
        assert!(long.ends_with("<truncated, 300 bytes>"), "{long}");
    }
}
