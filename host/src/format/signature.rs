//! Signatures of components, by minisign: `X.wasm.minisig` beside `X.wasm`.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
};

use minisign_verify::{PublicKey, Signature};

use super::{guest_log::one_line, intake};

/// Most bytes of a signature's file.
const MAX_SIGNATURE: u64 = 4 << 10;

/// Who signs components: a public key of minisign, `RW…`.
#[derive(Clone)]
pub struct Key(PublicKey);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        PublicKey::from_base64(text.trim()).map(Self).map_err(|e| {
            format!("no public key of minisign, such as RW… in the second line of minisign.pub: {e}")
        })
    }
}

/// Why a signature is not good.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    #[error("it is not signed: there is no {0}, and `format-key` is set")]
    Missing(String),
    #[error("its signature {file} can't be read: {error}")]
    Read { file: String, error: String },
    #[error("its signature {file} is not good: {error}; sign it with the key that belongs to `format-key`")]
    Bad { file: String, error: String },
}

/// Where the signature of a file is.
pub(super) fn beside(file: impl AsRef<Path>) -> PathBuf {
    let mut path = file.as_ref().as_os_str().to_owned();
    path.push(".minisig");
    path.into()
}

/// Reads a signature. Blocks, but not for ever, whatever it is.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    intake::open(path)?.take(MAX_SIGNATURE).read_to_string(&mut text)?;
    Ok(text)
}

impl Key {
    /// Checks that who has this key signed the bytes of a file, and nothing else. Blocks.
    pub(super) fn check(&self, file: &Path, bytes: &[u8]) -> Result<(), SignatureError> {
        let path = beside(file);
        let file = path.display().to_string();
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SignatureError::Missing(file));
            }
            Err(error) => return Err(SignatureError::Read { file, error: error.to_string() }),
        };
        self.verify(&text, bytes).map_err(|error| SignatureError::Bad { file, error: one_line(&error) })
    }

    /// Only signatures of a hash, which minisign has made since 2015, are taken.
    fn verify(&self, signature: &str, bytes: &[u8]) -> Result<(), String> {
        let signature = Signature::decode(signature).map_err(|e| e.to_string())?;
        self.0.verify(bytes, &signature, false).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    // Made by minisign 0.11; the keys were thrown away.
    const KEY: &str = "RWRHy3utwTACUqmZAC1f78G8UP2tI6PPr+TvJ3japbXI1pi4EnJB9IKF";
    const OTHER_KEY: &str = "RWQ1CqB3oyoAnb43J9zlz6y8VOzhC41b1r/R880qVDf2S5USqXL6Ut5p";
    const SIGNED: &[u8] = b"a component\n";
    const SIGNATURE: &str = "\
untrusted comment: signature from minisign secret key
RURHy3utwTACUq+cfafOFx0EC9R5i7oiC8ML9MyLgcOBlCWgxBuwqk0s+cTw3pNM4IRtW0ETCzrkTNWFrkJqOIyyme9KEK/E5g8=
trusted comment: timestamp:1795410880\tfile:x.wasm\thashed
QNayTTVqEjYhibYoUOZjRyirHMXdniPbmtgW0Fle2HSLH2EIPvxyWrEtt4XP9qK4UhKDwEdnoQP+fw3tDDPDCQ==
";
    /// Of the whole text instead of its hash.
    const LEGACY: &str = "\
untrusted comment: signature from minisign secret key
RWRHy3utwTACUgQuuztG2a7c8OmKbAcrKsXmxrTNXmJfTaqMalGW7E1HPpuw3piWLl9qxLX2uzO4J4C/cINoTD5ps29ozuzn4Aw=
trusted comment: timestamp:1795410880\tfile:x.wasm
0W766IrWVKI+NldrDePxVslwIbSEIOQBXtVPf8zcMabMctAAUdCkbW/1vwjoDevNTEAWu76td+ewF0JCjFGBCA==
";

    #[test]
    fn only_what_the_key_signed_is_taken() {
        let key: Key = KEY.parse().unwrap();
        assert_eq!(key.verify(SIGNATURE, SIGNED), Ok(()));
        assert!(key.verify(SIGNATURE, b"a component").is_err());
        assert!(key.verify(SIGNATURE, b"").is_err());
        assert!(key.verify(LEGACY, SIGNED).is_err());
        assert!(OTHER_KEY.parse::<Key>().unwrap().verify(SIGNATURE, SIGNED).is_err());
        for broken in ["", "untrusted comment: x\n", &SIGNATURE.replace("hashed", "hashes")] {
            assert!(key.verify(broken, SIGNED).is_err(), "{broken}");
        }
        assert!("RW".parse::<Key>().is_err());
    }

    #[test]
    fn the_signature_lies_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.wasm");
        let key: Key = KEY.parse().unwrap();
        let error = key.check(&file, SIGNED).unwrap_err().to_string();
        assert!(error.contains("x.wasm.minisig, and `format-key` is set"), "{error}");
        fs::write(dir.path().join("x.wasm.minisig"), SIGNATURE).unwrap();
        assert!(key.check(&file, SIGNED).is_ok());
        let error = key.check(&file, b"another").unwrap_err().to_string();
        assert!(error.contains("x.wasm.minisig is not good"), "{error}");
    }
}
