//! The sockets of the control plane. A connection is one task, and all that a client can make it hold is bounded.

mod ascii;
mod http;
mod lines;
mod seats;
mod socket;

pub use ascii::{serve_ascii, serve_json};
pub use http::serve_http;

use std::{net::SocketAddr, time::Duration};

use tokio::net::{TcpListener, TcpStream};

/// The next connection. What goes wrong before one is there is logged, and costs a pause.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((socket, far)) => {
                // Replies are written whole, so there is nothing to collect.
                let _ = socket.set_nodelay(true);
                return (socket, far);
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection to the control plane");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
