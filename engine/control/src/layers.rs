//! Layers: publishing and deleting versions, and what a function's list of them becomes.
//!
//! Owns: the order of steps, as for functions: package first (pinned), then the registry. Must not know: routes, statuses.

use std::borrow::Cow;
use std::sync::Arc;

use faaster_function::layer::{LayerRecord, LayerUse, Layers, parse_list};
use faaster_function::settings::Problems;
use faaster_function::{AccountHash, FunctionName};
use faaster_limits::{DESCRIPTION_BYTES_MAX, UNZIPPED_BYTES_MAX};
use faaster_protocol::funclet::CodeHash;
use faaster_store::registry::layers::NewLayer;
use faaster_store::{CodeStore, Registry};
use serde::Deserialize;

use crate::code_room;
use crate::deploy::{ChangeError, decode_base64};
use crate::node::{Node, ask_registry};
use crate::stamp::unix_now;

/// The body of a publish, as AWS has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'b> {
    #[serde(borrow)]
    content: Option<Content<'b>>,
    #[serde(default)]
    description: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content<'b> {
    #[serde(borrow, default)]
    zip_file: Option<Cow<'b, str>>,
}

/// Stores a zip as the next version of a layer.
pub(crate) async fn publish(
    node: &Arc<Node>,
    account: AccountHash,
    name: FunctionName,
    body: Vec<u8>,
) -> Result<LayerRecord, ChangeError> {
    node.ready_for_changes().await?;
    let stored = code_room::upload(node, move |store| {
        let body: Body<'_> = serde_json::from_slice(&body)
            .map_err(|error| Problems::from(format!("request body is no layer: {error}")))?;
        let description = body.description.unwrap_or_default();
        if description.len() > DESCRIPTION_BYTES_MAX {
            let most = format!("Description must have at most {DESCRIPTION_BYTES_MAX} bytes");
            return Err(Problems::from(most).into());
        }
        let zip = body.content.and_then(|content| content.zip_file).filter(|zip| !zip.is_empty());
        let Some(zip) = zip else {
            return Err(Problems::from("Content.ZipFile is missing: a zip in base64".to_owned()).into());
        };
        Ok((store.put_zip(&decode_base64(&zip)?)?.code, description))
    });
    let (code, description) = stored.await?;
    let node = node.clone();
    // A task of its own: once begun it goes on when the client has gone.
    let task = tokio::spawn(async move {
        let new = NewLayer { account, name, description, code, created_secs: unix_now().as_secs() };
        let published = ask_registry(|done| node.registry.publish_layer(new, done)).await;
        unpin(&node, vec![code.sha256]).await;
        if published.is_err() {
            node.unused_code.lock().await.insert(code.sha256);
        }
        Ok(published?)
    });
    task.await.unwrap_or(Err(ChangeError::Registry(faaster_store::registry::RegistryError::Stopped)))
}

/// Deletes a version; whether it was there. Functions that use it go on with what they have.
pub(crate) async fn delete(
    node: &Arc<Node>,
    account: AccountHash,
    name: FunctionName,
    version: u64,
) -> Result<bool, ChangeError> {
    node.ready_for_changes().await?;
    let deleted = ask_registry(|done| node.registry.delete_layer(account, name, version, done)).await?;
    let Some(unused) = deleted else { return Ok(false) };
    node.unused_code.lock().await.extend(unused);
    Ok(true)
}

/// Ends pins of packages.
pub(crate) async fn unpin(node: &Node, hashes: Vec<CodeHash>) {
    let unpinned = node.code.run(move |store| hashes.iter().for_each(|hash| store.unpin(hash)));
    // Without the code thread there is nothing left to be removed.
    unpinned.await.ok();
}

/// What a list in a create or an update makes, on the code thread: looks the versions up and merges them. The tree is
/// pinned then.
pub(crate) fn resolve(
    store: &mut CodeStore,
    registry: &Registry,
    account: &AccountHash,
    asked: &[String],
    function: CodeHash,
) -> Result<Option<Layers>, ChangeError> {
    let mut problems = Problems::default();
    let named = parse_list(asked, account, &mut problems);
    let mut list = Vec::new();
    for (name, version) in problems.or(named)? {
        let found = faaster_store::registry::wait(|done| registry.layer(account, &name, version, done))?;
        let Some(record) = found else {
            return Err(Problems::from(format!("Layers name {name}:{version}, which does not exist")).into());
        };
        list.push(LayerUse { name, version, code: record.code });
    }
    if list.is_empty() {
        return Ok(None);
    }
    let hashes: Vec<CodeHash> = list.iter().map(|layer| layer.code.sha256).collect();
    let mut bytes = store.unpacked_bytes(&function)?;
    for hash in &hashes {
        bytes += store.unpacked_bytes(hash)?;
    }
    if bytes > UNZIPPED_BYTES_MAX {
        let text = format!(
            "function and layers have {bytes} bytes unpacked, and together at most {UNZIPPED_BYTES_MAX} are allowed"
        );
        return Err(Problems::from(text).into());
    }
    let tree = store.put_tree(&hashes)?;
    Ok(Some(Layers { list, tree }))
}
