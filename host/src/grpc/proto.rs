//! Descriptors as the text of `.proto` files.

use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};

use super::comments::Comments;

/// The text of a file that was made from a package, with what is said of its names.
pub(super) fn print(file: &FileDescriptorProto, comments: &Comments) -> String {
    let printer = Printer {
        comments,
        package: format!(".{}.", file.package()),
        is_shadowed: shadows(file),
    };
    let mut out = String::from("// Made from WIT by `wasmbay proto`.\n\nsyntax = \"proto3\";\n\n");
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(out, "package {};", file.package());
    for (index, dependency) in file.dependency.iter().enumerate() {
        let before = if index == 0 { "\n" } else { "" };
        let _ = writeln!(out, "{before}import \"{dependency}\";");
    }
    for service in &file.service {
        out.push('\n');
        printer.comment(service.name(), "", &mut out);
        let _ = writeln!(out, "service {} {{", service.name());
        for method in &service.method {
            let (input, output) = (
                printer.name(method.input_type(), ""),
                printer.name(method.output_type(), ""),
            );
            let name = format!("{}.{}", service.name(), method.name());
            printer.comment(&name, "  ", &mut out);
            let _ = writeln!(out, "  rpc {}({input}) returns ({output});", method.name());
        }
        out.push_str("}\n");
    }
    for message in &file.message_type {
        out.push('\n');
        printer.message(message, "", 0, &mut out);
    }
    for one in &file.enum_type {
        out.push('\n');
        printer.enumeration(one, "", 0, &mut out);
    }
    out
}

/// Whether a nested type has the name of one of the package's: then names have to be whole.
fn shadows(file: &FileDescriptorProto) -> bool {
    fn nested(message: &DescriptorProto, is_top: &dyn Fn(&str) -> bool) -> bool {
        let messages = message.nested_type.iter();
        let enums = message.enum_type.iter();
        messages
            .clone()
            .any(|one| is_top(one.name()) || nested(one, is_top))
            || enums.into_iter().any(|one| is_top(one.name()))
    }
    let is_top = |name: &str| {
        let messages = file.message_type.iter().any(|one| one.name() == name);
        messages || file.enum_type.iter().any(|one| one.name() == name)
    };
    file.message_type.iter().any(|one| nested(one, &is_top))
}

struct Printer<'a> {
    comments: &'a Comments,
    /// With a dot on either side.
    package: String,
    is_shadowed: bool,
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}

impl Printer<'_> {
    /// Writes what is said of a name of the package.
    fn comment(&self, name: &str, pad: &str, out: &mut String) {
        let full = format!("{}{name}", self.package.trim_start_matches('.'));
        for line in self
            .comments
            .get(&full)
            .into_iter()
            .flat_map(|text| text.lines())
        {
            // What ends a line for some reader would end the comment.
            let line = line.replace(char::is_control, " ");
            let _ = writeln!(out, "{}", format!("{pad}// {line}").trim_end());
        }
    }

    /// A type's name within a message (with a dot at its end), without what is around where that finds it.
    fn name<'n>(&self, full: &'n str, scope: &str) -> &'n str {
        let Some(short) = full.strip_prefix(&self.package) else {
            return full;
        };
        match short.strip_prefix(scope) {
            Some(own) if !own.contains('.') && !scope.is_empty() => own,
            _ if self.is_shadowed => full,
            _ => short,
        }
    }

    fn message(&self, message: &DescriptorProto, around: &str, depth: usize, out: &mut String) {
        let scope = format!("{around}{}.", message.name());
        let pad = indent(depth);
        let inner = indent(depth + 1);
        self.comment(&format!("{around}{}", message.name()), &pad, out);
        if message.field.is_empty() && message.reserved_range.is_empty() {
            let _ = writeln!(out, "{pad}message {} {{}}", message.name());
            return;
        }
        let _ = writeln!(out, "{pad}message {} {{", message.name());
        if !message.reserved_range.is_empty() {
            let ranges = message.reserved_range.iter();
            let numbers: Vec<_> = ranges.map(|range| range.start().to_string()).collect();
            let _ = writeln!(out, "{inner}reserved {};", numbers.join(", "));
        }
        for one in &message.nested_type {
            self.message(one, &scope, depth + 1, out);
            out.push('\n');
        }
        for one in &message.enum_type {
            self.enumeration(one, &scope, depth + 1, out);
            out.push('\n');
        }
        let mut one_of = None;
        for field in &message.field {
            let of = field.oneof_index.filter(|_| !field.proto3_optional());
            if of != one_of {
                if one_of.is_some() {
                    let _ = writeln!(out, "{inner}}}");
                }
                let index = of.and_then(|of| usize::try_from(of).ok());
                if let Some(one) = index.and_then(|index| message.oneof_decl.get(index)) {
                    let _ = writeln!(out, "{inner}oneof {} {{", one.name());
                }
                one_of = of;
            }
            let pad = indent(depth + if one_of.is_some() { 2 } else { 1 });
            self.comment(&format!("{scope}{}", field.name()), &pad, out);
            let line = self.field(field, &scope);
            let _ = writeln!(out, "{pad}{line}");
        }
        if one_of.is_some() {
            let _ = writeln!(out, "{inner}}}");
        }
        let _ = writeln!(out, "{pad}}}");
    }

    fn field(&self, field: &FieldDescriptorProto, scope: &str) -> String {
        let label = match field.label() {
            Label::Repeated => "repeated ",
            _ if field.proto3_optional() => "optional ",
            _ => "",
        };
        let kind = match field.r#type() {
            Type::Bool => "bool",
            Type::Uint32 => "uint32",
            Type::Uint64 => "uint64",
            Type::Sint32 => "sint32",
            Type::Sint64 => "sint64",
            Type::Float => "float",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            _ => match self.name(field.type_name(), scope) {
                ".google.protobuf.Empty" => "google.protobuf.Empty",
                name => name,
            },
        };
        format!("{label}{kind} {} = {};", field.name(), field.number())
    }

    fn enumeration(&self, one: &EnumDescriptorProto, around: &str, depth: usize, out: &mut String) {
        let (pad, inner) = (indent(depth), indent(depth + 1));
        let name = format!("{around}{}", one.name());
        self.comment(&name, &pad, out);
        let _ = writeln!(out, "{pad}enum {} {{", one.name());
        if !one.reserved_range.is_empty() {
            let ranges = one.reserved_range.iter();
            let numbers: Vec<_> = ranges.map(|range| range.start().to_string()).collect();
            let _ = writeln!(out, "{inner}reserved {};", numbers.join(", "));
        }
        for value in &one.value {
            self.comment(&format!("{name}.{}", value.name()), &inner, out);
            let _ = writeln!(out, "{inner}{} = {};", value.name(), value.number());
        }
        let _ = writeln!(out, "{pad}}}");
    }
}
