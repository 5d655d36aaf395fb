//! Which typed columns each edge of a stage must have: what expressions use and guests selected.
//!
//! Called by: `run`, when a lane opens its chain. Pure. Invariants: values are decoded where an edge
//! begins, once, and only the columns that somebody further on needs.

use std::collections::BTreeSet;

use codec::{Format, Projection};
use expr::Expr;

use super::{Op, Stage, StageNode};
use crate::operator::program::Warm;

/// What is done about the columns of an output.
pub(crate) enum Typed {
    /// Nobody needs more than the record.
    No,
    /// To be decoded here: the edge begins here.
    Decode { format: Format, wanted: Projection },
    /// Comes with the rows; these of its columns are needed further on.
    Keep(Vec<String>),
}

type Names = BTreeSet<String>;

/// By node and port.
pub(crate) fn typed(stage: &Stage, guests: &[Option<Warm>]) -> Vec<Vec<Typed>> {
    let ports = |node: &StageNode| vec![Names::new(); node.ports.len()];
    let mut needs: Vec<Vec<Names>> = stage.nodes.iter().map(ports).collect();
    for (number, node) in stage.nodes.iter().enumerate().rev() {
        for (input, (from, port)) in node.inputs.iter().enumerate() {
            let edge = stage
                .port(*from, *port)
                .and_then(|port| port.format.as_ref());
            let own = match &guests[number] {
                Some(guest) => selected(node, guest, input, edge, &needs[number]),
                None => used(&node.op, &needs[number]),
            };
            if let Some(names) = needs.get_mut(*from).and_then(|ports| ports.get_mut(*port)) {
                names.extend(own);
            }
        }
    }
    let one = |(node, needs): (&StageNode, &Vec<Names>)| {
        let ports = node.ports.iter().zip(needs);
        ports
            .map(|(port, needs)| decided(&node.op, &port.format, needs))
            .collect()
    };
    stage.nodes.iter().zip(&needs).map(one).collect()
}

/// What a guest reads of an input, and what of it is needed behind ports that mean the same by
/// their rows: those that it passes on are not decoded again.
fn selected(
    node: &StageNode,
    guest: &Warm,
    input: usize,
    edge: Option<&Format>,
    needs: &[Names],
) -> Names {
    let fields = guest.selected(input as u16).iter();
    let mut names: Names = fields.map(|field| field.name.clone()).collect();
    for (port, needs) in node.ports.iter().zip(needs) {
        if edge.is_some() && port.format.as_ref() == edge {
            names.extend(needs.iter().cloned());
        }
    }
    names
}

/// What an operator uses, and what goes through it.
fn used(op: &Op, needs: &[Names]) -> Names {
    let expressions: Vec<&Expr> = match op {
        Op::Source | Op::Wasm(_) => Vec::new(),
        Op::Filter(condition) => vec![condition.expr()],
        Op::Route(cases) => cases.iter().map(|case| case.expr()).collect(),
        Op::Map { select, key, .. } => select.iter().map(|(_, e)| e).chain(key).collect(),
        Op::Sink { key, .. } => key.iter().collect(),
    };
    // Field names never begin with `_` followed by a system column's name: see `model::schema`.
    let base = expr::base_schema();
    let of_fields = |name: &&str| base.index_of(name).is_err();
    let mut names: Names = expressions
        .into_iter()
        .flat_map(|e| e.columns())
        .filter(of_fields)
        .map(String::from)
        .collect();
    if let Op::Sink { format, .. } = op {
        let fields = format.iter().flat_map(|format| &format.schema().fields);
        names.extend(fields.map(|field| field.name.clone()));
    }
    if let Op::Filter(_) | Op::Route(_) = op {
        names.extend(needs.iter().flatten().cloned());
    }
    names
}

fn decided(op: &Op, format: &Option<Format>, needs: &Names) -> Typed {
    match (op, format) {
        _ if needs.is_empty() => Typed::No,
        (_, None) => Typed::No,
        (Op::Source | Op::Wasm(_), Some(format)) => Typed::Decode {
            wanted: format.project(|name| needs.contains(name)),
            format: format.clone(),
        },
        _ => Typed::Keep(needs.iter().cloned().collect()),
    }
}
