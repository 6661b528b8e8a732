//! Who gets in.

use serde_json::json;

use super::*;
use crate::{
    rtmp::event::{ConnectInfo, PublishKind},
    store::{Change, Table},
};

fn request(name: &str, query: Option<&str>) -> PublishRequest {
    PublishRequest {
        app: "live".into(),
        name: name.into(),
        query: query.map(str::to_owned),
        kind: PublishKind::Live,
        connect: ConnectInfo::default(),
    }
}

fn open(settings: Settings, store: &Store) -> Result<Ingest, IngestError> {
    Ingest::open(settings, Events::default(), store.clone(), ConfigIds::open(store).unwrap())
}

fn far(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 5).into()
}

#[tokio::test]
async fn an_ingest_point_leads_from_its_key_to_its_name_and_keeps_others_off() {
    let store = Store::in_memory();
    let ingest = open(Settings::default(), &store).unwrap();
    assert_eq!(ingest.admit(&request("cam1", None), far(1)).await, Ok("cam1".into()));
    let point = ingest.points().create("key-of-cam1", "cam1").await.unwrap();
    assert!(matches!(ingest.points().create("key-of-cam1", "x").await, Err(PointError::Taken)));
    assert_eq!(ingest.admit(&request("key-of-cam1", None), far(1)).await, Ok("cam1".into()));
    assert_eq!(ingest.admit(&request("cam1", None), far(1)).await, Err(Refusal::Reserved));
    assert_eq!(ingest.admit(&request("cam2", None), far(1)).await, Ok("cam2".into()));

    // After a restart, with keys only.
    let settings = Settings { auth: vec![PublishAuth::IngestPoints], ..Settings::default() };
    let ingest = open(settings, &store).unwrap();
    assert_eq!(ingest.points().list(), std::slice::from_ref(&point));
    assert_eq!(ingest.admit(&request("key-of-cam1", None), far(1)).await, Ok("cam1".into()));
    assert_eq!(ingest.admit(&request("cam2", None), far(1)).await, Err(Refusal::NoPoint));
    assert_eq!(ingest.points().remove_id(point.config_id).await.unwrap(), point);
    assert!(matches!(ingest.points().remove("key-of-cam1").await, Err(PointError::Unknown)));
    let next = ingest.points().create("another-key", "cam1").await.unwrap();
    assert!(next.config_id > point.config_id);
}

#[tokio::test]
async fn an_ingest_point_that_makes_no_sense_keeps_no_other_off() {
    let store = Store::in_memory();
    let put = |id, value| Change::put(Table::IngestPoints, id, &value);
    let good = json!({ "configId": 9, "privateStreamName": "the-key", "publicStreamName": "cam1" });
    store.apply(vec![put(1, json!({ "private": "k" })), put(2, good)]).await.unwrap();
    let points = open(Settings::default(), &store).unwrap().points().list();
    assert_eq!(points.iter().map(|point| point.config_id).collect::<Vec<_>>(), [2], "the id of its place");
}

#[tokio::test]
async fn names_that_hide_something_are_refused() {
    let ingest = open(Settings::default(), &Store::in_memory()).unwrap();
    let long = "x".repeat(256);
    for (name, words) in [
        ("", "empty"),
        (" ", "empty"),
        ("a\0b", "U+0000"),
        ("a\r\nb", "U+000D"),
        ("a\u{202e}b", "U+202E"),
        ("a\u{200b}", "U+200B"),
        (long.as_str(), "256 bytes"),
    ] {
        let refusal = ingest.admit(&request(name, None), far(1)).await.unwrap_err();
        assert!(matches!(refusal, Refusal::Name(_)) && refusal.to_string().contains(words), "{refusal}");
        assert!(ingest.points().create(name, "x").await.is_err());
        assert!(ingest.points().create("x", name).await.is_err());
    }
    for name in ["..", "-x", "con", "Ünïcödé", "a b", "../../x"] {
        assert_eq!(ingest.admit(&request(name, None), far(1)).await.as_deref(), Ok(name));
    }
}

#[tokio::test]
async fn a_token_is_read_anew_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, "right-token cam*\n").unwrap();
    let (auth, token_file) = (vec![PublishAuth::Token], Some(file.clone()));
    let ingest = open(Settings { auth, token_file, callback: None }, &Store::in_memory()).unwrap();
    let ask = async |name: &str, query| ingest.admit(&request(name, query), far(1)).await;
    assert_eq!(ask("cam1", Some("a=b&token=right%2Dtoken")).await, Ok("cam1".into()));
    assert_eq!(ask("cam1", Some("token=wrong-token")).await, Err(Refusal::Token));
    assert_eq!(ask("cam1", None).await, Err(Refusal::Token));
    assert_eq!(ask("other", Some("token=right-token")).await, Err(Refusal::Token));
    std::fs::write(&file, "").unwrap();
    assert_eq!(ask("cam1", Some("token=right-token")).await, Err(Refusal::Token));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(ask("cam1", Some("token=right-token")).await, Err(Refusal::Unchecked));
}

#[tokio::test(start_paused = true)]
async fn who_fails_too_often_has_to_wait() {
    let settings = Settings { auth: vec![PublishAuth::IngestPoints], ..Settings::default() };
    let ingest = open(settings, &Store::in_memory()).unwrap();
    ingest.points().create("the-key", "cam1").await.unwrap();
    for i in 0..10 {
        let refusal = ingest.admit(&request(&format!("guess{i}"), None), far(1)).await;
        assert_eq!(refusal, Err(Refusal::NoPoint));
    }
    let refusal = ingest.admit(&request("the-key", None), far(1)).await.unwrap_err();
    assert!(matches!(refusal, Refusal::TooMany(_)), "{refusal}");
    assert_eq!(ingest.admit(&request("the-key", None), far(2)).await, Ok("cam1".into()));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(ingest.admit(&request("the-key", None), far(1)).await, Ok("cam1".into()));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let store = Store::in_memory();
    let (file, url) = (Some(PathBuf::from("/no/tokens")), Some("http://h/".to_owned()));
    let table = [
        (vec![PublishAuth::Open, PublishAuth::Token], file.clone(), None, "must not go together"),
        (vec![PublishAuth::Token], None, None, "publish-token-file is needed"),
        (vec![], file.clone(), None, "does nothing"),
        (vec![PublishAuth::Token], file, None, "/no/tokens"),
        (vec![PublishAuth::Callback], None, None, "publish-callback is needed"),
        (vec![], None, url, "does nothing"),
        (vec![PublishAuth::Callback], None, Some("ftp://h/".into()), "ftp"),
        (vec![PublishAuth::Callback], None, Some("h".into()), "publish-callback"),
    ];
    for (auth, token_file, callback, words) in table {
        let error = open(Settings { auth, token_file, callback }, &store).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn a_mask_shows_little() {
    assert_eq!(["", "short", "secret-of-cam1", "äöüäöüäö"].map(mask), ["***", "***", "se***", "äö***"]);
}
