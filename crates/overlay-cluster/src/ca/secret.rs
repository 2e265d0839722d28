//! Join secrets: what admits a node, and as what.

use core::fmt;

use overlay_types::Role;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::CaError;

/// 128 random bits that let their bearer join. Compared in constant time, erased when dropped,
/// never shown by `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct JoinSecret([u8; Self::LEN]);

impl JoinSecret {
    /// Bytes of a secret.
    pub const LEN: usize = 16;

    /// A new secret, from the system's entropy.
    pub fn generate() -> Result<Self, CaError> {
        let mut secret = Self([0; Self::LEN]);
        SystemRandom::new()
            .fill(&mut secret.0)
            .map_err(|_| CaError::key("the system has no entropy for a join secret"))?;
        Ok(secret)
    }

    /// A secret of these bytes.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// A secret of these bytes, if there are as many as a secret has.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self).ok()
    }

    /// The bytes, to send or to store them.
    pub fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl PartialEq for JoinSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for JoinSecret {}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(redacted)")
    }
}

/// The secrets in force, one for each role, never equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinSecrets {
    worker: JoinSecret,
    manager: JoinSecret,
}

impl JoinSecrets {
    /// New secrets, from the system's entropy.
    pub fn generate() -> Result<Self, CaError> {
        Self::new(JoinSecret::generate()?, JoinSecret::generate()?)
    }

    /// These secrets; equal ones are refused.
    pub fn new(worker: JoinSecret, manager: JoinSecret) -> Result<Self, CaError> {
        if worker == manager {
            return Err(CaError::EqualSecrets);
        }
        Ok(Self { worker, manager })
    }

    /// The secret that admits as `role`.
    pub fn get(&self, role: Role) -> &JoinSecret {
        match role {
            Role::Worker => &self.worker,
            Role::Manager => &self.manager,
        }
    }

    /// The role that `presented` admits as. Takes the same time whatever is presented.
    pub fn role_of(&self, presented: &JoinSecret) -> Option<Role> {
        let worker = self.worker.0.ct_eq(&presented.0);
        let manager = self.manager.0.ct_eq(&presented.0);
        match (bool::from(worker), bool::from(manager)) {
            (_, true) => Some(Role::Manager),
            (true, false) => Some(Role::Worker),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c02_secrets_say_the_role() {
        let secrets = JoinSecrets::generate().unwrap();
        let [worker, manager] = [Role::Worker, Role::Manager].map(|role| secrets.get(role).clone());
        assert_ne!(worker, manager);
        assert_eq!(secrets.role_of(&worker), Some(Role::Worker));
        assert_eq!(secrets.role_of(&manager), Some(Role::Manager));
        assert_eq!(secrets.role_of(&JoinSecret::from_bytes([0; 16])), None);
        assert_eq!(JoinSecrets::new(worker.clone(), worker), Err(CaError::EqualSecrets));
    }
}
