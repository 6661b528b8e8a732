//! What names from outside may not have: what is not seen, or makes them look like others.

use crate::registry::MAX_NAME;

/// Whether a character is not seen, or changes how those around it are: a name with it looks like another.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// What is wrong with a stream's name, if something is.
pub(crate) fn fault(name: &str) -> Option<String> {
    match name.chars().find(|c| is_hidden(*c)) {
        Some(c) => Some(format!("not allowed: it has the character U+{:04X}", u32::from(c))),
        None if name.trim().is_empty() => Some("empty".into()),
        None if name.len() > MAX_NAME => {
            Some(format!("{} bytes long; at most {MAX_NAME} are allowed", name.len()))
        }
        None => None,
    }
}
