//! `grpc.reflection.v1.ServerReflection`: which services there are, and their `.proto` files.

use tonic_reflection::server::{
    Builder,
    v1::{ServerReflection, ServerReflectionServer},
};

/// Full names of the services that are not of this project.
const STANDARD: [&str; 2] = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

/// Lists these services, full names, with health and reflection. Any message and service of
/// `overlay.v1` can be looked up.
///
/// # Panics
/// Never: the descriptors are compiled in.
pub fn server(services: &[&str]) -> ServerReflectionServer<impl ServerReflection + use<>> {
    let mut builder = Builder::configure()
        .register_encoded_file_descriptor_set(overlay_api::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    for service in services.iter().chain(&STANDARD) {
        builder = builder.with_service_name(*service);
    }
    builder.build_v1().expect("descriptors that protox wrote decode")
}
