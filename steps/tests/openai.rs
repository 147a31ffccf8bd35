//! Guarantee: whatever an OpenAI-compatible server does, the attempt ends with the right class or a whole answer (I12), within
//! bounds, and never shows the key.

mod support;

use krowoc_engine::{
    ErrorClass,
    definition::{PromptMessage, PromptVersion},
    executor::StepError,
};
use krowoc_steps::{StepsConfig, kinds};
use serde_json::{Value, json};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use support::*;

fn ask() -> Value {
    json!({"model": "openai/gpt-4.1", "messages": [{"role": "user", "content": "hi"}]})
}

fn completion(message: Value, finish_reason: Value) -> String {
    json!({
        "id": "chatcmpl-1", "model": "gpt-4.1-2025-04-14", "new_field": {},
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {
            "prompt_tokens": 20, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
    })
    .to_string()
}

fn said(content: &str) -> String {
    completion(json!({"role": "assistant", "content": content}), json!("stop"))
}

async fn failed(server: &Server) -> StepError {
    execute(&kinds_at(server), "llm", &context(), ask()).await.expect_err("an error")
}

#[tokio::test]
async fn a_whole_answer_becomes_the_output_with_its_usage() {
    let server = Server::fixed(200, "content-type: application/json\r\nx-request-id: req_7\r\n", &said("Hello")).await;
    let result = execute(&kinds_at(&server), "llm", &context(), ask()).await.expect("an answer");
    assert_eq!(output(&result), json!({"text": "Hello", "model": "gpt-4.1-2025-04-14", "finish_reason": "stop"}));
    let usage = result.usage.expect("usage");
    assert_eq!((usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, usage.reasoning_tokens), (20, 5, 9, 4));
    assert_eq!((usage.request_id.as_deref(), usage.simulated, usage.provider.as_str()), (Some("req_7"), false, "openai"));
    assert_eq!(usage.raw.expect("raw")["prompt_tokens"], 20);
    let seen = &server.seen()[0];
    assert!(seen.head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{}", seen.head);
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(serde_json::from_str::<Value>(&seen.body).expect("JSON")["model"], "gpt-4.1");
}

#[tokio::test]
async fn each_status_and_body_has_its_class() {
    use ErrorClass::*;
    let error = |code: &str, message: &str| json!({"error": {"message": message, "type": "x", "code": code}}).to_string();
    let cases = [
        (400, error("", "bad"), InvalidRequest),
        (400, error("context_length_exceeded", "too long"), ContextTooLong),
        (400, json!({"message": "This model's maximum context length is 4096 tokens"}).to_string(), ContextTooLong),
        (400, json!({"error": {"type": "exceed_context_size_error", "code": 400}}).to_string(), ContextTooLong),
        (400, error("content_filter", "filtered"), Refused),
        (401, error("invalid_api_key", "no"), Auth),
        (402, String::new(), QuotaExhausted),
        (403, String::new(), Auth),
        (404, error("model_not_found", "no such model"), InvalidRequest),
        (404, json!({"error": "model \"x\" not found"}).to_string(), InvalidRequest),
        (408, String::new(), ServerError),
        (409, String::new(), ServerError),
        (422, json!({"detail": [{"loc": ["body"]}]}).to_string(), InvalidRequest),
        (429, error("rate_limit_exceeded", "slow"), RateLimited),
        (429, error("insufficient_quota", "pay"), QuotaExhausted),
        (500, "<html>".into(), ServerError),
        (502, "<html>".into(), ServerError),
        (503, error("", "The engine is currently overloaded"), Overloaded),
        (503, "<html>".into(), ServerError),
        (529, String::new(), Overloaded),
        (302, String::new(), InvalidRequest),
        (204, String::new(), ServerError),
    ];
    for (status, body, class) in cases {
        let server = Server::fixed(status, "content-type: application/json\r\nx-request-id: req_9\r\n", &body).await;
        let error = failed(&server).await;
        assert_eq!(error.class, class, "{status} {body}: {error}");
        assert_eq!(error.retry_after, None);
        assert_eq!(error.details.expect("details")["request_id"], "req_9");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_whole_is_never_an_output() {
    use ErrorClass::*;
    let text = || json!({"role": "assistant", "content": "half an ans"});
    let cases = [
        ("<html><body>Sign in</body></html>".into(), ServerError),
        (String::new(), ServerError),
        (r#"{"choices": [{"message"#.into(), ServerError),
        ("[".repeat(200), ServerError),
        ("{}".into(), ServerError),
        (json!({"choices": []}).to_string(), ServerError),
        (completion(text(), Value::Null), ServerError),
        (completion(json!({"content": null}), json!("stop")), ServerError),
        (completion(text(), json!("abort")), ServerError),
        (completion(text(), json!("insufficient_system_resource")), ServerError),
        (completion(text(), json!("length")), TooLarge),
        (completion(text(), json!("model_length")), TooLarge),
        (completion(text(), json!("content_filter")), Refused),
        (completion(json!({"content": null, "refusal": "I can't"}), json!("stop")), Refused),
        (completion(json!({"content": null, "tool_calls": []}), json!("tool_calls")), InvalidRequest),
        (json!({"error": {"message": "upstream", "code": 502}}).to_string(), ServerError),
        (json!({"error": {"message": "upstream", "code": 429}}).to_string(), RateLimited),
    ];
    for (body, class) in cases {
        let server = Server::fixed(200, "content-type: application/json\r\n", &body).await;
        let error = failed(&server).await;
        assert_eq!(error.class, class, "{body}: {error}");
        assert_eq!(error.usage.is_some_and(|u| u.output_tokens == 9), body.contains("usage"), "what it cost is kept: {body}");
    }
}

#[tokio::test]
async fn a_connection_that_fails_or_is_cut_is_a_network_error() {
    let whole = String::from_utf8(reply(200, "content-type: application/json\r\n", &said("Hello"))).expect("text");
    for cut in [0, 10, whole.len() - 1] {
        let bytes = whole.as_bytes()[..cut].to_vec();
        let server = Server::start(move |_| Reply::Raw(bytes.clone())).await;
        let error = failed(&server).await;
        assert_eq!(error.class, ErrorClass::Network, "cut after {cut} bytes");
        assert!(error.message.contains(&format!("the connection to http://{} broke", server.address)), "{error}");
    }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"cho\r\n";
    let server = Server::start(move |_| Reply::Raw(chunked.into())).await;
    assert_eq!(failed(&server).await.class, ErrorClass::Network, "chunks without an end");
    let mut closed = Server::fixed(200, "", "").await;
    // Nobody listens at a port that was bound and let go.
    closed.address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let error = failed(&closed).await;
    assert_eq!(error.class, ErrorClass::Network, "refused");
    assert!(error.message.starts_with(&format!("no connection to http://{}: Connection refused", closed.address)), "{error}");
    assert!(error.message.ends_with("(the address is that of OPENAI_BASE_URL)"), "{error}");
    assert_eq!(error.message.matches("efused").count(), 1, "{error}");
}

#[tokio::test]
async fn silence_before_or_inside_an_answer_is_a_timeout_and_a_dropped_attempt_lets_go_of_the_server() {
    let mut context = context();
    context.idle_timeout = Some(Duration::from_millis(300));
    for sent in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"] {
        let server = Server::start(move |_| Reply::Hang(sent.into())).await;
        let error = execute(&kinds_at(&server), "llm", &context, ask()).await.expect_err("silence");
        assert!(error.class == ErrorClass::Timeout && error.message.contains("300ms"), "{error}");
        server.dropped.notified().await;
    }

    let server = Server::start(|_| Reply::Hang(Vec::new())).await;
    let kinds = kinds_at(&server);
    let attempt = tokio::spawn(async move { execute(&kinds, "llm", &support::context(), ask()).await });
    server.arrived.notified().await;
    attempt.abort();
    server.dropped.notified().await;
}

#[tokio::test]
async fn an_endless_answer_is_read_no_further_than_its_limit() {
    let server = Server::start(|_| Reply::Endless(200)).await;
    assert_eq!(failed(&server).await.class, ErrorClass::TooLarge);
    let sent = server.sent.load(Ordering::SeqCst);
    assert!((32 << 20..64 << 20).contains(&sent), "{sent} bytes went out");
    let server = Server::start(|_| Reply::Endless(401)).await;
    assert_eq!(failed(&server).await.class, ErrorClass::Auth, "the status is known all the same");
    assert!(server.sent.load(Ordering::SeqCst) < 16 << 20);
}

#[tokio::test]
async fn the_key_is_never_shown_not_even_when_the_server_echoes_it() {
    let escaped = KEY.replace('-', "\\u002d");
    for body in [
        json!({"error": {"message": format!("Incorrect API key provided: {KEY}"), "code": "invalid_api_key"}}).to_string(),
        format!(r#"{{"error": {{"message": "Incorrect API key provided: {escaped}"}}}}"#),
        format!("<html>{KEY}</html>"),
        format!("<html>{escaped}</html>"),
        format!("{}{KEY}", "x".repeat(480)),
        json!({"error": {"message": format!("{}{KEY}", "x".repeat(480))}}).to_string(),
        format!(r#"{{"error": {{"message": "{}{escaped}"}}}}"#, "x".repeat(440)),
        json!({"x": "x".repeat(470), "message": KEY}).to_string(),
    ] {
        for status in [401, 500, 200] {
            let server = Server::fixed(status, "", &body).await;
            let error = failed(&server).await;
            let everything = format!("{error} {error:?} {}", serde_json::to_string(&error).expect("JSON"));
            for part in [&KEY[..12], &escaped[..20]] {
                assert!(!everything.contains(part), "{status}: {everything}");
            }
            assert!(status != 401 || (error.class == ErrorClass::Auth && error.message.contains("OPENAI_API_KEY")), "{error}");
        }
    }
    let server = Server::fixed(200, "", &said(&format!("your key is {KEY}"))).await;
    let result = execute(&kinds_at(&server), "llm", &context(), ask()).await.expect("an answer");
    assert!(!result.output.as_str().contains(KEY));
    let server = Server::fixed(302, &format!("location: https://ada:hunter2@elsewhere.test/v1?{KEY}\r\n"), "").await;
    let message = failed(&server).await.message;
    assert!(message.contains("elsewhere.test/v1") && !message.contains("hunter2") && !message.contains("sk-"), "{message}");
}

#[tokio::test]
async fn a_wait_that_the_server_names_is_kept() {
    for (headers, wait) in [
        ("", None),
        ("retry-after: 2\r\n", Some(2.0)),
        ("retry-after-ms: 1500\r\n", Some(1.5)),
        ("date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:49:47 GMT\r\n", Some(10.0)),
        ("x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 6m0s\r\nx-ratelimit-reset-tokens: 20ms\r\n", Some(360.0)),
    ] {
        let server = Server::fixed(429, headers, r#"{"error": {"code": "rate_limit_exceeded"}}"#).await;
        let error = failed(&server).await;
        assert_eq!((error.class, error.retry_after.map(|d| d.as_secs_f64())), (ErrorClass::RateLimited, wait), "{headers}");
    }
    let limits = "x-ratelimit-remaining-requests: 4999\r\nx-ratelimit-reset-requests: 6m0s\r\nx-ratelimit-reset-tokens: 20ms\r\n";
    let server = Server::fixed(500, limits, "").await;
    assert_eq!(failed(&server).await.retry_after, None, "limits come with every answer");
}

#[tokio::test]
async fn a_missing_key_names_its_variable_and_other_servers_need_none() {
    let error = execute(&kinds(StepsConfig::default()), "llm", &context(), ask()).await.expect_err("no key");
    assert_eq!(error.class, ErrorClass::Auth);
    assert!(error.message.contains("OPENAI_API_KEY"), "{error}");
    let region =
        StepsConfig { openai_base_url: Some("https://eu.api.openai.com/v1".parse().expect("a base URL")), ..StepsConfig::default() };
    assert_eq!(execute(&kinds(region), "llm", &context(), ask()).await.expect_err("no key").class, ErrorClass::Auth);
    let server = Server::fixed(200, "", &said("Hello")).await;
    let config = StepsConfig { openai_base_url: Some(server.url("/v1/").parse().expect("a base URL")), ..StepsConfig::default() };
    execute(&kinds(config), "llm", &context(), ask()).await.expect("no key is needed here");
    assert_eq!(server.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn structured_output_is_asked_for_and_checked() {
    let schema = json!({"type": "object", "required": ["risk"], "properties": {"risk": {"type": "number", "maximum": 1}}});
    let server = Server::fixed(200, "", &said("```json\n{\"risk\": 0.5}\n```")).await;
    let result = execute(&kinds_at(&server), "llm", &context_with(schema.clone()), ask()).await.expect("an answer");
    assert_eq!(output(&result), json!({"risk": 0.5}));
    let sent: Value = serde_json::from_str(&server.seen()[0].body).expect("JSON");
    assert_eq!(sent["response_format"]["json_schema"]["strict"], true);

    let server = Server::fixed(200, "", &said(r#"{"risk": 7}"#)).await;
    let error = execute(&kinds_at(&server), "llm", &context_with(schema), ask()).await.expect_err("7 is more than 1");
    assert_eq!(error.class, ErrorClass::SchemaInvalid);
    assert_eq!(error.details.expect("details")["violations"][0]["pointer"], "/risk");

    let list = json!({"type": "array", "items": {"type": "string"}});
    for answer in [r#"{"value": ["a"]}"#, r#"["a"]"#] {
        let server = Server::fixed(200, "", &said(answer)).await;
        let result = execute(&kinds_at(&server), "llm", &context_with(list.clone()), ask()).await.expect("a list");
        assert_eq!(output(&result), json!(["a"]));
        let sent: Value = serde_json::from_str(&server.seen()[0].body).expect("JSON");
        assert_eq!(sent["response_format"]["json_schema"]["schema"]["required"], json!(["value"]));
    }
}

#[tokio::test]
async fn lone_surrogates_in_an_answer_become_replacement_characters() {
    let body = said("SMILE").replace("SMILE", r"a\ud83d b");
    let server = Server::fixed(200, "", &body).await;
    let result = execute(&kinds_at(&server), "llm", &context(), ask()).await.expect("an answer");
    assert_eq!(output(&result)["text"], "a\u{FFFD} b");
}

#[tokio::test]
async fn a_prompt_is_rendered_with_its_variables_and_names_the_model_where_the_step_does_not() {
    let server = Server::fixed(200, "", &said("Hello")).await;
    let prompt = PromptVersion {
        name: "greet".into(),
        version: 2,
        messages: vec![
            PromptMessage { role: "system".into(), content: "Be brief.".into() },
            PromptMessage { role: "user".into(), content: "Greet {{ name }}.".into() },
        ],
        variables: [("name".to_owned(), json!({"type": "string"}))].into(),
        model: Some("openai/gpt-4.1-mini".into()),
        ..PromptVersion::default()
    };
    let mut context = context();
    context.prompts = Arc::new([("greet@2".to_owned(), prompt)].into());
    let config = json!({"prompt": "greet@2", "vars": {"name": "{{ Jo }} ${{ run.id }}"}});
    execute(&kinds_at(&server), "llm", &context, config).await.expect("an answer");
    let sent: Value = serde_json::from_str(&server.seen()[0].body).expect("JSON");
    assert_eq!(sent["model"], "gpt-4.1-mini");
    let expected = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Greet {{ Jo }} ${{ run.id }}."}]);
    assert_eq!(sent["messages"], expected, "values are never rendered again");

    let error = execute(&kinds_at(&server), "llm", &context, json!({"prompt": "greet@2"})).await.expect_err("a variable is missing");
    assert_eq!(error.class, ErrorClass::Expression);
    assert!(error.message.contains("name"), "{error}");
}

#[tokio::test]
async fn a_configuration_that_can_not_work_is_refused_before_anything_is_sent() {
    let server = Server::fixed(200, "", &said("Hello")).await;
    for config in [
        json!({"messages": [{"role": "user", "content": "hi"}]}),
        json!({"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]}),
        json!({"model": "opnai/gpt-4.1", "messages": [{"role": "user", "content": "hi"}]}),
        json!({"model": "openai/gpt-4.1"}),
        json!({"model": "openai/gpt-4.1", "messages": []}),
        json!({"model": "openai/gpt-4.1", "messages": [{"role": "robot", "content": "hi"}]}),
        json!({"model": "openai/gpt-4.1", "messages": [{"role": "user", "content": "hi"}], "temprature": 1}),
        json!({"model": "openai/gpt-4.1", "messages": [{"role": "user", "content": "hi"}], "options": {"stream": true}}),
        json!({"model": "openai/gpt-4.1", "prompt": "nowhere"}),
    ] {
        let error = execute(&kinds_at(&server), "llm", &context(), config.clone()).await.expect_err("refused");
        assert_eq!(error.class, ErrorClass::InvalidRequest, "{config}");
    }
    assert!(server.seen().is_empty());
}
