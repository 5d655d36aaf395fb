//! `wasm`: a guest over a chunk; its outputs by port, its rejections, retries and deaths.
//!
//! Called by: `stage::run`. Invariants: what a call emitted counts only if it returned ok; a
//! rejected or retried row has no outputs; the order on a port is the order of the calls. When
//! a guest dies (trap, deadline, limit) it is opened again and the rows are worked in parts, which are
//! halved until the rows that kill it stand alone: these are rejected, all others go through. One whose
//! memory has grown near its limit is opened again before that. A breaker ends the halving: each such row
//! costs a credit, good rows win credits back, and without one the lane stops.
//! Refuses: nothing by itself; the node's policy decides about what is reported.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::BinaryArray;
use codec::{EncodeError, Format};
use model::ids::Offset;
use model::rows::{Rows, RowsError};
use wasm::{
    Batch, Emission, Entry, Guest, Input, Keyed, OpenError, Outcome, ProcessError, Rejection,
};

use super::given_up::{Left, cuts, left, silent};
use super::part::{Part, first_of};
use super::program::{Program, Warm};
use super::timers::{cut_at, entry, watermark};
use super::{Chunk, Cut, OperatorError, Reject, Report, Why, presence, sink, unwritten_values};
use crate::limits::{BREAKER_ROWS_MAX, MEMORY_WAIT_MS};

/// A row that was tried before: how often the one at this offset failed at this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tried {
    pub node: usize,
    pub offset: Offset,
    pub failed: u32,
}

/// What is on one port.
#[derive(Clone, Default)]
pub(crate) struct Made {
    pub pieces: Vec<Chunk>,
    /// Of the pieces, about.
    bytes: usize,
}

/// One call of a node: where it stands and what it has so far.
pub(crate) struct Call<'a> {
    pub node: usize,
    pub lane: u32,
    pub program: &'a Program,
    /// Offsets of the lane's batch, by origin.
    pub offsets: &'a [Offset],
    /// Rows of a part, of chunks that the guest does not stand at once.
    pub part: usize,
    pub tried: &'a [Tried],
    /// Formats of the inputs and of the ports, where they have one.
    pub inputs: &'a [Option<&'a Format>],
    pub outputs: &'a [Option<&'a Format>],
    pub report: &'a mut Report,
    /// Bytes on one port, of all calls for one batch.
    pub port_bytes_max: usize,
    /// Pieces of each port, in order.
    pub ports: &'a mut [Made],
    /// What the module keeps, of modules that do.
    pub keyed: Option<&'a mut Keyed>,
    /// How often rows were given up so far, and those beside them worked in calls of their own.
    pub given_up: u32,
}

/// The rows of one call of the guest.
pub(super) struct Given<'a> {
    pub input: u16,
    batch: Arc<Batch>,
    pub origins: &'a [u32],
}

/// How a call ended.
enum Ended {
    Worked,
    /// Rows were given up after their tries.
    GaveUp(Left),
    /// What the guest died of: nothing of the call counts.
    Died(ProcessError),
}

