//! What goes into a call and what comes out: the types that libguestfs has, and no more.

use std::path::PathBuf;

use bstr::BString;
use vmcraft_volume::Key;

/// An argument or result of a call, when the call is made through the table.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No result.
    Unit,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text, of whatever bytes the guest uses; the shell prints it with a newline after it.
    String(BString),
    /// Bytes; the shell prints them as they are.
    Buffer(Vec<u8>),
    /// A list of texts, printed one a line.
    List(Vec<BString>),
    /// Pairs in the order that the call gives them, printed `key: value`.
    Hash(Vec<(BString, BString)>),
    /// A record with named fields.
    Struct(Struct),
    /// A list of records.
    Structs(Vec<Struct>),
    /// Where a call reads a file of the host.
    FileIn(FileIn),
    /// Where a call writes a file of the host.
    FileOut(FileOut),
    /// What opens an encrypted device: never printed.
    Key(Key),
}

/// A file of the host that a call reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileIn {
    /// A path; relative ones are relative to the process's directory.
    Path(PathBuf),
    /// What the handle was given by [`Guest::set_input`](crate::Guest::set_input): `-` in the shell.
    Input,
}

/// A file of the host that a call writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOut {
    /// A path; relative ones are relative to the process's directory.
    Path(PathBuf),
    /// What the handle was given by [`Guest::set_output`](crate::Guest::set_output): `-` in the
    /// shell.
    Output,
}

/// A record: libguestfs's struct of the same name and field order.
#[derive(Debug, Clone, PartialEq)]
pub struct Struct {
    /// libguestfs's name for it, such as `statns`.
    pub name: &'static str,
    /// The fields in order.
    pub fields: Vec<(&'static str, Field)>,
}

/// The value of a record's field.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Unsigned(u64),
    /// One letter.
    Char(u8),
    /// Text.
    Text(BString),
    /// Bytes, printed with escapes.
    Buffer(Vec<u8>),
    /// A percentage, or none.
    Percent(Option<f32>),
}

/// Types that are a record's field.
pub trait IntoField {
    /// The field.
    fn into_field(self) -> Field;
}

impl IntoField for i64 {
    fn into_field(self) -> Field {
        Field::Int(self)
    }
}
impl IntoField for i32 {
    fn into_field(self) -> Field {
        Field::Int(self.into())
    }
}
impl IntoField for u32 {
    fn into_field(self) -> Field {
        Field::Unsigned(self.into())
    }
}
impl IntoField for u64 {
    fn into_field(self) -> Field {
        Field::Unsigned(self)
    }
}
impl IntoField for char {
    fn into_field(self) -> Field {
        // libguestfs's character fields are ASCII letters.
        Field::Char(u8::try_from(self).unwrap_or(b'?'))
    }
}
impl IntoField for BString {
    fn into_field(self) -> Field {
        Field::Text(self)
    }
}
impl IntoField for String {
    fn into_field(self) -> Field {
        Field::Text(self.into())
    }
}
impl IntoField for Vec<u8> {
    fn into_field(self) -> Field {
        Field::Buffer(self)
    }
}
impl IntoField for Option<f32> {
    fn into_field(self) -> Field {
        Field::Percent(self)
    }
}

/// Types that are a libguestfs record.
pub trait IntoStruct {
    /// libguestfs's name for the record.
    const NAME: &'static str;
    /// The record.
    fn into_struct(self) -> Struct;
}

/// Defines a public record type and makes it a result of calls.
///
/// ```ignore
/// record! {
///     /// A partition, as `part-list` gives it.
///     pub struct Partition as "partition" {
///         /// Its number, from 1.
///         pub part_num: i32,
///     }
/// }
/// ```
macro_rules! record {
    ($(#[$meta:meta])* pub struct $type:ident as $name:literal {
        $($(#[$field_meta:meta])* pub $field:ident: $field_type:ty),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $type {
            $($(#[$field_meta])* pub $field: $field_type),*
        }
        impl $crate::value::IntoStruct for $type {
            const NAME: &'static str = $name;
            fn into_struct(self) -> $crate::value::Struct {
                $crate::value::Struct {
                    name: $name,
                    fields: vec![$((stringify!($field), $crate::value::IntoField::into_field(self.$field))),*],
                }
            }
        }
        impl $crate::call::IntoValue for $type {
            const KIND: $crate::call::ResultKind = $crate::call::ResultKind::Struct($name);
            fn into_value(self) -> $crate::value::Value {
                $crate::value::Value::Struct($crate::value::IntoStruct::into_struct(self))
            }
        }
        impl $crate::call::IntoValue for Vec<$type> {
            const KIND: $crate::call::ResultKind = $crate::call::ResultKind::Structs($name);
            fn into_value(self) -> $crate::value::Value {
                $crate::value::Value::Structs(
                    self.into_iter().map($crate::value::IntoStruct::into_struct).collect(),
                )
            }
        }
    };
}
pub(crate) use record;
