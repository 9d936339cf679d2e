//! The OpenAPI 3.1 document of the management API; the conformance suite holds every implementation against it.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::domain::management::{
    Activity, ErrorBody, ErrorDetail, ExtendRequest, Extended, Instance, Phase, PinnedArtifact, Progress, ResetRequest,
    Session, Snapshot, StepRequest,
};
use crate::domain::progress::{Status, StepProgress};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Workshop Platform: management API",
        version = "v1",
        description = "What a workspace asks of those who run it. Each request carries the workspace's own token \
                       (a JWT of the role `workspace` whose audience is the instance's uid)."
    ),
    paths(
        super::read,
        super::claim,
        super::write_progress,
        super::request_step,
        super::request_reset,
        super::report_activity,
        super::extend,
        super::artifact
    ),
    components(schemas(
        Activity, ErrorBody, ErrorDetail, ExtendRequest, Extended, Instance, Phase, PinnedArtifact, Progress,
        ResetRequest, Session, Snapshot, Status, StepProgress, StepRequest
    )),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        if let Some(components) = &mut openapi.components {
            components.add_security_scheme("token", SecurityScheme::Http(scheme));
        }
    }
}

/// The document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
