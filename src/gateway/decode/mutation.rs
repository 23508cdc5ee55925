//! Seeded damage for tests of decoders: the same seed makes the same body.

use crate::base::random::Random;

/// Cuts, flips, overwrites, repeats or drops somewhere.
pub(in crate::gateway) fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.index(3) {
        if bytes.is_empty() {
            return;
        }
        let at = random.index(bytes.len());
        match random.index(6) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.index(8),
            2 => bytes[at] = [0, 1, 0x0a, 0x12, 0x7f, 0x80, 0xff, b'"'][random.index(8)],
            3 => drop(bytes.remove(at)),
            4 => bytes.insert(at, bytes[at]),
            _ => {
                let end = (at + random.index(24)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.index(bytes.len());
                bytes.splice(to..to, part);
            }
        }
    }
}
