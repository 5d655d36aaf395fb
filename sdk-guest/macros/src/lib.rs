//! The attributes of the SDK: a plain function over rows becomes a module.
//!
//! `#[rustmq::map] fn tidy(..)` leaves the function as it is and adds a type of the same name (a
//! type and a function may share one) that implements `rustmq::Module`, exported on WebAssembly.
//!
//! Called by: guests, through `rustmq-sdk`.
//! Invariants: the function can be called and tested as written; errors point at the user's code; what is
//! generated names nothing that the user's code could mean otherwise.
//! Refuses: async and generic functions, methods, more than one `Meta` or params, tables without a name.

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Data, DeriveInput, Error, FnArg, GenericArgument, Ident, ItemFn, Pat, PathArguments, Result,
    ReturnType, Signature, Type, TypePath, parse_macro_input,
};

/// `quote!`, with local names that no name of the author's code meets: a function may be called `value`.
macro_rules! hygienic {
    ($($tokens:tt)*) => { quote_spanned!(proc_macro2::Span::mixed_site()=> $($tokens)*) };
}

mod kept;
mod params;
mod row;

/// The same for [`quote_spanned!`], so that errors point at the author's code.
pub(crate) fn at(span: Span) -> Span {
    span.resolved_at(Span::mixed_site())
}

use kept::Kept;

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Map,
    FlatMap,
    Filter,
    Route,
}

/// One row to one: returns a value, `Option` of one (`None` drops the row), a `Record`, or a
/// `Result` of these.
#[proc_macro_attribute]
pub fn map(args: TokenStream, item: TokenStream) -> TokenStream {
    attribute(args, item, Shape::Map)
}

/// One row to many: returns anything that iterates over values or `Record`s, or a `Result` of it.
#[proc_macro_attribute]
pub fn flat_map(args: TokenStream, item: TokenStream) -> TokenStream {
    attribute(args, item, Shape::FlatMap)
}

/// Keeps the rows for which it returns true; returns `bool` or a `Result` of it.
#[proc_macro_attribute]
pub fn filter(args: TokenStream, item: TokenStream) -> TokenStream {
    attribute(args, item, Shape::Filter)
}

/// Sends each row on as it is to the output it returns the name of: a text, or an enum with
/// `#[derive(rustmq::Port)]`, or a `Result` of it.
#[proc_macro_attribute]
pub fn route(args: TokenStream, item: TokenStream) -> TokenStream {
    attribute(args, item, Shape::Route)
}

fn attribute(args: TokenStream, item: TokenStream, shape: Shape) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    let made = Kept::parse(Tokens::from(args)).and_then(|kept| module(&function, shape, kept));
    let made = made.unwrap_or_else(Error::into_compile_error);
    quote!(#function #made).into()
}

