//! The page at `/`: plain files, built into the program.

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use super::state::AppState;

/// Only the page's own files, and only its own data; and no string ever becomes markup or code.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: [(&str, &str, &str); 10] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page.css", CSS, include_str!("page/page.css")),
    ("/api.js", JAVASCRIPT, include_str!("page/api.js")),
    ("/changes.js", JAVASCRIPT, include_str!("page/changes.js")),
    ("/chart.js", JAVASCRIPT, include_str!("page/chart.js")),
    ("/detail.js", JAVASCRIPT, include_str!("page/detail.js")),
    ("/format.js", JAVASCRIPT, include_str!("page/format.js")),
    ("/letters.js", JAVASCRIPT, include_str!("page/letters.js")),
    ("/main.js", JAVASCRIPT, include_str!("page/main.js")),
    ("/troubles.js", JAVASCRIPT, include_str!("page/troubles.js")),
];

pub(super) fn router() -> Router<AppState> {
    let icon = get(|| async { StatusCode::NO_CONTENT });
    FILES.into_iter().fold(Router::new().route("/favicon.ico", icon), |router, (path, content_type, text)| {
        router.route(path, get(move || async move { ([(CONTENT_TYPE, content_type)], text) }))
    })
}
