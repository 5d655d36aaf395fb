//! What the HTTP door decides by itself; the rest is tested against a whole node.

use super::is_this_machine;

#[test]
fn hosts_of_this_machine() {
    for host in [
        "localhost",
        "localhost:7480",
        "127.0.0.1:1",
        "127.0.0.1",
        "[::1]:7480",
        "[::1]",
    ] {
        assert!(is_this_machine(host), "{host}");
    }
    for host in [
        "example.com",
        "example.com:7480",
        "10.0.0.1",
        "localhost.example.com",
        "",
    ] {
        assert!(!is_this_machine(host), "{host}");
    }
}
