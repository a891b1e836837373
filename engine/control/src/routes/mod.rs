//! The two ports' routes.
//!
//! Owns: paths, methods, statuses and the form of answers. Must not know: how anything is done.
//! What HTTP methods a path has is FaaSter's list plus ours; another method is 405 with `Allow`, OPTIONS is 200 with it.

mod answer;
mod controller;
mod layers;
mod registry;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::response::Response;
use axum::routing::MethodRouter;

use crate::node::Node;
use answer::{empty, text};

/// Port 8001, without the invocations.
pub(crate) fn controller(node: Arc<Node>) -> Router {
    controller::router().fallback(not_found).with_state(node)
}

/// Port 8002.
pub(crate) fn registry(node: Arc<Node>) -> Router {
    // The shard has bounded the body already; axum's own bound of 2 MB would refuse larger zips.
    registry::router()
        .merge(layers::router())
        .fallback(not_found)
        .layer(DefaultBodyLimit::disable())
        .with_state(node)
}

async fn not_found() -> Response {
    text(404, "Not Found")
}

/// Answers every other method of a path.
fn allow(router: MethodRouter<Arc<Node>>, methods: &'static str) -> MethodRouter<Arc<Node>> {
    router.fallback(move |method: Method| async move {
        let mut answer = empty(if method == Method::OPTIONS { 200 } else { 405 });
        answer.headers_mut().insert("Allow", axum::http::HeaderValue::from_static(methods));
        answer
    })
}
