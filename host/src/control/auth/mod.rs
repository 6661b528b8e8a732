//! Who may use the control plane: tokens with roles, TLS, and the brake on guessing.
//!
//! Without tokens everybody who reaches a listener may do everything; then listeners are bound to the loopback
//! interface only ([`Access::may_listen`]). With tokens, who comes from elsewhere has to show one; who comes over the
//! loopback interface need not, unless `loopback-trusted` is off.

mod attempts;
pub mod tls;
pub mod tokens;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use rustls::ServerConfig;

use super::{
    Caller,
    reply::{Fault, Reply},
};
use crate::{config::Config, sync::lock};
use attempts::Attempts;
use tokens::{Digest, Tokens};

/// How often files are looked at for changes.
const LOOK: Duration = Duration::from_secs(2);

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("{}", path.display())]
    File {
        path: PathBuf,
        #[source]
        error: std::io::Error,
    },
    #[error("{}: {error}", path.display())]
    Content { path: PathBuf, error: String },
    #[error("tls-cert and tls-key go together")]
    HalfTls,
    #[error(
        "{name} = {addr} can be reached from elsewhere, so it needs tokens: set token-file, or bind it to 127.0.0.1"
    )]
    NeedsTokens { name: &'static str, addr: SocketAddr },
    #[error(
        "{name} = {addr} can be reached from elsewhere, so it needs TLS: set tls-cert and tls-key, or \
         insecure-plaintext = true behind a proxy that speaks TLS"
    )]
    NeedsTls { name: &'static str, addr: SocketAddr },
}

/// Why somebody may not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    NoToken,
    WrongToken,
    /// After too many wrong ones; none is looked at for so long.
    Wait(Duration),
}

impl Denied {
    /// What to answer.
    pub fn reply(self) -> Reply {
        match self {
            Denied::NoToken => Reply::fault(Fault::Unauthenticated, "Unauthorized: a token is needed"),
            Denied::WrongToken => {
                Reply::fault(Fault::Unauthenticated, "Unauthorized: the token is not known")
            }
            Denied::Wait(time) => {
                let seconds = time.as_secs() + 1;
                Reply::fault(Fault::TooMany, format!("Too many failed logins; try again in {seconds} s"))
            }
        }
    }
}

/// Who may enter, and how.
#[derive(Debug)]
pub struct Access {
    files: Files,
    loaded: RwLock<Loaded>,
    loopback_trusted: bool,
    insecure_plaintext: bool,
    /// Names that requests may call us by.
    hosts: Vec<String>,
    attempts: Mutex<Attempts>,
}

#[derive(Debug, Default)]
struct Files {
    cert_and_key: Option<(PathBuf, PathBuf)>,
    tokens: Option<PathBuf>,
}

#[derive(Clone, Debug, Default)]
struct Loaded {
    tls: Option<Arc<ServerConfig>>,
    tokens: Option<Arc<Tokens>>,
}

/// No tokens, no TLS.
impl Default for Access {
    fn default() -> Self {
        Self {
            files: Files::default(),
            loaded: RwLock::default(),
            loopback_trusted: true,
            insecure_plaintext: false,
            hosts: Vec::new(),
            attempts: Mutex::default(),
        }
    }
}

