//! `#[derive(rustmq::Row)]`: a struct read from typed columns, and written as them.
//!
//! Called by: `lib`.
//! Invariants: the columns' struct holds one column a field and no lifetime, so that what is read
//! may borrow from it.
//! Refuses: enums, tuples, generics, more than one lifetime, two fields of one name.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, GenericParam, LitStr, Result};

use crate::at;

struct Field {
    ident: Ident,
    name: String,
    /// Its type, and the same with every lifetime `'static`.
    ty: TokenStream,
    owned: TokenStream,
}

pub(crate) fn derive(item: &DeriveInput) -> Result<TokenStream> {
    let row = Row {
        name: &item.ident,
        columns: format_ident!("__Columns"),
        fields: fields(item)?,
        lifetime: lifetime(item)?,
    };
    let columns = &row.columns;
    let (idents, owned) = row.each(|field| (field.ident.clone(), field.owned.clone()));
    let (reads, writes) = (row.reads(), row.writes());
    Ok(hygienic! {
        // so that no type of the author's has the name of this one
        const _: () = {
            #[doc(hidden)]
            #[allow(unreachable_pub)]
            pub struct #columns {
                #(#idents: <#owned as ::rustmq::Cell<'static>>::Column),*
            }
            #reads
            #writes
        };
    })
}

struct Row<'i> {
    name: &'i Ident,
    /// Of the struct that holds the columns.
    columns: Ident,
    fields: Vec<Field>,
    lifetime: Option<TokenStream>,
}

impl Row<'_> {
    fn each<A, B>(&self, of: impl Fn(&Field) -> (A, B)) -> (Vec<A>, Vec<B>) {
        self.fields.iter().map(of).unzip()
    }

    fn numbers(&self) -> Vec<u16> {
        (0..self.fields.len() as u16).collect()
    }

    fn generics(&self) -> TokenStream {
        let lifetime = self.lifetime.as_ref();
        lifetime.map_or_else(TokenStream::new, |lifetime| quote!(<#lifetime>))
    }

    /// What both traits say of the fields.
    fn listed(&self) -> TokenStream {
        let columns = &self.columns;
        let (names, kinds) = self.each(
            |Field {
                 ident, name, owned, ..
             }| {
                let kind =
                    quote_spanned!(at(ident.span())=> <#owned as ::rustmq::Cell<'static>>::KIND);
                (name.clone(), kind)
            },
        );
        hygienic! {
            type Columns = #columns;
            const FIELDS: &'static [::rustmq::Field] =
                &[#(::rustmq::Field::new(#names, #kinds)),*];
        }
    }

    fn reads(&self) -> TokenStream {
        let (name, columns, generics) = (self.name, &self.columns, self.generics());
        let read = self.lifetime.clone().unwrap_or_else(|| quote!('row));
        let (listed, numbers) = (self.listed(), self.numbers());
        let (idents, cells) = self.each(
            |Field {
                 ident, name, ty, ..
             }| {
                let cell = quote_spanned!(at(ident.span())=>
                #ident: ::rustmq::rt::cell::<#ty>(&columns.#ident, row, #name)?);
                (ident.clone(), cell)
            },
        );
        hygienic! {
            #[automatically_derived]
            impl<#read> ::rustmq::FromColumns<#read> for #name #generics {
                #listed

                fn fetch(rows: &::rustmq::Batch) -> #columns {
                    #columns { #(#idents: ::rustmq::Columnar::fetch(rows, #numbers)),* }
                }

                #[inline(always)]
                fn read(
                    columns: &#read #columns,
                    row: ::core::primitive::usize,
                ) -> ::core::result::Result<Self, ::rustmq::Reject> {
                    ::core::result::Result::Ok(#name { #(#cells),* })
                }
            }
        }
    }

    fn writes(&self) -> TokenStream {
        let (name, columns, generics) = (self.name, &self.columns, self.generics());
        let (listed, numbers) = (self.listed(), self.numbers());
        let (idents, types) = self.each(|field| (field.ident.clone(), field.ty.clone()));
        hygienic! {
            #[automatically_derived]
            impl #generics ::rustmq::ToColumns for #name #generics {
                #listed

                fn columns(rows: ::core::primitive::usize) -> #columns {
                    #columns { #(#idents: ::rustmq::rt::room(rows)),* }
                }

                #[inline(always)]
                fn write(self, columns: &mut #columns) {
                    #(<#types as ::rustmq::Cell<'_>>::write(self.#idents, &mut columns.#idents);)*
                }

                fn set(columns: &#columns, out: &mut ::rustmq::Outbox) {
                    #(::rustmq::Columnar::set(&columns.#idents, out, #numbers);)*
                }
            }
        }
    }
}

fn fields(item: &DeriveInput) -> Result<Vec<Field>> {
    let wrong = || Error::new(item.span(), "a row is a struct with named fields");
    let Data::Struct(data) = &item.data else {
        return Err(wrong());
    };
    let Fields::Named(named) = &data.fields else {
        return Err(wrong());
    };
    let mut fields: Vec<Field> = Vec::new();
    for field in &named.named {
        let ident = field.ident.clone().ok_or_else(wrong)?;
        let mut name = ident.to_string().trim_start_matches("r#").to_owned();
        for attribute in field.attrs.iter().filter(|a| a.path().is_ident("row")) {
            attribute.parse_nested_meta(|meta| {
                if !meta.path.is_ident("rename") {
                    return Err(meta.error("only `rename = \"…\"` is known"));
                }
                name = meta.value()?.parse::<LitStr>()?.value();
                Ok(())
            })?;
        }
        if fields.iter().any(|known| known.name == name) {
            return Err(Error::new(
                ident.span(),
                format!("two fields are named `{name}`"),
            ));
        }
        let ty = &field.ty;
        let ty = quote!(#ty);
        let owned = without_lifetimes(ty.clone());
        fields.push(Field {
            ident,
            name,
            ty,
            owned,
        });
    }
    match fields.is_empty() {
        true => Err(Error::new(item.span(), "a row needs at least one field")),
        false => Ok(fields),
    }
}

fn lifetime(item: &DeriveInput) -> Result<Option<TokenStream>> {
    let mut found = None;
    for parameter in &item.generics.params {
        let GenericParam::Lifetime(lifetime) = parameter else {
            return Err(Error::new(parameter.span(), "a row cannot be generic"));
        };
        let lifetime = &lifetime.lifetime;
        if found.replace(quote!(#lifetime)).is_some() {
            let text = "a row borrows from its columns: one lifetime";
            return Err(Error::new(parameter.span(), text));
        }
    }
    Ok(found)
}

/// The same type with every lifetime `'static`.
pub(crate) fn without_lifetimes(tokens: TokenStream) -> TokenStream {
    let mut after_tick = false;
    let replaced = tokens.into_iter().map(|token| match token {
        TokenTree::Ident(ident) if after_tick => {
            after_tick = false;
            TokenTree::Ident(Ident::new("static", ident.span()))
        }
        TokenTree::Punct(punct) => {
            after_tick = punct.as_char() == '\'';
            TokenTree::Punct(punct)
        }
        TokenTree::Group(group) => {
            let inner = without_lifetimes(group.stream());
            let mut made = proc_macro2::Group::new(group.delimiter(), inner);
            made.set_span(group.span());
            TokenTree::Group(made)
        }
        other => other,
    });
    replaced.collect()
}
