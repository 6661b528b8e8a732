//! Asks an HTTP server whether somebody may publish, in the form of nginx-rtmp's `on_publish`.

use std::net::SocketAddr;

use reqwest::{Client, Url};
use tokio::{sync::Semaphore, time::timeout};

use super::{LIMIT, Refusal};
use crate::{
    events,
    rtmp::event::{PublishKind, PublishRequest},
};

/// Publishers who are asked about at once; more wait.
const AT_ONCE: usize = 32;

#[derive(Debug)]
pub(super) struct Callback {
    client: Client,
    url: Url,
    free: Semaphore,
}

impl Callback {
    pub(super) fn new(url: Url) -> Result<Self, String> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "`{}` is no scheme for it; it has to be like http://host/path",
                url.scheme()
            ));
        }
        let client = events::http_client(LIMIT, None).map_err(|error| error.to_string())?;
        Ok(Self { client, url, free: Semaphore::new(AT_ONCE) })
    }

    /// A 2xx is a yes and a 4xx a no. Anything else, and nothing, is no answer: the publisher is not to blame.
    pub(super) async fn ask(&self, request: &PublishRequest, far: SocketAddr) -> Result<(), Refusal> {
        let answer = async {
            let _permit = self.free.acquire().await.map_err(|error| error.to_string())?;
            let request = self
                .client
                .post(self.url.clone())
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form(request, far));
            let response = request.send().await.map_err(|error| events::http_reason(&error))?;
            Ok::<_, String>(response.status())
        };
        let problem = match timeout(LIMIT, answer).await {
            Ok(Ok(status)) if status.is_success() => return Ok(()),
            Ok(Ok(status)) if status.is_client_error() => return Err(Refusal::Callback(status.as_u16())),
            Ok(Ok(status)) => format!("it answers {status}"),
            Ok(Err(problem)) => problem,
            Err(_) => format!("no answer within {LIMIT:?}"),
        };
        tracing::error!("nobody may publish: publish-callback: {problem}");
        Err(Refusal::Unchecked)
    }
}

/// What is asked. The arguments of the stream's name follow, but for those that would pass for ours.
fn form(request: &PublishRequest, far: SocketAddr) -> String {
    let PublishRequest { app, name, kind, connect, .. } = request;
    let kind = match kind {
        PublishKind::Live => "live",
        PublishKind::Record => "record",
        PublishKind::Append => "append",
    };
    let addr = far.ip().to_canonical().to_string();
    let own = [
        ("call", "publish"),
        ("addr", &addr),
        ("app", app),
        ("name", name),
        ("type", kind),
        ("flashver", &connect.flash_ver),
        ("swfurl", &connect.swf_url),
        ("tcurl", &connect.tc_url),
        ("pageurl", &connect.page_url),
    ];
    let arguments = request.arguments();
    let others = arguments.iter().filter(|(key, _)| own.iter().all(|(known, _)| known != key));
    let others = others.map(|(key, value)| (key.as_str(), value.as_str()));
    let mut url = Url::parse("http://form").expect("a URL");
    url.query_pairs_mut().extend_pairs(own.into_iter().chain(others));
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        http::{StatusCode, Uri},
    };
    use tokio::net::TcpListener;

    use super::*;
    use crate::rtmp::event::ConnectInfo;

    #[tokio::test]
    async fn only_a_4xx_is_the_publisher_s_fault() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Answers what is asked for.
        let app = Router::new().fallback(async |uri: Uri| {
            uri.path().trim_matches('/').parse::<StatusCode>().unwrap_or_default()
        });
        let server = tokio::spawn(axum::serve(listener, app).into_future());
        let request = PublishRequest {
            app: "live".into(),
            name: "cam1".into(),
            query: None,
            kind: PublishKind::Live,
            connect: ConnectInfo::default(),
        };
        let (no, unchecked) = (|code| Err(Refusal::Callback(code)), Err(Refusal::Unchecked));
        for (code, expected) in [
            (200, Ok(())),
            (204, Ok(())),
            (302, unchecked.clone()),
            (403, no(403)),
            (404, no(404)),
            (500, unchecked.clone()),
            (503, unchecked),
        ] {
            let url = Url::parse(&format!("http://{address}/{code}")).unwrap();
            let answer = Callback::new(url).unwrap().ask(&request, ([10, 0, 0, 9], 5).into()).await;
            assert_eq!(answer, expected, "{code}");
        }
        server.abort();
    }

    #[test]
    fn the_form_has_what_nginx_rtmp_sends_and_can_t_be_faked() {
        let request = PublishRequest {
            app: "live".into(),
            name: "cam 1&x=y".into(),
            query: Some("token=a%20b&addr=127.0.0.1&x=1".into()),
            kind: PublishKind::Live,
            connect: ConnectInfo { tc_url: "rtmp://h/live".into(), ..ConnectInfo::default() },
        };
        let form = form(&request, ([10, 0, 0, 9], 5).into());
        let expected = "call=publish&addr=10.0.0.9&app=live&name=cam+1%26x%3Dy&type=live&flashver=&swfurl=\
            &tcurl=rtmp%3A%2F%2Fh%2Flive&pageurl=&token=a+b&x=1";
        assert_eq!(form, expected);
    }
}
