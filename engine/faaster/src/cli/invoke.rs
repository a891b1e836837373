//! `faaster invoke`: calls a function and prints its answer as it came.
//!
//! Owns: the call. Must not know: how the engine finds an instance.

use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::client::{Answer, Ask, Client, INVOKE_TIMEOUT, Port, Target, encode};
use super::error::CliError;
use super::output::{Format, print_json, print_result, remark};
use crate::exit::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct InvokeArguments {
    /// Name or BRN of the function
    #[arg(value_name = "NAME")]
    function: String,
    /// Event: JSON, @FILE, or - for standard input
    #[arg(short, long, value_name = "JSON|@FILE|-")]
    data: Option<String>,
    /// Also show what the call printed, on standard error
    #[arg(long)]
    tail: bool,
    /// Version to call, where NAME is no BRN
    #[arg(long, default_value = "$LATEST", value_name = "VERSION")]
    qualifier: String,
    /// Do not wait for the answer
    #[arg(long, conflicts_with = "tail")]
    event: bool,
    #[command(flatten)]
    target: Target,
}

/// # Errors
/// The engine refused the call, or does not answer. An error of the function is no error here but an outcome.
pub(crate) fn run(arguments: InvokeArguments, format: Format) -> Result<Outcome, CliError> {
    let event = event(arguments.data.as_deref())?;
    let mut target = format!("/v1/functions/{}/invocations", encode(&arguments.function));
    if !arguments.function.starts_with("brn:") {
        target += &format!("?Qualifier={}", encode(&arguments.qualifier));
    }
    let mut headers = vec![("Content-Type", "application/json")];
    if arguments.event {
        headers.push(("X-easyfaas-Invoke-Type", "event"));
    }
    if arguments.tail {
        headers.push(("Log-Type", "Tail"));
    }
    let ask =
        Ask { headers: &headers, patience: INVOKE_TIMEOUT, ..Ask::new(Port::Controller, "POST", &target) };
    let answer = Client::new(arguments.target).send(&ask, &event)?.accepted()?;
    let failed = answer.header("X-easyfaas-Function-Error").map(str::to_owned);
    match format {
        Format::Json => print_json(&describe(&answer, failed.as_deref()))?,
        Format::People => {
            print_result(&answer.body)?;
            if let Some(log) = log_of(&answer) {
                remark(log.trim_end());
            }
            if failed.is_some() {
                remark(&format!("faaster: the function {} failed", arguments.function));
            }
        }
    }
    Ok(if failed.is_some() { Outcome::Failed } else { Outcome::Success })
}

fn event(data: Option<&str>) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there are too many, without reading on for ever.
    let limit = faaster_limits::SYNC_REQUEST_BYTES_MAX as u64 + 1;
    match data {
        None => return Ok(b"{}".to_vec()),
        Some("-") => {
            let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
            read.map_err(|source| CliError::Read { path: "standard input".into(), source })?;
        }
        Some(text) => match text.strip_prefix('@') {
            None => bytes = text.as_bytes().to_vec(),
            Some(file) => {
                let fail = |source| CliError::Read { path: Path::new(file).to_owned(), source };
                let file = std::fs::File::open(file).map_err(fail)?;
                file.take(limit).read_to_end(&mut bytes).map_err(fail)?;
            }
        },
    }
    if bytes.len() > faaster_limits::SYNC_REQUEST_BYTES_MAX {
        let most = faaster_limits::SYNC_REQUEST_BYTES_MAX;
        return Err(CliError::Usage(format!(
            "the event is larger than {most} bytes, the most that a call takes"
        )));
    }
    Ok(bytes)
}

fn log_of(answer: &Answer) -> Option<String> {
    let bytes = STANDARD.decode(answer.header("X-Bce-Log-Result")?).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn describe(answer: &Answer, failed: Option<&str>) -> Value {
    let text = || Value::from(String::from_utf8_lossy(&answer.body));
    json!({
        "status": answer.status,
        "requestId": answer.header("X-easyfaas-Request-Id"),
        "functionError": failed,
        "durationMs": answer.header("X-easyfaas-Function-Exectime").and_then(|text| text.parse::<f64>().ok()),
        "log": log_of(answer),
        "payload": serde_json::from_slice(&answer.body).unwrap_or_else(|_| text()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_from_the_line_or_a_file() {
        assert_eq!(event(None).unwrap(), b"{}");
        assert_eq!(event(Some("{\"a\":1}")).unwrap(), b"{\"a\":1}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[1]").unwrap();
        assert_eq!(event(Some(&format!("@{}", file.path().display()))).unwrap(), b"[1]");
        assert!(matches!(event(Some("@/no/such/file")), Err(CliError::Read { .. })));
    }

    #[test]
    fn an_event_over_the_limit_is_not_sent() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(faaster_limits::SYNC_REQUEST_BYTES_MAX as u64 + 1).unwrap();
        let error = event(Some(&format!("@{}", file.path().display()))).unwrap_err();
        assert!(matches!(error, CliError::Usage(_)), "{error}");
    }
}
