//! FaaSter's recorded answers of the registry and of the controller's plain routes (numbers are the record's cases).

use super::*;

fn brn(rest: &str) -> String {
    format!("brn:cloud:faas:bj:{HASH}:function:{rest}")
}

#[test]
fn plain_routes_answer_as_recorded() {
    let bench = Bench::new();
    let text = |answer: Answer| assert_eq!(answer.headers["Content-Type"], "text/plain; charset=utf-8");
    text(bench.registry("GET", "/hello", "").is(200, "hello controller stubs")); // 1
    text(bench.controller("GET", "/healthz").is(200, "hello controller")); // 39
    text(bench.registry("GET", "/nope", "").is(404, "Not Found")); // 37
    text(bench.controller("GET", "/nope").is(404, "Not Found")); // 61
    text(bench.controller("POST", "/2015-03-31/functions/function/invocations").is(404, "Not Found")); // 63
    let alias = format!("/v1/functions/aliases/{}", brn("testHelloWorld:prod"));
    text(bench.registry("GET", &alias, "").is(404, "Not Found")); // 32
    text(bench.registry("GET", "/v1/runtimes/java8/configuration", "").is(500, "invaild runtime java8")); // 31
    let node = bench.registry("GET", "/v1/runtimes/nodejs10/configuration", "");
    text(node.is(
        200,
        r#"{"Name":"nodejs10","Bin":"/usr/bin/nodejs","Path":"/runtimes/nodejs","Args":["/var/runtime/bootstrap"]}"#,
    )); // 29, with this node's interpreter
}

#[test]
fn wrong_methods_are_told_the_right_ones() {
    let bench = Bench::new();
    let invocations = format!("/v1/functions/{}/invocations", brn("testHelloWorld:1"));
    let answer = bench.controller("GET", &invocations).is(405, ""); // 60
    assert_eq!(answer.headers, BTreeMap::from([("Allow".into(), "OPTIONS, POST".into())]));
    let answer = bench.controller("OPTIONS", &invocations).is(200, "");
    assert_eq!(answer.headers["Allow"], "OPTIONS, POST");
    let answer = bench.registry("PATCH", "/v1/functions/f", "").is(405, ""); // 33, with more methods than FaaSter's
    assert_eq!(answer.headers["Allow"], "DELETE, GET, HEAD, OPTIONS, POST, PUT");
    assert_eq!(bench.controller("DELETE", "/healthz").is(405, "").headers["Allow"], "GET, HEAD, OPTIONS");
}

#[test]
fn the_quick_start_is_stored_and_shown() {
    let bench = Bench::new();
    // 2 and 3, with the very zip: its base64 is in the store's tests, here the default code stands for it.
    let body = r#"{"Version":"1","Description":"stubs create","Runtime":"nodejs10","Timeout":5,"MemorySize":128,"Handler":"index.handler","PodConcurrentQuota":10}"#;
    bench.create("testHelloWorld", body);
    bench.create("testHelloWorld", body);
    let shown = bench.registry("GET", &format!("/v1/functions/{}", brn("testHelloWorld:1")), ""); // 4
    assert_eq!((shown.status, shown.headers["Content-Type"].as_str()), (200, "text/plain; charset=utf-8"));
    let meta = shown.json();
    let configuration = &meta["Configuration"];
    let text = |name: &str| configuration[name].as_str().unwrap().to_owned();
    let expected = format!(
        r#"{{"Code":{{"_":{{}},"Location":{},"RepositoryType":"filesystem","LogType":""}},"Concurrency":{{"_":{{}},"ReservedConcurrentExecutions":null,"AccountReservedSum":0}},"Configuration":{{"_":{{}},"CodeSha256":"{}","CodeSize":{},"DeadLetterConfig":null,"Description":"stubs create","Environment":{{"_":{{}},"Error":null,"Variables":null}},"FunctionArn":"{}","FunctionName":"testHelloWorld","Handler":"index.handler","KMSKeyArn":null,"LastModified":"{}","Layers":null,"MasterArn":null,"MemorySize":128,"RevisionId":null,"Role":null,"Runtime":"nodejs10","Timeout":5,"TracingConfig":null,"Version":"1","VpcConfig":null,"CommitId":"{}","Uid":"{ACCOUNT}","PodConcurrentQuota":10}},"LogConfig":{{"LogType":"","BosDir":"","Params":""}},"Tags":{{}}}}"#,
        meta["Code"]["Location"],
        text("CodeSha256"),
        configuration["CodeSize"],
        brn("testHelloWorld:1"),
        text("LastModified"),
        text("CommitId"),
    );
    assert_eq!(shown.text(), expected);
    assert!(Path::new(meta["Code"]["Location"].as_str().unwrap()).is_file(), "Location is where the zip is");
    // 5: a bare name is $LATEST, which is not there.
    let missing = format!("not found function {}", brn("testHelloWorld:$LATEST"));
    bench.registry("GET", "/v1/functions/testHelloWorld", "").is(404, &missing);
    // 25
    let missing = format!("not found function {}", brn("nope:1"));
    bench.registry("GET", &format!("/v1/functions/{}", brn("nope:1")), "").is(404, &missing);
}

