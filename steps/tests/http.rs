//! Guarantee: an `http` step sends what the file says, takes only whole and expected answers, and reaches nothing inside the
//! worker's network unless that is allowed, not by a redirect either.

mod support;

use krowoc_engine::ErrorClass;
use krowoc_steps::{StepsConfig, kinds};
use serde_json::{Value, json};
use std::{sync::atomic::Ordering, time::Duration};
use support::*;

#[tokio::test]
async fn an_answer_becomes_the_output_without_its_cookies() {
    let headers = "Content-Type: application/problem+json; charset=utf-8\r\nX-One: a\r\nx-one: b\r\nSet-Cookie: session=1\r\n";
    let server = Server::fixed(201, headers, r#"{"a": [1]}"#).await;
    let config = json!({"url": server.url("/x?a=1"), "query": {"b": [2, "c d"], "c": null}, "headers": {"X-Two": 2, "X-None": null}});
    let output = output(&execute(&kinds_at(&server), "http", &context(), config).await.expect("an answer"));
    assert_eq!(
        (&output["status"], &output["body"], &output["json"], &output["bytes"]),
        (&json!(201), &json!(r#"{"a": [1]}"#), &json!({"a": [1]}), &json!(10))
    );
    assert_eq!((&output["headers"]["x-one"], &output["headers"]["set-cookie"]), (&json!("a, b"), &Value::Null));
    let seen = &server.seen()[0];
    assert!(seen.head.starts_with("GET /x?a=1&b=2&b=c+d HTTP/1.1"), "{}", seen.head);
    assert_eq!((seen.header("x-two"), seen.header("x-none"), seen.header("idempotency-key")), (Some("2"), None, None));
    assert!(seen.header("user-agent").is_some_and(|agent| agent.starts_with("krowoc/")));
}

#[tokio::test]
async fn each_kind_of_body_is_sent_with_its_type() {
    let server = Server::fixed(204, "", "").await;
    for (key, value, body, content_type) in [
        ("json", json!({"a": null}), r#"{"a":null}"#, "application/json"),
        ("json", Value::Null, "null", "application/json"),
        ("body", json!("text"), "text", "text/plain; charset=utf-8"),
        ("form", json!({"a": "x y", "b": [1, true], "c": null}), "a=x+y&b=1&b=true", "application/x-www-form-urlencoded"),
    ] {
        let config = json!({"method": "PUT", "url": server.url("/"), key: value});
        execute(&kinds_at(&server), "http", &context(), config).await.expect("an answer");
        let seen = server.seen().pop().expect("a request");
        assert_eq!((seen.body.as_str(), seen.header("content-type")), (body, Some(content_type)));
    }
}

#[tokio::test]
async fn posts_and_patches_carry_the_steps_idempotency_key() {
    let server = Server::fixed(200, "", "").await;
    let context = context();
    for (config, key) in [
        (json!({"method": "POST"}), Some(context.idempotency_key())),
        (json!({"method": "PATCH"}), Some(context.idempotency_key())),
        (json!({"method": "PUT"}), None),
        (json!({"method": "PUT", "idempotency_key": "mine"}), Some("mine".into())),
        (json!({"method": "POST", "idempotency_key": "mine"}), Some("mine".into())),
    ] {
        let mut config = config;
        config["url"] = server.url("/").into();
        execute(&kinds_at(&server), "http", &context, config.clone()).await.expect("an answer");
        assert_eq!(server.seen().pop().expect("a request").header("idempotency-key"), key.as_deref(), "{config}");
    }
}

#[tokio::test]
async fn any_item_key_makes_an_idempotency_key_of_its_own() {
    let server = Server::fixed(200, "", "").await;
    for (item, sent) in [("Müller.txt", "M%C3%BCller.txt"), ("a b\n", "a%20b%0A"), ("50%20", "50%2520"), ("a/b=[1]", "a/b=[1]")] {
        let mut context = context();
        context.path = format!("send[{item}].post");
        execute(&kinds_at(&server), "http", &context, json!({"method": "POST", "url": server.url("/")})).await.expect("an answer");
        let key = format!("{}/send[{sent}].post", context.run);
        assert_eq!(server.seen().pop().expect("a request").header("idempotency-key"), Some(key.as_str()));
    }
}

#[tokio::test]
async fn header_values_are_sent_as_utf8_and_only_control_characters_are_refused() {
    let server = Server::fixed(200, "", "").await;
    let config = |value: &str| json!({"url": server.url("/"), "headers": {"X-Name": value}, "idempotency_key": value});
    execute(&kinds_at(&server), "http", &context(), config("Jürgen 😀\t!")).await.expect("an answer");
    let seen = server.seen().pop().expect("a request");
    assert_eq!((seen.header("x-name"), seen.header("idempotency-key")), (Some("Jürgen 😀\t!"), Some("Jürgen 😀\t!")));
    for value in ["a\r\nb", "a\nb", "a\0b", "a\u{7f}b"] {
        let error = execute(&kinds_at(&server), "http", &context(), config(value)).await.expect_err("refused");
        assert_eq!(error.class, ErrorClass::InvalidRequest);
        assert!(error.message.contains("line break or a control character"), "{error}");
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn each_unwelcome_status_has_its_class_and_an_expected_one_is_success() {
    use ErrorClass::*;
    for (status, class) in [
        (302, InvalidRequest),
        (400, InvalidRequest),
        (401, Auth),
        (403, Auth),
        (404, InvalidRequest),
        (408, ServerError),
        (409, ServerError),
        (429, RateLimited),
        (500, ServerError),
        (503, Overloaded),
        (529, Overloaded),
    ] {
        let server = Server::fixed(status, "retry-after: 3\r\n", "no tok_0123456789").await;
        let config = json!({"url": server.url("/"), "headers": {"Authorization": "Bearer tok_0123456789"}});
        let error = execute(&kinds_at(&server), "http", &context(), config).await.expect_err("unwelcome");
        assert_eq!((error.class, error.retry_after.map(|d| d.as_secs())), (class, Some(3)), "{status}");
        assert_eq!(error.details.expect("details"), json!({"status": status, "body": "no ***"}));
        let config = json!({"url": server.url("/"), "expect_status": [status]});
        execute(&kinds_at(&server), "http", &context(), config).await.expect("expected");
    }
    let limits = "x-ratelimit-remaining: 4999\r\nx-ratelimit-reset: 3600\r\n";
    for status in [429, 500, 503] {
        let server = Server::fixed(status, limits, "").await;
        let error = execute(&kinds_at(&server), "http", &context(), json!({"url": server.url("/")})).await.expect_err("unwelcome");
        assert_eq!(error.retry_after, None, "{status}: a limit that is not exhausted is no wait");
    }
    let server = Server::fixed(200, "", "").await;
    let config = json!({"url": server.url("/"), "expect_status": [202]});
    assert_eq!(execute(&kinds_at(&server), "http", &context(), config).await.expect_err("not 202").class, InvalidRequest);
}

#[tokio::test]
async fn half_an_answer_and_one_too_large_are_no_outputs() {
    let at = |server: &Server| json!({"url": server.url("/"), "max_bytes": 1000});
    let server = Server::start(|_| Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec())).await;
    assert_eq!(execute(&kinds_at(&server), "http", &context(), at(&server)).await.expect_err("cut").class, ErrorClass::Network);
    let server = Server::fixed(200, "content-type: application/json\r\n", r#"{"a": "#).await;
    assert_eq!(execute(&kinds_at(&server), "http", &context(), at(&server)).await.expect_err("no JSON").class, ErrorClass::ServerError);
    let server = Server::start(|_| Reply::Endless(200)).await;
    assert_eq!(execute(&kinds_at(&server), "http", &context(), at(&server)).await.expect_err("endless").class, ErrorClass::TooLarge);
    assert!(server.sent.load(Ordering::SeqCst) < 16 << 20);
    let server = Server::start(|_| Reply::Hang(Vec::new())).await;
    let config = json!({"url": server.url("/"), "timeout": "50ms"});
    assert_eq!(execute(&kinds_at(&server), "http", &context(), config).await.expect_err("silence").class, ErrorClass::Timeout);
    let mut context = context();
    context.idle_timeout = Some(Duration::from_millis(50));
    assert_eq!(execute(&kinds_at(&server), "http", &context, at(&server)).await.expect_err("silence").class, ErrorClass::Timeout);
}

#[tokio::test]
async fn an_address_where_nobody_answers_is_named_without_its_secrets() {
    let server = Server::fixed(200, "", "").await;
    // Nobody listens at a port that was bound and let go.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let config = json!({"url": format!("http://ada:hunter2@{closed}/a?key=sesame")});
    let error = execute(&kinds_at(&server), "http", &context(), config).await.expect_err("refused");
    assert_eq!(error.class, ErrorClass::Network);
    assert!(error.message.starts_with(&format!("no connection to http://{closed}: ")), "{error}");
    assert!(!error.message.contains("hunter2") && !error.message.contains("sesame") && !error.message.contains("OPENAI"), "{error}");
    let server = Server::start(|_| Reply::Hang(Vec::new())).await;
    let mut context = context();
    context.idle_timeout = Some(Duration::from_millis(50));
    let config = json!({"url": server.url("/a?key=sesame")});
    let error = execute(&kinds_at(&server), "http", &context, config.clone()).await.expect_err("silence");
    assert!(error.message.contains(&format!("came from http://{} for", server.address)), "{error}");
    context.idle_timeout = None;
    let config = json!({"url": config["url"], "timeout": "50ms"});
    let error = execute(&kinds_at(&server), "http", &context, config).await.expect_err("silence");
    assert!(error.message.contains(&server.url("/a")) && !error.message.contains("sesame"), "{error}");
}

#[tokio::test]
async fn a_status_is_not_lost_to_the_size_or_the_end_of_its_page() {
    let head = |status: u16| format!("HTTP/1.1 {status} X\r\ncontent-length: 9\r\n\r\nsorr");
    let at = |server: &Server| json!({"url": server.url("/"), "max_bytes": 10});
    for (status, class) in [(404, ErrorClass::InvalidRequest), (503, ErrorClass::ServerError)] {
        let server = Server::start(move |_| Reply::Endless(status)).await;
        let error = execute(&kinds_at(&server), "http", &context(), at(&server)).await.expect_err("endless");
        assert_eq!(error.class, class, "{error}");
        assert!(server.sent.load(Ordering::SeqCst) < 16 << 20, "no more of it was read than helps");
        let server = Server::start(move |_| Reply::Raw(head(status).into_bytes())).await;
        let error = execute(&kinds_at(&server), "http", &context(), at(&server)).await.expect_err("cut");
        assert_eq!((error.class, &error.details.expect("details")["body"]), (class, &json!("sorr")));
    }
    let server = Server::start(move |_| Reply::Hang(head(404).into_bytes())).await;
    let mut context = context();
    context.idle_timeout = Some(Duration::from_secs(1));
    let error = execute(&kinds_at(&server), "http", &context, at(&server)).await.expect_err("silent");
    assert_eq!((error.class, &error.details.expect("details")["body"]), (ErrorClass::InvalidRequest, &json!("sorr")));
}

#[tokio::test]
async fn bodies_that_are_no_text_are_not_mangled() {
    let bytes = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: image/png\r\ncontent-length: 2\r\n\r\n\xff\xfe";
    let server = Server::start(move |_| Reply::Raw(bytes.to_vec())).await;
    let result = output(&execute(&kinds_at(&server), "http", &context(), json!({"url": server.url("/")})).await.expect("an answer"));
    assert_eq!((&result["body"], &result["bytes"]), (&Value::Null, &json!(2)));
    let bytes = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/plain; charset=ISO-8859-1\r\ncontent-length: 2\r\n\r\n\xfcb";
    let server = Server::start(move |_| Reply::Raw(bytes.to_vec())).await;
    let result = output(&execute(&kinds_at(&server), "http", &context(), json!({"url": server.url("/")})).await.expect("an answer"));
    assert_eq!(result["body"], "üb");
}

#[tokio::test]
async fn addresses_inside_are_refused_unless_allowed() {
    let server = Server::fixed(200, "", "inside").await;
    let guarded = kinds(StepsConfig::default());
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"] {
        let config = json!({"url": format!("http://{host}:{}/", server.address.port())});
        let error = execute(&guarded, "http", &context(), config.clone()).await.expect_err("refused");
        assert_eq!(error.class, ErrorClass::InvalidRequest, "{host}: {error}");
        assert!(error.message.contains("may not reach"), "{error}");
    }
    assert!(server.seen().is_empty(), "nothing was sent");
    let config = json!({"url": server.url("/")});
    execute(&kinds_at(&server), "http", &context(), config).await.expect("allowed");
}

#[tokio::test]
async fn redirects_are_followed_at_most_five_times_and_credentials_stay_with_their_origin() {
    let target = Server::fixed(200, "", "there").await;
    let there = target.url("/end");
    let server = Server::start(move |seen| {
        let location = match seen.head.split(' ').nth(1) {
            Some("/away") => there.clone(),
            Some("/near") => "/ok".into(),
            Some("/loop") => "/loop".into(),
            Some("/ftp") => "ftp://127.0.0.1/".into(),
            _ => return Reply::Raw(reply(200, "", "here")),
        };
        Reply::Raw(reply(302, &format!("location: {location}\r\n"), ""))
    })
    .await;
    let kinds = kinds_at(&server);
    let post = |path: &str| json!({"method": "POST", "url": server.url(path), "json": 1, "headers": {"X-Api-Key": "k", "Accept": "a/b"}});

    let result = output(&execute(&kinds, "http", &context(), post("/near")).await.expect("followed"));
    assert_eq!(result["body"], "here");
    let seen = server.seen();
    assert!(seen[1].head.starts_with("GET /ok") && seen[1].body.is_empty(), "a redirected POST becomes a GET");
    assert_eq!(seen[1].header("x-api-key"), Some("k"));

    let result = output(&execute(&kinds, "http", &context(), post("/away")).await.expect("followed"));
    assert_eq!(result["body"], "there");
    let seen = &target.seen()[0];
    assert_eq!((seen.header("x-api-key"), seen.header("accept"), seen.header("idempotency-key")), (None, Some("a/b"), None));

    for path in ["/loop", "/ftp"] {
        let error = execute(&kinds, "http", &context(), post(path)).await.expect_err("refused");
        assert_eq!(error.class, ErrorClass::InvalidRequest, "{path}: {error}");
    }
    assert_eq!(server.seen().iter().filter(|s| s.head.contains(" /loop ")).count(), 6);
}

#[tokio::test]
async fn a_redirect_that_the_step_expects_is_its_answer() {
    let server = Server::fixed(302, "location: /elsewhere\r\n", "").await;
    let config = json!({"url": server.url("/"), "expect_status": [302]});
    let result = output(&execute(&kinds_at(&server), "http", &context(), config).await.expect("expected"));
    assert_eq!((&result["status"], &result["headers"]["location"]), (&json!(302), &json!("/elsewhere")));
    assert_eq!(server.seen().len(), 1, "it was not followed");
}

#[tokio::test]
async fn what_a_server_echoes_of_a_credential_is_masked_in_outputs_and_errors() {
    const TOKEN: &str = "tok/0123456789abcdef";
    let escaped = TOKEN.replace('/', r"\/");
    let config = |server: &Server| json!({"url": server.url("/"), "headers": {"Authorization": format!("Bearer {TOKEN}")}});
    let body = format!(r#"{{"bearer": "{escaped}", "headers": {{"Authorization": "Bearer {TOKEN}"}}, "n": 1}}"#);
    let headers = format!("content-type: application/json\r\nx-echo: Bearer {TOKEN}\r\n");
    let server = Server::fixed(200, &headers, &body).await;
    let result = execute(&kinds_at(&server), "http", &context(), config(&server)).await.expect("an answer");
    assert_eq!(output(&result)["json"], json!({"bearer": "***", "headers": {"Authorization": "***"}, "n": 1}));
    assert_eq!(output(&result)["headers"]["x-echo"], "***");
    assert!(!result.output.as_str().contains("0123456789"), "{}", result.output.as_str());

    for before in ["", &"x".repeat(485), &"x".repeat(495)] {
        for token in [TOKEN, &escaped] {
            let server = Server::fixed(401, "", &format!("{before}{token}")).await;
            let error = execute(&kinds_at(&server), "http", &context(), config(&server)).await.expect_err("refused");
            let body = error.details.expect("details")["body"].to_string();
            assert!(!body.contains("tok"), "{body}");
        }
    }
}

#[tokio::test]
async fn messages_show_urls_without_query_and_userinfo() {
    let server = Server::fixed(404, "", "").await;
    let good = format!("http://ada:hunter2@{}/x?key=k1234", server.address);
    for (url, shown) in [(good.as_str(), "/x answered"), ("//ada:hunter2@x.test/y?key=k1234", "x.test/y` is no URL")] {
        let error = execute(&kinds_at(&server), "http", &context(), json!({"url": url})).await.expect_err("an error");
        assert!(error.message.contains(shown), "{error}");
        assert!(!error.message.contains("hunter2") && !error.message.contains("k1234"), "{error}");
    }
}
