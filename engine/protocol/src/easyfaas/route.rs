//! From raw path bytes to the key that shards route by, on the warm path.
//!
//! Owns: which paths are invocations, and FaaSter's order of complaints about identifiers.
//! Must not know: methods, whether a function exists, what happens next. Allocates nothing.

use faaster_limits::{FUNCTION_NAME_BYTES_MAX, IDENTIFIER_BYTES_MAX, VERSION_DIGITS_MAX};

use super::account::{HASH_BYTES, Partition, account_hash};
use super::brn::{self, BrnError};
use super::query::{self, Plus};

/// Bytes that hold every canonical key.
pub const KEY_BYTES_MAX: usize = 256;

/// Lent by the caller, usually from its stack.
pub type KeyBuffer = [u8; KEY_BYTES_MAX];

/// A path that is a call. All parts as they stood in the request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'p> {
    /// `/v1/functions/<identifier>/invocations`
    Invocation { identifier: &'p [u8] },
    /// `/{userID}/{function}[/{version}]`
    Trigger { user: &'p [u8], function: &'p [u8], version: Option<&'p [u8]> },
}

/// Why an identifier names no function; FaaSter's answer to each is in [`super::errors::append_route_error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteError {
    /// A bare name without `?Qualifier=`.
    MissingQualifier,
    /// `?Qualifier=` is neither `$LATEST` nor a number.
    InvalidQualifier,
    /// Neither a bare name nor `brn:...`.
    InvalidPrefix,
    /// A BRN with fewer than six sections.
    NotEnoughSections,
    /// A BRN without version, or with an alias.
    InvalidBrn,
    /// The pattern is not satisfied otherwise.
    Pattern,
}

impl From<BrnError> for RouteError {
    fn from(error: BrnError) -> Self {
        match error {
            BrnError::InvalidPrefix => Self::InvalidPrefix,
            BrnError::NotEnoughSections => Self::NotEnoughSections,
        }
    }
}

/// Recognises the calls among the paths of the controller's port. `raw_path` is without the query.
///
/// Never a trigger: `/v1/...`, `/healthz...`, `/readyz...`, and the dated paths of the Lambda API (a hyphen is not in
/// `\w`).
pub fn invocation_target(raw_path: &[u8]) -> Option<Target<'_>> {
    let path = raw_path.strip_prefix(b"/")?;
    if let Some(rest) = path.strip_prefix(b"v1/functions/") {
        let identifier = rest.strip_suffix(b"/invocations")?;
        let valid = !identifier.is_empty() && memchr::memchr(b'/', identifier).is_none();
        return valid.then_some(Target::Invocation { identifier });
    }
    let mut parts = path.split(|byte| *byte == b'/');
    let (user, function, version) = (parts.next()?, parts.next()?, parts.next());
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if user.is_empty() || !user.iter().all(is_word) || matches!(user, b"v1" | b"healthz" | b"readyz") {
        return None;
    }
    if !brn::is_name(function) || function.len() > FUNCTION_NAME_BYTES_MAX || parts.next().is_some() {
        return None;
    }
    // FaaSter's pattern is `\d*`: an empty version is no version.
    let version = version.filter(|text| !text.is_empty());
    if version.is_some_and(|text| !is_short_version(text) || text == brn::LATEST) {
        return None;
    }
    Some(Target::Trigger { user, function, version })
}

/// `<md5 of account>:<name>:<version>` for an identifier of an invocation.
///
/// `identifier` and `qualifier` may be percent-encoded; `account` is the caller's, needed for bare names and for BRNs of
/// the `bce` partition, whose hash has another salt: the caller's own is turned into the canonical one. The region is
/// not looked at: a node is one region.
///
/// # Errors
/// The first complaint that FaaSter would make.
pub fn canonical_key<'k>(
    identifier: &[u8],
    qualifier: Option<&[u8]>,
    account: &[u8],
    out: &'k mut KeyBuffer,
) -> Result<&'k [u8], RouteError> {
    let mut scratch = [0; IDENTIFIER_BYTES_MAX];
    let identifier = decoded(identifier, Plus::Itself, &mut scratch).ok_or(RouteError::InvalidBrn)?;
    if brn::is_name(identifier) {
        let mut scratch = [0; IDENTIFIER_BYTES_MAX];
        let qualifier = qualifier.filter(|text| !text.is_empty()).ok_or(RouteError::MissingQualifier)?;
        let version = decoded(qualifier, Plus::Space, &mut scratch).ok_or(RouteError::InvalidQualifier)?;
        if !is_short_version(version) {
            return Err(RouteError::InvalidQualifier);
        }
        if identifier.len() > FUNCTION_NAME_BYTES_MAX {
            return Err(RouteError::InvalidBrn);
        }
        return Ok(write_key(&account_hash(account, Partition::Cloud), identifier, version, out));
    }
    let parsed = brn::parse(identifier)?;
    let version =
        parsed.lenient_qualifier().filter(|text| is_short_version(text)).ok_or(RouteError::InvalidBrn)?;
    let function = parsed.function().ok_or(RouteError::Pattern)?;
    if function.name.len() > FUNCTION_NAME_BYTES_MAX {
        return Err(RouteError::InvalidBrn);
    }
    let hash = canonical_hash(function.partition, function.account, account);
    Ok(write_key(&hash, function.name, version, out))
}

/// The key of a trigger path's function; the user in the path is the account.
pub fn trigger_key<'k>(
    user: &[u8],
    function: &[u8],
    version: Option<&[u8]>,
    out: &'k mut KeyBuffer,
) -> &'k [u8] {
    write_key(&account_hash(user, Partition::Cloud), function, version.unwrap_or(brn::LATEST), out)
}

/// The hash that keys carry: a `bce` hash of the caller's own account becomes the `cloud` one; others stay, for the
/// account behind a hash cannot be known.
pub fn canonical_hash(partition: Partition, hash: &[u8; HASH_BYTES], caller: &[u8]) -> [u8; HASH_BYTES] {
    if partition == Partition::Bce && account_hash(caller, Partition::Bce) == *hash {
        return account_hash(caller, Partition::Cloud);
    }
    *hash
}

fn is_short_version(text: &[u8]) -> bool {
    text.len() <= VERSION_DIGITS_MAX && brn::is_version(text)
}

/// Borrows what is not encoded, decodes the rest into `scratch`; `None` if it does not fit.
fn decoded<'a>(raw: &'a [u8], plus: Plus, scratch: &'a mut [u8; IDENTIFIER_BYTES_MAX]) -> Option<&'a [u8]> {
    if memchr::memchr(b'%', raw).is_none() {
        return (raw.len() <= IDENTIFIER_BYTES_MAX).then_some(raw);
    }
    let len = query::decode_into(raw, plus, scratch)?;
    Some(&scratch[..len])
}

fn write_key<'k>(hash: &[u8; HASH_BYTES], name: &[u8], version: &[u8], out: &'k mut KeyBuffer) -> &'k [u8] {
    let mut len = 0;
    // Lengths are checked above; limits asserts that the sum of the bounds fits.
    for part in [&hash[..], b":", name, b":", version] {
        out[len..len + part.len()].copy_from_slice(part);
        len += part.len();
    }
    &out[..len]
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
