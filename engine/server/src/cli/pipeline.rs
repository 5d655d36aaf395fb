//! `rustmq pipeline lint|plan|apply|list|describe|delete|schema`; `canary` stands in its own file, what
//! `describe` shows of lanes in `lanes`.
//!
//! Called by: `cli::run`. Calls: `pipelines` (reading files), `module` (building folders), the
//! server.
//! Invariants: `lint` and `schema` need no server; a file that does not lint is never sent;
//! modules are uploaded only where the server does not have them; what is sent is independent
//! of this machine (environment and schema files are put in).
//! Refuses: all errors of a file at once, as `FILE:LINE:COL: error: …`, and with `--json` as a list of
//! diagnostics on standard output, whoever finds them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::{Diagnostic, Digest};
use pipelines::spec::Surroundings;
use pipelines::spec::types::ModuleSource;
use pipelines::{PipelineStatus, Spec};
use protocol::{
    ModuleHas, ModulePut, PipelineApplied, PipelineApply, PipelineDelete, PipelineDescribe,
    PipelineFile, PipelineList, PipelinePlan, PipelinePlanned,
};

use super::args::Pipeline;
use super::canary;
use super::connect::{Server, Session};
use super::exit::{Failure, deleted, written};
use super::lanes::lanes;
use crate::module;
use crate::output::{self, progress::Progress};

pub async fn run(command: Pipeline, session: &Session) -> Result<(), Failure> {
    match command {
        Pipeline::Lint { file } => lint(&file, session),
        Pipeline::Plan { file } => plan(&file, session).await,
        Pipeline::Apply { file } => apply(&file, session).await,
        Pipeline::List => list(session).await,
        Pipeline::Describe { name } => describe(name, session).await,
        Pipeline::Delete { name } => {
            let server = session.server().await?;
            server.call(PipelineDelete { name: name.clone() }).await?;
            if session.json() {
                return deleted(&name);
            }
            eprintln!("deleted pipeline {name}; its topics stay");
            Ok(())
        }
        Pipeline::Canary(command) => canary::run(command, session).await,
        Pipeline::Schema => written(output::print(&output::json(&pipelines::json_schema()))),
        Pipeline::Test(_) => Err(Failure::not_built("pipeline test")),
        Pipeline::Dev(_) => Err(Failure::not_built("pipeline dev")),
        Pipeline::Tap(_) => Err(Failure::not_built("pipeline tap")),
        Pipeline::Dlq(_) => Err(Failure::not_built("pipeline dlq")),
    }
}

/// A pipeline file as it was read here.
struct Local {
    name: String,
    /// Paths in the file are relative to this.
    dir: PathBuf,
    spec: Spec,
    /// Independent of this machine.
    frozen: String,
    warnings: Vec<Diagnostic>,
}

fn read(path: &Path) -> Result<Result<Local, Vec<Diagnostic>>, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
    let dir = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let env = |name: &str| std::env::var(name).ok();
    let schema_dir = dir.clone();
    let read = move |file: &str| {
        let path = schema_dir.join(file);
        std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))
    };
    let around = Surroundings {
        env: &env,
        read: &read,
    };
    let spec = match pipelines::parse_with(&name, &text, &around) {
        Ok(spec) => spec,
        Err(diagnostics) => return Ok(Err(diagnostics)),
    };
    let mut diagnostics = pipelines::lint(&spec, None);
    missing_modules(&spec, &dir, &mut diagnostics);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Ok(Err(diagnostics));
    }
    match pipelines::spec::freeze(&name, &text, &around) {
        Ok(frozen) => Ok(Ok(Local {
            name,
            dir,
            spec,
            frozen,
            warnings: diagnostics,
        })),
        Err(diagnostics) => Ok(Err(diagnostics)),
    }
}

