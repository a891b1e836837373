//! The loop: what is stored is with the shards before the node is ready, and a stop waits for them.

use faaster_shard::Notice;
use faaster_shard::api::LogChunk;

use super::*;

#[test]
fn a_restart_brings_all_functions_back_and_names_those_it_cannot_run() {
    let bench = Bench::new();
    bench.create("f", r#"{"Version":"1"}"#);
    bench.create("g", r#"{"Runtime":"python3.6"}"#);
    let Bench { runtime, node, data, controller, registry, told, .. } = bench;
    drop((runtime, node, controller, registry, told));
    // The journal thread closes the database when its last handle is gone.
    let store = open_when_closed(data.path());
    let (sender, told) = channel();
    let (commands, command_queue) = mpsc::channel(4);
    let (notices, notice_queue) = mpsc::channel(4);
    let (lines, log) = channel();
    let parts = Parts {
        registry: store.registry,
        code: store.code,
        // Python is gone.
        runtimes: runtimes(data.path())[..1].into(),
        shards: fake_shards(sender),
        code_uses: Arc::default(),
        notices: notice_queue,
        commands: command_queue,
        log: Box::new(move |line: &str| lines.send(line.to_owned()).unwrap()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let running = tokio::spawn(crate::run(config(data.path(), Access::Owner), parts));
        let deployed = until(|| told.try_iter().next()).await;
        assert!(matches!(&deployed, Told::Deploy(0, f) if *f.key == *format!("{HASH}:f:1")), "{deployed:?}");
        let Told::Deploy(_, function) = deployed else { unreachable!() };
        let line = until(|| log.try_iter().next()).await;
        assert!(
            line.contains(":function:g:$LATEST stays stored and is not served: Runtime \"python3.6\""),
            "{line}"
        );
        // A stop is heard while notices keep coming.
        let chunk = LogChunk { function, request_id: String::new(), text: b"x".to_vec() };
        notices.send(Notice::Log(chunk)).await.unwrap();
        commands.send(ControlCommand::Stop { grace: Duration::from_secs(5) }).await.unwrap();
        running.await.unwrap().unwrap();
        let drained = told.try_iter().filter(|told| matches!(told, Told::Drain)).count();
        assert_eq!(drained, 2);
    });
}

#[test]
fn the_loop_ends_when_the_shards_are_gone() {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(data.path()).unwrap();
    let (sender, _told) = channel();
    let (_commands, command_queue) = mpsc::channel(1);
    let (notices, notice_queue) = mpsc::channel(1);
    drop(notices);
    let parts = Parts {
        registry: store.registry,
        code: store.code,
        runtimes: runtimes(data.path()),
        shards: fake_shards(sender),
        code_uses: Arc::default(),
        notices: notice_queue,
        commands: command_queue,
        log: Box::new(|_| {}),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(crate::run(config(data.path(), Access::Owner), parts)).unwrap_err();
    assert_eq!(error.to_string(), "shards are gone");
}

/// Polls with a deadline.
async fn until<T>(mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing happened");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(super) fn open_when_closed(data: &Path) -> Store {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(data) {
            Ok(store) => return store,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    }
}
