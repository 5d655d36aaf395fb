//! Joins orders with the table `users`.

use rustmq::{Lookup, Reject};
use serde::Deserialize;

#[derive(Deserialize)]
struct Order<'a> {
    user: &'a str,
    cents: u64,
}

#[derive(Deserialize)]
struct User {
    city: String,
}

#[rustmq::map]
fn joins(order: Order<'_>, users: &Lookup) -> Result<String, Reject> {
    let user = order.user;
    let found: Option<User> = users.get(user)?;
    let found = found.ok_or_else(|| Reject::new("user", format!("no user {user}")))?;
    Ok(format!("{} {}", found.city, order.cents))
}
