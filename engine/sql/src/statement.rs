//! Which statements are let through, and whether their tables are there.
//!
//! Called by the engine before anything is planned, and once more on the plan.
//! Refuses: all but SELECT (with WITH, VALUES, set operations), EXPLAIN, DESCRIBE, SHOW TABLES
//! and SHOW COLUMNS; names of tables that are not there.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Ast;

use crate::catalog::{Names, TOPICS};
use crate::error::SqlError;
use crate::limits::QUERY_BYTES_MAX;

const TOPIC_COMMANDS: &str =
    "use `rustmq topic`, `rustmq produce` or `rustmq pipeline` to change something";

/// Parses one statement that only reads.
pub(crate) fn parse(state: &SessionState, text: &str) -> Result<Statement, SqlError> {
    let plain = |message: String| SqlError::Text {
        message,
        offset: None,
    };
    if text.len() > QUERY_BYTES_MAX {
        return Err(plain(format!(
            "the query has {} bytes, more than {QUERY_BYTES_MAX}",
            text.len()
        )));
    }
    if text.trim().is_empty() {
        return Err(plain("the query is empty".to_string()));
    }
    expr::depth_check(text).map_err(|e| plain(e.to_string()))?;
    let dialect = state.config_options().sql_parser.dialect;
    let statement = state.sql_to_statement(text, &dialect).map_err(|e| {
        match e.to_string().contains("single SQL statement") {
            true => plain("one statement at a time: remove what follows the first `;`".to_string()),
            false => SqlError::planning(text, e),
        }
    })?;
    read_only(&statement)?;
    Ok(statement)
}

fn read_only(statement: &Statement) -> Result<(), SqlError> {
    let refused = |what: &str| {
        Err(SqlError::ReadOnly {
            what: what.to_string(),
            instead: TOPIC_COMMANDS,
        })
    };
    match statement {
        Statement::CreateExternalTable(_) => refused("CREATE EXTERNAL TABLE"),
        Statement::CopyTo(_) => refused("COPY"),
        Statement::Reset(_) => refused("RESET"),
        Statement::Explain(explain) => read_only(&explain.statement),
        Statement::Statement(ast) => match ast.as_ref() {
            Ast::Query(_)
            | Ast::ExplainTable { .. }
            | Ast::ShowTables { .. }
            | Ast::ShowColumns { .. } => Ok(()),
            Ast::Explain { statement, .. } if matches!(**statement, Ast::Query(_)) => Ok(()),
            other => refused(&verb(&other.to_string())),
        },
    }
}

/// The first words of a statement that are keywords: `DROP TABLE`, `INSERT INTO`.
fn verb(text: &str) -> String {
    let words: Vec<&str> = text
        .split_whitespace()
        .take(2)
        .take_while(|word| word.chars().all(|c| c.is_ascii_uppercase()))
        .collect();
    if words.is_empty() {
        "this statement".to_string()
    } else {
        words.join(" ")
    }
}

/// Every table the statement names must be there.
pub(crate) fn tables_known(
    state: &SessionState,
    statement: &Statement,
    names: &Names,
    text: &str,
) -> Result<(), SqlError> {
    let references = state
        .resolve_table_references(statement)
        .map_err(|e| SqlError::planning(text, e))?;
    for reference in references {
        let table = reference.table();
        let unknown = match reference.schema() {
            None if state.table_functions().contains_key(table) => None,
            None | Some(TOPICS) => names.topic_missing(table),
            Some("system") => names.system_missing(table),
            Some("information_schema") => None,
            Some(schema) => names.schema_missing(schema, table),
        };
        if let Some(message) = unknown {
            let whole = reference.to_string().replace('"', "");
            let offset = text.find(&whole).or_else(|| text.find(table));
            return Err(SqlError::Text { message, offset });
        }
    }
    Ok(())
}

/// The plan, whatever its text looked like, must only read and stay small.
pub(crate) fn plan_allowed(plan: &LogicalPlan) -> Result<(), SqlError> {
    let options = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    options.verify_plan(plan).map_err(|e| SqlError::ReadOnly {
        what: expr::plain_message(&e),
        instead: TOPIC_COMMANDS,
    })?;
    let mut wide = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                wide = wide.take().or_else(|| expr::functions::too_wide(part));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map_err(|e: DataFusionError| SqlError::planning("", e))?;
    match wide {
        Some(message) => Err(SqlError::Text {
            message,
            offset: None,
        }),
        None => Ok(()),
    }
}
