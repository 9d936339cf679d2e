//! The OpenAPI 3.1 document of the API, put together from the handlers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::auth::Caller;
use super::{checks, custom, files, live, navigate, pages, steps};
use crate::backend::app::App;
use crate::backend::probes;
use crate::domain::management::ErrorBody;
use crate::domain::token::COOKIE;

#[derive(OpenApi)]
#[openapi(
    info(title = "Workspace", description = "The API inside every workspace.", version = "1"),
    paths(
        probes::alive, probes::ready, pages::session, live::ttyd_token, ttyd_terminal,
        steps::state, steps::steps, steps::step, steps::progress, navigate::navigate,
        checks::run, checks::last, custom::all, custom::one, custom::set, custom::remove,
        files::list, files::read, files::write, files::remove, files::make_directory, files::rename, files::archive,
        live::terminal, live::restart, live::events, live::extend, live::artifact, live::metrics,
        pages::picture, document,
    ),
    security(("bearer" = []), ("cookie" = [])),
    modifiers(&Tokens, &Refusals),
)]
struct Document;

/// The two places of a token.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(COOKIE)));
        components.add_security_scheme("cookie", cookie);
    }
}

/// What stands before every route may refuse every request.
struct Refusals;

impl Modify for Refusals {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let body = Ref::from_schema_name("ErrorBody");
        let response = |description: &str| {
            let content = ContentBuilder::new().schema(Some(body.clone())).build();
            ResponseBuilder::new().description(description).content("application/json", content).build()
        };
        for item in document.paths.paths.values_mut() {
            let changing = [&mut item.post, &mut item.put, &mut item.delete].into_iter().flatten();
            for operation in changing {
                let responses = &mut operation.responses.responses;
                responses.entry("403".into()).or_insert_with(|| response("`CrossOrigin`").into());
                responses.entry("413".into()).or_insert_with(|| response("`TooLarge`: the body").into());
            }
            let all = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten();
            for operation in all {
                let responses = &mut operation.responses.responses;
                responses.entry("405".into()).or_insert_with(|| response("`MethodNotAllowed`").into());
                responses.entry("504".into()).or_insert_with(|| response("`Timeout`").into());
            }
        }
    }
}

/// The terminal where clients of ttyd look for it.
#[utoipa::path(get, path = "/ws", tag = "terminal", responses(
    (status = 101, description = "The connection is a WebSocket"),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody),
    (status = 426, body = ErrorBody),
    (status = 503, body = ErrorBody),
))]
#[allow(dead_code, reason = "only its description is used: the handler is that of the other path")]
fn ttyd_terminal() {}

/// The document, whose paths are below `base`.
pub fn build(base: &str) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let base = base.trim_end_matches('/');
    let server = if base.is_empty() { "/" } else { base };
    document.servers = Some(vec![utoipa::openapi::Server::new(server)]);
    document
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "probes", responses(
    (status = 200, body = serde_json::Value),
    (status = 401, body = ErrorBody),
))]
pub async fn document(State(app): State<Arc<App>>, _: Caller) -> Json<utoipa::openapi::OpenApi> {
    Json(build(&app.config.base_path))
}
