//! The server's own folder on a disk that gets full: what can't be kept is refused, and things are well again when
//! there is room.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink};

use crate::{
    process::until,
    server::Server,
    volume::{Kind, Volume, may_mount},
};

/// Ids of the recordings that a server has.
fn ids(server: &Server) -> BTreeSet<u64> {
    let configs = server.json("listConfig", "")["data"]["record"].take();
    configs.as_array().unwrap().iter().map(|config| config["configId"].as_u64().unwrap()).collect()
}

#[test]
fn orders_are_refused_while_the_data_folder_is_full_and_taken_when_it_is_not() {
    if !may_mount() {
        return;
    }
    let volume = Volume::mount(Kind::Ext4, 96);
    let mut server = Server::start_with(|dir| {
        fs::remove_dir(dir.join("data")).unwrap();
        symlink(volume.path(), dir.join("data")).unwrap();
        Vec::new()
    });
    let mut kept = BTreeSet::new();
    let large = "x".repeat(12_000);
    let mut order = |server: &Server| {
        let line = format!("record localStreamName=cam pathToFile=cam type=flv _large={large}");
        let reply = server.cli(&line);
        if reply.success {
            kept.insert(reply.value("configId").parse::<u64>().unwrap());
        }
        reply
    };
    assert!(order(&server).success);
    volume.fill();
    let refused = until("an order that is refused", || Some(order(&server)).filter(|reply| !reply.success));
    assert!(refused.description.starts_with("Unable to record stream: it can't be kept: "), "{refused:?}");
    assert!(!order(&server).success);
    volume.free();
    until("an order that is taken again", || order(&server).success.then_some(()));
    assert_eq!(ids(&server), kept);
    server.kill();
    let server = Server::start_in(server.home(), &[]);
    assert_eq!(ids(&server), kept);
}
