//! The token file: who may come from elsewhere, and may do what. It holds no tokens, but their SHA-256.
//!
//! ```toml
//! [[token]]
//! name = "nagios"
//! role = "read"          # or operate, or admin
//! sha256 = "9f86d0…"     # as `reelwright token` prints it
//! ```

use std::net::SocketAddr;

use rustls::crypto::ring;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    control::{Caller, table::Role},
    output::hex,
};

/// The SHA-256 of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// As the file has it.
    pub fn hex(self) -> String {
        hex(&self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

/// Somebody who may enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub role: Role,
    digest: Digest,
}

impl Token {
    /// Who has the token, at an address.
    pub fn caller(&self, far: SocketAddr) -> Caller {
        Caller { far, role: self.role, name: Some(self.name.clone()) }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Tokens(Vec<Token>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    role: String,
    sha256: String,
}

impl Tokens {
    /// Reads a file's text; an error says which entry is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut tokens: Vec<Token> = Vec::new();
        for Entry { name, role, sha256 } in file.token {
            if !is_name(&name) {
                return Err(format!("`{}` is no name", name.escape_debug()));
            }
            let wrong = |what: &str| Err(format!("token {name}: {what}"));
            let Some(role) = role_of(&role) else { return wrong("the role is read, operate or admin") };
            let Some(digest) = Digest::parse(&sha256) else {
                return wrong("sha256 is 64 hexadecimal digits");
            };
            if tokens.iter().any(|token| token.name == name || token.digest == digest) {
                return wrong("it is there twice");
            }
            tokens.push(Token { name, role, digest });
        }
        if tokens.is_empty() {
            return Err("it has no [[token]]".into());
        }
        Ok(Self(tokens))
    }

    /// Whose token has that digest. Takes as long whatever is right of it.
    pub fn find(&self, digest: Digest) -> Option<&Token> {
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.digest.0.ct_eq(&digest.0)) {
                found = Some(token);
            }
        }
        found
    }
}

/// The role of that name.
pub fn role_of(name: &str) -> Option<Role> {
    [Role::Read, Role::Operate, Role::Admin].into_iter().find(|role| role.as_str() == name)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 80 && name.chars().all(|c| !c.is_control() && c != '"' && c != '\\')
}

/// Why there is no new token.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    #[error("a token's name has 1 to 80 bytes, without quotes, backslashes and control characters")]
    Name,
    #[error("the system gives no random bytes")]
    Random,
}

/// A new token of 256 random bits, and its entry for the file.
pub fn new(name: &str, role: Role) -> Result<(String, String), NewError> {
    if !is_name(name) {
        return Err(NewError::Name);
    }
    let mut random = [0; 32];
    ring::default_provider().secure_random.fill(&mut random).map_err(|_| NewError::Random)?;
    let token = hex(&random);
    let (role, sha256) = (role.as_str(), Digest::of(&token).hex());
    let entry = format!("[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n");
    Ok((token, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_is_known_and_no_other() {
        let (token, entry) = new("nagios 1", Role::Operate).unwrap();
        let tokens = Tokens::parse(&entry).unwrap();
        let found = tokens.find(Digest::of(&token)).unwrap();
        assert_eq!((found.name.as_str(), found.role), ("nagios 1", Role::Operate));
        assert!(!entry.contains(&token));
        for other in ["", &token[1..], &new("x", Role::Read).unwrap().0] {
            assert!(tokens.find(Digest::of(other)).is_none());
        }
        for bad in ["", "a\"b", "a\nb", &"x".repeat(81)] {
            assert!(matches!(new(bad, Role::Read), Err(NewError::Name)), "{bad:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file() {
        let entry = |name: &str, role: &str, sha256: &str| {
            format!("[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n")
        };
        let (a, b) = (Digest::of("a").hex(), Digest::of("b").hex());
        for (text, error) in [
            (String::new(), "it has no [[token]]"),
            (entry("x", "root", &a), "token x: the role is read, operate or admin"),
            (entry("x", "read", "abc"), "token x: sha256 is 64 hexadecimal digits"),
            (entry("x", "read", &"é".repeat(32)), "token x: sha256 is 64 hexadecimal digits"),
            (entry("", "read", &a), "`` is no name"),
            (entry("x", "read", &a) + &entry("x", "read", &b), "token x: it is there twice"),
            (entry("x", "read", &a) + &entry("y", "read", &a), "token y: it is there twice"),
        ] {
            assert_eq!(Tokens::parse(&text).unwrap_err(), error, "{text}");
        }
        let error = Tokens::parse("[[token]]\nnam = 1\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("nam"), "{error}");
    }
}
