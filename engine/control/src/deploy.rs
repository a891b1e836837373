//! Changes of functions: create, update, delete, and the cleaning up after them.
//!
//! Owns: the order of steps. Code first (pinned), then the registry (durable), then every shard (in force), then the
//! answer; what fails before the registry leaves nothing behind. Must not know: routes and statuses.

use std::sync::Arc;

use faaster_function::draft::{self, Draft, DraftError};
use faaster_function::record::CodeRef;
use faaster_function::settings::{self, Problems, Settings};
use faaster_function::{AccountHash, AccountId, FunctionName, RuntimeSpec, Version};
use faaster_limits::DEPLOY_TIMEOUT;
use faaster_protocol::funclet::CodeHash;
use faaster_shard::Command;
use faaster_store::code::{CodeError, Removed};
use faaster_store::pack::{PackError, pack_folder};
use faaster_store::registry::{Deleted, RegistryError, Upsert};
use faaster_store::{CodeStore, Registry};

use tokio::sync::OwnedMutexGuard;

use crate::code_room;
use crate::code_thread::CodeThreadError;
use crate::layers;
use crate::node::{Node, NotNow, ask_registry};
use crate::shards::ShardSilent;
use crate::stamp::{unix_now, uuid};

/// Why a change was not made, or not in full.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// FaaSter's sentence.
    #[error("illegal base64 data at input byte {0}")]
    Base64(usize),
    #[error(transparent)]
    Problems(#[from] Problems),
    #[error("no function {0}")]
    Missing(String),
    #[error(transparent)]
    Code(#[from] CodeError),
    #[error("default code of runtime {runtime} cannot be packed")]
    DefaultCode { runtime: String, source: PackError },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Thread(#[from] CodeThreadError),
    #[error(transparent)]
    NotNow(#[from] NotNow),
    #[error("change is stored, but not in force yet: {0}")]
    NotInForce(#[from] ShardSilent),
    #[error("change is stored, but this node cannot run the function: {0}")]
    NoRuntime(String),
}

/// Which version a change is about, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) owner: AccountId,
    pub(crate) account: AccountHash,
    pub(crate) name: FunctionName,
    /// As the path or `?Qualifier=` says; the body of a create may name one as well.
    pub(crate) version: Option<Version>,
}

/// What the code thread made of a request.
struct Judged {
    version: Version,
    settings: Settings,
    code: CodeRef,
    /// Packages that are new to the function, and pinned until the registry names them.
    pinned: Vec<CodeHash>,
}

/// Creates or replaces a version.
pub(crate) async fn create(node: &Arc<Node>, subject: Subject, body: Vec<u8>) -> Result<(), ChangeError> {
    node.ready_for_changes().await?;
    let runtimes = node.runtimes.clone();
    let version = subject.version.clone();
    let (registry, account) = (node.registry.clone(), subject.account.clone());
    let judged = code_room::upload(node, move |store| {
        let draft = draft::parse(&body)?;
        let mut problems = Problems::default();
        let drafted = settings::version_of(&draft, &mut problems);
        let settings = settings::for_create(&draft, &runtimes, &mut problems);
        let settings = problems.or(settings)?;
        let code = match &draft.code {
            Some(code) => store.put_zip(&decode_base64(code)?)?.code,
            None => put_default(store, &settings, &runtimes)?,
        };
        let version = version.clone().or(drafted).unwrap_or_else(Version::latest);
        let mut judged = Judged { version, settings, code, pinned: vec![code.sha256] };
        let asked = draft.layers.as_deref();
        judged.add_layers(store, &registry, &account, asked)?;
        Ok(judged)
    })
    .await?;
    let key = faaster_function::identity::key(&subject.account, &subject.name, &judged.version);
    let order = node.lock_key(&key).await;
    apply(node.clone(), subject, judged, order).await
}

/// Changes what the body names of a version that exists.
pub(crate) async fn update(node: &Arc<Node>, subject: Subject, body: Vec<u8>) -> Result<(), ChangeError> {
    node.ready_for_changes().await?;
    let version = subject.version.clone().unwrap_or_else(Version::latest);
    let key = faaster_function::identity::key(&subject.account, &subject.name, &version);
    // Locked before it is read: two updates at once must not lose what the first changed.
    let order = node.lock_key(&key).await;
    let current = ask_registry(|done| node.registry.get(key.clone(), done)).await?;
    let current = current.ok_or(ChangeError::Missing(key))?;
    let runtimes = node.runtimes.clone();
    let (registry, account) = (node.registry.clone(), subject.account.clone());
    let judged = code_room::upload(node, move |store| {
        let draft = draft::parse(&body)?;
        let settings = judge_update(&draft, &current.settings, &runtimes, &version)?;
        let zip = draft.code.as_deref().map(decode_base64).transpose()?;
        let new = zip.map(|zip| store.put_zip(&zip)).transpose()?.map(|stored| stored.code);
        let pinned = new.iter().map(|code| code.sha256).collect();
        let code = new.unwrap_or(current.code);
        let mut judged = Judged { version: version.clone(), settings, code, pinned };
        let asked = draft.layers.as_deref();
        judged.add_layers(store, &registry, &account, asked)?;
        Ok(judged)
    })
    .await?;
    apply(node.clone(), subject, judged, order).await
}

impl Judged {
    /// Looks up and merges the layers that a draft names, if it names any. On an error nothing stays pinned.
    fn add_layers(
        &mut self,
        store: &mut CodeStore,
        registry: &Registry,
        account: &AccountHash,
        asked: Option<&[String]>,
    ) -> Result<(), ChangeError> {
        let Some(asked) = asked else { return Ok(()) };
        match layers::resolve(store, registry, account, asked, self.code.sha256) {
            Ok(layers) => {
                self.pinned.extend(layers.iter().map(|layers| layers.tree));
                self.settings.layers = layers;
                Ok(())
            }
            Err(error) => {
                self.pinned.drain(..).for_each(|hash| store.unpin(&hash));
                Err(error)
            }
        }
    }
}

fn judge_update(
    draft: &Draft<'_>,
    before: &Settings,
    runtimes: &[RuntimeSpec],
    version: &Version,
) -> Result<Settings, Problems> {
    let mut problems = Problems::default();
    if settings::version_of(draft, &mut problems).is_some_and(|named| named != *version) {
        problems
            .push("Version of an update is in its path or Qualifier; a version cannot be renamed".to_owned());
    }
    let settings = settings::for_update(before, draft, runtimes, &mut problems);
    problems.or(settings)
}

/// From the registry to the shards. Runs as a task of its own: once begun it goes on when the client has gone.
async fn apply(
    node: Arc<Node>,
    subject: Subject,
    judged: Judged,
    order: OwnedMutexGuard<()>,
) -> Result<(), ChangeError> {
    let task = tokio::spawn(async move {
        let pinned = judged.pinned.clone();
        let result = store_and_deploy(&node, subject, judged).await;
        drop(order);
        layers::unpin(&node, pinned.clone()).await;
        if result.is_err() {
            // Whether or not the registry names them now: the sweep finds out.
            node.unused_code.lock().await.extend(pinned);
        }
        result
    });
    task.await.unwrap_or(Err(ChangeError::Registry(RegistryError::Stopped)))
}

async fn store_and_deploy(node: &Node, subject: Subject, judged: Judged) -> Result<(), ChangeError> {
    let upsert = Upsert {
        account: subject.account,
        owner: subject.owner,
        name: subject.name,
        version: judged.version,
        settings: judged.settings,
        code: judged.code,
        fresh_commit_id: uuid(),
        modified_secs: unix_now().as_secs(),
    };
    let upserted = ask_registry(|done| node.registry.upsert(upsert, done)).await?;
    node.unused_code.lock().await.extend(upserted.unused);
    let deployed = upserted.record.deployed(&node.runtimes);
    let deployed = Arc::new(deployed.map_err(|error| ChangeError::NoRuntime(error.to_string()))?);
    node.shards.ask_all(DEPLOY_TIMEOUT, |reply| Command::Deploy(deployed.clone(), reply)).await?;
    Ok(())
}

/// Deletes a version, or all of them. Says how many there were.
pub(crate) async fn delete(node: &Arc<Node>, subject: Subject) -> Result<usize, ChangeError> {
    node.ready_for_changes().await?;
    let node = node.clone();
    let task = tokio::spawn(async move {
        let names: Vec<Version> = match subject.version.clone() {
            Some(version) => vec![version],
            None => {
                let (account, name) = (subject.account.clone(), subject.name.clone());
                let records = ask_registry(|done| node.registry.versions(account, name, done)).await?;
                records.into_iter().map(|record| record.version).collect()
            }
        };
        let mut count = 0;
        for version in names {
            count += delete_one(&node, &subject, version).await?;
        }
        Ok::<_, ChangeError>(count)
    });
    task.await.unwrap_or(Err(ChangeError::Registry(RegistryError::Stopped)))
}

async fn delete_one(node: &Node, subject: &Subject, version: Version) -> Result<usize, ChangeError> {
    let key = faaster_function::identity::key(&subject.account, &subject.name, &version);
    let _order = node.lock_key(&key).await;
    let (account, name) = (subject.account.clone(), subject.name.clone());
    let deleted: Deleted =
        ask_registry(|done| node.registry.delete(account, name, Some(version), done)).await?;
    node.unused_code.lock().await.extend(deleted.unused);
    if !deleted.records.is_empty() {
        let key: Box<str> = key.into();
        node.shards.ask_all(DEPLOY_TIMEOUT, |reply| Command::Remove(key.clone(), reply)).await?;
    }
    Ok(deleted.records.len())
}

/// Removes code that no function names and no instance runs. Code seen unused for the first time is left for the next
/// round: a shard may still be about to hear that it is.
pub(crate) async fn collect_unused(node: &Arc<Node>, seen_before: &mut std::collections::BTreeSet<CodeHash>) {
    let candidates = node.unused_code.lock().await.clone();
    let again: Vec<CodeHash> = candidates.intersection(seen_before).copied().collect();
    *seen_before = candidates;
    for hash in again {
        match remove_code(node, hash).await {
            // Its instances will be gone by one of the next rounds.
            Ok(Removed::InUse) => continue,
            Ok(Removed::Yes | Removed::Pinned) => {}
            Err(error) => {
                // The next round tries again.
                (node.log)(&format!("unused code {hash} stays for now: {error}"));
                continue;
            }
        }
        node.unused_code.lock().await.remove(&hash);
    }
}

async fn remove_code(node: &Node, hash: CodeHash) -> Result<Removed, ChangeError> {
    let registry = node.registry.clone();
    let removed = node.code.run(move |store| {
        // Asked on the code thread: no deploy can put the same package between the answer and the removal.
        let uses = faaster_store::registry::wait(|done| registry.code_uses(hash, done))?;
        // One that is used again is as good as removed from the list.
        if uses == 0 { Ok(store.remove(&hash)?) } else { Ok(Removed::Yes) }
    });
    removed.await?
}

/// The zip of a stored function.
pub(crate) async fn read_zip(node: &Node, hash: CodeHash) -> Result<Vec<u8>, ChangeError> {
    Ok(node.code.upload(move |store| store.read_zip(&hash)).await??)
}

fn put_default(
    store: &mut CodeStore,
    settings: &Settings,
    runtimes: &[RuntimeSpec],
) -> Result<CodeRef, ChangeError> {
    let index = settings::resolve_runtime(&settings.runtime, runtimes);
    let spec = index.and_then(|index| runtimes.get(usize::from(index.0)));
    let Some((spec, folder)) = spec.and_then(|spec| Some((spec, spec.default_code.as_ref()?))) else {
        let missing = format!("Code is missing, and runtime {:?} has no default code", settings.runtime);
        return Err(Problems::from(missing).into());
    };
    let zip = pack_folder(folder)
        .map_err(|source| ChangeError::DefaultCode { runtime: spec.name.clone(), source })?;
    Ok(store.put_zip(&zip)?.code)
}

/// Standard base64; line feeds in it are skipped, as Go does (`base64 file` makes them).
pub(crate) fn decode_base64(text: &str) -> Result<Vec<u8>, ChangeError> {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let result = if text.bytes().any(|byte| matches!(byte, b'\n' | b'\r')) {
        let compact: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
        engine.decode(compact)
    } else {
        engine.decode(text)
    };
    result.map_err(|error| match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
            ChangeError::Base64(at)
        }
        base64::DecodeError::InvalidLength(length) => ChangeError::Base64(length),
        base64::DecodeError::InvalidPadding => ChangeError::Base64(text.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_go_reads_it() {
        assert_eq!(decode_base64("aGVs\nbG8=\r\n").unwrap(), b"hello");
        assert_eq!(decode_base64("***").unwrap_err().to_string(), "illegal base64 data at input byte 0");
        assert!(decode_base64("aGVsbG8").is_err());
    }
}
