//! Users, passwords and tokens: who is shown them, and who is not.

use super::*;

const BASIC: &str = "Basic Y2k6c2VjcmV0";

fn creds() -> Options {
    Options { creds: Some("ci:secret".into()), ..Options::default() }
}

/// A registry that lets in who shows `wanted`, and asks others as `challenge` says.
async fn guarded(image: &Image, wanted: &'static str, challenge: String) -> Script {
    registry(image, move |asked| match asked.header("authorization") {
        Some(shown) if shown == wanted => None,
        _ => Some(Reply::status("401 Unauthorized").with("WWW-Authenticate", &challenge)),
    })
    .await
}

#[tokio::test]
async fn basic_is_shown_when_it_is_asked_for() {
    let image = Image::new("amd64", 10);
    let server = guarded(&image, BASIC, r#"Basic realm="x""#.into()).await;
    pull_with(&server.image(":v1"), &creds(), &[]).await.unwrap();
    assert_eq!(server.asked("/v2/")[0].header("authorization"), None);
    pull_with(&server.image(":v1"), &Options::default(), &[("BENNU_REGISTRY_CREDS", "ci:secret")]).await.unwrap();
    let anonymous = pull(&server.image(":v1")).await.unwrap_err();
    assert!(
        anonymous.what.contains("asks for a user and a password") && anonymous.help.contains("--creds"),
        "{anonymous}"
    );
    let wrong = Options { creds: Some("ci:wrong".into()), ..Options::default() };
    let wrong = pull_with(&server.image(":v1"), &wrong, &[]).await.unwrap_err();
    assert!(wrong.what.contains("does not take the login ci:…") && !wrong.to_string().contains("wrong"), "{wrong}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auth.json");
    let text = json!({"auths": {server.address.to_string(): {"auth": &BASIC[6..]}}}).to_string();
    std::fs::write(&file, text).unwrap();
    let variable = [("REGISTRY_AUTH_FILE", file.to_str().unwrap())];
    pull_with(&server.image(":v1"), &Options::default(), &variable).await.unwrap();
    std::fs::write(&file, r#"{"credsStore":"desktop"}"#).unwrap();
    let helper = pull_with(&server.image(":v1"), &Options::default(), &variable).await.unwrap_err();
    assert!(helper.help.contains("credential helper 'desktop'"), "{helper}");
}

#[tokio::test]
async fn a_token_is_fetched_and_fetched_again_when_it_has_ended() {
    for field in ["token", "access_token"] {
        let tokens = Script::new(move |asked| match asked.header("authorization") {
            Some(BASIC) => Reply::ok(json!({field: "abc"}).to_string().as_bytes()),
            _ => Reply::status("401 Unauthorized"),
        })
        .await;
        let challenge = format!(r#"Bearer realm="http://{}/token?a=b",service="the registry""#, tokens.address);
        let image = Image::new("amd64", 10);
        let server = guarded(&image, "Bearer abc", challenge).await;
        pull_with(&server.image(":v1"), &creds(), &[]).await.unwrap();
        let asked = tokens.asked("/token");
        assert_eq!(asked.len(), 1, "one token is enough");
        assert_eq!(asked[0].path, "/token?a=b&service=the%20registry&scope=repository:web:pull");
        assert!(pull(&server.image(":v1")).await.unwrap_err().what.contains("asks for a user and a password"));
    }
    let image = Image::new("amd64", 10);
    let tokens = Script::new(|_| Reply::ok(br#"{"token":"abc"}"#)).await;
    let realm = format!(r#"Bearer realm="http://{}/token",scope="repository:web:pull,push""#, tokens.address);
    let layer = format!("/v2/web/blobs/{}", digest_of(&image.layer));
    let first = std::sync::atomic::AtomicBool::new(true);
    let server = registry(&image, move |asked| {
        let ended = asked.path == layer && first.swap(false, std::sync::atomic::Ordering::Relaxed);
        let known = asked.header("authorization") == Some("Bearer abc") && !ended;
        (!known).then(|| Reply::status("401 Unauthorized").with("WWW-Authenticate", &realm))
    })
    .await;
    pull(&server.image(":v1")).await.unwrap();
    assert_eq!(tokens.asked("/token?scope=repository:web:pull,push").len(), 2);
}

#[tokio::test]
async fn no_password_goes_where_others_can_read_it() {
    let image = Image::new("amd64", 10);
    for realm in ["http://192.0.2.1/token", "http://auth.example/token", "file:///etc/passwd", "token"] {
        let server = guarded(&image, "never", format!(r#"Bearer realm="{realm}""#)).await;
        let error = pull_with(&server.image(":v1"), &creds(), &[]).await.unwrap_err();
        assert!(error.what.contains("is not https") || error.what.contains("no address"), "{error}");
    }
    let tokens = Script::new(|_| Reply::ok(b"{}")).await;
    let server = guarded(&image, "never", format!(r#"Bearer realm="http://{}/""#, tokens.address)).await;
    assert!(pull(&server.image(":v1")).await.unwrap_err().what.contains("no token in its answer"));
}

#[tokio::test]
async fn where_a_redirect_leads_is_shown_no_login() {
    let image = Image::new("amd64", 4000);
    for (status, challenges) in
        [("307 Temporary Redirect", false), ("302 Found", false), ("307 Temporary Redirect", true)]
    {
        let layer = image.layer.clone();
        let storage = Script::new(move |_| match challenges {
            true => Reply::status("401 Unauthorized").with("WWW-Authenticate", "Basic realm=x"),
            false => Reply::ok(&layer),
        })
        .await;
        let (place, path) = (storage.address, format!("/v2/web/blobs/{}", digest_of(&image.layer)));
        let server = registry(&image, move |asked| match asked.header("authorization") {
            Some(BASIC) if asked.path == path => Some(Reply::to(status, &format!("http://{place}/x?signed=1"))),
            Some(BASIC) => None,
            _ => Some(Reply::status("401 Unauthorized").with("WWW-Authenticate", "Basic realm=x")),
        })
        .await;
        let error = pull_with(&server.image(":v1"), &creds(), &[]).await.err();
        assert_eq!(error.is_some(), challenges);
        assert!(error.is_none_or(|error| error.what.contains("the storage that the registry leads to answered 401")));
        let asked = storage.asked("/x?signed=1");
        assert_eq!((asked.len(), asked[0].header("authorization")), (1, None));
    }
}
