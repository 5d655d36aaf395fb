//! `#[derive(rustmq::Row)]`: a struct read from typed columns, and written as them.
//!
//! Called by: `lib`.
//! Invariants: the columns' struct holds one column a field and no lifetime, so that what is read
//! may borrow from it.
//! Refuses: enums, tuples, generics, more than one lifetime, two fields of one name, `#[row]` above the
//! struct.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, GenericParam, LitStr, Result};

use crate::at;

/// Rows that a loop makes together: `BLOCK` of the SDK.
const BLOCK: usize = 8;

struct Field {
    ident: Ident,
    visibility: TokenStream,
    name: String,
    /// Its type, and the same with every lifetime `'static`.
    ty: TokenStream,
    owned: TokenStream,
}

pub(crate) fn derive(item: &DeriveInput) -> Result<TokenStream> {
    nothing_above(item)?;
    let row = Row {
        name: &item.ident,
        columns: format_ident!("{}Columns", item.ident),
        fields: fields(item)?,
        lifetime: lifetime(item)?,
    };
    let (visibility, columns) = (&item.vis, &row.columns);
    let (idents, owned) = row.each(|field| (field.ident.clone(), field.owned.clone()));
    let visible = row.fields.iter().map(|field| &field.visibility);
    let about = format!("The columns of [`{}`], one a field.", row.name);
    let (reads, writes) = (row.reads(), row.writes());
    Ok(hygienic! {
        #[doc = #about]
        #[allow(dead_code)]
        #visibility struct #columns {
            #(#visible #idents: <#owned as ::rustmq::Cell<'static>>::Column),*
        }
        #reads
        #writes
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

    /// Each field's place in a tuple of all.
    fn places(&self) -> Vec<syn::Index> {
        (0..self.fields.len()).map(syn::Index::from).collect()
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
        let (idents, owned) = self.each(|field| (field.ident.clone(), field.owned.clone()));
        let first = &idents[0];
        let cells = self.fields.iter().zip(self.places());
        let cells = cells.map(
            |(
                Field {
                    ident, name, ty, ..
                },
                place,
            )| {
                quote_spanned!(at(ident.span())=>
                #ident: ::rustmq::rt::cell::<#ty>(view.#place, row, full, #name)?)
            },
        );
        hygienic! {
            #[automatically_derived]
            impl<#read> ::rustmq::FromColumns<#read> for #name #generics {
                #listed

                type View = (#(
                    <<#owned as ::rustmq::Cell<'static>>::Column as ::rustmq::Columnar>::View<#read>,
                )*);

                fn fetch(rows: &::rustmq::Batch) -> #columns {
                    #columns { #(#idents: ::rustmq::Columnar::fetch(rows, #numbers)),* }
                }

                fn count(columns: &#columns) -> ::core::primitive::usize {
                    ::rustmq::Columnar::rows(&columns.#first)
                }

                #[inline(always)]
                fn view(columns: &#read #columns, rows: ::core::primitive::usize) -> Self::View {
                    (#(::rustmq::Columnar::view(&columns.#idents, rows),)*)
                }

                fn is_full(columns: &#columns) -> ::core::primitive::bool {
                    #(<#owned as ::rustmq::Cell<'static>>::is_full(&columns.#idents))&&*
                }

                #[inline(always)]
                fn read(
                    view: Self::View,
                    row: ::core::primitive::usize,
                    full: ::core::primitive::bool,
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
        let (places, (owned, _)) = (self.places(), self.each(|field| (field.owned.clone(), ())));
        let block = (0..BLOCK).map(|n| format_ident!("row{n}", span = Span::mixed_site()));
        let block: Vec<Ident> = block.collect();
        let cells = idents.iter().map(|ident| hygienic!([#(#block.#ident),*]));
        hygienic! {
            #[automatically_derived]
            impl #generics ::rustmq::ToColumns for #name #generics {
                #listed

                type Fill<'fill> = (#(
                    <<#owned as ::rustmq::Cell<'static>>::Column as ::rustmq::Columnar>::Fill<'fill>,
                )*);

                fn columns(rows: ::core::primitive::usize) -> #columns {
                    #columns { #(#idents: ::rustmq::rt::room(rows)),* }
                }

                #[inline(always)]
                fn write(self, columns: &mut #columns) {
                    #(<#types as ::rustmq::Cell<'_>>::write(self.#idents, &mut columns.#idents);)*
                }

                #[inline(always)]
                fn fill(columns: &mut #columns, rows: ::core::primitive::usize) -> Self::Fill<'_> {
                    (#(::rustmq::Columnar::fill(
                        &mut columns.#idents,
                        rows,
                        <#owned as ::rustmq::Cell<'static>>::NULLABLE,
                    ),)*)
                }

                #[inline(always)]
                fn put(self, fill: &mut Self::Fill<'_>) {
                    #(<#types as ::rustmq::Cell<'_>>::put(self.#idents, &mut fill.#places);)*
                }

                #[inline(always)]
                fn put_block([#(#block),*]: [Self; #BLOCK], fill: &mut Self::Fill<'_>) {
                    #(<#types as ::rustmq::Cell<'_>>::put_block(#cells, &mut fill.#places);)*
                }

                fn set(columns: &#columns, out: &mut ::rustmq::Outbox) {
                    #(::rustmq::Columnar::set(&columns.#idents, out, #numbers);)*
                }
            }
        }
    }
}

/// What stands above the struct would do nothing.
fn nothing_above(item: &DeriveInput) -> Result<()> {
    match item.attrs.iter().find(|a| a.path().is_ident("row")) {
        Some(attribute) => Err(Error::new(
            attribute.span(),
            "`row` stands above a field: `#[row(rename = \"…\")]`",
        )),
        None => Ok(()),
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
        let visibility = &field.vis;
        let visibility = quote!(#visibility);
        fields.push(Field {
            ident,
            visibility,
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

#[cfg(test)]
mod tests {
    use syn::{DeriveInput, parse_quote};

    use super::derive;

    #[test]
    fn what_would_do_nothing_is_refused() {
        let refused: [(DeriveInput, &str); 3] = [
            (
                parse_quote!(
                    #[row(rename_all = "camelCase")]
                    struct Late {
                        dep_delay: f64,
                    }
                ),
                "stands above a field",
            ),
            (
                parse_quote!(
                    #[row(rename = "late")]
                    struct Late {
                        hours: f64,
                    }
                ),
                "stands above a field",
            ),
            (
                parse_quote!(
                    struct Late {
                        #[row(default)]
                        hours: f64,
                    }
                ),
                "only `rename",
            ),
        ];
        for (item, why) in refused {
            let error = derive(&item).map(|made| made.to_string()).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
