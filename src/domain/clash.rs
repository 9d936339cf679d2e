//! Workshops of one source that cannot stand beside each other: two with one id, two with one image.
//!
//! Both are refused, because neither has the better claim; what becomes of what was there is the plan's matter.

use std::collections::BTreeMap;

use super::diagnostic::Diagnostic;
use super::recipe;
use super::yaml;

/// What one workshop of a source lays claim to.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The workshop's directory, from the source's root; empty for the root itself.
    pub path: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Its image repository, full.
    pub image: Option<&'a str>,
    /// The text of its recipe, for the place of the problem.
    pub recipe: Option<&'a [u8]>,
}

/// One problem for each claim that another one meets, with the index of the claim.
#[must_use]
pub fn find_clashes(claims: &[Claim<'_>]) -> Vec<(usize, Diagnostic)> {
    let mut ids: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut images: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, claim) in claims.iter().enumerate() {
        ids.entry(claim.id).or_default().push(index);
        if let Some(image) = claim.image {
            images.entry(image).or_default().push(index);
        }
    }
    let mut found = Vec::new();
    for (rule, key, what, holders) in
        [("duplicate-id", "name", "id", &ids), ("duplicate-image", "image", "image", &images)]
    {
        for (text, holders) in holders.iter().filter(|(_, holders)| holders.len() > 1) {
            for index in holders {
                let others: Vec<String> = holders
                    .iter()
                    .filter(|other| *other != index)
                    .map(|other| format!("\"{}\"", shown(claims[*other].path)))
                    .collect();
                let message = format!("the {what} \"{text}\" is also that of {}", others.join(", "));
                let help = format!("give each workshop {} of its own", if what == "id" { "an id" } else { "an image" });
                found.push((*index, at_field(&claims[*index], key, Diagnostic::error(rule, "", message).help(help))));
            }
        }
    }
    found.sort_by_key(|(index, _)| *index);
    found
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

/// The diagnostic at the recipe's `workshop.<key>`, or at the export where there is no recipe.
fn at_field(claim: &Claim<'_>, key: &str, diagnostic: Diagnostic) -> Diagnostic {
    let name = |file: &str| if claim.path.is_empty() { file.to_owned() } else { format!("{}/{file}", claim.path) };
    let Some(bytes) = claim.recipe else { return Diagnostic { file: name("export/workshop.yaml"), ..diagnostic } };
    let file = name(recipe::FILE_NAME);
    let parsed = yaml::parse(&file, bytes);
    let diagnostic = Diagnostic { file: file.clone(), ..diagnostic }.field(format!("workshop.{key}"));
    let Some(document) = parsed.value else { return diagnostic };
    let place = document.root.find(&["workshop", key]).map(|node| node.place);
    match place {
        Some(place) => diagnostic.at(place, document.text),
        None => diagnostic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(claims: &[(&str, &str, Option<&str>)], expected: &[&str]) {
        let recipe = "version: v1\nworkshop:\n  name: a\n  image: b\n";
        let claims: Vec<Claim<'_>> = claims
            .iter()
            .map(|(path, id, image)| Claim { path, id, image: *image, recipe: image.map(|_| recipe.as_bytes()) })
            .collect();
        let found: Vec<String> =
            find_clashes(&claims).iter().map(|(index, problem)| format!("{index} {problem}")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn workshops_of_their_own_id_and_image_stand_side_by_side() {
        check(&[("a", "a", Some("r/a")), ("b", "b", Some("r/b")), ("c", "c", None), ("d", "d", None)], &[]);
    }

    #[test]
    fn every_holder_of_a_shared_id_or_image_is_refused_at_its_place() {
        check(
            &[("", "a", None), ("b", "a", Some("r/b")), ("c", "c", Some("r/b"))],
            &[
                "0 export/workshop.yaml: the id \"a\" is also that of \"b\"",
                "1 b/step-spec.yaml:3:9: workshop.name: the id \"a\" is also that of \".\"",
                "1 b/step-spec.yaml:4:10: workshop.image: the image \"r/b\" is also that of \"c\"",
                "2 c/step-spec.yaml:4:10: workshop.image: the image \"r/b\" is also that of \"b\"",
            ],
        );
    }
}
