//! The keys of one run.

use std::{fmt, sync::Arc};

use russh::keys::{
    PrivateKey,
    ssh_key::{LineEnding, private::Ed25519Keypair},
};

use crate::{
    error::{Error, Kind},
    host::random,
};

/// A key for the hosts and one for the client, made for one run and thrown away with it.
#[derive(Clone)]
pub(crate) struct Keys {
    host: Ed25519Keypair,
    client: Arc<PrivateKey>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// Makes both keys.
    ///
    /// # Errors
    /// [`Kind::Host`] when the kernel gives no random numbers.
    pub(crate) fn generate() -> Result<Self, Error> {
        Ok(Self { host: keypair()?, client: Arc::new(PrivateKey::from(keypair()?)) })
    }

    /// The client's public key, as a line of `authorized_keys`.
    pub(crate) fn authorized_key(&self) -> String {
        self.client.public_key().to_openssh().expect("an ed25519 key has an OpenSSH form")
    }

    /// The client's private key, in the format of `ssh -i`.
    pub(crate) fn client_private(&self) -> String {
        self.client.to_openssh(LineEnding::LF).expect("an ed25519 key has an OpenSSH form").to_string()
    }

    /// The host's public key, as `known_hosts` has it behind the name.
    pub(crate) fn known_host(&self) -> String {
        PrivateKey::from(self.host.clone()).public_key().to_openssh().expect("an ed25519 key has an OpenSSH form")
    }

    /// The host's private key, as OpenSSH keeps it.
    pub(crate) fn host_private(&self) -> String {
        let key = PrivateKey::from(self.host.clone());
        key.to_openssh(LineEnding::LF).expect("an ed25519 key has an OpenSSH form").to_string()
    }

    /// The seed of the host's private key.
    pub(crate) fn host_seed(&self) -> [u8; 32] {
        self.host.private.to_bytes()
    }

    /// The host's public key.
    pub(crate) fn host_public(&self) -> [u8; 32] {
        self.host.public.0
    }

    #[cfg(test)]
    pub(super) fn host(&self) -> Ed25519Keypair {
        self.host.clone()
    }

    #[cfg(test)]
    pub(super) fn with_client_of(&self, other: &Self) -> Self {
        Self { host: self.host.clone(), client: other.client.clone() }
    }

    pub(super) fn client(&self) -> Arc<PrivateKey> {
        self.client.clone()
    }
}

fn keypair() -> Result<Ed25519Keypair, Error> {
    let seed = random().map_err(|e| Error::new(Kind::Host, "cannot make SSH keys").caused_by(e))?;
    Ok(Ed25519Keypair::from_seed(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_forms_that_others_read() {
        let keys = Keys::generate().unwrap();
        assert!(keys.authorized_key().starts_with("ssh-ed25519 AAAA"));
        assert!(PrivateKey::from_openssh(keys.client_private()).unwrap() == *keys.client);
        assert!(keys.known_host().starts_with("ssh-ed25519 AAAA"));
        assert_eq!(Ed25519Keypair::from_seed(&keys.host_seed()).public.0, keys.host_public());
        assert_ne!(Keys::generate().unwrap().host_seed(), keys.host_seed());
    }
}
