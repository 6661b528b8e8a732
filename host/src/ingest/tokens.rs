//! Tokens that publishers show, from a file that is read for each publisher: a token that is taken out of it is
//! worth nothing from then on.
//!
//! ```text
//! # token      streams, as a glob; none: all
//! 6d9f0e2a     cam*
//! ```

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use globset::{Glob, GlobMatcher};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Longest file, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Shorter tokens are refused: they can be guessed.
const MIN_TOKEN: usize = 8;

/// What is wrong with the file. Tokens are not shown.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{}: longer than {MAX_BYTES} bytes", .0.display())]
    TooLong(PathBuf),
    #[error("{}, line {line}: {fault}", path.display())]
    Line { path: PathBuf, line: usize, fault: String },
}

/// The tokens of a file.
#[derive(Debug)]
pub(super) struct Tokens(Vec<(Vec<u8>, Option<GlobMatcher>)>);

pub(super) fn read(path: &Path) -> Result<Tokens, TokensError> {
    let failed = |error| TokensError::Read { path: path.into(), error };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text)).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(TokensError::TooLong(path.into()));
    }
    parse(&text).map_err(|(line, fault)| TokensError::Line { path: path.into(), line, fault })
}

fn parse(text: &str) -> Result<Tokens, (usize, String)> {
    let mut tokens = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let fault = |fault: String| (i + 1, fault);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let token = words.next().unwrap_or_default();
        if token.len() < MIN_TOKEN {
            return Err(fault(format!("a token has {MIN_TOKEN} characters or more")));
        }
        let glob = words.next().map(Glob::new).transpose().map_err(|error| fault(error.to_string()))?;
        if words.next().is_some() {
            return Err(fault("a line is a token and perhaps a glob".into()));
        }
        tokens.push((digest(token), glob.map(|glob| glob.compile_matcher())));
    }
    Ok(Tokens(tokens))
}

impl Tokens {
    /// Whether a token is one of these and good for a stream. Takes as long for a wrong one as for a right one.
    pub(super) fn allow(&self, token: &str, stream: &str) -> bool {
        let token = digest(token);
        let mut allowed = Choice::from(0);
        for (known, glob) in &self.0 {
            let fits = glob.as_ref().is_none_or(|glob| glob.is_match(stream));
            allowed |= known.ct_eq(&token) & Choice::from(u8::from(fits));
        }
        allowed.into()
    }
}

/// Of one length for all.
fn digest(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_streams() {
        let tokens = parse("# all\n\nsecret-of-all\n  secret-of-cams cam*  \n").unwrap();
        let table = [
            ("secret-of-all", "cam1", true),
            ("secret-of-all", "other", true),
            ("secret-of-cams", "cam1", true),
            ("secret-of-cams", "other", false),
            ("secret-of-al", "cam1", false),
            ("secret-of-all ", "cam1", false),
            ("", "cam1", false),
        ];
        for (token, stream, allowed) in table {
            assert_eq!(tokens.allow(token, stream), allowed, "{token} {stream}");
        }
        assert!(!parse("").unwrap().allow("", "cam1"));
    }

    #[test]
    fn a_fault_is_said_with_its_line_and_without_the_token() {
        for (text, line, words) in
            [("\nshort", 2, "8 characters"), ("long-enough [a", 1, "a"), ("long-enough a b", 1, "a glob")]
        {
            let (at, fault) = parse(text).unwrap_err();
            assert!(at == line && fault.contains(words) && !fault.contains("short"), "{text}: {at} {fault}");
        }
        let error = read(Path::new("/no/tokens")).unwrap_err().to_string();
        assert!(error.contains("/no/tokens"), "{error}");
    }
}
