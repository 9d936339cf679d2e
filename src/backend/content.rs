//! A step's text as HTML: GitHub's Markdown, rendered and sanitised here so that browsers get only what is harmless.
//!
//! Raw HTML in the text is dropped. Relative pictures lead to the assets of the API, and every id begins with
//! [`ID_PREFIX`], so that a heading can be mistaken for no part of the page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ammonia::Builder;
use comrak::Options;
use comrak::options::URLRewriter;

use crate::domain::digest::Digest;

/// What the ids of headings begin with.
pub const ID_PREFIX: &str = "doc-";
/// The most texts that are kept rendered.
const KEPT: usize = 8;

/// A rendered text.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The HTML of the body.
    pub html: String,
    /// The digest of the Markdown.
    pub digest: Digest,
}

/// Renders texts and keeps the last ones.
#[derive(Debug)]
pub struct Renderer {
    assets: String,
    kept: Mutex<VecDeque<Arc<Rendered>>>,
}

impl Renderer {
    /// `assets` is the path, with a slash at its end, that relative pictures are found below.
    pub fn new(assets: String) -> Self {
        Self { assets, kept: Mutex::default() }
    }

    /// The HTML of `markdown`. Takes its time for a long text.
    pub fn render(&self, markdown: &str) -> Arc<Rendered> {
        let digest = Digest::of(markdown.as_bytes());
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept().iter().find(|rendered| rendered.digest == digest) {
            return Arc::clone(found);
        }
        let rendered = Arc::new(Rendered { html: render(markdown, &self.assets), digest });
        let mut kept = kept();
        kept.truncate(KEPT - 1);
        kept.push_front(Arc::clone(&rendered));
        rendered
    }
}

struct Pictures(String);

impl URLRewriter for Pictures {
    fn to_html(&self, url: &str) -> String {
        if is_elsewhere(url) {
            return url.to_owned();
        }
        let mut path = url;
        while let Some(rest) = ["./", "../", "/", "assets/"].iter().find_map(|start| path.strip_prefix(start)) {
            path = rest;
        }
        format!("{}{path}", self.0)
    }
}

struct Links;

impl URLRewriter for Links {
    fn to_html(&self, url: &str) -> String {
        match url.strip_prefix('#') {
            Some(heading) if !heading.is_empty() => format!("#{ID_PREFIX}{heading}"),
            _ => url.to_owned(),
        }
    }
}

