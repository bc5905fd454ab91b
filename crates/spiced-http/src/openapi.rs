//! The OpenAPI document except for the routes: credentials, errors, and the schemas of rows and parameters.

use std::collections::BTreeMap;

use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ArrayBuilder, Content, OneOfBuilder, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi, PartialSchema, ToSchema};

#[derive(OpenApi)]
#[openapi(
    info(title = "spiced", description = "SQL over HTTP: one statement in, its rows out. Arrow Flight SQL and gRPC \
                                          have separate endpoints."),
    modifiers(&Credentials)
)]
pub(crate) struct Api;

/// The credentials that a request may carry. A client certificate belongs to the TLS handshake instead.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key")));
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("api_key", key);
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// The errors that any route may return.
pub(crate) struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        const PROBLEMS: [(u16, &str); 14] = [
            (400, "the request or its SQL is invalid"),
            (401, "credentials are missing or wrong"),
            (403, "the caller lacks the permission"),
            (404, "there is no such route or table"),
            (406, "none of the types in `Accept` is supported"),
            (408, "the body did not arrive in time"),
            (409, "the new configuration is rejected, and the current one stays in use"),
            (413, "the body is too large"),
            (415, "the body has a content encoding"),
            (421, "the request is for another host"),
            (429, "too many wrong credentials, or too many waiting requests"),
            (500, "an internal error"),
            (501, "the engine does not support this"),
            (503, "a limit was reached: memory, time, slots, the size of the result"),
        ];
        let response = |why| {
            ResponseBuilder::new()
                .description(why)
                .content("application/problem+json", Content::new(Some(problem())))
                .content("text/plain", Content::new(Some(text())))
                .build()
                .into()
        };
        PROBLEMS.into_iter().map(|(status, why)| (status.to_string(), response(why))).collect()
    }
}

/// A problem document (RFC 9457).
fn problem() -> Schema {
    ["type", "title", "detail"]
        .into_iter()
        .fold(ObjectBuilder::new(), |object, name| object.property(name, text()).required(name))
        .property("status", ObjectBuilder::new().schema_type(Type::Integer))
        .required("status")
        .into()
}

fn text() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).into()
}

/// Rows as objects, keyed by column.
pub(crate) struct Rows;

impl PartialSchema for Rows {
    fn schema() -> RefOr<Schema> {
        let row = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(true)));
        Schema::from(ArrayBuilder::new().items(row)).into()
    }
}

impl ToSchema for Rows {}

/// The response format of the Spice SDKs.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what spiced-formats writes")]
pub(crate) struct SpiceRows {
    /// The Arrow schema, as `arrow-schema` serializes it.
    #[schema(value_type = Object)]
    schema: (),
    /// The rows, as objects by column.
    #[schema(value_type = Vec<Object>)]
    data: (),
    /// The number of rows.
    row_count: u64,
}

/// Returns the schema of parameter values: by position, or by name.
pub(crate) fn parameters() -> RefOr<Schema> {
    let scalar = || {
        let types = [Type::Null, Type::Boolean, Type::Number, Type::String];
        ObjectBuilder::new().schema_type(SchemaType::from_iter(types)).build()
    };
    let by_name = ObjectBuilder::new().additional_properties(Some(Schema::from(scalar())));
    Schema::from(OneOfBuilder::new().item(ArrayBuilder::new().items(scalar())).item(by_name)).into()
}