fn module(function: &ItemFn, shape: Shape, kept: Option<Kept>) -> Result<Tokens> {
    let signature = &function.sig;
    plain(signature)?;
    let mut inputs = signature.inputs.iter();
    let Some(FnArg::Typed(first)) = inputs.next() else {
        return Err(Error::new(
            signature.span(),
            "the first parameter must be the row",
        ));
    };
    let taken = Taken::of(&first.ty);
    let (mut arguments, mut params, mut meta_seen) = (Vec::new(), None, false);
    let (mut keeps, mut tables) = (false, Vec::new());
    for input in inputs {
        let FnArg::Typed(input) = input else {
            return Err(Error::new(input.span(), "a method cannot be a module"));
        };
        if is_state(&input.ty) {
            if std::mem::replace(&mut keeps, true) {
                return Err(Error::new(input.span(), "one State is enough"));
            }
            arguments.push(hygienic!(&mut *state));
            continue;
        }
        if is_lookup(&input.ty) {
            let number = tables.len();
            tables.push(table_name(&input.pat)?);
            arguments.push(hygienic!(&self.lookups[#number]));
            continue;
        }
        if last_name(inner_of_reference(&input.ty)).as_deref() == Some("Meta") {
            if std::mem::replace(&mut meta_seen, true) {
                return Err(Error::new(input.span(), "one Meta is enough"));
            }
            let by_reference = matches!(&*input.ty, Type::Reference(_));
            arguments.push(if by_reference {
                hygienic!(&meta)
            } else {
                hygienic!(meta)
            });
        } else {
            let Type::Reference(reference) = &*input.ty else {
                let text = "take the node's params by reference, `&T`, or key and time as `Meta`";
                return Err(Error::new(input.ty.span(), text));
            };
            if params.replace(&*reference.elem).is_some() {
                return Err(Error::new(
                    input.span(),
                    "the node's params can be taken only once",
                ));
            }
            arguments.push(hygienic!(&self.opened.params));
        }
    }
    if let (Some(kept), false) = (&kept, keeps) {
        let text = "the function keeps no state: it takes no `&mut State`";
        return Err(Error::new(kept.schema.span(), text));
    }
    let kept = keeps.then(|| kept.map_or_else(Tokens::new, |kept| kept.expand()));
    let tables = Tables::of(&tables);
    let given = (params, kept, tables);
    Ok(expand(function, shape, &taken, &arguments, given))
}

/// Whether it is neither async nor generic.
fn plain(signature: &Signature) -> Result<()> {
    if let Some(keyword) = &signature.asyncness {
        let text = "a module's function cannot be async";
        return Err(Error::new(keyword.span(), text));
    }
    if signature.generics.type_params().next().is_some() {
        let text = "a module's function cannot be generic";
        return Err(Error::new(signature.generics.span(), text));
    }
    Ok(())
}

/// `&Lookup`
fn is_lookup(ty: &Type) -> bool {
    let Type::Reference(reference) = ty else {
        return false;
    };
    reference.mutability.is_none() && last_name(&reference.elem).as_deref() == Some("Lookup")
}

/// The parameter's name is the table's.
fn table_name(pattern: &Pat) -> Result<String> {
    match pattern {
        Pat::Ident(ident) => Ok(ident.ident.unraw().to_string()),
        other => {
            let text = "a Lookup is taken under the name that the node gives the table";
            Err(Error::new(other.span(), text))
        }
    }
}

/// The tables of a function that looks something up.
struct Tables {
    /// A field of the module, and what it is opened as.
    field: Tokens,
    open: Tokens,
}

impl Tables {
    fn of(names: &[String]) -> Tables {
        let count = names.len();
        if count == 0 {
            return Tables {
                field: Tokens::new(),
                open: Tokens::new(),
            };
        }
        Tables {
            field: hygienic!(lookups: [::rustmq::Lookup; #count],),
            open: hygienic!(lookups: [#(context.lookup(#names)?),*],),
        }
    }
}

/// `&mut State`
fn is_state(ty: &Type) -> bool {
    let Type::Reference(reference) = ty else {
        return false;
    };
    reference.mutability.is_some() && last_name(&reference.elem).as_deref() == Some("State")
}

fn expand(
    function: &ItemFn,
    shape: Shape,
    taken: &Taken,
    arguments: &[Tokens],
    (params, kept, Tables { field, open }): (Option<&Type>, Option<Tokens>, Tables),
) -> Tokens {
    let (name, visibility) = (&function.sig.ident, &function.vis);
    let params = params.map_or_else(|| hygienic!(::rustmq::rt::NoParams), |ty| hygienic!(#ty));
    // the same call with arguments of which only the types count
    let nevers = vec![hygienic!(::rustmq::rt::never()); arguments.len()];
    let take = taken.take(name, &nevers);
    let ports = ports(function, shape);
    let (make, loop_) = looped(function, shape, taken, (arguments, &nevers), kept.is_some());
    let Kind {
        module,
        schema,
        state,
        fetch,
        export,
    } = Kind::of(kept);
    let opened = match &make {
        Some(make) => hygienic!(::rustmq::rt::Opened::making(context, &#make)?),
        None => hygienic!(::rustmq::rt::Opened::new(context)?),
    };
    let process = process(&take, make.as_ref(), &loop_, (&state, &fetch));
    hygienic! {
        /// The module made of the function of this name.
        #[allow(non_camel_case_types)]
        #visibility struct #name {
            opened: ::rustmq::rt::Opened<#params>,
            #field
        }

        // of the traits that make a choice by type only one is used; closures only carry types
        #[allow(unused_imports, clippy::needless_question_mark, clippy::redundant_closure)]
        impl ::rustmq::#module for #name {
            #schema
            const PARAMS: ::core::option::Option<&'static ::rustmq::describe::Schema> = {
                use ::rustmq::describe::Silent as _;
                <::rustmq::describe::Of<#params>>::SCHEMA
            };
            const PORTS: ::core::option::Option<&'static [&'static ::core::primitive::str]> =
                #ports;

            fn open(
                context: &::rustmq::Context,
            ) -> ::core::result::Result<Self, ::rustmq::Failure> {
                #take.select(context)?;
                ::core::result::Result::Ok(Self { opened: #opened, #open })
            }

            #process
        }

        ::rustmq::#export!(#name);
    }
}

/// Takes a batch: the columns, then the loop over the rows.
fn process(
    take: &Tokens,
    make: Option<&Tokens>,
    loop_: &Tokens,
    (state, fetch): (&Tokens, &Tokens),
) -> Tokens {
    let make = make.map(|make| hygienic!(let make = #make;));
    hygienic! {
        // a function of its own, so that a trap can name the one that is inlined here
        #[cfg_attr(target_family = "wasm", inline(never))]
        #[allow(unused_variables)]
        fn process(
            &mut self,
            rows: &::rustmq::Batch,
            out: &mut ::rustmq::Outbox,
            #state
        ) -> ::core::result::Result<(), ::rustmq::Failure> {
            #fetch
            let take = #take;
            let columns = take.fetch(rows);
            let count = take.count(&columns, rows);
            let (view, full) = (take.view(&columns, count), take.is_full(&columns));
            #make
            self.opened.#loop_;
            ::core::result::Result::Ok(())
        }
    }
}

/// What differs for a function that keeps state.
struct Kind {
    module: Tokens,
    schema: Tokens,
    /// A parameter of `process`, and what it is first used for.
    state: Tokens,
    fetch: Tokens,
    export: Tokens,
}

impl Kind {
    fn of(kept: Option<Tokens>) -> Kind {
        let Some(kept) = kept else {
            return Kind {
                module: hygienic!(Module),
                schema: Tokens::new(),
                state: Tokens::new(),
                fetch: Tokens::new(),
                export: hygienic!(export),
            };
        };
        Kind {
            module: hygienic!(Stateful),
            schema: kept,
            state: hygienic!(state: &mut ::rustmq::State,),
            fetch: hygienic!(state.fetch(rows.keys());),
            export: hygienic!(export_stateful),
        }
    }
}

/// The outputs that a route names, where its type says which.
fn ports(function: &ItemFn, shape: Shape) -> Tokens {
    let (_, inner) = unwrapped(&function.sig.output, "Result");
    match inner {
        Some(inner @ Type::Path(_)) if shape == Shape::Route => {
            let inner = row::without_lifetimes(hygienic!(#inner));
            hygienic!({
                use ::rustmq::describe::Silent as _;
                <::rustmq::describe::Of<#inner>>::PORTS
            })
        }
        _ => hygienic!(::core::option::Option::None),
    }
}

/// How the outputs are made, where there are any, and the loop over the rows.
fn looped(
    function: &ItemFn,
    shape: Shape,
    taken: &Taken,
    (arguments, nevers): (&[Tokens], &[Tokens]),
    keeps: bool,
) -> (Option<Tokens>, Tokens) {
    let name = &function.sig.ident;
    let (is_result, inner) = unwrapped(&function.sig.output, "Result");
    let question = is_result.then(|| hygienic!(?));
    let call = quote_spanned!(at(name.span())=> #name(value, #(#arguments),*)#question);
    let typed =
        quote_spanned!(at(name.span())=> #name(::rustmq::rt::never(), #(#nevers),*)#question);
    let is_option = inner.as_ref().and_then(last_name).as_deref() == Some("Option");
    let read = taken.read();
    let (ok, some) = (
        hygienic!(::core::result::Result::Ok),
        hygienic!(::core::option::Option::Some),
    );
    let row = |body: Tokens, done: Tokens| one_row(&hygienic!(#read #body), &done, keeps);
    let emit = |body: Tokens| {
        let body = row(body, hygienic!(()));
        hygienic!(emit(&make, rows, out, |row, place| { #body }))
    };
    match shape {
        Shape::Map => {
            let (made, output, put) = match is_option {
                true => (
                    hygienic!(#typed.unwrap_or_else(::rustmq::rt::never)),
                    hygienic!(#ok(#call)),
                    hygienic!(if let #some(output) = #call { place.put(output)?; } #ok(())),
                ),
                false => (
                    typed,
                    hygienic!(#ok(#some(#call))),
                    hygienic!(place.put(#call)),
                ),
            };
            // what cannot be put must be known while what the row changed can be taken back
            let loop_ = match keeps {
                true => emit(put),
                false => {
                    let body = row(output, hygienic!(_));
                    let (whole, each) = closures(&body, !is_result && !is_option);
                    hygienic!(map(&make, (rows, count), out, #whole, #each))
                }
            };
            (Some(make(made)), loop_)
        }
        Shape::FlatMap => (
            Some(make(hygienic!(::rustmq::rt::first(#typed)))),
            emit(hygienic!(for output in #call { place.put(output)?; } #ok(()))),
        ),
        Shape::Filter => {
            let body = row(hygienic!(#ok(#call)), hygienic!(::core::primitive::bool));
            (None, hygienic!(keep(rows, out, |row| { #body })))
        }
        Shape::Route => {
            let body = row(hygienic!(#ok(#call)), hygienic!(_));
            (None, hygienic!(route(rows, out, |row| { #body })))
        }
    }
}

/// What does a map's row: where all are sure to give one, and else. Two closures, of which each has one
/// caller, or it would be a call for every row.
fn closures(body: &Tokens, is_sure: bool) -> (Tokens, Tokens) {
    let whole = match is_sure {
        true => hygienic!(full.then_some(|row| { let full = true; #body })),
        false => hygienic!(::rustmq::rt::not_sure(&make)),
    };
    (whole, hygienic!(|row| { #body }))
}

/// What makes the outputs, chosen by their type.
fn make(output: Tokens) -> Tokens {
    hygienic!({
        use ::rustmq::rt::{MakeBytes as _, MakeColumns as _};
        (&::rustmq::rt::Making::of(|| ::core::result::Result::Ok(#output))).way()
    })
}

/// What is done for a row; what one that is not taken changed is taken back.
fn one_row(body: &Tokens, done: &Tokens, keeps: bool) -> Tokens {
    if !keeps {
        return body.clone();
    }
    hygienic! {
        state.begin_row();
        let done: ::core::result::Result<#done, ::rustmq::Reject> = (|| { #body })();
        if done.is_err() { state.undo_row(); }
        done
    }
}

/// How the first parameter is made of a row.
struct Taken {
    way: Ways,
    span: Span,
}

#[derive(Clone, Copy, PartialEq)]
enum Ways {
    Bytes,
    Text,
    /// Bytes, or that there is no value.
    BytesOrNone,
    TextOrNone,
    /// Typed columns or JSON, or that there is no value.
    TypedOrNone,
    /// Typed columns or JSON: the type decides.
    Typed,
}

impl Taken {
    fn of(ty: &Type) -> Taken {
        let way = match bare(ty) {
            Bare::Bytes => Ways::Bytes,
            Bare::Text => Ways::Text,
            Bare::Option(inner) if matches!(bare(inner), Bare::Bytes) => Ways::BytesOrNone,
            Bare::Option(inner) if matches!(bare(inner), Bare::Text) => Ways::TextOrNone,
            Bare::Option(_) => Ways::TypedOrNone,
            Bare::Other => Ways::Typed,
        };
        Taken {
            way,
            span: ty.span(),
        }
    }

    /// The object that takes rows so.
    fn take(&self, name: &Ident, nevers: &[Tokens]) -> Tokens {
        match self.way {
            Ways::Typed | Ways::TypedOrNone => quote_spanned!(at(self.span)=> {
                use ::rustmq::rt::{TakeColumns as _, TakeJson as _};
                (&::rustmq::rt::Taking::of(|value| #name(value, #(#nevers),*))).way()
            }),
            _ => hygienic!(::rustmq::rt::RawTake),
        }
    }

    /// Statements that make `value` of row number `row`.
    fn read(&self) -> Tokens {
        let read = quote_spanned!(at(self.span)=> take.read(view, row, full));
        let value = match self.way {
            Ways::Bytes => hygienic!(::rustmq::rt::bytes(#read)?),
            Ways::Text => hygienic!(::rustmq::rt::text(#read)?),
            Ways::BytesOrNone => read,
            Ways::TextOrNone => hygienic!(::rustmq::rt::text_or_none(#read)?),
            Ways::TypedOrNone => quote_spanned!(at(self.span)=> take.read_option(view, row, full)?),
            Ways::Typed => hygienic!(#read?),
        };
        hygienic! {
            let meta = ::rustmq::rt::meta(rows, row);
            let value = #value;
        }
    }
}

enum Bare<'a> {
    Bytes,
    Text,
    Option(&'a Type),
    Other,
}

fn bare(ty: &Type) -> Bare<'_> {
    if let Type::Reference(reference) = ty {
        return match &*reference.elem {
            Type::Slice(slice) if last_name(&slice.elem).as_deref() == Some("u8") => Bare::Bytes,
            inner if last_name(inner).as_deref() == Some("str") => Bare::Text,
            _ => Bare::Other,
        };
    }
    if last_name(ty).as_deref() == Some("Option")
        && let Some(inner) = first_argument(ty)
    {
        return Bare::Option(inner);
    }
    Bare::Other
}

/// Whether a return type is `wrapper<..>`, and the type without it.
fn unwrapped(output: &ReturnType, wrapper: &str) -> (bool, Option<Type>) {
    let ReturnType::Type(_, ty) = output else {
        return (false, None);
    };
    if last_name(ty).as_deref() == Some(wrapper) {
        return (true, first_argument(ty).cloned());
    }
    (false, Some((**ty).clone()))
}

fn inner_of_reference(ty: &Type) -> &Type {
    match ty {
        Type::Reference(reference) => &reference.elem,
        other => other,
    }
}

fn last_name(ty: &Type) -> Option<String> {
    let Type::Path(TypePath { path, .. }) = ty else {
        return None;
    };
    Some(path.segments.last()?.ident.to_string())
}

fn first_argument(ty: &Type) -> Option<&Type> {
    let Type::Path(TypePath { path, .. }) = ty else {
        return None;
    };
    let PathArguments::AngleBracketed(arguments) = &path.segments.last()?.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// Makes a struct a row of typed columns: one field a column, in order, of the same name unless
/// `#[row(rename = "…")]` says otherwise. The struct may borrow text and bytes: one lifetime.
#[proc_macro_derive(Row, attributes(row))]
pub fn row(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    row::derive(&item)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

/// Says what a node's `params` may be, as the JSON Schema in the module's `rustmq:describe` section:
/// the server checks them before it opens the module. For structs and for enums without fields that
/// also derive serde's `Deserialize`; keys that are not fields are mistakes.
#[proc_macro_derive(Params, attributes(serde))]
pub fn params(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    params::derive(&item)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

/// Names of outputs from an enum: `OnTime` is the output `on_time`.
#[proc_macro_derive(Port)]
pub fn port(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    port_impl(&item)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn port_impl(item: &DeriveInput) -> Result<Tokens> {
    let Data::Enum(data) = &item.data else {
        return Err(Error::new(
            item.span(),
            "Port is for enums: one variant an output",
        ));
    };
    let name = &item.ident;
    let (mut arms, mut names) = (Vec::new(), Vec::new());
    for variant in &data.variants {
        if !variant.fields.is_empty() {
            return Err(Error::new(
                variant.span(),
                "an output's variant carries no fields",
            ));
        }
        let ident = format_ident!("{}", variant.ident);
        let text = snake(&ident.to_string());
        arms.push(quote!(#name::#ident => #text));
        names.push(text);
    }
    Ok(quote! {
        impl ::rustmq::PortName for #name {
            fn port(&self) -> &::core::primitive::str {
                match self { #(#arms),* }
            }
        }

        impl ::rustmq::describe::PortNames for #name {
            const NAMES: &'static [&'static ::core::primitive::str] = &[#(#names),*];
        }
    })
}

fn snake(camel: &str) -> String {
    let mut text = String::new();
    for (place, letter) in camel.chars().enumerate() {
        if letter.is_uppercase() && place > 0 {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
