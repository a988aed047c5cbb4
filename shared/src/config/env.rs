//! `${NAME}` and `${NAME:-default}`: the only place that reads the environment.
//!
//! A name is ASCII letters, digits and `_`. `$${` stands for `${` itself. The default is taken as it is, when the
//! variable is not set or empty.

/// The environment variable, if it is set and valid UTF-8.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Replaces every `${…}` of `text` by what `lookup` knows.
///
/// # Errors
/// What is wrong, such as the name of a variable that is not set and has no default.
pub(super) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or("`${` without `}`; write `$${` for the text itself")?;
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inner[..end], None),
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!(
                "`${{{name}}}` is not the name of an environment variable; write `$${{` for the text itself"
            ));
        }
        let value = match (lookup(name), default) {
            (Some(value), None) => value,
            (Some(value), Some(_)) if !value.is_empty() => value,
            (_, Some(default)) => default.to_owned(),
            (None, None) => {
                return Err(format!(
                    "environment variable `{name}` is not set; set it or write `${{{name}:-default}}`"
                ));
            }
        };
        out.push_str(&value);
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_defaults_and_escapes() {
        let lookup = |name: &str| match name {
            "HOST" => Some("db".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let read = |text: &str| expand(text, &lookup).unwrap_or_else(|error| format!("error: {error}"));
        let texts = [
            "plain $ {x}",
            "a ${HOST}:${PORT:-80}.",
            "<${EMPTY}> <${EMPTY:-none}>",
            "$${HOST} ${HOST}",
            "${NOPE}",
            "${HOST",
            "${a b}",
            "${}",
            "${X:-}|",
        ];
        insta::assert_snapshot!(texts.map(read).join("\n"), @r#"
        plain $ {x}
        a db:80.
        <> <none>
        ${HOST} db
        error: environment variable `NOPE` is not set; set it or write `${NOPE:-default}`
        error: `${` without `}`; write `$${` for the text itself
        error: `${a b}` is not the name of an environment variable; write `$${` for the text itself
        error: `${}` is not the name of an environment variable; write `$${` for the text itself
        |
        "#);
    }
}
