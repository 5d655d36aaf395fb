//! S3 and GCS: the client that a URL and its options make, and what its errors mean to a user.
//!
//! Called by: `objects::open`, `TierError`, `Store::open`. Keys that the options do not give come
//! from the environment (`AWS_…`, `GOOGLE_…`), as every tool of these stores takes them.
//! Invariants: no secret is in any text made here; the client tries again for seconds only,
//! since `pace` and the readers decide what comes after.
//! Refuses: unknown options, credentials in the URL, plain HTTP that was not allowed.

use std::error::Error as _;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, Error, ObjectStore, ObjectStoreScheme, RetryConfig, StaticCredentialProvider,
};
use url::Url;

use crate::config::StoreOptions;

/// Times the client asks again by itself, and how long it does at most.
const RETRIES_MAX: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Characters of a store's own words that are passed on.
const WORDS_MAX: usize = 200;

const S3_OPTIONS: &str = "aws_access_key_id, aws_secret_access_key, aws_session_token, \
    aws_region, aws_endpoint, aws_virtual_hosted_style_request, allow_http, timeout, \
    connect_timeout";
const GCS_OPTIONS: &str = "google_service_account, google_service_account_key, \
    google_application_credentials, google_base_url, google_skip_signature, allow_http, timeout, \
    connect_timeout";

/// The URL as it may be printed.
pub(super) fn without_keys(url: &Url) -> String {
    let mut url = url.clone();
    // Only URLs without a host refuse, and those hold no keys.
    let _ = url.set_password(None).and_then(|()| url.set_username(""));
    url.to_string()
}

/// The client for an `s3://` or `gs://` URL; paths in it are relative to the URL's.
pub(super) fn open(url: &Url, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, String> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a storage URL holds no keys; give them under [storage.options]".to_owned());
    }
    let (scheme, prefix) = ObjectStoreScheme::parse(url).map_err(|error| error.to_string())?;
    let store = match scheme {
        ObjectStoreScheme::AmazonS3 => s3(url, options)?,
        _ => gcs(url, options)?,
    };
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

fn s3(url: &Url, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = AmazonS3Builder::from_env();
    for (name, value) in options.iter() {
        let key: AmazonS3ConfigKey = key(name, S3_OPTIONS)?;
        builder = builder.with_config(key, value);
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    check_http(endpoint, "aws_endpoint", options)?;
    let builder = builder.with_url(url.as_str()).with_retry(retry());
    let store = builder
        .build()
        .map_err(|error| unusable(&error, S3_OPTIONS))?;
    Ok(Arc::new(store))
}

fn gcs(url: &Url, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = GoogleCloudStorageBuilder::from_env();
    for (name, value) in options.iter() {
        let key: GoogleConfigKey = key(name, GCS_OPTIONS)?;
        builder = builder.with_config(key, value);
    }
    let base = builder.get_config_value(&GoogleConfigKey::BaseUrl);
    check_http(base, "google_base_url", options)?;
    let skips = builder.get_config_value(&GoogleConfigKey::SkipSignature);
    if skips.is_some_and(|skips| skips == "true") {
        // The client would ask the machine for an account all the same, to write with.
        let nobody = GcpCredential {
            bearer: String::new(),
        };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
    }
    let builder = builder.with_url(url.as_str()).with_retry(retry());
    let store = builder
        .build()
        .map_err(|error| unusable(&error, GCS_OPTIONS))?;
    Ok(Arc::new(store))
}

fn unusable(error: &Error, known: &str) -> String {
    format!("{error}; look at [storage.options]: {known}")
}

fn key<K: FromStr>(name: &str, known: &str) -> Result<K, String> {
    let parsed = name.to_ascii_lowercase().parse();
    parsed.map_err(|_| format!("unknown key `storage.options.{name}`; the usual ones: {known}"))
}

/// The client refuses plain HTTP with words that do not name the option.
fn check_http(endpoint: Option<String>, name: &str, options: &StoreOptions) -> Result<(), String> {
    let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let is_allowed = options.iter().any(|(name, value)| {
        let name = name.to_ascii_lowercase();
        name.ends_with("allow_http") && value == "true"
    });
    let is_allowed = is_allowed || std::env::var("AWS_ALLOW_HTTP").is_ok_and(|word| word == "true");
    if is_plain && !is_allowed {
        return Err(format!(
            "{name} is plain http: use https, or set allow_http = \"true\" under [storage.options]"
        ));
    }
    Ok(())
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: RETRY_FIRST,
            max_backoff: RETRY_PAUSE_MAX,
            base: 2.,
        },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
    }
}

/// What a store's error comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Keys,
    NoKeys,
    Bucket,
    Unreachable,
    Other,
}

fn classify(error: &Error, text: &str) -> Trouble {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    // The addresses at which a machine of the cloud gives out keys.
    if has(&[
        "169.254.169.254",
        "169.254.170.2",
        "metadata.google.internal",
    ]) {
        return Trouble::NoKeys;
    }
    if has(&["NoSuchBucket"]) {
        return Trouble::Bucket;
    }
    let is_refused = matches!(
        error,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. }
    );
    let words = ["status code: 401", "status code: 403", "UserNotFound"];
    if is_refused || has(&words) {
        return Trouble::Keys;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        let kind = error.downcast_ref::<HttpError>().map(HttpError::kind);
        if matches!(kind, Some(HttpErrorKind::Connect | HttpErrorKind::Timeout)) {
            return Trouble::Unreachable;
        }
        cause = error.source();
    }
    Trouble::Other
}

