//! The web pages that both programs serve, embedded from `web/dist` as it was when the program was compiled.
//!
//! A program compiled without them still serves one page, which says how to build the rest. Nothing here answers
//! requests or decides who may see a page.

use std::borrow::Cow;

use rust_embed::RustEmbed;

/// What the pages may load and run, for the header `Content-Security-Policy`: nothing from elsewhere, no inline
/// scripts. Styles are set by the terminal and the editor at run time.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Dist;

/// One file of the pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its bytes.
    pub bytes: Cow<'static, [u8]>,
    /// Its media type with the character set of texts.
    pub content_type: String,
    /// A strong entity tag, with its quotes.
    pub etag: String,
}

/// The file at `path` below `web/dist`, without a leading slash, e.g. `workspace.html`; none where there is no such
/// file. An HTML page that is missing because no pages were built is the page that says so.
#[must_use]
pub fn page(path: &str) -> Option<Page> {
    if let Some(file) = Dist::get(path) {
        let hash = file.metadata.sha256_hash();
        let etag = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        return Some(Page { bytes: file.data, content_type: content_type(path), etag: format!("\"{etag}\"") });
    }
    (!are_built() && path.ends_with(".html")).then(|| Page {
        bytes: Cow::Borrowed(NOT_BUILT.as_bytes()),
        content_type: content_type(path),
        etag: "\"not-built\"".to_owned(),
    })
}

/// Whether the program was compiled with the pages.
#[must_use]
pub fn are_built() -> bool {
    Dist::iter().next().is_some()
}

fn content_type(path: &str) -> String {
    let guess = mime_guess::from_path(path).first_or_octet_stream();
    let is_text = guess.type_() == mime_guess::mime::TEXT || guess.subtype() == mime_guess::mime::JAVASCRIPT;
    if is_text { format!("{}; charset=utf-8", guess.essence_str()) } else { guess.essence_str().to_owned() }
}

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Pages not built</title>\
<h1>This program was compiled without its web pages</h1>\
<p>Build them with Node 20 or newer and compile again: <code>make web build</code>. \
The API and the terminal work without them.</p></html>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_pages_says_how_to_build_them() {
        let page = page("workspace.html").expect("a page in any case");
        assert_eq!(page.content_type, "text/html; charset=utf-8");
        assert_eq!(page.etag == "\"not-built\"", !are_built());
    }

    #[test]
    fn what_is_not_there_is_not_there() {
        for path in ["nothing.js", "../Cargo.toml", "/etc/passwd", ""] {
            assert_eq!(page(path), None, "{path}");
        }
    }

    #[test]
    fn texts_name_their_character_set() {
        let check = |path, expected| assert_eq!(content_type(path), expected);
        check("a.js", "text/javascript; charset=utf-8");
        check("a.css", "text/css; charset=utf-8");
        check("a.woff2", "font/woff2");
        check("a.svg", "image/svg+xml");
    }
}
