//! Proofs that both ends of a link know the same secret, without saying it.
//!
//! HMAC-SHA256 (RFC 2104, FIPS 180-4) with the secret as key over
//! `"tidegate link 1" | role | (length u64 | bytes) of each part`, lengths little-endian. The role
//! keeps one end's proof from being played back as the other's; the parts hold a nonce of each end,
//! so none is good for a second connection. Compared in constant time. No randomness here: nonces
//! are handed in.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;
/// A shorter secret is refused: it could be guessed from one recorded handshake.
pub const SECRET_BYTES_MIN: usize = 16;

const DOMAIN: &[u8] = b"tidegate link 1";

/// Whose proof it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// The end that connects.
    Gateway = 1,
    /// The end that accepts.
    Node = 2,
}

/// What all gateways and nodes of a fleet share. Never shown: `Debug` hides it.
#[derive(Clone)]
pub struct LinkSecret(Hmac<Sha256>);

/// A secret of fewer than [`SECRET_BYTES_MIN`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretTooShort {
    /// What it has.
    pub len_bytes: usize,
}

impl LinkSecret {
    /// A secret of any length from [`SECRET_BYTES_MIN`]; 32 random bytes are best.
    pub fn new(secret: &[u8]) -> Result<Self, SecretTooShort> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(SecretTooShort { len_bytes: secret.len() });
        }
        let keyed = Hmac::new_from_slice(secret);
        Ok(Self(keyed.expect("HMAC takes keys of any length")))
    }

    /// The proof of `role` over `parts`. About 2 us for a handshake.
    pub fn prove(&self, role: Role, parts: &[&[u8]]) -> [u8; PROOF_BYTES] {
        self.begin(role, parts).finalize().into_bytes().into()
    }

    /// Whether `proof` is that of `role` over `parts`, in a time that does not tell where it
    /// differs.
    pub fn check(&self, role: Role, parts: &[&[u8]], proof: &[u8; PROOF_BYTES]) -> bool {
        self.begin(role, parts).verify_slice(proof).is_ok()
    }

    fn begin(&self, role: Role, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(DOMAIN);
        mac.update(&[role as u8]);
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }
}

impl std::fmt::Debug for LinkSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("LinkSecret(hidden)")
    }
}

impl std::fmt::Display for SecretTooShort {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { len_bytes } = self;
        write!(
            formatter,
            "cannot use a link secret of {len_bytes} bytes: make it {SECRET_BYTES_MIN} or more \
             (`head -c 32 /dev/urandom | base64`)",
        )
    }
}

impl std::error::Error for SecretTooShort {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_bound_to_secret_role_and_parts() {
        // Red if the role, a length or a part is left out of what is hashed.
        let secret = LinkSecret::new(b"sixteen bytes!!!").expect("long enough");
        let other = LinkSecret::new(b"sixteen bytes!!?").expect("long enough");
        let proof = secret.prove(Role::Gateway, &[b"ab", b"c"]);
        assert!(secret.check(Role::Gateway, &[b"ab", b"c"], &proof));
        assert!(!other.check(Role::Gateway, &[b"ab", b"c"], &proof));
        assert!(!secret.check(Role::Node, &[b"ab", b"c"], &proof));
        assert!(!secret.check(Role::Gateway, &[b"a", b"bc"], &proof));
        assert!(!secret.check(Role::Gateway, &[b"ab"], &proof));
        for bit in 0..8 * PROOF_BYTES {
            let mut bad = proof;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!secret.check(Role::Gateway, &[b"ab", b"c"], &bad));
        }
        assert_eq!(
            LinkSecret::new(b"fifteen bytes!!").err(),
            Some(SecretTooShort { len_bytes: 15 })
        );
        assert_eq!(format!("{secret:?}"), "LinkSecret(hidden)");
    }

    #[test]
    fn a_proof_is_hmac_sha256() {
        // Made with Python: hmac.new(b"k" * 32, b"tidegate link 1\x01" + (3).to_bytes(8, "little")
        // + b"abc", "sha256"). Red if the input's order, or a length's width, changes.
        let proof = LinkSecret::new(&[b'k'; 32]).expect("long").prove(Role::Gateway, &[b"abc"]);
        let hex = proof.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        assert_eq!(hex, "0bfb9a2e7b6cac316cec6ab31047350048f33a73ffa802994a6de88ec83a16ff");
    }
}
