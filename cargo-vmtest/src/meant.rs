//! What a person means by a name of something in the cache.

/// The only one that a name means, by the first of these ways that finds any.
///
/// # Errors
/// That there is none, or the candidates where there are several.
pub(crate) fn meant<'a, T>(
    kind: &str,
    name: &str,
    all: &'a [T],
    id: impl Fn(&T) -> &str,
    ways: &[&dyn Fn(&T) -> bool],
) -> Result<&'a T, String> {
    let list = |of: &[&T]| of.iter().map(|one| format!("\n  {}", id(one))).collect::<String>();
    let by = |way: &&dyn Fn(&T) -> bool| all.iter().filter(|one| way(one)).collect::<Vec<_>>();
    let found = ways.iter().map(by).find(|found| !found.is_empty()).unwrap_or_default();
    match found.as_slice() {
        [only] => Ok(only),
        [] if all.is_empty() => Err(format!("there is no {kind} `{name}` in the cache, and no other")),
        [] => {
            let all: Vec<_> = all.iter().collect();
            Err(format!("there is no {kind} `{name}` in the cache; there are:{}", list(&all)))
        }
        several => Err(format!("`{name}` can be:{}", list(several))),
    }
}