/// Sources of modules that are not there, with their place in the file.
fn missing_modules(spec: &Spec, dir: &Path, diagnostics: &mut Vec<Diagnostic>) {
    for (alias, definition) in spec.modules.iter() {
        let (path, wanted) = match &definition.source.value {
            ModuleSource::Folder(path) => (dir.join(path), "a folder with a module"),
            ModuleSource::File(path) => (dir.join(path), "a .wasm file"),
            ModuleSource::Digest(_) => continue,
        };
        if !path.exists() {
            let at = definition.source.at;
            let message = format!("module `{}`: {} is not there", alias.value, path.display());
            let hint = format!("source is {wanted}, relative to this file");
            diagnostics
                .push(Diagnostic::error(&spec.file, at.line, at.column, message).with_hint(hint));
        }
    }
}

fn lint(path: &Path, session: &Session) -> Result<(), Failure> {
    let (diagnostics, failed) = match read(path)? {
        Ok(local) => (local.warnings, false),
        Err(diagnostics) => (diagnostics, true),
    };
    if session.json() {
        written(output::print(&output::json(&diagnostics)))?;
    } else {
        warn(&diagnostics);
    }
    if failed {
        return Err(Failure::said());
    }
    if !session.json() {
        written(output::print(&format!("{}: ok\n", path.display())))?;
    }
    Ok(())
}

fn warn(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        eprintln!("{diagnostic}");
    }
}

/// As [`read_or_fail`]; a program gets what is wrong as `lint` says it.
fn read_for(path: &Path, session: &Session) -> Result<Local, Failure> {
    if !session.json() {
        return read_or_fail(path);
    }
    read(path)?.map_err(|diagnostics| {
        let told = written(output::print(&output::json(&diagnostics)));
        told.err().unwrap_or_else(Failure::said)
    })
}

/// What is refused after that: a program gets the same list on standard output, people read the message.
fn told<T>(done: Result<T, Failure>, session: &Session) -> Result<T, Failure> {
    done.map_err(|failure| {
        if !session.json() || failure.diagnostics.is_empty() {
            return failure;
        }
        let told = written(output::print(&output::json(&failure.diagnostics)));
        told.err().unwrap_or(failure)
    })
}

fn read_or_fail(path: &Path) -> Result<Local, Failure> {
    let local = read(path)?.map_err(Failure::diagnosed)?;
    warn(&local.warnings);
    Ok(local)
}

async fn plan(path: &Path, session: &Session) -> Result<(), Failure> {
    let local = read_for(path, session)?;
    let server = session.server().await?;
    let planned = told(ask_plan(server, local).await, session)?;
    let refused = planned.diagnostics.iter().any(Diagnostic::is_error);
    let text = match session.json() {
        true => output::json(&with_diagnostics(planned.plan, &planned.diagnostics)),
        false => ended(planned.text),
    };
    written(output::print(&text))?;
    warn(&planned.diagnostics);
    if refused {
        return Err(Failure::failed("an apply of it is refused, as said above"));
    }
    Ok(())
}

async fn ask_plan(server: &Server, local: Local) -> Result<PipelinePlanned, Failure> {
    let file = upload(server, local).await?;
    server.call(PipelinePlan { file }).await
}

/// A plan for a program, beside what is wrong with the file.
fn with_diagnostics(mut plan: serde_json::Value, diagnostics: &[Diagnostic]) -> serde_json::Value {
    if let Some(plan) = plan.as_object_mut() {
        plan.insert("diagnostics".into(), serde_json::json!(diagnostics));
    }
    plan
}

async fn apply(path: &Path, session: &Session) -> Result<(), Failure> {
    // what is wrong with the file is said before a server is looked for
    let local = read_for(path, session)?;
    let server = session.server().await?;
    let applied = told(send_apply(server, local).await, session)?;
    if session.json() {
        return written(output::print(&output::json(&applied)));
    }
    warn(&applied.diagnostics);
    eprint!("{}", ended(applied.text));
    eprintln!(
        "applied pipeline {}, generation {}",
        applied.name, applied.generation
    );
    Ok(())
}

/// Applies a file as the command does; prints only warnings.
pub async fn apply_file(server: &Server, path: &Path) -> Result<PipelineApplied, Failure> {
    send_apply(server, read_or_fail(path)?).await
}

async fn send_apply(server: &Server, local: Local) -> Result<PipelineApplied, Failure> {
    let file = upload(server, local).await?;
    server.call(PipelineApply { file }).await
}

