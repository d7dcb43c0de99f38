//! Packages as descriptors, which reflection hands out and `.proto` files are printed from.

use prost_types::descriptor_proto::ReservedRange;
use prost_types::enum_descriptor_proto::EnumReservedRange;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto,
};

use super::types::{Body, Declared, Enum, Form, Kind, Message};
use super::{Package, Service};

/// The file of `google.protobuf.Empty`.
pub(super) const EMPTY_FILE: &str = "google/protobuf/empty.proto";
const EMPTY: &str = ".google.protobuf.Empty";

/// Numbers are below 2^29.
fn number(number: u32) -> Option<i32> {
    i32::try_from(number).ok()
}

/// The descriptor of a package's file.
pub(super) fn file(package: &Package) -> FileDescriptorProto {
    let mut file = FileDescriptorProto {
        name: Some(package.file.clone()),
        package: Some(package.name.clone()),
        service: package.services.iter().map(service).collect(),
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    for declared in &package.declared {
        match declared {
            Declared::Message(one) => file.message_type.push(message(one)),
            Declared::Enum(one) => file.enum_type.push(enumeration(one)),
        }
    }
    if file.message_type.iter().any(uses_empty) {
        file.dependency.push(EMPTY_FILE.to_owned());
    }
    file
}

/// The descriptor of [`EMPTY_FILE`].
pub(super) fn empty_file() -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(EMPTY_FILE.to_owned()),
        package: Some("google.protobuf".to_owned()),
        message_type: vec![DescriptorProto {
            name: Some("Empty".to_owned()),
            ..DescriptorProto::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

fn uses_empty(message: &DescriptorProto) -> bool {
    let uses = |field: &FieldDescriptorProto| field.type_name.as_deref() == Some(EMPTY);
    message.field.iter().any(uses) || message.nested_type.iter().any(uses_empty)
}

fn service(service: &Service) -> ServiceDescriptorProto {
    let methods = service.methods.iter().map(|method| MethodDescriptorProto {
        name: Some(method.name.clone()),
        input_type: Some(format!(".{}", method.request.path)),
        output_type: Some(format!(".{}", method.response.path)),
        ..MethodDescriptorProto::default()
    });
    ServiceDescriptorProto {
        name: Some(service.name.clone()),
        method: methods.collect(),
        ..ServiceDescriptorProto::default()
    }
}

fn enumeration(one: &Enum) -> EnumDescriptorProto {
    let zero = std::iter::once((&one.zero, 0));
    let values = zero.chain(one.cases.iter().map(|(name, number)| (name, *number)));
    let values = values.map(|(name, of)| EnumValueDescriptorProto {
        name: Some(name.clone()),
        number: number(of),
        options: None,
    });
    let reserved = one.reserved.iter().map(|of| EnumReservedRange {
        start: number(*of),
        end: number(*of),
    });
    EnumDescriptorProto {
        name: Some(one.name.clone()),
        value: values.collect(),
        reserved_range: reserved.collect(),
        ..EnumDescriptorProto::default()
    }
}

fn message(message: &Message) -> DescriptorProto {
    let reserved = message.reserved.iter().map(|of| ReservedRange {
        start: number(*of),
        end: number(of.saturating_add(1)),
    });
    let mut out = DescriptorProto {
        name: Some(message.name.clone()),
        reserved_range: reserved.collect(),
        ..DescriptorProto::default()
    };
    for declared in &message.nested {
        match declared {
            Declared::Message(one) => out.nested_type.push(self::message(one)),
            Declared::Enum(one) => out.enum_type.push(enumeration(one)),
        }
    }
    match &message.body {
        Body::Record(slots) | Body::Tuple(slots) => {
            for slot in slots {
                field(&mut out, &slot.name, slot.number, &slot.form);
            }
        }
        Body::Wrapper(slot) => field(&mut out, &slot.name, slot.number, &slot.form),
        Body::Flags(flags) => {
            for flag in flags {
                field(&mut out, &flag.name, flag.number, &Form::Plain(Kind::Bool));
            }
        }
        Body::Variant(one) | Body::Result(one) => {
            out.oneof_decl.push(OneofDescriptorProto {
                name: Some(one.name.clone()),
                options: None,
            });
            for arm in &one.arms {
                let (kind, name) = match &arm.kind {
                    Some(kind) => typed(kind),
                    None => (Type::Message, Some(EMPTY.to_owned())),
                };
                out.field.push(FieldDescriptorProto {
                    oneof_index: Some(0),
                    ..of_type(&arm.name, arm.number, Label::Optional, kind, name)
                });
            }
        }
    }
    out
}

fn typed(kind: &Kind) -> (Type, Option<String>) {
    let plain = match kind {
        Kind::Bool => Type::Bool,
        Kind::U8 | Kind::U16 | Kind::U32 => Type::Uint32,
        Kind::U64 => Type::Uint64,
        Kind::S8 | Kind::S16 | Kind::S32 => Type::Sint32,
        Kind::S64 => Type::Sint64,
        Kind::F32 => Type::Float,
        Kind::F64 => Type::Double,
        Kind::Char | Kind::String => Type::String,
        Kind::Bytes => Type::Bytes,
        Kind::Enum(one) => return (Type::Enum, Some(format!(".{}", one.path))),
        Kind::Message(one) => return (Type::Message, Some(format!(".{}", one.path))),
    };
    (plain, None)
}

fn of_type(
    name: &str,
    of: u32,
    label: Label,
    kind: Type,
    type_name: Option<String>,
) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: number(of),
        label: Some(label as i32),
        r#type: Some(kind as i32),
        type_name,
        json_name: Some(json_name(name)),
        ..FieldDescriptorProto::default()
    }
}

/// The name in JSON, as compilers of Protocol Buffers make it.
fn json_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut begins = false;
    for c in name.chars() {
        if c == '_' {
            begins = true;
        } else if std::mem::take(&mut begins) {
            out.push(c.to_ascii_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

fn field(out: &mut DescriptorProto, name: &str, number: u32, form: &Form) {
    let (kind, type_name) = typed(form.kind());
    let label = match form {
        Form::Plain(_) | Form::Optional(_) => Label::Optional,
        Form::Repeated(_) | Form::Fixed(..) => Label::Repeated,
    };
    let mut field = of_type(name, number, label, kind, type_name);
    if matches!(form, Form::Optional(_)) && kind != Type::Message {
        // What proto3 calls `optional` is a oneof of one field, after all real ones: there are none beside.
        field.proto3_optional = Some(true);
        field.oneof_index = i32::try_from(out.oneof_decl.len()).ok();
        out.oneof_decl.push(OneofDescriptorProto {
            name: Some(format!("_{name}")),
            options: None,
        });
    }
    out.field.push(field);
}
