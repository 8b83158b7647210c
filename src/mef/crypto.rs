//! Passwords, keys and access levels (format section 10).
//!
//! The sixteen bytes of a password are the AES-128 key itself, and each block
//! is enciphered on its own: this protects names from a glance, not a session
//! from an attacker.
//!
//! `Debug` shows nothing secret. Passwords, keys, digests of them and key schedules
//! are wiped where they are dropped. What is *not* wiped: copies that the compiler
//! leaves on the stack where a value is moved, the state of SHA-256 while it hashes
//! (sixteen bytes at a time), and the buffers of whoever serialises a password to
//! hand it to another process.

use std::fmt;

use aes::Aes128;
use aes::cipher::{Block, BlockDecrypt, BlockEncrypt, KeyInit};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::layout::UniversalHeader;

/// Bytes of a key, of a validation field and of one AES block.
const KEY_BYTES: usize = 16;

type Key = [u8; KEY_BYTES];

/// A password, in the form in which the format uses it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Password {
    bytes: Key,
    /// The bytes by the mapping of mef3io up to 1.2.0, where they differ; only for
    /// reading.
    fallback: Option<Key>,
}

impl Password {
    /// The password that is typed as `text`: the low eight bits of each of its
    /// first sixteen characters, up to a NUL (format section 10.1).
    ///
    /// A password whose bytes are all zero is none.
    pub fn new(text: &str) -> Option<Self> {
        let map = |byte: fn(char) -> u8| {
            let mut key = Zeroizing::new(Key::default());
            let characters = text.chars().take_while(|&character| character != '\0');
            for (slot, character) in key.iter_mut().zip(characters) {
                *slot = byte(character);
            }
            key
        };
        let bytes = map(|character| character as u8);
        let by_utf8 = map(|character| {
            let mut buffer = Zeroizing::new([0; 4]);
            let encoded = character.encode_utf8(&mut *buffer);
            encoded.bytes().last().unwrap_or(0)
        });
        if *bytes == Key::default() && *by_utf8 == Key::default() {
            return None;
        }
        Some(Self {
            bytes: *bytes,
            fallback: (by_utf8 != bytes).then(|| *by_utf8),
        })
    }

    /// Whether another password gives the same key.
    pub(crate) fn same_key(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(..)")
    }
}

/// What a password opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Access {
    /// The session has no password.
    Unprotected,
    /// The session has passwords, and none was given: only what is not
    /// encrypted can be read.
    Locked,
    /// Signal and technical metadata, but not the subject's.
    Level1,
    /// Everything.
    Level2,
}

/// The password is none of the session's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongPassword;

/// The keys that a password gives.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Keys {
    level_1: Option<Key>,
    level_2: Option<Key>,
    /// The password opened the file by its fallback only.
    pub(crate) by_fallback: bool,
}

/// Ciphertext whose key is not at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// The level's password is missing.
    Locked,
    /// No such level exists (format section 6.1).
    UndefinedLevel,
}

/// "No entry" for an encryption level.
const NO_LEVEL: i8 = -128;

impl Keys {
    /// The keys of a new session, and its two validation fields.
    pub(crate) fn for_writing(level_1: &Password, level_2: &Password) -> (Self, [Key; 2]) {
        let mut second = hash(&level_2.bytes);
        xor(&mut second, &level_1.bytes);
        let keys = Self {
            level_1: Some(level_1.bytes),
            level_2: Some(level_2.bytes),
            by_fallback: false,
        };
        (keys, [*hash(&level_1.bytes), *second])
    }

    /// Checks a password against a file's header (format section 10.2).
    pub(crate) fn unlock(
        header: &UniversalHeader,
        password: Option<&Password>,
    ) -> Result<(Access, Self), WrongPassword> {
        let validation = [&header.level_1_validation, &header.level_2_validation];
        if validation.iter().all(|field| **field == Key::default()) {
            return Ok((Access::Unprotected, Self::default()));
        }
        let Some(password) = password else {
            return Ok((Access::Locked, Self::default()));
        };
        if let Some(unlocked) = Self::check(validation, &password.bytes) {
            return Ok(unlocked);
        }
        let fallback = password.fallback.as_ref();
        let unlocked = fallback.and_then(|bytes| Self::check(validation, bytes));
        let (access, mut keys) = unlocked.ok_or(WrongPassword)?;
        keys.by_fallback = true;
        Ok((access, keys))
    }

