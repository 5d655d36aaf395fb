//! The shape of a pipeline: who reads whom, in which order, and what hangs together.
//!
//! Called by: `lint` (complaints), `compile` and `plan` (order, stages). Pure.
//! Invariants: `order` holds every node that is in no cycle, inputs before their readers, in the
//! file's order where that leaves a choice; a stage is one source and all that it reaches.
//! Refuses: inputs and ports that do not exist, cycles (named with their path).

use std::collections::{BTreeSet, HashMap};

use model::diagnostic::Diagnostic;

use crate::spec::reader::listed;
use crate::spec::types::{At, InputRef, Node, OUT};
use crate::spec::yaml::Pos;
use crate::spec::{Broken, Spec, hint};

/// An output of a node, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    pub node: usize,
    pub port: usize,
}

#[derive(Debug)]
pub struct Graph<'s> {
    pub spec: &'s Spec,
    /// Inputs of each node in the file's order; nothing where an input is not known.
    pub links: Vec<Vec<Option<Link>>>,
    pub order: Vec<usize>,
}

/// Collects complaints about places of one file.
pub(crate) struct Complaints<'s> {
    pub spec: &'s Spec,
    pub list: Vec<Diagnostic>,
}

impl Complaints<'_> {
    pub fn error(&mut self, at: Pos, message: impl Into<String>, hint: Option<String>) {
        let mut diagnostic = Diagnostic::error(&self.spec.file, at.line, at.column, message);
        diagnostic.hint = hint;
        self.list.push(diagnostic);
    }

    pub fn warning(&mut self, at: Pos, message: impl Into<String>, hint: Option<String>) {
        let mut diagnostic = Diagnostic::warning(&self.spec.file, at.line, at.column, message);
        diagnostic.hint = hint;
        self.list.push(diagnostic);
    }
}