fn ended(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Builds what is source, sends what the server lacks.
async fn upload(server: &Server, local: Local) -> Result<PipelineFile, Failure> {
    let mut modules = BTreeMap::new();
    for (alias, definition) in local.spec.modules.iter() {
        let at = definition.source.at;
        let here = |message: String| {
            let diagnostic = Diagnostic::error(&local.name, at.line, at.column, message);
            Failure::diagnosed(vec![diagnostic])
        };
        let digest = match &definition.source.value {
            ModuleSource::Digest(digest) => *digest,
            ModuleSource::File(path) => {
                let path = local.dir.join(path);
                let sent = send(server, &path).await;
                sent.map_err(|failure| match failure.code {
                    1 => here(format!("module `{}`: {failure}", alias.value)),
                    _ => failure,
                })?
            }
            ModuleSource::Folder(path) => {
                let progress = Progress::steps();
                let dir = local.dir.join(path);
                let built = module::build(&dir, &mut |step| progress.line(step)).await;
                drop(progress);
                let built = built.map_err(|error| {
                    let error = error.in_short();
                    here(format!("module `{}` does not build: {error}", alias.value))
                })?;
                send(server, &built).await?
            }
        };
        modules.insert(alias.value.clone(), digest);
    }
    Ok(PipelineFile {
        file: local.name,
        yaml: local.frozen,
        modules,
    })
}

pub(super) async fn send(server: &Server, path: &Path) -> Result<Digest, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?;
    let limit = model::limits::MODULE_BYTES_MAX;
    if bytes.len() > limit {
        let (name, size) = (path.display(), bytes.len());
        return Err(Failure::failed(format!(
            "{name} is {size} bytes, a module has at most {limit}"
        )));
    }
    let digest = Digest::of(&bytes);
    if !server.call(ModuleHas { digest }).await?.present {
        let bytes = Bytes::from(bytes);
        let put = server.call(ModulePut { bytes }).await;
        put.map_err(|failure| Failure {
            message: format!("{}: {failure}", path.display()),
            ..failure
        })?;
    }
    Ok(digest)
}

async fn list(session: &Session) -> Result<(), Failure> {
    let server = session.server().await?;
    let pipelines = server.call(PipelineList {}).await?.pipelines;
    if session.json() {
        return written(output::print(&output::json(&pipelines)));
    }
    let rows: Vec<Vec<String>> = pipelines
        .iter()
        .map(|p| {
            let (generation, lanes) = (p.generation.to_string(), p.lanes.to_string());
            vec![
                p.name.clone(),
                generation,
                lanes,
                p.state.clone(),
                p.file.clone(),
            ]
        })
        .collect();
    let columns = ["NAME", ">GENERATION", ">LANES", "STATE", "FILE"];
    written(output::print(&output::table(&columns, &rows)))
}

async fn describe(name: String, session: &Session) -> Result<(), Failure> {
    let server = session.server().await?;
    let found = server.call(PipelineDescribe { name }).await?;
    if session.json() {
        return written(output::print(&output::json(&found)));
    }
    let mut text = output::fields(&[
        ("name", found.name),
        ("generation", found.generation.to_string()),
        ("file", found.file.file),
    ]);
    for (alias, digest) in &found.file.modules {
        text.push_str(&format!("module {alias}: {digest}\n"));
    }
    let status: Option<PipelineStatus> = serde_json::from_value(found.status).map_err(|error| {
        let message = format!("this server's status is of another version ({error})");
        Failure::failed(format!("{message}; use --json"))
    })?;
    if let Some(why) = &found.not_started {
        let (generation, why) = (found.generation, output::lines(why));
        text.push_str(&format!(
            "\ngeneration {generation} did not start with the server: {why}\n"
        ));
    }
    match status {
        Some(status) => {
            text.push_str(&format!("\n{}", lanes(&status)));
            if let Some(report) = &status.canary {
                text.push_str(&format!("\ncanary: {}", canary::line(report)));
            }
        }
        None => text.push_str("\nit does not run\n"),
    }
    written(output::print(&text))
}