    fn check([first, second]: [&Key; 2], bytes: &Key) -> Option<(Access, Self)> {
        // With the second field, the level-1 key of a level-2 password.
        let mut level_1 = hash(bytes);
        if *level_1 == *first {
            let keys = Self {
                level_1: Some(*bytes),
                ..Self::default()
            };
            return Some((Access::Level1, keys));
        }
        xor(&mut level_1, second);
        if *hash(&level_1) != *first {
            return None;
        }
        let keys = Self {
            level_1: Some(*level_1),
            level_2: Some(*bytes),
            by_fallback: false,
        };
        Some((Access::Level2, keys))
    }

    /// Deciphers all whole AES blocks of `bytes`, if their level byte says that
    /// they are ciphertext: only a positive one does (format section 6.1).
    pub(crate) fn decrypt(&self, level: i8, bytes: &mut [u8]) -> Result<(), NoKey> {
        let Some(cipher) = self.cipher(level)? else {
            return Ok(());
        };
        for block in bytes.chunks_exact_mut(KEY_BYTES) {
            cipher.decrypt_block(Block::<Aes128>::from_mut_slice(block));
        }
        Ok(())
    }

    /// Enciphers all whole AES blocks of `bytes` at a positive level.
    pub(crate) fn encrypt(&self, level: i8, bytes: &mut [u8]) -> Result<(), NoKey> {
        let Some(cipher) = self.cipher(level)? else {
            return Ok(());
        };
        for block in bytes.chunks_exact_mut(KEY_BYTES) {
            cipher.encrypt_block(Block::<Aes128>::from_mut_slice(block));
        }
        Ok(())
    }

    /// The cipher of a level; none where the level means plain text.
    fn cipher(&self, level: i8) -> Result<Option<Aes128>, NoKey> {
        let key = match level {
            NO_LEVEL | -2..=0 => return Ok(None),
            1 => &self.level_1,
            2 => &self.level_2,
            _ => return Err(NoKey::UndefinedLevel),
        };
        let key = key.as_ref().ok_or(NoKey::Locked)?;
        Ok(Some(Aes128::new(key.into())))
    }
}

/// Names no key.
impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keys(..)")
    }
}

/// The first sixteen bytes of SHA-256.
fn hash(bytes: &Key) -> Zeroizing<Key> {
    let mut key = Zeroizing::new(Key::default());
    let mut digest = Sha256::digest(bytes);
    for (slot, byte) in key.iter_mut().zip(&digest) {
        *slot = *byte;
    }
    digest.as_mut_slice().zeroize();
    key
}

