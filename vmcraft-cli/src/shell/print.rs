//! How a result looks: the form that guestfish prints, which scripts read.

use std::io::{self, Write};

use vmcraft::call::Print;
use vmcraft::value::{Field, Struct, Value};

/// Prints a result as guestfish prints one of its type.
pub(crate) fn print(out: &mut dyn Write, value: &Value, print: Print) -> io::Result<()> {
    match value {
        Value::Unit => Ok(()),
        Value::Bool(truth) => writeln!(out, "{truth}"),
        Value::Int(number) => writeln!(out, "{}", int(*number, print)),
        Value::String(text) => line(out, text),
        Value::Buffer(bytes) => out.write_all(bytes),
        Value::List(items) => items.iter().try_for_each(|item| line(out, item)),
        Value::Hash(pairs) => pairs.iter().try_for_each(|(key, value)| {
            out.write_all(key)?;
            out.write_all(b": ")?;
            line(out, value)
        }),
        Value::Struct(record) => fields(out, record, ""),
        Value::Structs(records) => records.iter().enumerate().try_for_each(|(index, record)| {
            writeln!(out, "[{index}] = {{")?;
            fields(out, record, "  ")?;
            writeln!(out, "}}")
        }),
        // No call returns an argument.
        Value::FileIn(_) | Value::FileOut(_) | Value::Key(_) => Ok(()),
    }
}

fn line(out: &mut dyn Write, text: &[u8]) -> io::Result<()> {
    out.write_all(text)?;
    out.write_all(b"\n")
}

/// A number; 0 has no prefix in any base, and a negative one is shown in decimal.
fn int(number: i64, print: Print) -> String {
    match print {
        Print::Octal if number > 0 => format!("0{number:o}"),
        Print::Hex if number > 0 => format!("0x{number:x}"),
        _ => number.to_string(),
    }
}

fn fields(out: &mut dyn Write, record: &Struct, indent: &str) -> io::Result<()> {
    for (name, field) in &record.fields {
        write!(out, "{indent}{name}: ")?;
        match field {
            Field::Int(number) => write!(out, "{number}")?,
            Field::Unsigned(number) => write!(out, "{number}")?,
            Field::Char(letter) => out.write_all(&[*letter])?,
            Field::Text(text) => out.write_all(text)?,
            Field::Buffer(bytes) => out.write_all(escaped(bytes).as_bytes())?,
            Field::Percent(Some(percent)) => write!(out, "{percent} %")?,
            Field::Percent(None) => {}
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Bytes in one line: what is not printable ASCII becomes `\xNN`.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().copied() {
        match byte {
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(value: &Value, kind: Print) -> String {
        let mut out = Vec::new();
        print(&mut out, value, kind).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn shown(value: Value) -> String {
        printed(&value, Print::Default)
    }

    #[test] // A string gets a newline even if it ends in one; a buffer never does.
    fn strings_get_a_newline_and_buffers_do_not() {
        assert_eq!(shown(Value::Unit), "");
        assert_eq!(shown(Value::String("a\n".into())), "a\n\n");
        assert_eq!(shown(Value::Buffer(b"a".to_vec())), "a");
        assert_eq!(shown(Value::Bool(true)), "true\n");
        assert_eq!(shown(Value::List(vec!["a".into(), "".into()])), "a\n\n");
        assert_eq!(shown(Value::Hash(vec![("/dev/sda1".into(), "ext4".into())])), "/dev/sda1: ext4\n");
    }

    #[test]
    fn numbers_show_their_base() {
        assert_eq!(printed(&Value::Int(-1), Print::Default), "-1\n");
        assert_eq!(printed(&Value::Int(0o22), Print::Octal), "022\n");
        assert_eq!(printed(&Value::Int(0x83), Print::Hex), "0x83\n");
        assert_eq!(printed(&Value::Int(0), Print::Octal), "0\n");
        assert_eq!(printed(&Value::Int(0), Print::Hex), "0\n");
    }

    #[test]
    fn records_show_a_field_a_line() {
        let record = Struct {
            name: "dirent",
            fields: vec![
                ("ino", Field::Int(11)),
                ("ftyp", Field::Char(b'd')),
                ("name", Field::Text("a b".into())),
                ("attrval", Field::Buffer(b"x\0\xff\n".to_vec())),
                ("percent", Field::Percent(Some(99.5))),
                ("none", Field::Percent(None)),
                ("size", Field::Unsigned(u64::MAX)),
            ],
        };
        let lines = [
            "ino: 11",
            "ftyp: d",
            "name: a b",
            "attrval: x\\x00\\xff\\x0a",
            "percent: 99.5 %",
            "none: ",
            "size: 18446744073709551615",
            "",
        ];
        assert_eq!(shown(Value::Struct(record.clone())), lines.join("\n"));
        let listed = shown(Value::Structs(vec![record]));
        assert!(listed.starts_with("[0] = {\n  ino: 11\n  ftyp: d\n"), "{listed}");
        assert!(listed.ends_with("\n}\n"), "{listed}");
    }
}