impl Access {
    /// Reads what the settings name.
    pub fn open(config: &Config) -> Result<Self, AccessError> {
        let cert_and_key = match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(AccessError::HalfTls),
        };
        let files = Files { cert_and_key, tokens: config.token_file.clone() };
        Ok(Self {
            loaded: RwLock::new(files.load()?),
            files,
            loopback_trusted: config.loopback_trusted.unwrap_or(true),
            insecure_plaintext: config.insecure_plaintext.unwrap_or(false),
            hosts: config.allow_host.clone(),
            attempts: Mutex::default(),
        })
    }

    /// Whether a listener of that name is safe enough at an address.
    pub fn may_listen(&self, name: &'static str, addr: SocketAddr) -> Result<(), AccessError> {
        let loaded = self.loaded();
        if addr.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        if loaded.tokens.is_none() {
            return Err(AccessError::NeedsTokens { name, addr });
        }
        if loaded.tls.is_none() && !self.insecure_plaintext {
            return Err(AccessError::NeedsTls { name, addr });
        }
        Ok(())
    }

    /// Settings for TLS, if there is any.
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.loaded().tls
    }

    /// Whether somebody may go without TLS though there is some.
    pub fn may_be_plain(&self, far: SocketAddr) -> bool {
        self.insecure_plaintext || is_loopback(far)
    }

    /// Names that requests may call us by, besides our addresses.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Whether somebody has to show a token. `direct`: it says nothing of being a proxy.
    pub fn needs_token(&self, far: SocketAddr, direct: bool) -> bool {
        let trusted = self.loopback_trusted && direct && is_loopback(far);
        self.loaded().tokens.is_some() && !trusted
    }

    /// Lets somebody in, or not. A token that is shown is checked even if none is needed, and gives its role.
    pub fn enter(&self, far: SocketAddr, direct: bool, token: Option<&str>) -> Result<Caller, Denied> {
        match (token, self.loaded().tokens) {
            (Some(token), Some(tokens)) => self.check(far, &tokens, Digest::of(token)),
            _ if !self.needs_token(far, direct) => Ok(Caller::local(far)),
            _ => Err(Denied::NoToken),
        }
    }

    /// Lets somebody in whose token was right before: it may be withdrawn since.
    pub fn enter_again(&self, far: SocketAddr, digest: Digest) -> Option<Caller> {
        self.loaded().tokens?.find(digest).map(|token| token.caller(far))
    }

    fn check(&self, far: SocketAddr, tokens: &Tokens, digest: Digest) -> Result<Caller, Denied> {
        let (mut attempts, now) = (lock(&self.attempts), Instant::now());
        if let Some(time) = attempts.wait(far.ip(), now) {
            return Err(Denied::Wait(time));
        }
        if let Some(token) = tokens.find(digest) {
            attempts.succeeded(far.ip());
            return Ok(token.caller(far));
        }
        match attempts.failed(far.ip(), now) {
            1 => tracing::warn!(%far, "a login failed"),
            attempts::FREE => {
                tracing::warn!(%far, "logins fail again and again; they are slowed down, and not logged further");
            }
            _ => tracing::debug!(%far, "a login failed"),
        }
        Err(Denied::WrongToken)
    }

    /// Reads files again when they change. What is wrong is logged, and changes nothing.
    pub async fn watch(self: Arc<Self>) {
        let mut seen = self.files.stamps();
        loop {
            tokio::time::sleep(LOOK).await;
            let access = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let now = access.files.stamps();
                (now != seen).then(|| access.reload());
                now
            });
            seen = match looked.await {
                Ok(now) => now,
                Err(_) => return,
            };
        }
    }

    fn reload(&self) {
        match self.files.load() {
            Ok(loaded) => {
                *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
                tracing::info!("tokens and certificates were read again");
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::error!("tokens and certificates stay as they were: {error:#}");
            }
        }
    }

    fn loaded(&self) -> Loaded {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn is_loopback(far: SocketAddr) -> bool {
    let ip: IpAddr = far.ip();
    ip.to_canonical().is_loopback()
}

impl Files {
    fn load(&self) -> Result<Loaded, AccessError> {
        let tls = match &self.cert_and_key {
            None => None,
            Some((cert, key)) => {
                let (cert_pem, key_pem) = (read(cert)?, read(key)?);
                let certs = tls::certificates(&cert_pem).map_err(|error| wrong(cert, error))?;
                let private = tls::private_key(&key_pem).map_err(|error| wrong(key, error))?;
                Some(Arc::new(tls::server(certs, private).map_err(|error| wrong(cert, error))?))
            }
        };
        let tokens = match &self.tokens {
            None => None,
            Some(path) => {
                let text = read(path)?;
                let text = str::from_utf8(&text).map_err(|error| wrong(path, error.to_string()))?;
                Some(Arc::new(Tokens::parse(text).map_err(|error| wrong(path, error))?))
            }
        };
        Ok(Loaded { tls, tokens })
    }

    /// By what a change shows.
    fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        let pair = self.cert_and_key.iter().flat_map(|(cert, key)| [cert, key]);
        let stamp = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        pair.chain(&self.tokens).map(stamp).collect()
    }
}

fn wrong(path: &Path, error: String) -> AccessError {
    AccessError::Content { path: path.to_owned(), error }
}

