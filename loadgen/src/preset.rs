//! Known APIs: what a call of a function looks like in each.
//!
//! Owns: paths, headers and the source of credentials. Must not know: how requests are written or sent.

use clap::{Args, ValueEnum};

use crate::sign::{Credentials, Identity, Scope};
use crate::target::Target;

/// Account that FaaSter's documents use, and that this engine assumes of whoever does not say.
pub const FAASTER_ACCOUNT: &str = "df391b08c64c426a81645468c75163a5";
/// What is called where nothing else is said.
const LATEST: &str = "$LATEST";
/// AWS's own default.
const REGION: &str = "us-east-1";
/// Event of a call where none is given.
const EVENT: &[u8] = b"{}";

/// The API that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Api {
    /// Any: the URL is asked for as it is.
    Url,
    /// Calls of a function of a FaaSter engine; the URL is that of its controller.
    Faaster,
    /// Calls of a Lambda function, path style, signed with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    Lambda,
}

/// Flags of the API.
#[derive(Debug, Clone, Args)]
pub struct PresetFlags {
    /// The API behind the URL.
    #[arg(long, value_enum, default_value_t = Api::Url)]
    pub target: Api,
    /// Function to call: a name, BRN or ARN. With --template one of many: f{{uniform:100}}, f{{zipf:100}}.
    #[arg(long, value_name = "NAME")]
    pub function: Option<String>,
    /// Version or alias of it. Default: $LATEST.
    #[arg(long)]
    pub qualifier: Option<String>,
    /// Account that calls (faaster).
    #[arg(long, default_value = FAASTER_ACCOUNT)]
    pub account: String,
    /// Region that requests are signed for (lambda). Default: AWS_REGION, AWS_DEFAULT_REGION or us-east-1.
    #[arg(long)]
    pub region: Option<String>,
}

/// What can be wrong with a preset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresetError {
    #[error("--target {0} calls a function: name it with --function")]
    NoFunction(&'static str),
    #[error("--function is for --target faaster and --target lambda: with a plain URL, write the whole path")]
    FunctionWithoutApi,
    #[error(
        "--target {api} makes the path itself: give the address alone, like http://127.0.0.1:8001, not {path:?}"
    )]
    Path { api: &'static str, path: String },
    #[error(
        "--function {0:?} is no name: letters, digits, -, _, and : $ / in a BRN or ARN; placeholders need --template"
    )]
    Function(String),
    #[error("--qualifier {0:?} is neither a version nor an alias: letters, digits, - and _, or $LATEST")]
    Qualifier(String),
    #[error("--qualifier is in the BRN already")]
    QualifierTwice,
    #[error("--target {0} calls with POST: leave --method out")]
    Method(&'static str),
    #[error(
        "{0} is not set: --target lambda signs its requests, and takes the credentials from the environment"
    )]
    NoCredentials(&'static str),
}

/// A call in the API, and what comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Path and query.
    pub path: String,
    /// Before those of the user.
    pub headers: Vec<String>,
    pub identity: Option<Identity>,
}

impl Api {
    fn name(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Faaster => "faaster",
            Self::Lambda => "lambda",
        }
    }
}

