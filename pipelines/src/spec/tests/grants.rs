//! What a file grants its modules.

use super::*;

#[test]
fn granted_hosts() {
    let refused = |grant: &str, expected: &str| {
        let grants = format!("grants: {{ http: [{{ {grant} }}] }}");
        check_with("grants: {}", &grants, expected);
    };
    refused(
        "host: a.example, methds: [GET]",
        "\
p.yaml:10:71: error: unknown key `methds` in a grant of module `tidy` (did you mean `methods`?)",
    );
    refused(
        "methods: [GET]",
        "p.yaml:10:52: error: a grant of module `tidy` needs the key `host`",
    );
    refused(
        "host: \"https://a.example/x\"",
        "\
p.yaml:10:60: error: `https://a.example/x` is not a host: write the name alone, without scheme and path",
    );
    refused(
        "host: a.example, methods: [GET, put]",
        "\
p.yaml:10:86: error: `put` is not a method that can be granted (did you mean `PUT`?)",
    );
    refused(
        "host: a.example, methods: []",
        "p.yaml:10:80: error: `methods` is empty: nothing would be granted",
    );
    refused(
        "host: a.example, scheme: htps",
        "\
p.yaml:10:79: error: `scheme` is `https` or `http`, not `htps` (did you mean `https`?)",
    );
    refused(
        "host: a.example, port: 70000",
        "p.yaml:10:77: error: `port` is 1 to 65535, not 70000",
    );
    refused(
        "host: a.example, networks: [10.0.0.1/8]",
        "\
p.yaml:10:82: error: the network 10.0.0.1/8 begins at 10.0.0.0: write 10.0.0.0/8",
    );
    refused(
        "host: a.example, headers: { Authorization: \"Bearer abc\" }",
        "\
p.yaml:10:97: error: the header `authorization` would stand in the pipeline for all to read (name a \
secret of the server's configuration: `authorization: { secret: NAME }`)",
    );
    refused(
        "host: a.example, headers: { host: b.example, x: { secrt: y } }",
        "\
p.yaml:10:82: error: the host writes the header host itself
p.yaml:10:99: error: the header `x` needs the key `secret`
p.yaml:10:104: error: unknown key `secrt` in the header `x` (did you mean `secret`?)",
    );
    let limits = "limits: { http-rate: 20000, memory: 64MiB";
    check_with(
        "limits: { memory: 64MiB",
        limits,
        "p.yaml:10:68: error: `http-rate` of module `tidy` is at most 10000",
    );
}

#[test]
fn a_grant_says_what_it_says() {
    let grants = "grants: { http: [{ host: \"*.Example.com\", scheme: http, methods: [POST], \
                  private: true, networks: [10.1.0.0/16], \
                  headers: { X-Key: { secret: key, prefix: \"k \" }, from: us } }] }";
    let spec = parse("p.yaml", &FLIGHTS.replace("grants: {}", grants), &|_| None);
    let spec = spec.unwrap_or_else(|d| panic!("{d:#?}"));
    let http = spec
        .modules
        .get("tidy")
        .and_then(|def| def.grants.http.clone());
    let [rule] = &http.unwrap_or_default()[..] else {
        panic!("one rule");
    };
    assert_eq!(
        (rule.host.to_string().as_str(), rule.port),
        ("*.example.com", 80)
    );
    assert_eq!(
        (&rule.methods[..], rule.reach.private),
        (&["POST".to_owned()][..], true)
    );
    assert_eq!(rule.reach.networks[0].to_string(), "10.1.0.0/16");
    let [(key, secret), (from, text)] = &rule.headers[..] else {
        panic!("two headers");
    };
    assert_eq!((key.as_str(), from.as_str()), ("x-key", "from"));
    assert_eq!(
        format!("{secret:?}"),
        r#"Secret { name: "key", prefix: "k " }"#
    );
    assert_eq!(format!("{text:?}"), r#"Text("us")"#);
}
