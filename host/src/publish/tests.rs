//! The publisher against the server, over sockets.

use std::net::SocketAddr;

use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    ingest::Ingest,
    media::Sample,
    registry::{BatchLimits, Item, Registry},
    rtmp::server::{self, Settings},
};

struct Server {
    address: SocketAddr,
    registry: Registry,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
    /// Name and samples of each stream that has ended.
    streams: mpsc::UnboundedReceiver<(String, Vec<Sample>)>,
}

impl Server {
    /// On a free port, with a subscriber for each stream that is published.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (registry, shutdown) = (Registry::default(), CancellationToken::new());
        let (sender, streams) = mpsc::unbounded_channel();
        registry.observe(move |stream| {
            let mut subscription = stream.subscribe(64 << 20);
            let sender = sender.clone();
            tokio::spawn(async move {
                let limits = BatchLimits { samples: 64, bytes: 1 << 20 };
                let (mut batch, mut samples) = (Vec::new(), Vec::new());
                while subscription.recv(limits, &mut batch).await {
                    for item in batch.drain(..) {
                        match item {
                            Item::Sample(sample) => samples.push(sample),
                            Item::Tracks(_) => {}
                            Item::Gap(gap) => panic!("{gap:?}"),
                        }
                    }
                }
                let _ = sender.send((subscription.stream().name.clone(), samples));
            });
        });
        let serving = server::serve(
            listener,
            registry.clone(),
            Ingest::open_to_all(),
            Settings::default(),
            shutdown.clone(),
        );
        Self { address, registry, shutdown, served: tokio::spawn(serving), streams }
    }

    fn options(&self, streams: usize, duration_ms: Option<u64>) -> Options {
        Options {
            file: PathBuf::new(),
            url: format!("rtmp://{}/live/cam?key=1", self.address),
            speed: 0.0,
            streams,
            duration: duration_ms.map(Duration::from_millis),
            chunk_size: CHUNK_SIZE,
        }
    }

    /// Shuts the server down; all that was published.
    async fn stop(mut self) -> Vec<(String, Vec<Sample>)> {
        self.shutdown.cancel();
        self.served.await.unwrap();
        drop(self.registry);
        let mut streams = Vec::new();
        while let Some(stream) = self.streams.recv().await {
            streams.push(stream);
        }
        streams.sort_by(|a, b| a.0.cmp(&b.0));
        streams
    }
}

fn clip() -> Clip {
    let file = include_bytes!("testdata/ffmpeg-5.1.flv");
    Clip::new(flv::read(file[..].into()).unwrap()).unwrap()
}

#[tokio::test]
async fn what_is_published_arrives() {
    let server = Server::start().await;
    let report = publish(clip(), &server.options(1, None)).await.unwrap();
    assert_eq!((report.tags, report.worst_lateness_ms), (12 + 46, 0));
    let streams = server.stop().await;
    let [(name, samples)] = &streams[..] else { panic!("{streams:?}") };
    assert_eq!((name.as_str(), samples.len()), ("cam", 10 + 45));
    let sent: usize = clip().schedule(None).map(|due| due.body.len()).sum();
    assert!(report.bytes as usize > sent + 3073);
}

#[tokio::test]
async fn many_streams_repeat_the_clip_without_loss() {
    let server = Server::start().await;
    publish(clip(), &server.options(5, Some(60_000))).await.unwrap();
    let streams = server.stop().await;
    let names: Vec<_> = streams.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["cam_1", "cam_2", "cam_3", "cam_4", "cam_5"]);
    for (_, samples) in &streams {
        assert_eq!(samples, &streams[0].1);
        let video: Vec<_> = samples.iter().filter(|sample| sample.track == 1).collect();
        assert!(video.windows(2).all(|pair| pair[0].dts_ms < pair[1].dts_ms));
        assert!((59_000..60_000).contains(&video.last().unwrap().dts_ms));
    }
}

#[tokio::test]
async fn real_time_takes_its_time() {
    let server = Server::start().await;
    let mut options = server.options(2, Some(1000));
    options.speed = 5.0;
    let report = publish(clip(), &options).await.unwrap();
    assert!(report.seconds > 0.19 + 0.1, "{report:?}: the second stream starts half a group later");
    server.stop().await;
}

#[tokio::test]
async fn refusals_and_ends_by_the_server_are_errors_that_say_why() {
    let server = Server::start().await;
    let mut options = server.options(1, Some(3_600_000));
    options.speed = 1.0;
    let first = tokio::spawn({
        let options = options.clone();
        async move { publish(clip(), &options).await }
    });
    let stream = loop {
        match server.registry.get("cam") {
            Some(stream) => break stream,
            None => tokio::task::yield_now().await,
        }
    };
    let error = format!("{:#}", publish(clip(), &options).await.unwrap_err());
    assert!(
        error.contains("stream `cam`: the server refused `publish`: NetStream.Publish.BadName"),
        "{error}"
    );
    assert!(error.contains("is taken"), "{error}");

    stream.shut_down();
    let error = format!("{:#}", first.await.unwrap().unwrap_err());
    assert!(error.contains("an operator shut the stream down"), "{error}");

    let second = tokio::spawn(async move { publish(clip(), &options).await });
    while server.registry.get("cam").is_none() {
        tokio::task::yield_now().await;
    }
    server.stop().await;
    let error = format!("{:#}", second.await.unwrap().unwrap_err());
    assert!(error.contains("the server is shutting down"), "{error}");
}

#[tokio::test]
async fn nonsense_is_refused_before_anything_is_sent() {
    let options = |streams, speed, url: &str| Options {
        file: PathBuf::new(),
        url: url.into(),
        speed,
        streams,
        duration: None,
        chunk_size: CHUNK_SIZE,
    };
    for (options, message) in [
        (options(0, 1.0, "rtmp://h/a/b"), "no streams"),
        (options(1, -1.0, "rtmp://h/a/b"), "speed -1"),
        (options(1, f64::NAN, "rtmp://h/a/b"), "speed NaN"),
        (options(1, 1.0, "http://h/a/b"), "is not like rtmp://"),
    ] {
        let error = format!("{:#}", publish(clip(), &options).await.unwrap_err());
        assert!(error.contains(message), "{error}");
    }
    let error = format!("{:#}", run(options(1, 1.0, "rtmp://h/a/b")).await.unwrap_err());
    assert!(error.contains("No such file"), "{error}");
}
