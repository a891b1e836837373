//! The glommio baseline: the same hello over keep-alive HTTP as `ring_hello`, on glommio's executor.
//!
//! Owns: one pinned executor and its connections. Must not know: anything of the engine.
//! It exists so that DESIGN section 3 (our ring loop instead of glommio) can be checked again with one command.
#![forbid(unsafe_code)]

use anyhow::Context;
use clap::Parser;
use faaster_bench::{ANSWER, Inbox};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

#[derive(Debug, Parser)]
#[command(about = "Answers Hello world! over HTTP, on glommio")]
struct Args {
    /// Address to listen on, for instance 127.0.0.1:9000.
    #[arg(long)]
    listen: String,
    /// Core that the executor is pinned to.
    #[arg(long, default_value_t = 0)]
    core: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let executor = LocalExecutorBuilder::new(Placement::Fixed(args.core))
        .name("hello")
        .spawn(move || serve(args.listen))
        .map_err(|error| anyhow::anyhow!("starting the executor: {error}"))?;
    executor.join().map_err(|error| anyhow::anyhow!("running the executor: {error}"))?
}

async fn serve(listen: String) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen.as_str())
        .map_err(|error| anyhow::anyhow!("listening on {listen}: {error}"))?;
    loop {
        let stream =
            listener.accept().await.map_err(|error| anyhow::anyhow!("accepting a connection: {error}"))?;
        glommio::spawn_local(async move {
            if let Err(error) = converse(stream).await {
                eprintln!("glommio_hello: closing a connection: {error:#}");
            }
        })
        .detach();
    }
}

async fn converse(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true).map_err(|error| anyhow::anyhow!("setting TCP_NODELAY: {error}"))?;
    let mut inbox = Inbox::default();
    let mut out = Vec::new();
    loop {
        let read = match stream.read(inbox.spare()).await {
            // The load generator closes with a reset at its end: that is how a connection ends, not a failure.
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            outcome => outcome.context("reading")?,
        };
        let requests = inbox.take_requests(read)?;
        if requests == 1 {
            stream.write_all(ANSWER).await.context("writing")?;
        } else {
            out.clear();
            (0..requests).for_each(|_| out.extend_from_slice(ANSWER));
            stream.write_all(&out).await.context("writing")?;
        }
    }
}