impl<'s> Graph<'s> {
    pub(crate) fn new(spec: &'s Spec, broken: &Broken, out: &mut Complaints<'s>) -> Graph<'s> {
        let numbers: HashMap<&str, usize> = spec
            .nodes
            .names()
            .enumerate()
            .map(|(i, name)| (name, i))
            .collect();
        let mut links = Vec::with_capacity(spec.nodes.len());
        for (name, node) in spec.nodes.iter() {
            let resolve = |input| resolve(spec, broken, &numbers, name, input, out);
            links.push(node.inputs().iter().map(resolve).collect());
        }
        let mut graph = Graph {
            spec,
            links,
            order: Vec::new(),
        };
        graph.order = graph.sort();
        graph.cycles(out);
        graph
    }

    pub fn node(&self, number: usize) -> (&'s At<String>, &'s Node) {
        let (name, node) = &self.spec.nodes.0[number];
        (name, node)
    }

    pub fn name(&self, number: usize) -> &'s str {
        &self.spec.nodes.0[number].0.value
    }

    fn inputs(&self, number: usize) -> impl Iterator<Item = usize> + '_ {
        self.links[number].iter().flatten().map(|link| link.node)
    }

    /// Takes, again and again, the first node of the file whose inputs are all taken.
    fn sort(&self) -> Vec<usize> {
        let count = self.links.len();
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); count];
        let mut waiting: Vec<usize> = Vec::with_capacity(count);
        for node in 0..count {
            let inputs: BTreeSet<usize> = self.inputs(node).collect();
            waiting.push(inputs.len());
            inputs
                .into_iter()
                .for_each(|input| readers[input].push(node));
        }
        let mut ready: BTreeSet<usize> = (0..count).filter(|n| waiting[*n] == 0).collect();
        let mut order = Vec::with_capacity(count);
        while let Some(node) = ready.pop_first() {
            order.push(node);
            for reader in &readers[node] {
                waiting[*reader] -= 1;
                if waiting[*reader] == 0 {
                    ready.insert(*reader);
                }
            }
        }
        order
    }

    /// Names each cycle once, at the input that closes it.
    fn cycles(&self, out: &mut Complaints<'_>) {
        let sorted: BTreeSet<usize> = self.order.iter().copied().collect();
        let mut left: BTreeSet<usize> = (0..self.links.len())
            .filter(|n| !sorted.contains(n))
            .collect();
        while let Some(start) = left.first().copied() {
            // Every node left has an input that is left: walking inputs must come round.
            let mut path = vec![start];
            let closed = loop {
                let here = path[path.len() - 1];
                let next = self.inputs(here).find(|n| !sorted.contains(n));
                let Some(next) = next else { break None };
                if let Some(from) = path.iter().position(|n| *n == next) {
                    break Some(from);
                }
                if !left.contains(&next) {
                    break None;
                }
                path.push(next);
            };
            if let Some(from) = closed {
                self.cycle(&path[from..], out);
            }
            path.iter().for_each(|n| {
                left.remove(n);
            });
        }
    }

    fn cycle(&self, path: &[usize], out: &mut Complaints<'_>) {
        // `path` goes from reader to input; a person reads along the stream.
        let first = path.iter().copied().min().unwrap_or_default();
        let mut names: Vec<usize> = path.iter().rev().copied().collect();
        let turn = names.iter().position(|n| *n == first).unwrap_or_default();
        names.rotate_left(turn);
        let last = names[names.len() - 1];
        let text: Vec<&str> = names
            .iter()
            .chain(std::iter::once(&first))
            .map(|n| self.name(*n))
            .collect();
        let input = self.links[first]
            .iter()
            .position(|l| l.is_some_and(|l| l.node == last));
        let (name, node) = self.node(first);
        let at = input.map_or(name.at, |i| node.inputs()[i].at);
        let advice = "records flow one way; to go round, write to a topic and read it elsewhere";
        out.error(
            at,
            format!("cycle: {}", text.join(" -> ")),
            Some(advice.to_string()),
        );
    }

    /// The source and what it reaches, inputs before their readers.
    pub fn reached(&self, source: usize) -> Vec<usize> {
        let mut inside = BTreeSet::from([source]);
        let mut out = Vec::new();
        for node in &self.order {
            if *node == source || self.inputs(*node).any(|input| inside.contains(&input)) {
                inside.insert(*node);
                out.push(*node);
            }
        }
        out
    }

    /// Numbers of the sources, in the file's order.
    pub fn sources(&self) -> Vec<usize> {
        let is_source = |n: &usize| matches!(self.node(*n).1, Node::Source(_));
        let mut sources: Vec<usize> = self.order.iter().copied().filter(is_source).collect();
        sources.sort_unstable();
        sources
    }
}

fn resolve(
    spec: &Spec,
    broken: &Broken,
    numbers: &HashMap<&str, usize>,
    reader: &At<String>,
    input: &At<InputRef>,
    out: &mut Complaints<'_>,
) -> Option<Link> {
    let Some(number) = numbers.get(input.node.as_str()) else {
        if !broken.nodes.contains(&input.node) {
            let message = format!(
                "input `{input}` of `{}`: no node `{}`",
                reader.value, input.node
            );
            let advice = hint(&input.node, numbers.keys().copied());
            out.error(input.at, message, advice);
        }
        return None;
    };
    let node = &spec.nodes.0[*number].1;
    let ports = node.ports();
    if let Some(port) = ports.iter().position(|p| *p == input.port) {
        return Some(Link {
            node: *number,
            port,
        });
    }
    if broken.nodes.contains(&input.node) {
        return None;
    }
    if ports.is_empty() {
        let message = format!(
            "input `{input}` of `{}`: `{}` is a sink and has no outputs",
            reader.value, input.node
        );
        let advice = match node {
            Node::Sink(sink) => format!("read its topic with a source: {}", sink.topic.value),
            _ => String::new(),
        };
        out.error(input.at, message, Some(advice));
        return None;
    }
    let message = format!(
        "input `{input}` of `{}`: `{}` has no output `{}`",
        reader.value, input.node, input.port
    );
    let named: Vec<String> = ports
        .iter()
        .map(|p| format!("{}.{p}", input.node))
        .collect();
    let advice = match hint(&input.port, ports.iter().copied()) {
        Some(hint) if input.port != OUT => hint,
        _ => format!("its outputs are {}", listed(&named)),
    };
    out.error(input.at, message, Some(advice));
    None
}
