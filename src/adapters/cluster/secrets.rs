//! Secrets, one at a time and by name: never listed, never watched, never kept, never logged.
//!
//! Among them the keys of this platform in a cluster, which are made where there are none and never replaced.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use super::{Cluster, Error};
use crate::domain::token::{SigningKey, generate_secret};

/// The Secret with the keys, in the controller's namespace.
pub const KEYS: &str = "workshop-keys";
/// Its entry with the key that signs tokens, in PKCS#8 form.
const SIGNING: &str = "signing-key";
/// Its entry with the key that opens everything, as text.
const OWNER: &str = "owner-key";

/// The keys of a cluster's workspaces; all replicas have the same.
pub struct Keys {
    /// Signs the tokens of workspaces and of those who work in them.
    pub signing: SigningKey,
    /// Opens everything, as the fragment of an address carries it.
    pub owner: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    fn generate() -> Self {
        Self { signing: SigningKey::generate(), owner: generate_secret() }
    }

    fn to_secret(&self) -> Secret {
        let entries = [(SIGNING, self.signing.to_pkcs8().to_vec()), (OWNER, self.owner.clone().into_bytes())];
        Secret {
            metadata: ObjectMeta {
                name: Some(KEYS.to_owned()),
                labels: Some(BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "workshop".to_owned())])),
                ..ObjectMeta::default()
            },
            // Somebody who edits it would lock everybody out; deleting it is how new keys are made.
            immutable: Some(true),
            data: Some(entries.into_iter().map(|(name, value)| (name.to_owned(), ByteString(value))).collect()),
            ..Secret::default()
        }
    }

    /// The keys in the entries of the Secret; none where an entry is missing or is no key.
    fn from_entries(mut entries: BTreeMap<String, Vec<u8>>) -> Option<Self> {
        let signing = SigningKey::from_pkcs8(&entries.remove(SIGNING)?).ok()?;
        let owner = String::from_utf8(entries.remove(OWNER)?).ok().filter(|owner| !owner.trim().is_empty())?;
        Some(Self { signing, owner })
    }
}

impl Cluster {
    /// The entries of a Secret; none when it does not exist.
    pub async fn read_secret(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
        let attempt = format!("read the Secret \"{namespace}/{name}\"");
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = self.call(&attempt, secrets.get_opt(name)).await?;
        Ok(secret
            .map(|secret| secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()))
    }

    /// The keys that are in this namespace; none where nobody made them yet.
    pub async fn read_keys(&self, namespace: &str) -> Result<Option<Keys>, Error> {
        let Some(entries) = self.read_secret(namespace, KEYS).await? else { return Ok(None) };
        let keys = Keys::from_entries(entries).ok_or_else(|| Error::Answer {
            attempt: format!("read the Secret \"{namespace}/{KEYS}\""),
            source: format!(
                "it has no key in \"{SIGNING}\" or \"{OWNER}\": delete it, and new ones are made; all tokens end with it"
            )
            .into(),
        })?;
        Ok(Some(keys))
    }

    /// The keys that are in this namespace, made where there are none. Of several that make them at once one wins, and
    /// all get its keys.
    pub async fn read_or_make_keys(&self, namespace: &str) -> Result<Keys, Error> {
        if let Some(keys) = self.read_keys(namespace).await? {
            return Ok(keys);
        }
        let attempt = format!("create the Secret \"{namespace}/{KEYS}\"");
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let fresh = Keys::generate();
        match self.call(&attempt, secrets.create(&PostParams::default(), &fresh.to_secret())).await {
            Ok(_) => Ok(fresh),
            // Another one was faster; its keys count.
            Err(Error::Stale { .. }) => self
                .read_keys(namespace)
                .await?
                .ok_or(Error::Missing { attempt, message: "it was made by another and is gone again".to_owned() }),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_from_their_secret_and_show_themselves_to_nobody() {
        let keys = Keys::generate();
        let entries = || {
            let data = keys.to_secret().data.unwrap();
            data.into_iter().map(|(name, value)| (name, value.0)).collect::<BTreeMap<_, _>>()
        };
        let back = Keys::from_entries(entries()).unwrap();
        assert_eq!((back.owner.as_str(), back.signing.to_pkcs8()), (keys.owner.as_str(), keys.signing.to_pkcs8()));
        assert_eq!(format!("{keys:?}"), "Keys");
        for name in [SIGNING, OWNER] {
            let mut without = entries();
            without.remove(name);
            assert!(Keys::from_entries(without).is_none(), "{name} is missing");
            let mut broken = entries();
            broken.insert(name.to_owned(), vec![0xff]);
            assert!(Keys::from_entries(broken).is_none(), "{name} is no key");
        }
    }
}