fn xor(target: &mut Key, with: &Key) {
    for (byte, other) in target.iter_mut().zip(with) {
        *byte ^= other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn key_of(text: &str) -> String {
        let password = Password::new(text).unwrap();
        let shown = hex(&password.bytes);
        shown.trim_end_matches("00").to_owned()
    }

    fn header(first: &str, second: &str) -> UniversalHeader {
        let (_, [one, two]) = Keys::for_writing(
            &Password::new(first).unwrap(),
            &Password::new(second).unwrap(),
        );
        let mut header = UniversalHeader::new_zeroed();
        header.level_1_validation = one;
        header.level_2_validation = two;
        header
    }

    #[test]
    fn password_bytes_of_section_18_3() {
        for (text, bytes) in [
            ("level1", "6c6576656c31"),
            ("level2", "6c6576656c32"),
            ("é", "e9"),
            ("Ł", "41"),
            ("€uro", "ac75726f"),
            ("naïve-pass", "6e61ef76652d70617373"),
            ("😀x", "0078"),
            ("日本語", "e52c9e"),
            ("Āb", "0062"),
        ] {
            assert_eq!(key_of(text), bytes, "{text}");
        }
        assert!(Password::new("").is_none());
        assert!(Password::new("\0after").is_none());
        // Longer than a key: the first sixteen count.
        assert_eq!(key_of("0123456789abcdefXYZ"), hex(b"0123456789abcdef"));
    }

    #[test]
    fn digests_of_section_18_3() {
        for (text, digest) in [
            (
                "level1",
                "905447f930bf09f11f6c5f0665fa0cfe0000237f645cc9378d166c848378dc5f",
            ),
            (
                "level2",
                "92c1d5016a95664eb705c048793c3c016061ea9d0aa6497c17ce3cf6b7c223d6",
            ),
        ] {
            let key = Password::new(text).unwrap().bytes;
            assert_eq!(hex(&Sha256::digest(key)), digest);
            assert_eq!(hex(&*hash(&key)), digest[..32]);
        }
    }

    #[test]
    fn validation_fields_of_section_18_3() {
        let header = header("level1", "level2");
        assert_eq!(
            hex(&header.level_1_validation),
            "905447f930bf09f11f6c5f0665fa0cfe"
        );
        assert_eq!(
            hex(&header.level_2_validation),
            "fea4a36406a4664eb705c048793c3c01"
        );
    }

    #[test]
    fn ciphertexts_of_section_18_3() {
        let counting: [u8; 16] = std::array::from_fn(|byte| byte as u8);
        let mut name = [0; 16];
        name[..3].copy_from_slice(b"ch1");
        let header = header("level1", "level2");
        let (_, keys) = Keys::unlock(&header, Password::new("level2").as_ref()).unwrap();
        for (level, plain, cipher) in [
            (1, counting, "41a3f4351ab93adc2bed3e0159dc1c99"),
            (2, counting, "b7a6de3b3948ca5ca42c04f8dc79d0fb"),
            (1, [0; 16], "6fd1409461e91d60219754065db0954c"),
            (2, [0; 16], "54d8f9bded39d564006c593be6d72449"),
            (1, name, "2c328ff24bdef32562bb3a805618355b"),
        ] {
            let mut bytes = plain;
            keys.encrypt(level, &mut bytes).unwrap();
            assert_eq!(hex(&bytes), cipher);
            keys.decrypt(level, &mut bytes).unwrap();
            assert_eq!(bytes, plain);
            // A level that is not positive is plain text, whatever the keys.
            keys.decrypt(-level, &mut bytes).unwrap();
            assert_eq!(bytes, plain);
        }
    }

    #[test]
    fn each_password_opens_its_level_and_no_other_any() {
        let header = header("level1", "level2");
        let access = |text| Keys::unlock(&header, Password::new(text).as_ref()).map(|(a, _)| a);
        assert_eq!(access("level1"), Ok(Access::Level1));
        assert_eq!(access("level2"), Ok(Access::Level2));
        assert_eq!(access("levelX"), Err(WrongPassword));
        assert_eq!(access(""), Ok(Access::Locked));
        // The second password gives the first one's key, too.
        let (_, keys) = Keys::unlock(&header, Password::new("level2").as_ref()).unwrap();
        assert_eq!(keys.level_1.as_ref(), Some(b"level1\0\0\0\0\0\0\0\0\0\0"));
        let (_, keys) = Keys::unlock(&header, Password::new("level1").as_ref()).unwrap();
        let mut bytes = [0; 16];
        assert_eq!(keys.decrypt(2, &mut bytes), Err(NoKey::Locked));
        assert_eq!(keys.decrypt(3, &mut bytes), Err(NoKey::UndefinedLevel));
        assert_eq!(bytes, [0; 16]);
        let unprotected = UniversalHeader::new_zeroed();
        let opened = Keys::unlock(&unprotected, Password::new("any").as_ref()).unwrap();
        assert_eq!(opened.0, Access::Unprotected);
    }

    #[test]
    fn a_password_by_the_last_byte_of_utf8_opens_files_of_old_mef3io() {
        // What mef3io up to 1.2.0 made of "é": the last byte of its UTF-8 form.
        let old = Password::new("\u{a9}").unwrap();
        let (_, [one, two]) = Keys::for_writing(&old, &Password::new("second").unwrap());
        let mut header = UniversalHeader::new_zeroed();
        header.level_1_validation = one;
        header.level_2_validation = two;
        let (access, keys) = Keys::unlock(&header, Password::new("é").as_ref()).unwrap();
        assert_eq!(access, Access::Level1);
        assert!(keys.by_fallback);
        let (_, keys) = Keys::unlock(&header, Some(&old)).unwrap();
        assert!(!keys.by_fallback);
    }

    #[test]
    fn no_secret_is_shown() {
        let password = Password::new("hush").unwrap();
        let (keys, _) = Keys::for_writing(&password, &password);
        assert_eq!(format!("{password:?} {keys:?}"), "Password(..) Keys(..)");
    }
}
