//! Percent codes in URLs. Pure.

use std::fmt::Write;

/// Takes `%XX` for a byte, and anything else for itself.
pub fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|hex| byte == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let value = hex.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(value.unwrap_or(byte));
        rest = if value.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// A text as one segment of a path, or one value in a query.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percent_codes_come_back(bytes: Vec<u8>) {
            let text: String = bytes.iter().map(|b| format!("%{b:02x}")).collect();
            prop_assert_eq!(decode(&text), bytes);
        }

        #[test]
        fn what_was_encoded_comes_back(text: String) {
            prop_assert_eq!(decode(&encode(&text)), text.into_bytes());
        }
    }

    #[test]
    fn broken_percent_codes_stand_for_themselves() {
        for text in ["%", "%4", "%zz", "100%", "%+1", "é%"] {
            assert_eq!(decode(text), text.as_bytes());
        }
    }
}
