//! What an erasure did, in a form that others can check.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use firn_shared::crypto::KeyBytes;
use firn_shared::crypto::sign::{self, Signer};
use firn_shared::error::{Error, Result};
use serde::{Deserialize, Serialize};

use super::Report;

/// A signed report. The signature is of the bytes of `report`, which is JSON in a text, so that nothing has to be written
/// again to check it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Of this form.
    pub format: u32,
    /// The [`Report`], as JSON.
    pub report: String,
    /// `Ed25519`.
    pub algorithm: String,
    /// Base64 of 32 bytes.
    pub public_key: String,
    /// Base64 of 64 bytes.
    pub signature: String,
}

impl Certificate {
    /// Signs a report of an erasure that is whole.
    ///
    /// # Errors
    /// `Unavailable` when files stay that should be gone, naming their table.
    pub fn new(report: &Report, seed: &KeyBytes) -> Result<Self> {
        if let Some((table, erased)) = report.tables.iter().find(|(_, erased)| erased.left > 0) {
            let left = erased.left;
            return Err(Error::unavailable(format!(
                "{left} files of {table} that nothing names cannot be deleted, and may hold rows of the subject; there is no \
                 certificate, erase again when they can be"
            )));
        }
        let signer = Signer::new(seed)?;
        let report = serde_json::to_string(report).map_err(|e| Error::bug("a report is JSON").with_source(e))?;
        let signature = STANDARD.encode(signer.sign(report.as_bytes()));
        Ok(Self { format: 1, report, algorithm: "Ed25519".to_owned(), public_key: public_key(seed)?, signature })
    }
}

/// The public half of the signing key that is made of `seed`: base64 of 32 bytes.
///
/// # Errors
/// `Bug`, never.
pub fn public_key(seed: &KeyBytes) -> Result<String> {
    Ok(STANDARD.encode(Signer::new(seed)?.public_key()))
}

/// The report of a certificate that was signed with the other half of `key`. The key that the certificate itself names says
/// nothing: anybody can make one.
///
/// # Errors
/// `Data` when it was signed by somebody else, was changed, or is of another form.
pub fn verify(certificate: &Certificate, key: &str) -> Result<Report> {
    let bytes =
        |text: &str| STANDARD.decode(text).map_err(|e| Error::data("the certificate is damaged").with_source(e));
    if certificate.public_key != key {
        let theirs = &certificate.public_key;
        return Err(Error::data(format!(
            "the certificate is signed with the key {theirs}, expected is {key}; if theirs was yours, give it with --public-key"
        )));
    }
    let signature = bytes(&certificate.signature)?;
    if certificate.format != 1 || !sign::verify(&bytes(key)?, certificate.report.as_bytes(), &signature) {
        return Err(Error::data("the signature of the certificate is wrong: it was changed after it was signed"));
    }
    serde_json::from_str(&certificate.report).map_err(|e| Error::data("the certificate is damaged").with_source(e))
}

#[cfg(test)]
mod tests {
    use firn_shared::error::ErrorKind;

    use super::super::TableErased;
    use super::*;

    #[test]
    fn while_something_stays_there_is_no_certificate() {
        let seed = KeyBytes::new([5; 32]);
        let mut report = Report::default();
        report.tables.insert("d.t".to_owned(), TableErased { young: 1, ..TableErased::default() });
        Certificate::new(&report, &seed).unwrap();
        report.tables.insert("d.t_quarantine".to_owned(), TableErased { left: 3, ..TableErased::default() });
        let refused = Certificate::new(&report, &seed).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.to_string().contains("3 files of d.t_quarantine"), "{refused}");
    }

    #[test]
    fn a_certificate_that_was_changed_or_signed_by_others_is_no_certificate() {
        let report = Report { keys: ["people/s/1".to_owned()].into(), ..Report::default() };
        let [ours, theirs] = [5, 6].map(|byte| KeyBytes::new([byte; 32]));
        let key = public_key(&ours).unwrap();
        let certificate = Certificate::new(&report, &ours).unwrap();
        assert_eq!(verify(&certificate, &key).unwrap(), report);
        let forged = Certificate { report: certificate.report.replace("s/1", "s/2"), ..certificate };
        assert!(verify(&forged, &key).unwrap_err().to_string().contains("was changed"));
        let foreign = Certificate::new(&report, &theirs).unwrap();
        assert!(verify(&foreign, &key).unwrap_err().to_string().contains("expected is"));
    }
}
