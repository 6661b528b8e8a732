//! Certificates and keys in PEM, as rustls takes them. Pure.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// The chain in a file, the server's own certificate first.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err("it has no certificate in PEM".into()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(error.to_string()),
    }
}

/// The key in a file: PKCS #8, PKCS #1 or SEC 1.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| format!("it has no private key in PEM: {error}"))
}

/// Settings for TLS 1.2 and 1.3.
pub fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, String> {
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| format!("the certificate and the key do not serve: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        let own = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let (cert, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let chain = certificates(cert.as_bytes()).unwrap();
        server(chain.clone(), private_key(key.as_bytes()).unwrap()).unwrap();
        let foreign = private_key(other.signing_key.serialize_pem().as_bytes()).unwrap();
        assert!(
            server(chain, foreign).unwrap_err().starts_with("the certificate and the key do not serve: ")
        );
        assert_eq!(certificates(key.as_bytes()).unwrap_err(), "it has no certificate in PEM");
        assert!(private_key(cert.as_bytes()).unwrap_err().starts_with("it has no private key in PEM: "));
        assert!(certificates(b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").is_err());
    }
}
