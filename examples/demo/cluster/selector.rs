//! Label and field selectors.

use serde_json::Value;

use super::{Fault, text};

/// What a list or watch is limited to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<(String, Test)>,
    fields: Vec<(String, Test)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::In(wanted) => value.is_some_and(|value| wanted.iter().any(|one| one == value)),
            Self::NotIn(unwanted) => value.is_none_or(|value| unwanted.iter().all(|one| one != value)),
            Self::Exists => value.is_some(),
            Self::Missing => value.is_none(),
        }
    }
}

impl Selector {
    /// Reads the two query parameters.
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, Fault> {
        Ok(Self {
            labels: requirements(labels).map(requirement).collect::<Result<_, _>>()?,
            fields: requirements(fields).map(requirement).collect::<Result<_, _>>()?,
        })
    }

    /// Whether an object, as its group shows it, is meant.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let label = |name: &str| object["metadata"]["labels"].get(name).and_then(Value::as_str);
        // A field that is not set counts as empty.
        let field = |path: &str| text(object, &format!("/{}", path.replace('.', "/"))).to_owned();
        self.labels.iter().all(|(name, test)| test.holds(label(name)))
            && self.fields.iter().all(|(path, test)| test.holds(Some(&field(path))))
    }
}

/// Splits at the commas that stand outside of parentheses.
fn requirements(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn requirement(part: &str) -> Result<(String, Test), Fault> {
    let one = |name: &str, value: &str, test: fn(Vec<String>) -> Test| {
        (name.trim().to_owned(), test(vec![value.trim().to_owned()]))
    };
    if let Some((name, value)) = part.split_once("!=") {
        return Ok(one(name, value, Test::NotIn));
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(one(name, value, Test::In));
    }
    if let Some((head, values)) = part.split_once('(') {
        let values = values.trim_end_matches(')').split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next()) {
            (Some(name), Some("in")) => Ok((name.to_owned(), Test::In(values))),
            (Some(name), Some("notin")) => Ok((name.to_owned(), Test::NotIn(values))),
            _ => Err(Fault::Invalid(format!("unable to parse requirement: {part}"))),
        };
    }
    Ok(part
        .strip_prefix('!')
        .map_or_else(|| (part.to_owned(), Test::Exists), |name| (name.trim().to_owned(), Test::Missing)))
}