#[test]
fn defaults_are_the_recorded_ones() {
    let bench = Bench::new();
    bench.create("testDefault", ""); // 7
    bench.create("testEmptyObj", "{}"); // 14
    bench.create("testUnknownField", r#"{"Nope":1}"#); // 19
    let by_name = bench.registry("GET", "/v1/functions/testDefault", ""); // 8
    let encoded = bench.registry("GET", &format!("/v1/functions/{}", brn("testDefault:%24LATEST")), ""); // 9
    let no_header = bench.send(&bench.registry, "GET", "/v1/functions/testDefault", &[], b""); // 10
    assert_eq!(by_name.text(), encoded.text());
    assert_eq!(by_name.text(), no_header.text());
    let configuration = by_name.json()["Configuration"].clone();
    assert_eq!(configuration["Runtime"], "nodejs8.5");
    assert_eq!(configuration["Description"], serde_json::Value::Null);
    assert_eq!(configuration["Version"], "$LATEST");
    assert_eq!((&configuration["Timeout"], &configuration["MemorySize"]), (&5.into(), &128.into()));
    assert_eq!(configuration.get("PodConcurrentQuota"), None, "left out when 0");
    let head = bench.registry("HEAD", "/v1/functions/testDefault", ""); // 36, which is 405 in FaaSter
    assert_eq!((head.status, head.text()), (200, by_name.text()), "the shard sends its length only");
    // 57 and 58 name the same account by the other salt.
    let bce = format!("/v1/functions/brn:bce:faas:bj:{BCE_HASH}:function:testDefault:$LATEST");
    assert_eq!(bench.registry_as(ACCOUNT, "GET", &bce, "").text(), by_name.text());
}

#[test]
fn bad_requests_are_refused_as_recorded_or_better() {
    let bench = Bench::new();
    let path = "/v1/functions/testBad";
    let broken = bench.registry("POST", path, r#"{"Version":"#); // 17
    assert_eq!(broken.status, 500);
    assert!(broken.text().starts_with("request body is not valid JSON: "), "{}", broken.text());
    let wrong = bench.registry("POST", path, r#"{"Timeout":"5"}"#); // 18
    assert_eq!(
        (wrong.status, wrong.text()),
        (500, "request body has members of the wrong type: Timeout must be a whole number, not \"5\"")
    );
    bench.registry("POST", path, r#"{"Code":"***"}"#).is(500, "illegal base64 data at input byte 0"); // 20
    let no_zip = bench.registry("POST", path, r#"{"Code":"aGVsbG8=","Version":"1"}"#); // 21, 200 in FaaSter
    assert_eq!((no_zip.status, no_zip.text()), (400, "Code is not a zip file: it is too short"));
    let runtime = bench.registry("POST", path, r#"{"Runtime":"python2.7"}"#); // 23's kind
    assert_eq!(runtime.status, 400);
    assert_eq!(
        runtime.text(),
        "Runtime \"python2.7\" is not available on this node; it has: nodejs* (1.2), python3* (1.2), bare (1.2)"
    );
    let all = bench.registry("POST", path, r#"{"Timeout":-1,"MemorySize":100000,"Version":"prod"}"#); // 121's kind
    assert_eq!(all.status, 400);
    for part in [
        "Timeout must be from 1 to 900",
        "MemorySize must be from 128 to 10240 MB, not 100000",
        "version must be",
    ] {
        assert!(all.text().contains(part), "{}", all.text());
    }
    let bare = bench.registry("POST", path, r#"{"Runtime":"bare"}"#);
    assert_eq!(
        (bare.status, bare.text()),
        (400, "Code is missing, and runtime \"bare\" has no default code")
    );
    assert!(bench.code_files().is_empty() && bench.told().is_empty(), "nothing is left of a refused create");
    let pattern = r"member must satisfy regular expression pattern: (brn:(cloud[a-zA-Z-]*)?:faas:)?([a-z]{2,5}[0-9]*:)?([0-9a-z]{32}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?";
    let moon = format!("/v1/functions/brn:moon:faas:bj:{HASH}:function:f:1");
    bench.registry("GET", &moon, "").is(400, pattern); // 26's kind
    bench.registry("POST", &moon, "{}").is(500, pattern); // 27's kind
    bench.registry("DELETE", &moon, "").is(400, pattern);
    bench.create("testPy", r#"{"Version":"1","Runtime":"python3.6"}"#); // 23
}

#[test]
fn functions_belong_to_their_account() {
    let bench = Bench::new();
    bench.registry_as(OTHER, "POST", "/v1/functions/testForeign", "{}").is(200, ""); // 13
    let hash = AccountId::parse(OTHER).unwrap().hash();
    let foreign = format!("/v1/functions/brn:cloud:faas:bj:{hash}:function:testForeign:$LATEST");
    let own = bench.registry_as(OTHER, "GET", &foreign, "");
    assert_eq!((own.status, &own.json()["Configuration"]["Uid"]), (200, &OTHER.into()));
    // 12 shows it to anybody; ours does not.
    let refused = format!(
        r#"{{"Code":"InvalidInvokeCallerException","Cause":"owner id {OTHER} caller id {ACCOUNT}","Message":"Invalid caller id","Status":403,"Type":"User"}}"#
    );
    bench.registry("GET", &foreign, "").is(403, &refused);
    bench
        .registry("GET", "/v1/functions/testForeign", "")
        .is(404, &format!("not found function {}", brn("testForeign:$LATEST")));
    for method in ["POST", "PUT", "DELETE"] {
        assert_eq!(bench.registry(method, &foreign, "{}").status, 403, "{method}");
    }
    assert_eq!(bench.registry_as(OTHER, "GET", &foreign, "").status, 200);
    let (sender, told) = channel();
    let open = Bench::with(Access::Anyone, fake_shards(sender), told);
    open.registry_as(OTHER, "POST", "/v1/functions/testForeign", "{}").is(200, "");
    assert_eq!(open.registry("GET", &foreign, "").status, 200, "simple-auth off");
    assert_eq!(open.registry("DELETE", &foreign, "").status, 403, "also then");
}
