//! Keys and protections in the words of the files.

use std::collections::BTreeMap;

use super::domain::{Encoding, KeySource, KeySpec, KmsOptions, Protect, Protection};
use super::show::keys as credentials;
use super::units::{ByteSize, Period};
use super::wire::{EncodingYaml, KeyYaml, KmsYaml, PiiYaml, ProtectYaml, ReuseYaml};
use crate::ids::KeyName;

pub(super) fn kms(options: &KmsOptions) -> KmsYaml {
    let (access_key_id, secret_access_key) = credentials(options.credentials.as_ref());
    let (endpoint, region) = (options.endpoint.clone(), options.region.clone());
    KmsYaml { endpoint, region, access_key_id, secret_access_key }
}

pub(super) fn keys(keys: &BTreeMap<KeyName, KeySpec>) -> BTreeMap<String, Option<KeyYaml>> {
    keys.iter().map(|(name, spec)| (name.to_string(), Some(key(spec)))).collect()
}

fn key(spec: &KeySpec) -> KeyYaml {
    let store = Some(spec.store.to_string());
    match &spec.source {
        KeySource::File(path) => KeyYaml { file: Some(path.display().to_string()), store, ..KeyYaml::default() },
        KeySource::Kms { key_id, context } => KeyYaml {
            kms: Some(key_id.clone()),
            context: (!context.is_empty()).then(|| context.clone()),
            reuse: Some(ReuseYaml {
                age: Some(Period(spec.reuse.age).to_string()),
                values: Some(spec.reuse.values),
                bytes: Some(ByteSize(spec.reuse.bytes).to_string()),
            }),
            store,
            file: None,
        },
    }
}

pub(super) fn protection(protection: &Protection) -> PiiYaml {
    let (protect, mask, patterns) = match &protection.how {
        Protect::Encrypt => (ProtectYaml::Encrypt, None, None),
        Protect::Token => (ProtectYaml::Token, None, None),
        Protect::Hash => (ProtectYaml::Hash, None, None),
        Protect::Mask(mask) => (ProtectYaml::Mask, Some(mask.to_string()), None),
        Protect::Redact(patterns) => (ProtectYaml::Redact, None, Some(patterns.clone())),
        Protect::Drop => (ProtectYaml::Drop, None, None),
        Protect::Keep => (ProtectYaml::Keep, None, None),
    };
    PiiYaml {
        name: Some(protection.path.to_string()),
        protect: Some(protect),
        token: protection.token.then_some(true),
        key: protection.key.as_ref().map(ToString::to_string),
        mask,
        pattern: None,
        patterns,
        subject: protection.subject.as_ref().map(ToString::to_string),
        aad: protection.aad.clone(),
        encoding: match protection.encoding {
            Encoding::Base64 => None,
            Encoding::Binary => Some(EncodingYaml::Binary),
        },
    }
}