/// A URL with a scheme, or with a host.
fn is_elsewhere(url: &str) -> bool {
    url.starts_with("//")
        || url.split_once(':').is_some_and(|(scheme, _)| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn render(markdown: &str, assets: &str) -> String {
    let mut options = Options::default();
    let extension = &mut options.extension;
    extension.strikethrough = true;
    extension.table = true;
    extension.autolink = true;
    extension.tasklist = true;
    extension.footnotes = true;
    extension.alerts = true;
    extension.description_lists = true;
    extension.header_id_prefix = Some(ID_PREFIX.to_owned());
    extension.header_id_prefix_in_href = true;
    extension.image_url_rewriter = Some(Arc::new(Pictures(assets.to_owned())));
    extension.link_url_rewriter = Some(Arc::new(Links));
    options.render.tasklist_classes = true;
    sanitiser().clean(&comrak::markdown_to_html(markdown, &options)).to_string()
}

fn sanitiser() -> &'static Builder<'static> {
    static SANITISER: OnceLock<Builder<'static>> = OnceLock::new();
    SANITISER.get_or_init(|| {
        let mut builder = Builder::default();
        builder.add_tags(["input", "section"]);
        for tag in ["code", "div", "p", "ul", "li", "a", "sup", "section", "pre"] {
            builder.add_tag_attributes(tag, ["class"]);
        }
        builder.add_tag_attributes("input", ["type", "class", "checked", "disabled"]);
        builder.add_tag_attributes("a", ["aria-label", "id"]);
        for tag in ["h1", "h2", "h3", "h4", "h5", "h6", "li"] {
            builder.add_tag_attributes(tag, ["id"]);
        }
        // The only input is the box of a task, whatever else the text says.
        builder.add_tag_attribute_values("input", "type", ["checkbox"]);
        builder.link_rel(Some("noopener noreferrer"));
        builder
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(markdown: &str, expected: &str) {
        assert_eq!(render(markdown, "/w/a/api/v1/assets/").trim_end(), expected, "{markdown}");
    }

    #[test]
    fn githubs_markdown_is_rendered() {
        check("~~a~~", "<p><del>a</del></p>");
        check("```sh\nls <x>\n```", "<pre><code class=\"language-sh\">ls &lt;x&gt;\n</code></pre>");
        check(
            "| a |\n|---|\n| b |",
            "<table>\n<thead>\n<tr>\n<th>a</th>\n</tr>\n</thead>\n<tbody>\n<tr>\n<td>b</td>\n</tr>\n</tbody>\n</table>",
        );
        let tasks = render("- [x] a\n", "/");
        assert!(
            tasks.contains("<input type=\"checkbox\" class=\"task-list-item-checkbox\" checked=\"\" disabled=\"\">"),
            "{tasks}"
        );
        let alert = render("> [!WARNING]\n> Mind the gap", "/");
        assert!(alert.contains("<div class=\"markdown-alert markdown-alert-warning\">"), "{alert}");
    }

    #[test]
    fn headings_have_ids_that_links_reach() {
        let html = render("# A *word*\n\n[up](#a-word)", "/");
        assert!(html.contains("<h1 id=\"doc-a-word\">"), "{html}");
        assert!(html.contains("<p><a href=\"#doc-a-word\" rel=\"noopener noreferrer\">up</a></p>"), "{html}");
    }

    #[test]
    fn relative_pictures_are_assets() {
        let picture = |url: &str| {
            let html = render(&format!("![a]({url})"), "/w/a/api/v1/assets/");
            html.split('"').nth(1).map(str::to_owned)
        };
        for url in ["a/b.png", "./a/b.png", "assets/a/b.png", "../../assets/a/b.png", "/assets/a/b.png"] {
            assert_eq!(picture(url).as_deref(), Some("/w/a/api/v1/assets/a/b.png"), "{url}");
        }
        assert_eq!(picture("https://example.org/x.png").as_deref(), Some("https://example.org/x.png"));
    }

    #[test]
    fn nothing_that_could_run_or_look_like_the_page_comes_through() {
        for markdown in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "[a](javascript:alert(1))",
            "![a](javascript:alert(1))",
            "<iframe src=//evil>",
            "<form action=/x><input type=password></form>",
            "<style>*{}</style>",
            "<p style=\"position:fixed\" id=\"app\">",
            "[a](data:text/html,<script>)",
        ] {
            let html = render(markdown, "/");
            for bad in [
                "<script",
                "onerror=",
                "javascript:",
                "<iframe",
                "<form",
                "<style",
                "style=",
                "id=\"app\"",
                "password",
                "data:text",
            ] {
                assert!(!html.contains(bad) || (bad == "password" && !html.contains("<input")), "{markdown}: {html}");
            }
        }
    }

    #[test]
    fn a_text_is_rendered_once() {
        let renderer = Renderer::new("/".into());
        let first = renderer.render("# a");
        assert!(Arc::ptr_eq(&first, &renderer.render("# a")));
        for index in 0..20 {
            renderer.render(&index.to_string());
        }
        assert!(renderer.kept.lock().unwrap().len() <= KEPT);
    }

    proptest! {
        #[test]
        fn no_text_gives_a_script(text in "(?s)(<script|<img src=|onerror=|\\]\\(|javascript:|[<>\"'`#*\\[\\]() \n]|.){0,40}") {
            let html = render(&text, "/").to_ascii_lowercase();
            prop_assert!(!html.contains("<script"));
        }
    }
}