impl PresetFlags {
    /// The call that the flags describe; `None` for a plain URL. `setting` reads the environment.
    ///
    /// # Errors
    /// What is missing or too much.
    pub fn call(
        &self,
        target: &Target,
        method: Option<&str>,
        setting: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Call>, PresetError> {
        let name = self.target.name();
        if self.target == Api::Url {
            return if self.function.is_some() { Err(PresetError::FunctionWithoutApi) } else { Ok(None) };
        }
        if target.path != "/" {
            return Err(PresetError::Path { api: name, path: target.path.clone() });
        }
        if method.is_some_and(|method| method != "POST") {
            return Err(PresetError::Method(name));
        }
        let function = self.function.as_deref().ok_or(PresetError::NoFunction(name))?;
        check_function(function)?;
        if let Some(qualifier) = &self.qualifier {
            check_qualifier(qualifier)?;
        }
        let call = if self.target == Api::Faaster {
            self.faaster(function)?
        } else {
            self.lambda(function, setting)?
        };
        Ok(Some(call))
    }

    fn faaster(&self, function: &str) -> Result<Call, PresetError> {
        // A BRN says which version it means; a bare name does not, and FaaSter refuses it without.
        let query = match (function.starts_with("brn:"), self.qualifier.as_deref()) {
            (true, Some(_)) => return Err(PresetError::QualifierTwice),
            (true, None) => String::new(),
            (false, qualifier) => format!("?Qualifier={}", encoded(qualifier.unwrap_or(LATEST), b"")),
        };
        let path = format!("/v1/functions/{}/invocations{query}", encoded(function, b":$"));
        let headers = vec![format!("X-easyfaas-Account-Id: {}", self.account)];
        Ok(Call { path, headers, identity: None })
    }

    fn lambda(&self, function: &str, setting: &dyn Fn(&str) -> Option<String>) -> Result<Call, PresetError> {
        let query = self.qualifier.as_deref().map(|it| format!("?Qualifier={}", encoded(it, b"")));
        let path = format!(
            "/2015-03-31/functions/{}/invocations{}",
            encoded(function, b""),
            query.unwrap_or_default()
        );
        let given = |name: &str| setting(name).filter(|value| !value.is_empty());
        let needed = |name: &'static str| given(name).ok_or(PresetError::NoCredentials(name));
        let credentials = Credentials {
            access_key: needed("AWS_ACCESS_KEY_ID")?,
            secret_key: needed("AWS_SECRET_ACCESS_KEY")?,
            session_token: given("AWS_SESSION_TOKEN"),
        };
        let region = self.region.clone().or_else(|| given("AWS_REGION"));
        let region = region.or_else(|| given("AWS_DEFAULT_REGION")).unwrap_or_else(|| REGION.to_owned());
        let scope = Scope { region, service: "lambda".to_owned() };
        Ok(Call { path, headers: Vec::new(), identity: Some(Identity { credentials, scope }) })
    }
}

/// The event of a call: what the user gave, or an empty object.
pub fn event(body: Option<Vec<u8>>) -> Vec<u8> {
    body.unwrap_or_else(|| EVENT.to_vec())
}

/// Letters of names, BRNs, ARNs and placeholders; the server checks the rest.
fn check_function(function: &str) -> Result<(), PresetError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:$/".contains(&byte);
    let mut parts = function.split("{{");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let after = part.split_once("}}").ok_or_else(|| PresetError::Function(function.to_owned()))?.1;
        plain.push_str(after);
    }
    // One that is all placeholder has no letters of its own.
    if !function.is_empty() && plain.bytes().all(fits) {
        return Ok(());
    }
    Err(PresetError::Function(function.to_owned()))
}

fn check_qualifier(qualifier: &str) -> Result<(), PresetError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if qualifier == LATEST || (!qualifier.is_empty() && qualifier.bytes().all(fits)) {
        return Ok(());
    }
    Err(PresetError::Qualifier(qualifier.to_owned()))
}

/// Percent-encodes what is no plain letter; placeholders stay as they are.
fn encoded(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, after) = after.split_once("}}").unwrap_or((after, ""));
        encode_into(&mut out, before, kept);
        out.push_str(&format!("{{{{{inside}}}}}"));
        rest = after;
    }
    encode_into(&mut out, rest, kept);
    out
}