/// Reads a small file.
fn read(path: &Path) -> Result<Vec<u8>, AccessError> {
    const MAX: u64 = 1 << 20;
    let file = |error| AccessError::File { path: path.to_owned(), error };
    if fs::metadata(path).map_err(file)?.len() > MAX {
        return Err(wrong(path, "over 1 MiB".into()));
    }
    fs::read(path).map_err(file)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::control::table::Role;

    /// Access with the token `secret-ROLE` for each role.
    pub(crate) fn with_tokens(loopback_trusted: bool) -> Access {
        let entries = ["read", "operate", "admin"].map(|role| {
            let sha256 = Digest::of(&format!("secret-{role}")).hex();
            format!("[[token]]\nname = \"the-{role}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n")
        });
        let tokens = Some(Arc::new(Tokens::parse(&entries.concat()).unwrap()));
        let loaded = RwLock::new(Loaded { tls: None, tokens });
        Access { loaded, loopback_trusted, ..Access::default() }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn listeners_elsewhere_need_tokens_and_tls() {
        let open = Access::default();
        for local in ["127.0.0.1:1", "[::1]:1", "127.9.9.9:1"] {
            open.may_listen("http-cli", at(local)).unwrap();
        }
        for addr in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            let error = open.may_listen("http-cli", at(addr)).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("http-cli = {addr} ")) && error.contains("token-file"),
                "{error}"
            );
            let error = with_tokens(true).may_listen("http-cli", at(addr)).unwrap_err().to_string();
            assert!(error.contains("tls-cert") && error.contains("insecure-plaintext"), "{error}");
            let proxied = Access { insecure_plaintext: true, ..with_tokens(true) };
            proxied.may_listen("http-cli", at(addr)).unwrap();
        }
    }

    #[test]
    fn who_may_enter() {
        let (near, far) = (at("127.0.0.1:1"), at("192.0.2.1:1"));
        let role = |access: &Access, from, direct, token| access.enter(from, direct, token).map(|c| c.role);
        let open = Access::default();
        assert_eq!(role(&open, near, true, Some("any")), Ok(Role::Admin));
        let access = with_tokens(true);
        assert_eq!(role(&access, near, true, None), Ok(Role::Admin));
        assert_eq!(role(&access, near, true, Some("secret-read")), Ok(Role::Read), "its own role");
        assert_eq!(role(&access, near, true, Some("wrong")), Err(Denied::WrongToken));
        assert_eq!(role(&access, near, false, None), Err(Denied::NoToken), "a proxy");
        assert_eq!(role(&access, far, true, None), Err(Denied::NoToken));
        let caller = access.enter(far, true, Some("secret-operate")).unwrap();
        assert_eq!((caller.role, caller.name.as_deref()), (Role::Operate, Some("the-operate")));
        assert_eq!(role(&with_tokens(false), near, true, None), Err(Denied::NoToken));
    }

    #[test]
    fn guessing_is_slowed_down() {
        let access = with_tokens(true);
        let far = at("192.0.2.1:1");
        for _ in 0..attempts::FREE {
            assert_eq!(access.enter(far, true, Some("guess")).unwrap_err(), Denied::WrongToken);
        }
        let waiting = access.enter(far, true, Some("secret-read")).unwrap_err();
        assert!(matches!(waiting, Denied::Wait(_)), "not even the right one");
        assert_eq!(waiting.reply().description, "Too many failed logins; try again in 1 s");
        assert!(access.enter(at("192.0.2.2:1"), true, Some("secret-read")).is_ok(), "others are not");
    }

    #[test]
    fn files_are_read_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let entry = |name: &str, token: &str| {
            let sha256 = Digest::of(token).hex();
            format!("[[token]]\nname = \"{name}\"\nrole = \"admin\"\nsha256 = \"{sha256}\"\n")
        };
        let config = Config { token_file: Some(path.clone()), ..Config::default() };
        let error = anyhow::Error::from(Access::open(&config).unwrap_err());
        assert!(format!("{error:#}").contains("tokens.toml: No such file"), "{error:#}");
        fs::write(&path, entry("a", "one")).unwrap();
        let access = Access::open(&config).unwrap();
        let far = at("192.0.2.1:1");
        assert!(access.enter(far, true, Some("one")).is_ok());
        let digest = Digest::of("one");
        assert_eq!(access.enter_again(far, digest).unwrap().name.as_deref(), Some("a"));
        let stamps = access.files.stamps();
        fs::write(&path, entry("bb", "two")).unwrap();
        assert_ne!(access.files.stamps(), stamps);
        access.reload();
        assert!(access.enter(far, true, Some("two")).is_ok());
        assert!(access.enter_again(far, digest).is_none(), "it is withdrawn");
        fs::write(&path, "nonsense").unwrap();
        access.reload();
        assert!(access.enter(far, true, Some("two")).is_ok(), "nonsense changes nothing");

        let half = Config { tls_cert: Some(path), ..Config::default() };
        assert!(matches!(Access::open(&half), Err(AccessError::HalfTls)));
    }
}
