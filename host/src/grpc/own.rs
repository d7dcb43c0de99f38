//! The services that a gateway has of its own, by their descriptors: health and reflection.

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto,
};

/// The service that says whether others can be called.
pub const HEALTH: &str = "grpc.health.v1.Health";

/// Whether a service can be called, or is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are gRPC's own")]
pub enum Serving {
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The service that a health check is about; empty for all. Nothing if it is none.
#[must_use]
pub fn checked(request: &[u8]) -> Option<String> {
    HealthRequest::decode(request)
        .ok()
        .map(|request| request.service)
}

/// The answer to a health check.
#[must_use]
pub fn health(serving: Serving) -> Vec<u8> {
    let response = HealthResponse {
        status: serving as i32,
    };
    response.encode_to_vec()
}

/// Name, number, type, and the type's name; those with the last are of the oneof, or repeated.
type Row = (&'static str, i32, Type, &'static str);

fn message(name: &str, one_of: Option<(&str, i32)>, rows: &[Row]) -> DescriptorProto {
    let fields = rows.iter().map(|(name, number, kind, of)| {
        let (repeated, of) = match of.strip_prefix("repeated ") {
            Some(of) => (true, of),
            None => (false, *of),
        };
        let label = if repeated {
            Label::Repeated
        } else {
            Label::Optional
        };
        let is_one_of = one_of.is_some_and(|(_, from)| *number >= from);
        FieldDescriptorProto {
            name: Some((*name).to_owned()),
            number: Some(*number),
            label: Some(label as i32),
            r#type: Some(*kind as i32),
            type_name: (!of.is_empty()).then(|| of.to_owned()),
            oneof_index: is_one_of.then_some(0),
            ..FieldDescriptorProto::default()
        }
    });
    DescriptorProto {
        name: Some(name.to_owned()),
        field: fields.collect(),
        oneof_decl: one_of
            .into_iter()
            .map(|(name, _)| OneofDescriptorProto {
                name: Some(name.to_owned()),
                options: None,
            })
            .collect(),
        ..DescriptorProto::default()
    }
}

fn method(
    package: &str,
    name: &str,
    types: [&str; 2],
    streams: [bool; 2],
) -> MethodDescriptorProto {
    let [input, output] = types.map(|name| Some(format!(".{package}.{name}")));
    let [client, server] = streams.map(|streams| streams.then_some(true));
    MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: input,
        output_type: output,
        client_streaming: client,
        server_streaming: server,
        ..MethodDescriptorProto::default()
    }
}

fn file(
    path: &str,
    package: &str,
    message_type: Vec<DescriptorProto>,
    service: &str,
    method: Vec<MethodDescriptorProto>,
) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(path.to_owned()),
        package: Some(package.to_owned()),
        message_type,
        service: vec![ServiceDescriptorProto {
            name: Some(service.to_owned()),
            method,
            ..ServiceDescriptorProto::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

/// The files of health and of both versions of reflection.
pub(super) fn files() -> [FileDescriptorProto; 3] {
    [
        health_file(),
        reflection_file("v1"),
        reflection_file("v1alpha"),
    ]
}

fn health_file() -> FileDescriptorProto {
    let package = "grpc.health.v1";
    let status = ".grpc.health.v1.HealthCheckResponse.ServingStatus";
    let names = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
    let values = names
        .iter()
        .zip(0..)
        .map(|(name, number)| EnumValueDescriptorProto {
            name: Some((*name).to_owned()),
            number: Some(number),
            options: None,
        });
    let mut response = message(
        "HealthCheckResponse",
        None,
        &[("status", 1, Type::Enum, status)],
    );
    response.enum_type.push(EnumDescriptorProto {
        name: Some("ServingStatus".to_owned()),
        value: values.collect(),
        ..EnumDescriptorProto::default()
    });
    let request = message(
        "HealthCheckRequest",
        None,
        &[("service", 1, Type::String, "")],
    );
    let types = ["HealthCheckRequest", "HealthCheckResponse"];
    file(
        "grpc/health/v1/health.proto",
        package,
        vec![request, response],
        "Health",
        vec![
            method(package, "Check", types, [false, false]),
            method(package, "Watch", types, [false, true]),
        ],
    )
}

fn reflection_file(version: &str) -> FileDescriptorProto {
    let package = format!("grpc.reflection.{version}");
    let mut messages = vec![
        message(
            "ServerReflectionRequest",
            Some(("message_request", 3)),
            &[
                ("host", 1, Type::String, ""),
                ("file_by_filename", 3, Type::String, ""),
                ("file_containing_symbol", 4, Type::String, ""),
                (
                    "file_containing_extension",
                    5,
                    Type::Message,
                    "ExtensionRequest",
                ),
                ("all_extension_numbers_of_type", 6, Type::String, ""),
                ("list_services", 7, Type::String, ""),
            ],
        ),
        message(
            "ExtensionRequest",
            None,
            &[
                ("containing_type", 1, Type::String, ""),
                ("extension_number", 2, Type::Int32, ""),
            ],
        ),
        message(
            "ServerReflectionResponse",
            Some(("message_response", 4)),
            &[
                ("valid_host", 1, Type::String, ""),
                (
                    "original_request",
                    2,
                    Type::Message,
                    "ServerReflectionRequest",
                ),
                (
                    "file_descriptor_response",
                    4,
                    Type::Message,
                    "FileDescriptorResponse",
                ),
                (
                    "all_extension_numbers_response",
                    5,
                    Type::Message,
                    "ExtensionNumberResponse",
                ),
                (
                    "list_services_response",
                    6,
                    Type::Message,
                    "ListServiceResponse",
                ),
                ("error_response", 7, Type::Message, "ErrorResponse"),
            ],
        ),
        message(
            "FileDescriptorResponse",
            None,
            &[("file_descriptor_proto", 1, Type::Bytes, "repeated ")],
        ),
        message(
            "ExtensionNumberResponse",
            None,
            &[
                ("base_type_name", 1, Type::String, ""),
                ("extension_number", 2, Type::Int32, "repeated "),
            ],
        ),
        message(
            "ListServiceResponse",
            None,
            &[("service", 1, Type::Message, "repeated ServiceResponse")],
        ),
        message("ServiceResponse", None, &[("name", 1, Type::String, "")]),
        message(
            "ErrorResponse",
            None,
            &[
                ("error_code", 1, Type::Int32, ""),
                ("error_message", 2, Type::String, ""),
            ],
        ),
    ];
    // Names of types are whole in descriptors.
    for field in messages.iter_mut().flat_map(|message| &mut message.field) {
        if let Some(name) = &mut field.type_name {
            name.insert_str(0, &format!(".{package}."));
        }
    }
    let types = ["ServerReflectionRequest", "ServerReflectionResponse"];
    let info = method(&package, super::reflection::METHOD, types, [true, true]);
    file(
        &format!("grpc/reflection/{version}/reflection.proto"),
        &package,
        messages,
        "ServerReflection",
        vec![info],
    )
}
