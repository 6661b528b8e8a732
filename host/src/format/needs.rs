//! What a component asks of the host beyond the plain contract, and what an operator grants.

use std::fmt;

/// A set of the words that a manifest's `needs` may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Needs(u8);

/// The words, in the order of their bits.
const WORDS: [&str; 4] = ["payload", "patch", "read-back", "head-room"];

impl Needs {
    pub const NONE: Self = Self(0);
    /// `write` gets the samples' payloads.
    pub const PAYLOAD: Self = Self(1);
    /// `output.patch`.
    pub const PATCH: Self = Self(2);
    /// `output.read`.
    pub const READ_BACK: Self = Self(4);
    /// `output.head` and `write-head`.
    pub const HEAD_ROOM: Self = Self(8);
    pub const ALL: Self = Self(15);

    /// The set of some words; the error is the first that is none.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, &str> {
        words.iter().try_fold(Self::NONE, |needs, word| {
            let bit = WORDS.iter().position(|known| *known == word.as_ref());
            bit.map(|bit| Self(needs.0 | 1 << bit)).ok_or(word.as_ref())
        })
    }

    /// Whether all of `other` is in it.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What is in it and not in `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Default for Needs {
    /// An operator who says nothing grants all.
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> =
            WORDS.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1).map(|(_, w)| *w).collect();
        f.write_str(if words.is_empty() { "nothing".into() } else { words.join(", ") }.as_str())
    }
}

impl fmt::Debug for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Needs({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_sets() {
        let needs = Needs::parse(&["patch", "payload"]).unwrap();
        assert_eq!(needs.to_string(), "payload, patch");
        assert!(needs.contains(Needs::PATCH) && !needs.contains(Needs::HEAD_ROOM));
        assert_eq!(needs.without(Needs::PATCH), Needs::PAYLOAD);
        assert_eq!(Needs::parse(&["patch", "magic"]), Err("magic"));
        assert_eq!(Needs::parse(&WORDS), Ok(Needs::ALL));
        assert_eq!((Needs::NONE.to_string(), Needs::NONE.is_empty()), ("nothing".into(), true));
    }
}
