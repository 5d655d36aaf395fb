//! What the macros generate has names of its own: authors may call theirs anything.

// the name that authors know it by
extern crate rustmq_sdk as rustmq;

use rustmq::testing::{Harness, Lane, run};

/// A map of each name that stands in what the attributes generate, or could.
macro_rules! maps {
    ($($name:ident)*) => {
        $(mod $name {
            use rustmq::{Lookup, Meta, Reject, State};
            use serde::{Deserialize, Serialize};

            #[derive(Deserialize, Serialize, rustmq::Row)]
            pub struct Columns {
                $name: i64,
                amount: i64,
            }

            #[rustmq::map]
            pub fn $name(row: Columns, meta: Meta<'_>) -> Result<Option<Columns>, Reject> {
                let amount = row.amount + meta.event_time();
                Ok((amount > 0).then_some(Columns { $name: row.$name + 1, amount }))
            }

            pub mod sure {
                use super::*;

                #[rustmq::map]
                pub fn $name(row: Columns) -> Columns {
                    Columns { $name: row.$name + 1, amount: row.amount }
                }
            }

            pub mod keeping {
                use super::*;

                #[rustmq::map]
                pub fn $name(text: &str, table: &Lookup, state: &mut State) -> Result<i64, Reject> {
                    let before = state.get::<i64>(text)?.unwrap_or_default();
                    let after = before + table.get::<i64>(text)?.unwrap_or(1);
                    state.put(text, &after)?;
                    Ok(after)
                }
            }

            pub mod filtering {
                use super::*;

                #[rustmq::filter]
                pub fn $name(text: &str, state: &mut State) -> bool {
                    state.put_bytes(text, "1");
                    text != "no"
                }
            }
        })*

        #[test]
        fn any_name_can_be_a_module() {
            $({
                let name = stringify!($name);
                let rows = [
                    format!(r#"{{"{name}":1,"amount":2}}"#),
                    format!(r#"{{"{name}":1,"amount":0}}"#),
                ];
                let out = run::<$name::$name>(rows);
                assert_eq!(out.texts("out"), [format!(r#"{{"{name}":2,"amount":2}}"#)]);

                let rows = vec![format!(r#"{{"{name}":1,"amount":2}}"#); 9];
                let made = format!(r#"{{"{name}":2,"amount":2}}"#);
                assert_eq!(run::<$name::sure::$name>(rows).texts("out"), vec![made; 9]);

                let node = Harness::new().lookup("table", [("b", "5")]);
                let mut lane = Lane::<$name::keeping::$name>::of(node);
                assert_eq!(lane.run(["a", "b", "a"]).texts("out"), ["1", "5", "2"]);
                let mut lane = Lane::<$name::filtering::$name>::new();
                assert_eq!(lane.run(["a", "no"]).texts("out"), ["a"]);
            })*
        }
    };
}

maps! {
    value take columns make meta row rows out state done output context place read fetch select
    open process way lookups opened never first emit keep route module bytes text
    full whole view count row0 not_sure
}

/// Names of what comes before a glob and of the prelude.
mod shadowed {
    #![allow(dead_code, non_snake_case, reason = "the point")]

    use rustmq::Reject;

    pub fn Ok() {}
    pub fn Some() {}
    pub struct Result;
    pub struct Option;

    #[derive(rustmq::Row)]
    pub struct Late {
        hours: f64,
    }

    #[rustmq::filter]
    pub fn late(row: Late) -> ::core::result::Result<bool, Reject> {
        ::core::result::Result::Ok(row.hours > 1.0)
    }
}

#[test]
fn the_prelude_may_mean_something_else() {
    let out = run::<shadowed::late>([r#"{"hours":2}"#, r#"{"hours":1}"#]);
    assert_eq!(out.texts("out"), [r#"{"hours":2}"#]);
}
