//! `#[derive(rustmq::Params)]`: the JSON Schema of a node's `params`.
//!
//! Called by: `lib`.
//! Invariants: the schema says what serde's `Deserialize` of the same type takes, and that keys it
//! does not know are mistakes; doc comments become descriptions.
//! Refuses: enums with fields, tuples, generics, and attributes of serde that it does not know.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DataEnum, DeriveInput, Error, Expr, ExprLit, Field, Fields, Lit, LitStr, Meta,
    Result, Type,
};

use crate::{last_name, snake};

pub(crate) fn derive(item: &DeriveInput) -> Result<TokenStream> {
    if !item.generics.params.is_empty() {
        return Err(Error::new(
            item.generics.span(),
            "params cannot be generic and cannot borrow",
        ));
    }
    let serde = Serde::of(&item.attrs)?;
    let schema = match &item.data {
        Data::Struct(data) => object(item, &data.fields, &serde)?,
        Data::Enum(data) => names(data, &serde)?,
        Data::Union(_) => return Err(Error::new(item.span(), "params cannot be a union")),
    };
    let name = &item.ident;
    Ok(quote! {
        #[automatically_derived]
        impl ::rustmq::Params for #name {
            const SCHEMA: ::rustmq::describe::Schema = #schema;
        }
    })
}

fn object(item: &DeriveInput, fields: &Fields, serde: &Serde) -> Result<TokenStream> {
    let Fields::Named(fields) = fields else {
        let text = "params are a struct with named fields, or an enum without any";
        return Err(Error::new(item.span(), text));
    };
    let all = fields.named.iter();
    let properties: Vec<TokenStream> = all
        .map(|field| property(field, serde))
        .collect::<Result<_>>()?;
    let description = docs(&item.attrs);
    Ok(quote! {
        ::rustmq::describe::Schema::Object {
            description: #description,
            properties: &[#(#properties),*],
        }
    })
}

fn property(field: &Field, outer: &Serde) -> Result<TokenStream> {
    let serde = Serde::of(&field.attrs)?;
    let Some(ident) = &field.ident else {
        return Err(Error::new(field.span(), "a field of params has a name"));
    };
    let plain = ident.to_string().trim_start_matches("r#").to_owned();
    let name = match (&serde.rename, &outer.rename_all) {
        (Some(name), _) => name.clone(),
        (None, Some(case)) => cased(&plain, case)?,
        (None, None) => plain,
    };
    let (name, description, ty) = (escaped(&name), docs(&field.attrs), &field.ty);
    let required = !(serde.default || outer.default || is_option(ty));
    Ok(quote_spanned!(ty.span()=> ::rustmq::describe::Property {
        name: #name,
        description: #description,
        required: #required,
        schema: &<#ty as ::rustmq::Params>::SCHEMA,
    }))
}

fn is_option(ty: &Type) -> bool {
    last_name(ty).as_deref() == Some("Option")
}

/// An enum without fields: one of these texts.
fn names(data: &DataEnum, outer: &Serde) -> Result<TokenStream> {
    let mut texts = Vec::new();
    for variant in &data.variants {
        if !variant.fields.is_empty() {
            let text = "params know enums without fields only";
            return Err(Error::new(variant.span(), text));
        }
        let serde = Serde::of(&variant.attrs)?;
        let name = match (&serde.rename, &outer.rename_all) {
            (Some(name), _) => name.clone(),
            (None, Some(case)) if case.value() == "lowercase" => {
                variant.ident.to_string().to_lowercase()
            }
            (None, Some(case)) => cased(&snake(&variant.ident.to_string()), case)?,
            (None, None) => variant.ident.to_string(),
        };
        texts.push(format!("\"{}\"", escaped(&name)));
    }
    let schema = format!("{{\"enum\":[{}]}}", texts.join(","));
    Ok(quote!(::rustmq::describe::Schema::Text(#schema)))
}

/// What serde's attributes say, of a container, a field or a variant.
#[derive(Default)]
struct Serde {
    rename: Option<String>,
    rename_all: Option<LitStr>,
    default: bool,
}

impl Serde {
    fn of(attributes: &[Attribute]) -> Result<Serde> {
        let mut found = Serde::default();
        for attribute in attributes.iter().filter(|a| a.path().is_ident("serde")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("rename") {
                    found.rename = Some(meta.value()?.parse::<LitStr>()?.value());
                } else if meta.path.is_ident("rename_all") {
                    found.rename_all = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("default") {
                    found.default = true;
                    if meta.input.peek(syn::Token![=]) {
                        meta.value()?.parse::<LitStr>()?;
                    }
                } else if !meta.path.is_ident("deny_unknown_fields") {
                    let text = "Params knows rename, rename_all, default and deny_unknown_fields of \
                                serde; implement rustmq::Params by hand for more";
                    return Err(meta.error(text));
                }
                Ok(())
            })?;
        }
        Ok(found)
    }
}

/// A name in snake case, in another.
fn cased(name: &str, case: &LitStr) -> Result<String> {
    let camel = |first_big: bool| {
        let mut big = first_big;
        let mut out = String::new();
        for letter in name.chars() {
            match letter {
                '_' => big = true,
                _ if std::mem::take(&mut big) => out.extend(letter.to_uppercase()),
                _ => out.push(letter),
            }
        }
        out
    };
    Ok(match case.value().as_str() {
        "snake_case" => name.to_owned(),
        "kebab-case" => name.replace('_', "-"),
        "camelCase" => camel(false),
        "PascalCase" => camel(true),
        "SCREAMING_SNAKE_CASE" => name.to_uppercase(),
        _ => return Err(Error::new(case.span(), "Params does not know this case")),
    })
}

/// The doc comment as one line, escaped.
fn docs(attributes: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes.iter().filter(|a| a.path().is_ident("doc")) {
        let Meta::NameValue(pair) = &attribute.meta else {
            continue;
        };
        if let Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) = &pair.value
        {
            lines.push(text.value().trim().to_owned());
        }
    }
    escaped(lines.join(" ").trim())
}

/// Text as it stands between the quotes of JSON.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out
}
