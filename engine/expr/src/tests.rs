//! What expressions give on three rows, what is refused and where, and that compiling is safe.

use super::*;
use crate::limits::{OPERATORS_MAX, SET_OPERATIONS_MAX};
use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use model::rows::RowsBuilder;
use proptest::prelude::*;
use std::sync::Arc;

/// Three records with typed columns `carrier`, `dep_delay`, `seats`, `camelCase`.
fn batch() -> RecordBatch {
    let mut rows = RowsBuilder::new();
    rows.push(
        1_357_000_000_000_000,
        Some(b"k1"),
        Some(br#"{"a":{"b":[1,2]},"n":5}"#),
        &[],
    );
    rows.push(1_357_003_600_000_000, None, Some(b"not json"), &[]);
    rows.push(1_357_007_200_000_000, Some(b"k3"), Some(b"\xff"), &[]);
    let base = base_batch(&rows.finish(), true);
    let mut fields: Vec<Arc<Field>> = base.schema().fields().iter().cloned().collect();
    let mut columns = base.columns().to_vec();
    let typed: [(&str, ArrayRef); 4] = [
        (
            "carrier",
            Arc::new(StringArray::from(vec![Some("UA"), None, Some("AA")])),
        ),
        (
            "dep_delay",
            Arc::new(Float64Array::from(vec![Some(90.0), Some(-3.0), None])),
        ),
        ("seats", Arc::new(Int64Array::from(vec![2, 0, 7]))),
        ("camelCase", Arc::new(Int64Array::from(vec![1, 2, 3]))),
    ];
    for (name, column) in typed {
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn show(values: &ArrayRef) -> String {
    let cells: Vec<String> = (0..values.len())
        .map(|row| {
            match values
                .logical_nulls()
                .is_some_and(|nulls| nulls.is_null(row))
            {
                true => "null".to_string(),
                false => array_value_to_string(values, row).unwrap(),
            }
        })
        .collect();
    cells.join(" ")
}

/// An expression in; its type and three values, or where and what is wrong, out.
fn check(text: &str, expected: &str) {
    let batch = batch();
    let found = match Expr::compile(text, &batch.schema()) {
        Err(e) => format!(
            "{}: {e}",
            e.offset.map_or("-".to_string(), |at| at.to_string())
        ),
        Ok(expr) => match expr.eval(&batch) {
            Err(e) => format!("! {e}"),
            Ok(values) => {
                assert_eq!(values.len(), 3, "{text}");
                assert_eq!(values.data_type(), expr.data_type(), "{text}");
                format!("{}: {}", expr.data_type(), show(&values))
            }
        },
    };
    assert_eq!(found, expected, "{text}");
}

#[test]
fn arithmetic_text_and_logic() {
    check("dep_delay / 60.0", "Float64: 1.5 -0.05 null");
    check("dep_delay > 15", "Boolean: true false null");
    check("seats + 1", "Int64: 3 1 8");
    check("seats > 1.5", "Boolean: true false true");
    check("carrier is not null", "Boolean: true false true");
    check("carrier = 'UA' or seats = 0", "Boolean: true true false");
    check("upper(lower(carrier)) || '!'", "Utf8: UA! null AA!");
    check("coalesce(carrier, 'none')", "Utf8: UA none AA");
    check(
        "case when seats > 1 then 'many' else 'few' end",
        "Utf8: many few many",
    );
    check("carrier in ('AA', 'DL')", "Boolean: false null true");
    check("1 + 1", "Int64: 2 2 2");
    check("null", "Null: null null null");
    check("camelCase * 2", "Int64: 2 4 6");
    check("cast(seats as varchar)", "Utf8: 2 0 7");
}

#[test]
fn times_keys_and_json() {
    check(
        "date_trunc('day', _timestamp) = '2013-01-01T00:00:00Z'",
        "Boolean: true true true",
    );
    check(
        "date_bin(interval '2 hours', _timestamp)",
        "Timestamp(ns, \"UTC\"): 2013-01-01T00:00:00Z 2013-01-01T00:00:00Z 2013-01-01T02:00:00Z",
    );
    check("extract(hour from _timestamp)", "Int32: 0 1 2");
    check("_value_text->>'n'", "Utf8: 5 null null");
    check("json_get_int(_value_text, 'n') + 1", "Int64: 6 null null");
    check("_value_text->'a'->'b'->>1", "Utf8: 2 null null");
    check("_value_text->'a'", "Utf8View: {\"b\":[1,2]} null null");
    check("octet_length(_value_text)", "Int32: 23 8 null");
    check(
        "octet_length(_value)",
        "-: function 'octet_length' requires String, but received Binary (DataType: Binary); \
         `_value` is bytes: `_value_text` is the same as text",
    );
    check("_key is null", "Boolean: false true false");
}

#[test]
fn names_what_is_wrong_and_where() {
    check("", "0: the expression is empty");
    check("  ", "0: the expression is empty");
    check("seats +", "7: expected: an expression, found: EOF");
    check(
        "seats seats2",
        "6: expected: end of expression, found: seats2",
    );
    check("seats as n", "9: an expression has no alias: remove `AS n`");
    let known = "known columns: _timestamp, _key, _value, _value_text, carrier, dep_delay, seats, camelCase";
    check(
        "1 + carier",
        &format!("4: unknown column `carier`: did you mean `carrier`? {known}"),
    );
    check(
        "camelcase",
        &format!("0: unknown column `camelcase`: did you mean `camelCase`? {known}"),
    );
    check(
        "uppr(carrier)",
        "0: unknown function `uppr`: did you mean `upper`?",
    );
    check(
        "1 + sum(seats)",
        "4: aggregate `sum` is not possible here: an expression sees one row",
    );
    check(
        "row_number() over ()",
        "0: window function `row_number` is not possible here: an expression sees one row",
    );
    check(
        "(select 1)",
        "1: subqueries are not possible here: an expression sees one row",
    );
    let replay = "its answer changes, and a replay must give the same; use `_timestamp`";
    check(
        "now()",
        &format!("0: function `now` is not possible here: {replay}"),
    );
    check(
        "1.0 + random()",
        &format!("6: function `random` is not possible here: {replay}"),
    );
    check(
        "repeat('x', 1000000000)",
        "0: function `repeat` is left out: its result can outgrow memory",
    );
}

#[test]
fn a_row_that_fails_is_found() {
    let batch = batch();
    let expr = Expr::compile("10 / seats", &batch.schema()).unwrap();
    assert!(expr.eval(&batch).is_err());
    let (values, errors) = expr.eval_each(&batch).unwrap();
    assert_eq!(show(&values), "5 null 1");
    assert_eq!(
        errors,
        [(1, "`10 / seats` failed: divide by zero error".to_string())]
    );
    let predicate = Predicate::compile("10 / seats > 1", &batch.schema()).unwrap();
    let (wanted, errors) = predicate.eval_each(&batch).unwrap();
    assert_eq!(
        (show(&(Arc::new(wanted) as ArrayRef)), errors.len()),
        ("true false false".into(), 1)
    );
}

#[test]
fn a_predicate_takes_null_as_false() {
    let batch = batch();
    let predicate = Predicate::compile("dep_delay < 100", &batch.schema()).unwrap();
    let wanted: ArrayRef = Arc::new(predicate.eval(&batch).unwrap());
    assert_eq!(show(&wanted), "true true false");
    let error = Predicate::compile("dep_delay + 1", &batch.schema()).unwrap_err();
    assert_eq!(
        error.message,
        "a condition must be true or false, this gives Float64: compare it with something"
    );
}

#[test]
fn any_batch_with_the_columns_will_do() {
    let expr = Expr::compile("seats + camelCase", &batch().schema()).unwrap();
    assert_eq!(expr.columns().collect::<Vec<_>>(), ["seats", "camelCase"]);
    let other = batch().project(&[7, 0, 6]).unwrap();
    assert_eq!(show(&expr.eval(&other).unwrap()), "3 2 10");
    let error = expr.eval(&batch().project(&[7]).unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`seats + camelCase` needs column `seats` of type Int64, the batch has none"
    );
    let empty = batch().slice(0, 0);
    assert_eq!(expr.eval(&empty).unwrap().len(), 0);
    assert_eq!(expr.eval_each(&empty).unwrap().0.len(), 0);
}

/// The longest chains the bounds let through compile, run and drop on ordinary stacks.
#[test]
fn stack_is_safe() {
    let batch = batch();
    let chain = |operator: &str, operand: &str, times: usize| vec![operand; times].join(operator);
    for text in [
        chain("+", "seats", OPERATORS_MAX + 1),
        chain(" or ", "carrier='a'", OPERATORS_MAX / 2),
        chain("||", "carrier", OPERATORS_MAX + 1),
    ] {
        let expr = Expr::compile(&text, &batch.schema()).unwrap();
        assert_eq!(expr.eval(&batch).unwrap().len(), 3);
    }
    let error = Expr::compile(&chain("+", "1", 30_000), &batch.schema()).unwrap_err();
    assert_eq!(
        error.message,
        format!("more than {OPERATORS_MAX} operators in one expression: split it up, or use IN")
    );
    for (open, close) in [
        ("(", ")"),
        ("not ", ""),
        ("- ", ""),
        ("case when true then ", " end"),
    ] {
        let text = format!("{}1{}", open.repeat(2000), close.repeat(2000));
        assert!(Expr::compile(&text, &batch.schema()).is_err(), "{open}");
    }
    let list = vec!["'a'"; 5000].join(",");
    assert!(Expr::compile(&format!("carrier in ({list})"), &batch.schema()).is_ok());
    let sets = vec!["select 1"; SET_OPERATIONS_MAX + 2].join(" union all ");
    assert_eq!(depth_check(&sets), Err(TooDeep::Sets));
    assert_eq!(
        depth_check(&format!(
            "select 1 {}",
            "is distinct from 1 ".repeat(OPERATORS_MAX)
        )),
        Err(TooDeep::Operators)
    );
}

type Rust = fn(i64, i64) -> i64;

fn formula() -> impl Strategy<Value = (String, Rust)> {
    let table: [(&str, Rust); 5] = [
        ("a + b", |a, b| a + b),
        ("a * 3 - b", |a, b| a * 3 - b),
        ("case when a > b then a else b end", |a, b| a.max(b)),
        ("abs(a)", |a, _| a.abs()),
        (
            "coalesce(nullif(a, b), 7)",
            |a, b| if a == b { 7 } else { a },
        ),
    ];
    (0..table.len()).prop_map(move |i| (table[i].0.to_string(), table[i].1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Expressions agree with Rust on integers.
    #[test]
    fn agrees_with_rust((text, rust) in formula(), a in proptest::collection::vec(-1000..1000_i64, 0..50)) {
        let b: Vec<i64> = a.iter().rev().copied().collect();
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Int64, true),
        ]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![
            Arc::new(Int64Array::from(a.clone())),
            Arc::new(Int64Array::from(b.clone())),
        ]).unwrap();
        let expected: Vec<i64> = a.iter().zip(&b).map(|(a, b)| rust(*a, *b)).collect();
        let found = Expr::compile(&text, &batch.schema()).unwrap().eval(&batch).unwrap();
        let expected: ArrayRef = Arc::new(Int64Array::from(expected));
        prop_assert_eq!(&found, &expected);
    }

    /// No text makes the compiler panic.
    #[test]
    fn survives_any_text(text in r#"[a-z_()'"0-9 +*/<>=,.:\[\]-]{0,40}"#) {
        let _ = Expr::compile(&text, &base_schema());
    }
}
