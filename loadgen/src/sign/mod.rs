//! AWS Signature Version 4 for the requests of one service (docs.aws.amazon.com, "Create a signed AWS API request").
//!
//! Owns: the credentials and the key of the day. Must not know: when a request is sent, or what its answer means.
//! A path is taken as it stands on the wire and encoded once more, as every service but S3 wants it; nothing is
//! normalised, for the paths that are signed here hold no dots.

mod ahead;
mod canonical;
#[cfg(test)]
mod vectors;

use std::fmt;
use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub use ahead::{Ahead, Claim, Material, SigningEffort};

/// Seconds of a day.
const DAY_SECS: u64 = 24 * 3600;

/// Who signs.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: String,
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the secret, nor the token.
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// What the signature is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub region: String,
    pub service: String,
}

/// Everything a signature needs beside the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub credentials: Credentials,
    pub scope: Scope,
}

/// Signs one request after the other.
#[derive(Clone)]
pub struct Signer {
    identity: Identity,
    /// Day since 1970 that the key is of.
    day: u64,
    /// Ready to take what is to be signed.
    keyed: Hmac<Sha256>,
    /// `20150830/us-east-1/service/aws4_request`.
    scope: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("identity", &self.identity).field("scope", &self.scope).finish()
    }
}

impl Signer {
    /// A signer; its first key is of 1970, and is renewed with the first request.
    pub fn new(identity: Identity) -> Self {
        let (keyed, scope) = key_of(&identity, 0);
        Self { identity, day: 0, keyed, scope }
    }

    /// Appends `head` (request line and header lines, without the empty line) and the lines that sign it.
    /// `body_hash` is [`hash_of`] the body; `unix_secs` is the time.
    pub fn sign(&mut self, head: &[u8], body_hash: &str, unix_secs: u64, out: &mut Vec<u8>) {
        let day = unix_secs / DAY_SECS;
        if day != self.day {
            (self.keyed, self.scope) = key_of(&self.identity, day);
            self.day = day;
        }
        let date = timestamp(unix_secs);
        let token = self.identity.credentials.session_token.as_deref();
        let canonical = canonical::request(head, &date, token, body_hash);
        let to_sign =
            format!("AWS4-HMAC-SHA256\n{date}\n{}\n{}", self.scope, hex(&Sha256::digest(&canonical.text)));
        let signature = self.keyed.clone().chain_update(to_sign).finalize().into_bytes();
        out.extend_from_slice(head);
        let token = token.map_or(String::new(), |token| format!("X-Amz-Security-Token: {token}\r\n"));
        let lines = format!(
            "X-Amz-Date: {date}\r\n{token}Authorization: AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, \
             Signature={}\r\n",
            self.identity.credentials.access_key,
            self.scope,
            canonical.signed_headers,
            hex(&signature)
        );
        out.extend_from_slice(lines.as_bytes());
    }
}

/// The hash of a body, as it is signed.
pub fn hash_of(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

fn key_of(identity: &Identity, day: u64) -> (Hmac<Sha256>, String) {
    let date = timestamp(day * DAY_SECS)[..8].to_owned();
    let Scope { region, service } = &identity.scope;
    let mut key = format!("AWS4{}", identity.credentials.secret_key).into_bytes();
    for part in [&date, region, service, "aws4_request"] {
        key = keyed(&key).chain_update(part).finalize().into_bytes().to_vec();
    }
    (keyed(&key), format!("{date}/{region}/{service}/aws4_request"))
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// `20150830T123600Z`. Days are turned into dates as Howard Hinnant does it ("chrono-compatible low-level date
/// algorithms"): years begin in March, so that the leap day is their last.
fn timestamp(unix_secs: u64) -> String {
    let (days, secs) = (unix_secs / DAY_SECS + 719_468, unix_secs % DAY_SECS);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        // `date -u -d @N +%Y%m%dT%H%M%SZ` of coreutils.
        for (secs, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_440_938_160, "20150830T123600Z"),
            (1_709_210_096, "20240229T123456Z"),
            (1_735_689_599, "20241231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(timestamp(secs), text);
        }
    }

    #[test]
    fn a_new_day_has_a_new_key_and_an_old_one_its_own() {
        let mut signer = Signer::new(vectors::identity(None));
        let mut lines = |secs| {
            let mut out = Vec::new();
            signer.sign(b"GET / HTTP/1.1\r\nHost: h\r\n", &hash_of(b""), secs, &mut out);
            String::from_utf8(out).unwrap()
        };
        let (first, next) = (lines(1_440_938_160), lines(1_440_938_160 + DAY_SECS));
        assert!(first.contains("/20150830/us-east-1/") && next.contains("/20150831/us-east-1/"));
        assert_eq!(lines(1_440_938_160), first);
    }

    #[test]
    fn secrets_are_never_shown() {
        let shown = format!("{:?}", Signer::new(vectors::identity(Some("TOKEN"))));
        assert!(
            shown.contains("AKIDEXAMPLE") && !shown.contains("wJalr") && !shown.contains("TOKEN"),
            "{shown}"
        );
    }
}
