//! What an attribute says of the state that its function keeps: `state_schema = 3, migrate(1 = one,
//! 2 = two)`, where `one` and `two` are functions of a key, its old value and the new state.
//!
//! Called by: the attributes. Refuses: other arguments, a migration without a schema of its own, one from
//! that same schema, two from one.

use proc_macro2::TokenStream as Tokens;
use quote::quote_spanned;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Lit, LitInt, Meta, Path, Result, Token};

pub(crate) struct Kept {
    pub(crate) schema: LitInt,
    migrations: Vec<Migration>,
}

/// `1 = one`
struct Migration {
    from: LitInt,
    with: Path,
}

impl Parse for Migration {
    fn parse(input: ParseStream<'_>) -> Result<Migration> {
        let from = input.parse()?;
        input.parse::<Token![=]>()?;
        let with = input.parse()?;
        Ok(Migration { from, with })
    }
}

impl Kept {
    pub(crate) fn parse(args: Tokens) -> Result<Option<Kept>> {
        if args.is_empty() {
            return Ok(None);
        }
        let span = args.span();
        let text = "the arguments are `state_schema = NUMBER` and `migrate(OLD = FUNCTION, …)`";
        let wrong = |span| Error::new(span, text);
        let list = Punctuated::<Meta, Token![,]>::parse_terminated;
        let (mut schema, mut migrations) = (None, Vec::new());
        for arg in list.parse2(args).map_err(|_| wrong(span))? {
            match arg {
                Meta::NameValue(pair) if pair.path.is_ident("state_schema") => match pair.value {
                    Expr::Lit(ExprLit {
                        lit: Lit::Int(number),
                        ..
                    }) => schema = Some(number),
                    other => return Err(wrong(other.span())),
                },
                Meta::List(list) if list.path.is_ident("migrate") => {
                    let steps = Punctuated::<Migration, Token![,]>::parse_terminated;
                    migrations.extend(list.parse_args_with(steps)?);
                }
                other => return Err(wrong(other.span())),
            }
        }
        let Some(schema) = schema else {
            let text = "what is kept in another way has another number: `state_schema = NUMBER`";
            return Err(Error::new(span, text));
        };
        let mut seen = vec![schema.base10_parse::<u32>()?];
        for migration in &migrations {
            let from = migration.from.base10_parse::<u32>()?;
            if seen.contains(&from) {
                let text = "a migration is from an older schema, and each has one";
                return Err(Error::new(migration.from.span(), text));
            }
            seen.push(from);
        }
        Ok(Some(Kept { schema, migrations }))
    }

    /// Items of `rustmq::Stateful`.
    pub(crate) fn expand(&self) -> Tokens {
        let schema = &self.schema;
        let schema = hygienic!(const STATE_SCHEMA: ::core::primitive::u32 = #schema;);
        if self.migrations.is_empty() {
            return schema;
        }
        let from: Vec<&LitInt> = self.migrations.iter().map(|m| &m.from).collect();
        let with: Vec<&Path> = self.migrations.iter().map(|m| &m.with).collect();
        hygienic! {
            #schema
            const MIGRATES: &'static [::core::primitive::u32] = &[#(#from),*];

            fn migrate(
                &mut self,
                from: ::core::primitive::u32,
                old: &::rustmq::Entries,
                state: &mut ::rustmq::State,
            ) -> ::core::result::Result<(), ::rustmq::Failure> {
                match from {
                    #(#from => ::rustmq::rt::migrate_each(old, state, #with),)*
                    _ => ::core::result::Result::Err(::rustmq::Failure::new(
                        "migrate",
                        "nothing is taken over from this schema",
                    )),
                }
            }
        }
    }
}