impl Call<'_> {
    /// Runs the guest over all rows of a chunk from one input.
    pub fn run(&mut self, warm: &mut Warm, input: u16, chunk: &Chunk) -> Result<(), OperatorError> {
        let most = self.part.max(1);
        let mut parts = vec![Part::all(input, chunk, self.offsets)];
        while let Some(part) = parts.pop() {
            if part.len <= most {
                self.halved(warm, part)?;
                continue;
            }
            match self.called(warm, &part)? {
                Ended::Worked => {}
                Ended::GaveUp(left) => self.without(&part, left, &mut parts)?,
                Ended::Died(error) => self.parted(warm, &part, &error)?,
            }
        }
        Ok(())
    }

    /// More rows than the policy's, which the guest does not stand at once.
    fn parted(
        &mut self,
        warm: &mut Warm,
        all: &Part<'_>,
        error: &ProcessError,
    ) -> Result<(), OperatorError> {
        let (mut deaths, most) = (0, self.part.max(1));
        for from in (0..all.len).step_by(most) {
            let part = all.range(from, most.min(all.len - from));
            deaths += self.halved(warm, part)?;
        }
        if deaths == 0 {
            tracing::debug!(lane = self.lane, rows = all.len, %error, "worked in parts");
            self.report.crowded = true;
        }
        Ok(())
    }

    /// Some rows of a chunk, in as many calls as the rows need that kill the guest. How often it died.
    fn halved(&mut self, warm: &mut Warm, rows: Part<'_>) -> Result<u32, OperatorError> {
        // A stack instead of recursion: the left half is worked first.
        let (mut deaths, deaths_max) = (0, warm.breaker.deaths_max(rows.len));
        let (all, mut parts) = (rows.len, vec![rows]);
        while let Some(part) = parts.pop() {
            let error = match self.called(warm, &part)? {
                Ended::Worked => continue,
                Ended::GaveUp(left) => {
                    self.without(&part, left, &mut parts)?;
                    continue;
                }
                Ended::Died(error) => error,
            };
            self.report.fault(error.to_string());
            deaths += 1;
            if deaths > deaths_max {
                let message = format!(
                    "the breaker opened: the module died {deaths} times over {all} rows, more often than \
                     rows that kill it explain, the last with: {error}"
                );
                self.stop(&part, message);
            } else if part.len > 1 {
                let half = part.len / 2;
                parts.push(part.range(half, part.len - half));
                parts.push(part.range(0, half));
            } else {
                self.lethal(warm, &part, &error);
            }
        }
        Ok(deaths)
    }

    /// Runs the guest over some rows of a chunk, unless the lane stops before them.
    fn called(&mut self, warm: &mut Warm, part: &Part<'_>) -> Result<Ended, OperatorError> {
        if warm.stop.is_set() {
            return Err(OperatorError::Stopped);
        }
        if part.len == 0 || self.stopped(part.origins()) {
            return Ok(Ended::Worked);
        }
        let guest = match self.program.alive(self.lane, warm) {
            Ok(guest) => guest,
            Err(error) => {
                self.report.fault(error.to_string());
                self.not_opened(part, &error);
                return Ok(Ended::Worked);
            }
        };
        let given = Given {
            input: part.input,
            batch: Arc::new(part.batch()),
            origins: part.origins(),
        };
        let ended = match self.asked(guest, &given) {
            Ok(outcome) => self.kept(warm, &given, outcome)?,
            Err(ProcessError::Failed { code, message }) => {
                self.keyed.iter_mut().for_each(|keyed| keyed.drop_call());
                self.report.fault(format!("{code}: {message}"));
                self.failed(part, code, message);
                return Ok(Ended::Worked);
            }
            // nothing of the batch counts: it is worked again
            Err(ProcessError::Stopped) => return Err(OperatorError::Stopped),
            Err(error) => Ended::Died(error),
        };
        let counts = match &ended {
            Ended::Worked => part.len,
            Ended::GaveUp(left) if self.keyed.is_none() => part.len - left.behind.len(),
            Ended::GaveUp(_) | Ended::Died(_) => 0,
        };
        match counts {
            0 => self.keyed.iter_mut().for_each(|keyed| keyed.drop_call()),
            _ => self.keyed.iter_mut().for_each(|keyed| keyed.keep_call()),
        }
        warm.breaker.earn(counts as u32);
        if let Ended::Died(_) = ended {
            warm.guest = None;
        }
        Ok(ended)
    }

    fn asked(&mut self, guest: &mut Guest, given: &Given<'_>) -> Result<Outcome, ProcessError> {
        let input = Input {
            batch: given.batch.clone(),
            input: given.input,
            watermark: watermark(self.keyed.as_deref(), given.input),
        };
        match &mut self.keyed {
            Some(keyed) => guest.process_with(input, entry(given.input), keyed),
            None => guest.process(input),
        }
    }

    /// Whether the lane stops before all these rows; what comes before the stop is still worked,
    /// also for the inputs that follow.
    fn stopped(&self, origins: &[u32]) -> bool {
        let stop = |cut: &&Cut| matches!(cut.why, Why::Stop { .. });
        let cut = self.report.cut.as_ref().filter(stop);
        cut.is_some_and(|cut| origins.iter().all(|origin| *origin >= cut.origin))
    }

    /// None of these rows is worked, nor one behind them.
    fn stop(&mut self, part: &Part<'_>, message: String) {
        let origin = cut_at(part.input, part.first());
        let why = Why::Stop { message };
        self.report.cut(Cut { origin, why });
    }

    /// A try at a row failed: it is presented again.
    fn again(&mut self, origin: u32, after_ms: u64, message: String) {
        let why = Why::Retry {
            nodes: BTreeSet::from([self.node]),
            after_ms,
            message,
        };
        self.report.cut(Cut { origin, why });
    }

    /// Rows cannot be worked without an instance. Where it is only memory that is wanting, which neighbours
    /// may have and give back, they are worked later.
    fn not_opened(&mut self, part: &Part<'_>, error: &OpenError) {
        let message = format!("the module cannot be opened again: {error}");
        let OpenError::Memory { .. } = error else {
            return self.stop(part, message);
        };
        let why = Why::Wait {
            after_ms: MEMORY_WAIT_MS,
            message,
        };
        let origin = cut_at(part.input, part.first());
        self.report.cut(Cut { origin, why });
    }

    /// One row that kills the guest.
    fn lethal(&mut self, warm: &mut Warm, part: &Part<'_>, error: &ProcessError) {
        let origin = first_of(part.origins());
        if !warm.breaker.spend() {
            let offset = self.offsets[origin as usize];
            let message = format!(
                "the breaker opened: {BREAKER_ROWS_MAX} rows killed the module before the one \
                 at offset {offset} did: {error}"
            );
            return self.stop(part, message);
        }
        let code = match error {
            ProcessError::Deadline { .. } => "deadline",
            ProcessError::Limit { .. } => "limit",
            _ => "trap",
        };
        self.reject((part.input, origin), code.into(), error.to_string().into());
    }

    pub(super) fn reject(
        &mut self,
        (input, origin): (u16, u32),
        code: Cow<'static, str>,
        message: Arc<str>,
    ) {
        let stops_at = cut_at(input, origin);
        let attempt = 1 + self.failed_before(stops_at);
        let node = self.node;
        self.report.rejects.push(Reject {
            node,
            port: None,
            origin,
            stops_at,
            code,
            message,
            attempt,
        });
    }

    pub(super) fn failed_before(&self, origin: u32) -> u32 {
        let offset = self.offsets[origin as usize];
        let same = |t: &&Tried| t.node == self.node && t.offset == offset;
        self.tried.iter().find(same).map_or(0, |t| t.failed)
    }

    /// The module said no to a whole call: try again by policy, then give all its rows up.
    fn failed(&mut self, part: &Part<'_>, code: String, message: String) {
        let (input, origins) = (part.input, part.origins());
        let first = cut_at(input, first_of(origins));
        let failed = self.failed_before(first) + 1;
        if failed <= self.program.retry.max {
            let after_ms = self.program.retry.wait_ms(failed);
            let message = format!("{code}: {message}");
            return self.again(first, after_ms, message);
        }
        let message: Arc<str> = message.into();
        for origin in origins {
            let (code, message) = (code.clone().into(), message.clone());
            let reject = Reject {
                node: self.node,
                port: None,
                origin: *origin,
                stops_at: cut_at(input, *origin),
                code,
                message,
                attempt: failed,
            };
            self.report.rejects.push(reject);
        }
    }

    /// Takes what a call said; all or nothing of it. Its rows may go over a limit, too.
    fn kept(
        &mut self,
        warm: &mut Warm,
        given: &Given<'_>,
        outcome: Outcome,
    ) -> Result<Ended, OperatorError> {
        let (rejects, cut) = (self.report.rejects.len(), self.report.cut.clone());
        let before: Vec<(usize, usize)> = self.ports.iter().map(Made::size).collect();
        let error = match self.outcome(warm, given, outcome) {
            Ok(None) => return Ok(Ended::Worked),
            Ok(Some(left)) => return Ok(Ended::GaveUp(left)),
            Err(error) => error,
        };
        let Some(limit) = too_much(&error) else {
            return Err(error);
        };
        self.report.rejects.truncate(rejects);
        self.report.cut = cut;
        for (port, before) in self.ports.iter_mut().zip(before) {
            port.back_to(before);
        }
        Ok(Ended::Died(limit))
    }

    /// Whether no call of this input is tried again: never, or not any more.
    pub(super) fn gives_up(&self, input: u16) -> bool {
        let max = self.program.retry.max;
        let waits = entry(input) == Entry::Timers;
        max == 0 || waits && self.failed_before(cut_at(input, 0)) >= max
    }

    /// Tells of each row that was refused once, by the first that says so: of more the host would hold as
    /// many as there are calls. Returns the rows.
    fn refused(&mut self, given: &Given<'_>, rejections: Vec<Rejection>) -> Vec<u32> {
        let mut told = match rejections.is_empty() {
            true => Vec::new(),
            false => vec![false; given.origins.len()],
        };
        let mut bad = Vec::new();
        for rejection in rejections {
            let message: Arc<str> = rejection.message.into();
            let mut named = rejection.rows;
            named.sort_unstable();
            for row in named {
                if !std::mem::replace(&mut told[row as usize], true) {
                    let (code, message) = (rejection.code.clone().into(), message.clone());
                    self.reject((given.input, given.origins[row as usize]), code, message);
                    bad.push(row);
                }
            }
        }
        bad
    }

    /// The rows to be worked without some that were given up.
    fn outcome(
        &mut self,
        warm: &mut Warm,
        given: &Given<'_>,
        outcome: Outcome,
    ) -> Result<Option<Left>, OperatorError> {
        let (mut rejections, mut retries) = (outcome.rejections, outcome.retries);
        let cuts = match retries.is_empty() {
            true => Vec::new(),
            false => cuts(given),
        };
        let given_up = self.given_up(given.input, &cuts, &mut retries);
        let mut left = left(given, &given_up);
        if left.is_some() && self.keyed.is_some() {
            // whose changes of the state are whose nobody knows: the call never happened
            self.refused(given, given_up);
            return Ok(left.map(|left| self.staying(given, left)));
        }
        rejections.extend(given_up);
        if let Some(left) = &mut left {
            left.before.clear();
            silent(
                given,
                &mut left.behind,
                (&rejections, &retries, &outcome.emissions),
            );
        }
        let mut bad = self.refused(given, rejections);
        for retry in retries {
            let Some(first) = retry.rows.first() else {
                continue;
            };
            let after_ms = u64::from(retry.after_ms).min(self.program.retry.cap_ms);
            let message = format!("{}: {}", retry.code, retry.message);
            self.again(cuts[*first as usize], after_ms, message);
            bad.extend(retry.rows);
        }
        bad.sort_unstable();
        bad.dedup();
        self.emissions(warm, given, outcome.emissions, &bad)?;
        Ok(left.map(|left| self.staying(given, left)))
    }

    fn emissions(
        &mut self,
        warm: &mut Warm,
        given: &Given<'_>,
        emissions: Vec<Emission>,
        bad: &[u32],
    ) -> Result<(), OperatorError> {
        let mut emissions = emissions.into_iter().peekable();
        while let Some(mut emission) = emissions.next() {
            if let Emission::Forward { port, rows: chosen } = &mut emission {
                // Calls that follow each other on a port are one gather.
                while let Some(Emission::Forward { port: next, rows }) = emissions.peek() {
                    if next != port {
                        break;
                    }
                    chosen.extend(rows);
                    emissions.next();
                }
            }
            let columns = match &emission {
                Emission::Columns { columns, .. } => columns.get_array_memory_size(),
                _ => 0,
            };
            let (port, made) = self.emitted(warm, given, emission, bad)?;
            let at = usize::from(port);
            let format = self.outputs.get(at).copied().flatten();
            let made = sink::fitting((self.node, at), made, format, self.report)?;
            let bytes = made.rows.bytes() + columns;
            self.ports[usize::from(port)].push(made, bytes, self.port_bytes_max)?;
        }
        Ok(())
    }

    /// The rows of one emission that are not bad, and their port.
    fn emitted(
        &self,
        warm: &mut Warm,
        given: &Given<'_>,
        emission: Emission,
        bad: &[u32],
    ) -> Result<(u16, Chunk), OperatorError> {
        Ok(match emission {
            Emission::Forward {
                port,
                rows: mut chosen,
            } => {
                if !bad.is_empty() {
                    chosen.retain(|row| bad.binary_search(row).is_err());
                }
                (port, self.forwarded(given, port).take(&chosen)?)
            }
            Emission::Emit {
                port,
                parents,
                keys,
                values,
                event_times,
                headers,
            } => {
                let own = Own {
                    keys: Some(keys),
                    event_times,
                    headers: &headers,
                };
                let made = made(given, Some(&parents), values, own)?;
                (port, made.without(&children(&parents, bad))?)
            }
            Emission::Columns {
                port,
                parents,
                columns,
                keys,
                event_times,
                headers,
            } => {
                let own = Own {
                    keys,
                    event_times,
                    headers: &headers,
                };
                let format = warm.format(self.outputs, port, &columns)?;
                let values = match format.keeps_columns() {
                    true => presence(None, columns.num_rows()),
                    false => unwritten_values(columns.num_rows()),
                };
                let mut made = made(given, parents.as_deref(), values, own)?;
                made.unwritten = Some(format);
                made.columns = Some(columns);
                let bad = match &parents {
                    Some(parents) => children(parents, bad),
                    None => bad.to_vec(),
                };
                (port, made.without(&bad)?)
            }
        })
    }

    /// The rows as they go on; with the columns they have where the port means the same by them.
    fn forwarded(&self, given: &Given<'_>, port: u16) -> Chunk {
        let from = self.inputs.get(usize::from(given.input)).copied().flatten();
        let to = self.outputs.get(usize::from(port)).copied().flatten();
        let same = from.is_some() && from == to;
        let Batch {
            rows,
            columns,
            unwritten,
            ..
        } = &*given.batch;
        let columns = columns.as_ref().filter(|_| same || unwritten.is_some());
        Chunk {
            rows: rows.clone(),
            origins: given.origins.to_vec(),
            columns: columns.cloned(),
            unwritten: unwritten.clone(),
        }
    }
}

