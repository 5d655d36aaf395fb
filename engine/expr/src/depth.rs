//! A look at a text's tokens before anything recursive sees it.
//!
//! Called before an expression or a query is planned. `1 + 1 + 1 …` parses in a loop but makes a
//! tree as deep as it is long, and planning walks it recursively.
//! Invariants: works in one pass over the tokens; a text it passes does not exhaust the planner's
//! stack (`stack_is_safe`).
//! Refuses: chains beyond `OPERATORS_MAX`, set operations and joins beyond `SET_OPERATIONS_MAX`.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::limits::{OPERATORS_MAX, SET_OPERATIONS_MAX};

/// A text that would make too deep a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooDeep {
    /// A chain of operators.
    #[error("more than {OPERATORS_MAX} operators in one expression: split it up, or use IN")]
    Operators,
    /// Set operations or joins.
    #[error("more than {SET_OPERATIONS_MAX} joins and set operations in one query")]
    Sets,
}

/// Counts operators of the deepest chain. A text that does not tokenise passes: the parser will
/// say what is wrong with it.
///
/// # Errors
/// See [`TooDeep`].
pub fn depth_check(text: &str) -> Result<(), TooDeep> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize() else {
        return Ok(());
    };
    let mut open = vec![0_usize];
    let mut depth = 0_usize;
    let mut sets = 0_usize;
    let mut before = Keyword::NoKeyword;
    for token in &tokens {
        let here = open.last_mut().expect("one level is always left");
        match token {
            Token::Whitespace(_) => continue,
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Period
            | Token::Char(_)
            | Token::EOF => {}
            Token::LParen | Token::LBracket | Token::LBrace => {
                *here += 1;
                depth += 1;
                open.push(0);
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                // A closed level is part of the operand it stands in: `a[1][1][1]` still counts.
                if open.len() > 1 {
                    depth -= open.pop().unwrap_or(0);
                }
            }
            Token::Comma | Token::SemiColon => {
                depth -= std::mem::take(here);
            }
            Token::Word(word) => match word.keyword {
                Keyword::NoKeyword => {}
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::JOIN => sets += 1,
                Keyword::FROM if before == Keyword::DISTINCT => {}
                key if resets(key) => depth -= std::mem::take(here),
                _ => {
                    *here += 1;
                    depth += 1;
                }
            },
            _ => {
                *here += 1;
                depth += 1;
            }
        }
        before = if let Token::Word(word) = token {
            word.keyword
        } else {
            Keyword::NoKeyword
        };
        if depth > OPERATORS_MAX {
            return Err(TooDeep::Operators);
        }
        if sets > SET_OPERATIONS_MAX {
            return Err(TooDeep::Sets);
        }
    }
    Ok(())
}

/// Keywords that begin an expression which is not part of the one before.
fn resets(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::SELECT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::ORDER
            | Keyword::LIMIT
            | Keyword::ON
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::WITH
    )
}