fn encode_into(out: &mut String, text: &str, kept: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(target: Api, function: Option<&str>, qualifier: Option<&str>) -> PresetFlags {
        PresetFlags {
            target,
            function: function.map(str::to_owned),
            qualifier: qualifier.map(str::to_owned),
            account: FAASTER_ACCOUNT.to_owned(),
            region: None,
        }
    }

    fn setting(name: &str) -> Option<String> {
        let found = match name {
            "AWS_ACCESS_KEY_ID" => "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY" => "secret",
            "AWS_REGION" => "",
            "AWS_DEFAULT_REGION" => "eu-north-1",
            _ => return None,
        };
        Some(found.to_owned())
    }

    fn call(flags: &PresetFlags, url: &str) -> Result<Option<Call>, PresetError> {
        flags.call(&Target::parse(url).unwrap(), None, &setting)
    }

    fn path(api: Api, function: &str, qualifier: Option<&str>) -> String {
        call(&flags(api, Some(function), qualifier), "http://127.0.0.1:1").unwrap().unwrap().path
    }

    #[test]
    fn calls_have_the_path_of_their_api() {
        let brn = "brn:cloud:faas:bj:8f6e5a28c663957ea04522547a66d08f:function:f:$LATEST";
        let arn = "arn:aws:lambda:us-east-1:123456789012:function:f";
        for (api, function, qualifier, wanted) in [
            (Api::Faaster, "f", None, "/v1/functions/f/invocations?Qualifier=%24LATEST".to_owned()),
            (Api::Faaster, "f", Some("3"), "/v1/functions/f/invocations?Qualifier=3".to_owned()),
            (Api::Faaster, brn, None, format!("/v1/functions/{brn}/invocations")),
            (
                Api::Faaster,
                "f{{uniform:9}}-x",
                None,
                "/v1/functions/f{{uniform:9}}-x/invocations?Qualifier=%24LATEST".to_owned(),
            ),
            (Api::Lambda, "f", None, "/2015-03-31/functions/f/invocations".to_owned()),
            (Api::Lambda, "f", Some("live"), "/2015-03-31/functions/f/invocations?Qualifier=live".to_owned()),
            (
                Api::Lambda,
                arn,
                None,
                format!("/2015-03-31/functions/{}/invocations", arn.replace(':', "%3A")),
            ),
        ] {
            assert_eq!(path(api, function, qualifier), wanted);
        }
    }

    #[test]
    fn who_calls_comes_with_the_call() {
        let faaster = call(&flags(Api::Faaster, Some("f"), None), "unix:/s").unwrap().unwrap();
        assert_eq!(faaster.headers, [format!("X-easyfaas-Account-Id: {FAASTER_ACCOUNT}")]);
        assert_eq!(faaster.identity, None);
        let lambda = call(&flags(Api::Lambda, Some("f"), None), "http://127.0.0.1:1/").unwrap().unwrap();
        let scope = Scope { region: "eu-north-1".to_owned(), service: "lambda".to_owned() };
        assert_eq!(lambda.identity.map(|it| it.scope), Some(scope));
        let region = PresetFlags { region: Some("x".to_owned()), ..flags(Api::Lambda, Some("f"), None) };
        let identity = call(&region, "http://127.0.0.1:1/").unwrap().unwrap().identity;
        assert_eq!(identity.unwrap().scope.region, "x");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let (url, refused) =
            ("http://127.0.0.1:1/", |flags: &PresetFlags, url: &str| call(flags, url).unwrap_err());
        assert_eq!(refused(&flags(Api::Url, Some("f"), None), url), PresetError::FunctionWithoutApi);
        assert_eq!(refused(&flags(Api::Lambda, None, None), url), PresetError::NoFunction("lambda"));
        let path = PresetError::Path { api: "faaster", path: "/x".to_owned() };
        assert_eq!(refused(&flags(Api::Faaster, Some("f"), None), "http://127.0.0.1:1/x"), path);
        for bad in ["", "a b", "f?x", "f{{uniform:9", "é"] {
            let wanted = PresetError::Function(bad.to_owned());
            assert_eq!(refused(&flags(Api::Faaster, Some(bad), None), url), wanted, "{bad}");
        }
        let both = refused(&flags(Api::Faaster, Some("brn:x"), Some("1")), url);
        assert_eq!(both, PresetError::QualifierTwice);
        let qualifier = refused(&flags(Api::Faaster, Some("f"), Some("a&b")), url);
        assert_eq!(qualifier, PresetError::Qualifier("a&b".to_owned()));
        let target = Target::parse(url).unwrap();
        let lambda = flags(Api::Lambda, Some("f"), None);
        let method = lambda.call(&target, Some("PUT"), &setting);
        assert_eq!(method, Err(PresetError::Method("lambda")));
        let missing =
            lambda.call(&target, None, &|name| setting(name).filter(|_| name != "AWS_SECRET_ACCESS_KEY"));
        assert_eq!(missing, Err(PresetError::NoCredentials("AWS_SECRET_ACCESS_KEY")));
    }
}