impl Made {
    /// Pieces and bytes, for [`Made::back_to`].
    pub fn size(&self) -> (usize, usize) {
        (self.pieces.len(), self.bytes)
    }

    /// Drops what was pushed since.
    pub fn back_to(&mut self, (pieces, bytes): (usize, usize)) {
        self.pieces.truncate(pieces);
        self.bytes = bytes;
    }

    /// Refuses what could not be joined with what is here.
    pub fn push(&mut self, piece: Chunk, bytes: usize, bytes_max: usize) -> Result<(), RowsError> {
        self.bytes += bytes;
        if self.bytes > bytes_max {
            return Err(RowsError::Overflow {
                column: "rows of an output",
                bytes: self.bytes as u64,
            });
        }
        self.pieces.push(piece);
        Ok(())
    }
}

/// The limit that an outcome went over, if that is why it cannot be taken.
fn too_much(error: &OperatorError) -> Option<ProcessError> {
    let limit = match error {
        OperatorError::Rows(RowsError::Overflow { .. }) => i32::MAX as u64,
        OperatorError::Encode(EncodeError::TooLarge { bytes_max, .. }) => *bytes_max as u64,
        _ => return None,
    };
    Some(ProcessError::Limit {
        what: "bytes on one output for one batch",
        limit,
    })
}

