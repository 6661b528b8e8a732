//! The manifest of a segment, as a file that the host itself adds to it before it is finished.

use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::{
    hex, journal,
    segment::{OutputError, Role, Segment},
};

/// The manifest's name as an output: `X.mp4.json`.
pub const MANIFEST: &str = "json";
/// Bytes read at once.
const WINDOW: usize = 1 << 20;

impl Segment {
    /// Adds the manifest, which `text` makes of the main file's size and SHA-256. The main file has to be complete
    /// but for its name. It is read for that, off the threads that record.
    pub async fn add_manifest(
        &mut self,
        text: impl FnOnce(u64, String) -> Vec<u8>,
    ) -> Result<(), OutputError> {
        self.sync().await?;
        let Some(id) = self.main() else { return Ok(()) };
        let (durable, bytes) = (self.durable.clone(), self.file_bytes());
        let digest = move || {
            let file = durable.file(id);
            let mut hasher = Sha256::new();
            let mut buffer = vec![0; WINDOW];
            let mut at = 0;
            while at < bytes {
                let read = file.read_at(&mut buffer, at)?;
                if read == 0 {
                    return Err(Errno::IO);
                }
                let read = usize::try_from(bytes - at).map_or(read, |rest| rest.min(read));
                hasher.update(&buffer[..read]);
                at += read as u64;
            }
            Ok(hex(&hasher.finalize()))
        };
        let sha256 = self.line.volume().run_long(digest).await;
        let sha256 = sha256.map_err(|errno| self.durable.fail(MANIFEST, "read the file", errno))?;
        let id = match self.find(MANIFEST) {
            // A close that was cut off made it, and repair has emptied it.
            Some(id) => id,
            None => {
                // That of an older file, which this one replaces.
                let (folder, name, durable) =
                    (self.folder.clone(), self.file_name(MANIFEST), self.durable.clone());
                self.line.then(move || {
                    if let Err(errno) = folder.dir.remove(&name) {
                        durable.fail(MANIFEST, "remove", errno);
                    }
                });
                self.create(MANIFEST, Role::Sidecar, &journal::Start::default())?
            }
        };
        self.append(id, [text(bytes, sha256).into()])?;
        self.flush().await
    }
}
