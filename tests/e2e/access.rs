//! Tokens and TLS, from the program's own `token` to its own client.

use std::{fs, io::Write, net::TcpStream, path::Path};

use crate::{
    client::run,
    media,
    process::until,
    senders,
    server::{Server, ask_open},
};

/// Writes a certificate for this machine into a folder; returns the flags for it.
fn certificate(dir: &Path) -> Vec<String> {
    let own = rcgen::generate_simple_self_signed(["localhost", "127.0.0.1"].map(str::to_owned)).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    fs::write(&cert, own.cert.pem()).unwrap();
    fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let flag = |name: &str, path: &Path| [format!("--{name}"), path.display().to_string()];
    [flag("tls-cert", &cert), flag("tls-key", &key)].concat()
}

/// A new token, and its entry in a token file.
fn token(name: &str, role: &str) -> (String, String) {
    let (code, out, err) = run(&["token", name, "--role", role]);
    assert_eq!(code, 0, "{err}");
    let (head, entry) = out.split_once("[[token]]").unwrap();
    let token = head.lines().find(|line| line.len() == 64).unwrap().to_owned();
    (token, format!("[[token]]{entry}"))
}

#[test]
fn tokens_over_tls_from_end_to_end() {
    let ((reads, reads_entry), (operates, entry)) = (token("nagios", "read"), token("ops", "operate"));
    let mut home = None;
    let server = Server::start_with(|dir| {
        let file = dir.join("tokens.toml");
        fs::write(&file, reads_entry.clone() + &entry).unwrap();
        fs::write(dir.join("reads"), reads.clone() + "\n").unwrap();
        fs::write(dir.join("operates"), operates.clone()).unwrap();
        home = Some(dir.to_owned());
        let mut flags = certificate(dir);
        flags.extend(["--token-file".to_owned(), file.display().to_string()]);
        flags.push("--loopback-trusted=false".to_owned());
        flags
    });
    let home = home.unwrap();
    let path = |name: &str| home.join(name).display().to_string();
    let (cert, url) = (path("cert.pem"), format!("https://{}", server.address("http-cli")));
    let ask = |line: &str, token: Option<&str>| {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.extend(["--server", &url, "--ca", &cert]);
        arguments.extend(token.into_iter().flat_map(|token| ["--token-file", token]));
        run(&arguments)
    };
    let (reads_file, operates_file) = (path("reads"), path("operates"));
    let (code, _, err) = ask("streams", None);
    assert!(
        code == 1 && err.contains("a token is needed; --token-file or REELWRIGHT_TOKEN gives one"),
        "{err}"
    );
    let (code, out, err) = ask("streams", Some(&reads_file));
    assert!(code == 0 && out.starts_with("ID"), "{err}");
    let (code, _, err) = ask("record cam1 --path x", Some(&reads_file));
    assert!(code == 1 && err.contains("record needs the role `operate`, and yours is `read`"), "{err}");
    let (code, _, err) = ask("record cam1 --path x", Some(&operates_file));
    assert_eq!(code, 0, "{err}");

    // Who does not check against its certificate does not trust it.
    let (code, _, err) = run(&["streams", "--server", &url]);
    assert!(code == 4 && err.contains(&url), "{err}");
    // The text command line, in the clear: it is this machine.
    let reply = server.cli_bytes(b"version\r\n").unwrap();
    assert!(!reply.success && reply.description.starts_with("Not authenticated"), "{reply:?}");
    let text = ask_open(server.address("ascii-cli"), format!("auth token={operates}\r\nquit\r\n").as_bytes());
    assert!(text.contains("Authenticated") && text.contains("role: operate"), "{text}");

    // A token that is withdrawn is refused soon.
    fs::write(home.join("tokens.toml"), &entry).unwrap();
    until("the withdrawal", || {
        let (code, _, err) = ask("streams", Some(&reads_file));
        (code == 1 && err.contains("the token is not known")).then_some(())
    });
    assert_eq!(ask("streams", Some(&operates_file)).0, 0);
    let log = server.log();
    assert!(!log.contains(&reads) && !log.contains(&operates), "tokens in the log");
}

#[test]
fn a_listener_for_everybody_needs_tokens_and_tls() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (media, data, tokens) = (path("media"), path("data"), path("tokens.toml"));
    fs::create_dir(&media).unwrap();
    fs::write(&tokens, token("x", "admin").1).unwrap();
    for listener in ["--ascii-cli", "--json-cli", "--http-cli"] {
        let mut arguments =
            vec!["serve", "--media-root", &media, "--data-dir", &data, "--rtmp", "127.0.0.1:0"];
        for other in ["--ascii-cli", "--json-cli", "--http-cli"] {
            arguments.extend([other, if other == listener { "0.0.0.0:0" } else { "127.0.0.1:0" }]);
        }
        let (code, _, err) = run(&arguments);
        let name = listener.trim_start_matches('-');
        assert!(code == 4 && err.contains(name) && err.contains("set token-file"), "{err}");
        arguments.extend(["--token-file", &tokens]);
        let (code, _, err) = run(&arguments);
        assert!(code == 4 && err.contains(name) && err.contains("set tls-cert and tls-key"), "{err}");
    }
}

/// Most say nothing, a third send a byte now and then; on HTTP they are more than it has places for.
#[test]
fn five_hundred_idle_clients_disturb_nobody() {
    let server = Server::start();
    let _sender = senders::endless(&media::clip(), &server.url("cam1"));
    until("the stream", || server.is_live("cam1").then_some(()));
    let id = server.record("cam1", "beside", "flv", "");
    let recorded = || {
        let streams = server.json("listStreams", "")["data"].take();
        streams.as_array().and_then(|all| all.iter().find(|stream| stream["type"] == "OFRFLV")).cloned()
    };
    until("the recording", recorded);
    let mut idle: Vec<TcpStream> = (0..500)
        .map(|i| TcpStream::connect(server.address(["ascii-cli", "http-cli"][i % 2])).unwrap())
        .collect();
    for _ in 0..10 {
        for socket in idle.iter_mut().step_by(3) {
            // Those that made room for others are gone.
            let _ = socket.write_all(b"x");
        }
        assert!(server.cli("version").success);
        assert_eq!(server.json("version", "")["status"], "SUCCESS");
    }
    let before = server.video_samples("cam1");
    until("more of the stream", || (server.video_samples("cam1") > before + 25).then_some(()));
    let recording = recorded().unwrap();
    assert_eq!(recording["video"]["droppedPacketsCount"], 0, "{recording}");
    server.stop(&[id]);
}