/// The emitted rows whose parents are bad.
fn children(parents: &[u32], bad: &[u32]) -> Vec<u32> {
    if bad.is_empty() {
        return Vec::new();
    }
    let is_bad = |row: &u32| bad.binary_search(&parents[*row as usize]).is_ok();
    (0..parents.len() as u32).filter(is_bad).collect()
}

/// What new rows have of their own, instead of their parents'.
struct Own<'a> {
    keys: Option<BinaryArray>,
    event_times: Option<Vec<i64>>,
    headers: &'a [(String, BinaryArray)],
}

/// New rows with what they do not have themselves from their parents; `None`: each row that was
/// given makes one, in order.
fn made(
    given: &Given<'_>,
    parents: Option<&[u32]>,
    values: BinaryArray,
    own: Own<'_>,
) -> Result<Chunk, OperatorError> {
    let rows = &given.batch.rows;
    let bare = Rows {
        values: unwritten_values(rows.len()),
        keys: match own.keys {
            Some(_) => unwritten_values(rows.len()),
            None => rows.keys.clone(),
        },
        ..rows.clone()
    };
    let inherited = match parents {
        None => bare,
        Some(parents) => bare.try_take(parents)?,
    };
    let timestamps = match own.event_times {
        Some(times) => times.into(),
        None => inherited.timestamps,
    };
    let keys = own.keys.unwrap_or(inherited.keys);
    let rows = Rows::new(timestamps, keys, values, inherited.headers)?;
    let origin = |row: &u32| given.origins[*row as usize];
    Ok(Chunk {
        rows: match own.headers.is_empty() {
            true => rows,
            false => rows.with_headers(own.headers)?,
        },
        origins: match parents {
            None => given.origins.to_vec(),
            Some(parents) => parents.iter().map(origin).collect(),
        },
        columns: None,
        unwritten: None,
    })
}
