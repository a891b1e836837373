//! Layers through the registry's port: versions, what a function's list becomes, what is kept for how long.

use super::*;

/// A publish's body with a zip of these files.
fn body(files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let zip = faaster_store::pack::pack_folder(folder.path()).unwrap();
    let zip = base64::engine::general_purpose::STANDARD.encode(zip);
    format!(r#"{{"Description":"d","Content":{{"ZipFile":"{zip}"}}}}"#)
}

fn publish(bench: &Bench, name: &str, files: &[(&str, &str)]) -> serde_json::Value {
    let answer = bench.registry("POST", &format!("/v1/layers/{name}/versions"), &body(files));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn deployed_tree(bench: &Bench) -> Option<faaster_protocol::funclet::CodeHash> {
    let Some(Told::Deploy(_, deployed)) = bench.told().pop() else { panic!("no deploy") };
    deployed.layers
}

fn collect(bench: &Bench) {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2 {
        bench.runtime.block_on(deploy::collect_unused(&bench.node, &mut seen));
    }
}

#[test]
fn versions_are_published_shown_listed_and_deleted() {
    let bench = Bench::new();
    let first = publish(&bench, "base", &[("python/a.py", "1")]);
    let arn = format!("brn:cloud:faas:bj:{HASH}:layer:base");
    assert_eq!((&first["Version"], &first["LayerArn"]), (&1.into(), &arn.as_str().into()));
    assert_eq!(first["LayerVersionArn"], format!("{arn}:1"));
    assert_eq!(publish(&bench, "base", &[("python/a.py", "2")])["Version"], 2);
    publish(&bench, "other", &[("x", "1")]);
    assert_eq!(bench.registry("GET", "/v1/layers/base/versions/1", "").json(), first);
    let list = bench.registry("GET", "/v1/layers", "").json();
    let newest = |at: usize| {
        (
            list["Layers"][at]["LayerName"].clone(),
            list["Layers"][at]["LatestMatchingVersion"]["Version"].clone(),
        )
    };
    assert_eq!((newest(0), newest(1)), (("base".into(), 2.into()), ("other".into(), 1.into())));
    let versions = bench.registry("GET", "/v1/layers/base/versions", "").json();
    assert_eq!(
        (&versions["LayerVersions"][0]["Version"], &versions["LayerVersions"][1]["Version"]),
        (&2.into(), &1.into())
    );
    bench.registry("DELETE", "/v1/layers/base/versions/1", "").is(200, "");
    assert_eq!(bench.registry("DELETE", "/v1/layers/base/versions/1", "").status, 404);
    assert_eq!(bench.registry("GET", "/v1/layers/base/versions/1", "").status, 404);
    assert_eq!(publish(&bench, "base", &[("python/a.py", "1")])["Version"], 3, "numbers are not used again");
    assert_eq!(
        bench.registry_as("other", "GET", "/v1/layers", "").json()["Layers"].as_array().unwrap().len(),
        0
    );
    assert_eq!(bench.registry_as("other", "GET", "/v1/layers/base/versions/3", "").status, 404);
    assert_eq!(bench.registry_as("other", "DELETE", "/v1/layers/base/versions/3", "").status, 404);
}

#[test]
fn what_is_no_layer_is_refused_with_a_sentence() {
    let bench = Bench::new();
    for (path, body, status, said) in [
        ("/v1/layers/a.b/versions", body(&[("x", "1")]), 400, "layer name"),
        ("/v1/layers/..%2fa/versions", body(&[("x", "1")]), 400, "layer name"),
        ("/v1/layers/a/versions", "{}".to_owned(), 400, "Content.ZipFile"),
        ("/v1/layers/a/versions", "[1".to_owned(), 400, "no layer"),
        ("/v1/layers/a/versions", r#"{"Content":{"ZipFile":"UEs="}}"#.to_owned(), 400, "zip"),
        ("/v1/layers/a/versions", r#"{"Content":{"ZipFile":"***"}}"#.to_owned(), 500, "base64"),
    ] {
        let answer = bench.registry("POST", path, &body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        assert!(answer.text().contains(said), "{path} {body}: {}", answer.text());
    }
    assert_eq!(bench.registry("GET", "/v1/layers/a/versions/01", "").status, 400);
    assert!(bench.code_files().is_empty(), "{:?}", bench.code_files());
}

#[test]
fn a_function_gets_its_layers_merged_in_its_order() {
    let bench = Bench::new();
    publish(&bench, "a", &[("same", "a"), ("a", "a")]);
    publish(&bench, "b", &[("same", "b"), ("b", "b")]);
    let layers = |list: &str| with_code(&format!(r#""Layers":{list},"#), "1");
    bench.create("f", &layers(r#"["a:1","b:1"]"#));
    let forth = deployed_tree(&bench).unwrap();
    let read = |hash: &faaster_protocol::funclet::CodeHash, name: &str| {
        std::fs::read_to_string(bench.data.path().join("code").join(hash.to_string()).join(name)).unwrap()
    };
    assert_eq!(
        (read(&forth, "same"), read(&forth, "a"), read(&forth, "b")),
        ("b".into(), "a".into(), "b".into())
    );
    let full = format!(r#"["brn:cloud:faas:bj:{HASH}:layer:b:1","a:1"]"#);
    bench.registry("PUT", "/v1/functions/f", &format!(r#"{{"Layers":{full}}}"#)).is(200, "");
    let back = deployed_tree(&bench).unwrap();
    assert_eq!(read(&back, "same"), "a");
    let shown = bench.registry("GET", "/v1/functions/f", "").json();
    assert_eq!(shown["Configuration"]["Layers"][0]["Arn"], format!("brn:cloud:faas:bj:{HASH}:layer:b:1"));
    bench.registry("PUT", "/v1/functions/f", r#"{"MemorySize":256}"#).is(200, "");
    assert_eq!(deployed_tree(&bench), Some(back), "what is not said stays");
    bench.registry("PUT", "/v1/functions/f", r#"{"Layers":[]}"#).is(200, "");
    assert_eq!(deployed_tree(&bench), None);
    assert_eq!(
        bench.registry("GET", "/v1/functions/f", "").json()["Configuration"]["Layers"],
        serde_json::Value::Null
    );
}

#[test]
fn lists_that_cannot_be_are_refused_and_change_nothing() {
    let bench = Bench::new();
    publish(&bench, "a", &[("x", "1")]);
    publish(&bench, "a", &[("x", "2")]);
    bench.create("f", &with_code("", "1"));
    bench.told();
    let before = bench.code_files();
    for (list, said) in [
        (r#"["none:1"]"#, "none:1, which does not exist"),
        (r#"["a:3"]"#, "a:3, which does not exist"),
        (r#"["a:1","a:2"]"#, "twice"),
        (r#"["a"]"#, "Layers must be"),
        (r#"["a:1","b:1","c:1","d:1","e:1","f:1"]"#, "at most 5"),
    ] {
        let answer = bench.registry("PUT", "/v1/functions/f", &format!(r#"{{"Layers":{list}}}"#));
        assert_eq!(answer.status, 400, "{list}: {}", answer.text());
        assert!(answer.text().contains(said), "{list}: {}", answer.text());
        let created =
            bench.registry("POST", "/v1/functions/g", &with_code(&format!(r#""Layers":{list},"#), "1"));
        assert_eq!(created.status, 400, "{list}");
    }
    assert!(bench.told().is_empty());
    assert_eq!(bench.code_files(), before);
}

#[test]
fn a_layer_that_is_deleted_stays_for_those_who_use_it() {
    let bench = Bench::new();
    publish(&bench, "a", &[("x", "a")]);
    publish(&bench, "b", &[("x", "b")]);
    bench.create("f", &with_code(r#""Layers":["a:1","b:1"],"#, "1"));
    let tree = deployed_tree(&bench).unwrap();
    // Function and two layers with their zips, and what was merged.
    assert_eq!(bench.code_files().len(), 7);
    for layer in ["a", "b"] {
        bench.registry("DELETE", &format!("/v1/layers/{layer}/versions/1"), "").is(200, "");
    }
    collect(&bench);
    assert_eq!(bench.code_files().len(), 7);
    bench.registry("PUT", "/v1/functions/f", r#"{"MemorySize":256}"#).is(200, "");
    assert_eq!(deployed_tree(&bench), Some(tree));
    // The next engine finds it as well, merged anew if it has to be.
    let code = bench.data.path().join("code");
    std::fs::remove_dir_all(code.join(tree.to_string())).unwrap();
    let data = bench.data.path().to_owned();
    let Bench { data: kept, node, controller, registry, runtime, .. } = bench;
    drop((node, controller, registry, runtime));
    let mut next = looping::open_when_closed(&data);
    drop(next.code.bring_back(tree, None).unwrap());
    assert_eq!(std::fs::read_to_string(code.join(tree.to_string()).join("x")).unwrap(), "b");
    drop(kept);
}

#[test]
fn what_nobody_uses_any_more_goes() {
    let bench = Bench::new();
    publish(&bench, "a", &[("x", "a")]);
    publish(&bench, "b", &[("x", "b")]);
    bench.create("f", &with_code(r#""Layers":["a:1","b:1"],"#, "1"));
    bench.registry("DELETE", "/v1/functions/f", "").is(200, "");
    collect(&bench);
    assert_eq!(bench.code_files().len(), 4, "the layers themselves: {:?}", bench.code_files());
    bench.registry("DELETE", "/v1/layers/a/versions/1", "").is(200, "");
    bench.registry("DELETE", "/v1/layers/b/versions/1", "").is(200, "");
    collect(&bench);
    assert!(bench.code_files().is_empty());
}