/// A store's error in a user's words: what it was, and what to look at.
pub(crate) fn said(error: &Error) -> String {
    let text = error.to_string();
    let brief = brief(&text);
    match classify(error, &text) {
        Trouble::Keys => format!("the store refuses the keys ({brief})"),
        Trouble::NoKeys => format!("no keys were given and this machine has none ({brief})"),
        Trouble::Bucket => format!("there is no such bucket ({brief})"),
        Trouble::Unreachable => format!("the store does not answer ({brief})"),
        Trouble::Other => brief,
    }
}

/// What to look at, by the names the options have for stores of this URL.
pub(crate) fn advice(url: &str, error: &Error) -> Option<String> {
    let is_s3 = url.starts_with("s3");
    let keys = match is_s3 {
        true => {
            "aws_access_key_id and aws_secret_access_key under [storage.options], or \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        }
        false => {
            "google_service_account (a file) or google_service_account_key under \
                  [storage.options], or GOOGLE_SERVICE_ACCOUNT in the environment"
        }
    };
    let endpoint = match is_s3 {
        true => "aws_endpoint and aws_region",
        false => "google_base_url",
    };
    match classify(error, &error.to_string()) {
        Trouble::Keys => Some(format!("check {keys}")),
        Trouble::NoKeys => Some(format!("set {keys}")),
        Trouble::Bucket => Some(format!(
            "make the bucket, or correct storage.url (and {endpoint} under [storage.options])"
        )),
        Trouble::Unreachable => Some(format!(
            "check {endpoint} under [storage.options], and that the store runs"
        )),
        Trouble::Other => None,
    }
}

/// The end of the client's long line: the status, and code and message of the store's XML.
fn brief(text: &str) -> String {
    let said = match text.split_once("status code: ") {
        Some((_, said)) => said,
        None => text.rsplit_once(" - ").map_or(text, |(_, said)| said),
    };
    let (status, document) = said.split_once('<').unwrap_or((said, ""));
    let status = status.trim().trim_end_matches(':');
    let element = |name: &str| {
        let (_, rest) = document.split_once(&format!("{name}>"))?;
        rest.split('<').next().filter(|text| !text.is_empty())
    };
    let words: Vec<&str> = [Some(status), element("Code"), element("Message")]
        .into_iter()
        .flatten()
        .collect();
    words.join(", ").chars().take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    fn open_with(url: &str, options: &[(&str, &str)]) -> String {
        let pairs = options.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let options = StoreOptions(pairs.collect());
        let opened = open(&Url::parse(url).unwrap(), &options);
        opened.err().unwrap_or_default()
    }

    #[test]
    fn wrong_options_are_named_and_secrets_are_not() {
        let secret = ("aws_secret_access_key", "hush");
        let said = open_with("s3://b/p", &[("aws_acess_key_id", "x"), secret]);
        assert!(
            said.contains("unknown key `storage.options.aws_acess_key_id`"),
            "{said}"
        );
        assert!(
            said.contains("aws_access_key_id") && !said.contains("hush"),
            "{said}"
        );
        let said = open_with(
            "s3://b/p",
            &[("aws_endpoint", "http://127.0.0.1:1"), secret],
        );
        assert!(said.contains("allow_http"), "{said}");
        let said = open_with("gs://b/p", &[("google_base_url", "http://127.0.0.1:1")]);
        assert!(said.contains("allow_http"), "{said}");
        let said = open_with("s3://key:hush@b/p", &[]);
        assert!(
            said.contains("[storage.options]") && !said.contains("hush"),
            "{said}"
        );
        let said = open_with("s3://b/p", &[secret]);
        assert!(said.to_lowercase().contains("accesskeyid"), "{said}");
    }

    #[test]
    fn a_url_is_printed_without_its_keys() {
        let url = Url::parse("s3://key:hush@b/p").unwrap();
        assert_eq!(without_keys(&url), "s3://b/p");
    }

    #[test]
    fn a_stores_xml_becomes_a_few_words() {
        let refused = error(
            "Error performing GET http://127.0.0.1:1/b in 1ms - Server returned non-2xx status \
             code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch\
             </Code><Message>The request signature does not match.</Message></Error>",
        );
        let words = said(&refused);
        assert_eq!(
            words,
            "the store refuses the keys (403 Forbidden, SignatureDoesNotMatch, The request \
             signature does not match.)"
        );
        let advice = advice("s3://b", &refused).unwrap();
        assert!(advice.contains("aws_secret_access_key"), "{advice}");
        assert_eq!(said(&error("on purpose")), "Generic S3 error: on purpose");
    }

    #[test]
    fn no_keys_at_all_are_told_from_wrong_ones() {
        let none = error("Error performing PUT http://169.254.169.254/latest/api/token in 1s");
        assert!(
            said(&none).starts_with("no keys were given"),
            "{}",
            said(&none)
        );
        let advice = advice("gs://b", &none).unwrap();
        assert!(advice.starts_with("set google_service_account"), "{advice}");
    }
}
