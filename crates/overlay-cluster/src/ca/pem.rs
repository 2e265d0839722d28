//! PEM (RFC 7468) of certificates; keys are written by the library that made them.

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::CaError;

/// Characters per line (RFC 7468 section 2).
const LINE: usize = 64;

/// A certificate as text.
pub(super) fn encode_certificate(der: &[u8]) -> String {
    let body = BASE64_STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() + body.len() / LINE + 60);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// The first certificate in `text`.
pub(super) fn decode_certificate(text: &str) -> Result<CertificateDer<'static>, CaError> {
    CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|error| CaError::Certificate { reason: format!("no certificate in PEM: {error}") })
}

/// The certificates in `text`.
pub(super) fn decode_certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    found.map_err(|error| CaError::certificate(format!("PEM: {error}")))
}
