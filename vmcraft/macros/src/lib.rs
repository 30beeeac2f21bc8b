//! `#[api]`: makes rows of the call table from the public methods of an `impl Guest` block.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Expr, ExprLit, FnArg, ImplItem, ItemImpl, Lit, LitStr, Meta, Pat, Type, Visibility};
use syn::{parse::Parser, spanned::Spanned};

/// Registers each `pub fn` of the block as a call.
///
/// `#[api(area = "…")]` stands on the one `impl Guest` block of a module and adds to that module
/// `pub(crate) const CALLS: &[Call]`. From each method come
/// - the call's name: the method's, with `-` for `_`;
/// - its summary and description: the first paragraph and the rest of the doc comment;
/// - its arguments: one that is an `Option<…>` is optional (`name:value` in the shell);
/// - its result, by the `IntoValue` of the return type.
///
/// `#[call(…)]` on a method takes `name = "…"` (where the method cannot have the call's name),
/// `alias = "…"` (repeatable), `print = "octal" | "hex"` and `deprecated = "…"` (what to use instead).
#[proc_macro_attribute]
pub fn api(attribute: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand(attribute.into(), item.into()).unwrap_or_else(|e| e.to_compile_error()).into()
}

fn expand(attribute: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let mut area = None;
    syn::meta::parser(|meta| {
        if !meta.path.is_ident("area") {
            return Err(meta.error("expected `area`"));
        }
        area = Some(meta.value()?.parse::<LitStr>()?);
        Ok(())
    })
    .parse2(attribute)?;
    let mut block: ItemImpl = syn::parse2(item)?;
    let area = area.ok_or_else(|| syn::Error::new(block.self_ty.span(), "#[api] needs area = \"…\""))?;
    let mut rows = Vec::new();
    for item in &mut block.items {
        if let ImplItem::Fn(method) = item
            && matches!(method.vis, Visibility::Public(_))
        {
            rows.push(row(method, &area)?);
        }
    }
    Ok(quote! {
        #block

        /// The calls of this module, in the order of their definition.
        pub(crate) const CALLS: &[crate::call::Call] = &[#(#rows),*];
    })
}

/// What `#[call(…)]` says.
#[derive(Default)]
struct Options {
    name: Option<LitStr>,
    aliases: Vec<LitStr>,
    print: Option<LitStr>,
    deprecated: Option<LitStr>,
}

impl Options {
    /// Takes `#[call(…)]` off the method: the compiler does not know it.
    fn take(attributes: &mut Vec<Attribute>) -> syn::Result<Self> {
        let mut options = Self::default();
        let mut failure = None;
        attributes.retain(|attribute| {
            if !attribute.path().is_ident("call") {
                return true;
            }
            let parsed = attribute.parse_nested_meta(|meta| {
                let value: LitStr = meta.value()?.parse()?;
                match meta.path.get_ident().map(ToString::to_string).as_deref() {
                    Some("name") => options.name = Some(value),
                    Some("alias") => options.aliases.push(value),
                    Some("print") => options.print = Some(value),
                    Some("deprecated") => options.deprecated = Some(value),
                    _ => return Err(meta.error("expected `name`, `alias`, `print` or `deprecated`")),
                }
                Ok(())
            });
            failure = failure.take().or(parsed.err());
            false
        });
        failure.map_or(Ok(options), Err)
    }
}

fn row(method: &mut syn::ImplItemFn, area: &LitStr) -> syn::Result<TokenStream> {
    let options = Options::take(&mut method.attrs)?;
    let ident = &method.sig.ident;
    let name = match options.name {
        Some(name) => name.value(),
        None => ident.to_string().trim_start_matches("r#").replace('_', "-"),
    };
    let (summary, description) = documentation(&method.attrs);
    if summary.is_empty() {
        return Err(syn::Error::new(ident.span(), "a call needs a doc comment: it is the call's help"));
    }
    let mut arguments = Vec::new();
    let mut passed = Vec::new();
    for (index, input) in method.sig.inputs.iter().skip(1).enumerate() {
        let FnArg::Typed(argument) = input else {
            return Err(syn::Error::new(input.span(), "a call takes self first"));
        };
        let Pat::Ident(pattern) = &*argument.pat else {
            return Err(syn::Error::new(argument.pat.span(), "an argument of a call needs a plain name"));
        };
        let argument_name = pattern.ident.to_string();
        let argument_name = argument_name.trim_start_matches("r#").trim_start_matches('_');
        let ty = erase_lifetimes(&argument.ty);
        arguments.push(quote! {
            crate::call::Argument {
                name: #argument_name,
                kind: <#ty as crate::call::FromArgument<'static>>::KIND,
                optional: <#ty as crate::call::FromArgument<'static>>::OPTIONAL,
            }
        });
        passed.push(quote!(crate::call::FromArgument::from_argument(arguments.get(#index))?));
    }
    let result = match &method.sig.output {
        syn::ReturnType::Default => quote!(()),
        syn::ReturnType::Type(_, ty) => {
            let ty = result_type(ty).ok_or_else(|| syn::Error::new(ty.span(), "a call returns Result<T>"))?;
            quote!(#ty)
        }
    };
    let print = match options.print.as_ref().map(LitStr::value).as_deref() {
        None => quote!(Default),
        Some("octal") => quote!(Octal),
        Some("hex") => quote!(Hex),
        Some(_) => return Err(syn::Error::new(options.print.span(), "print is \"octal\" or \"hex\"")),
    };
    let aliases = &options.aliases;
    let deprecated = match options.deprecated {
        Some(instead) => quote!(Some(#instead)),
        None => quote!(None),
    };
    Ok(quote! {
        crate::call::Call {
            name: #name,
            aliases: &[#(#aliases),*],
            area: #area,
            summary: #summary,
            description: #description,
            arguments: &[#(#arguments),*],
            result: <#result as crate::call::IntoValue>::KIND,
            print: crate::call::Print::#print,
            deprecated: #deprecated,
            invoke: |guest, arguments| {
                Ok(crate::call::IntoValue::into_value(guest.#ident(#(#passed),*)?))
            },
        }
    })
}

/// The doc comment's first paragraph on one line, and the rest.
fn documentation(attributes: &[Attribute]) -> (String, String) {
    let mut lines = Vec::new();
    for attribute in attributes {
        if let Meta::NameValue(meta) = &attribute.meta
            && meta.path.is_ident("doc")
            && let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &meta.value
        {
            let text = text.value();
            lines.push(text.strip_prefix(' ').unwrap_or(&text).to_owned());
        }
    }
    let end = lines.iter().position(|line| line.trim().is_empty()).unwrap_or(lines.len());
    let summary = lines[..end].join(" ").trim().trim_end_matches('.').to_owned();
    let rest = lines.get(end + 1..).unwrap_or_default().join("\n");
    (summary, rest.trim().to_owned())
}

/// `T` of `Result<T>`.
fn result_type(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Result")?;
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        syn::GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// The type with `'static` where the lifetime was left out, so that it can be named in a `const`.
fn erase_lifetimes(ty: &Type) -> Type {
    let mut ty = ty.clone();
    give_lifetimes(&mut ty);
    ty
}

fn give_lifetimes(ty: &mut Type) {
    match ty {
        Type::Reference(reference) => {
            reference.lifetime = Some(syn::Lifetime::new("'static", reference.span()));
            give_lifetimes(&mut reference.elem);
        }
        Type::Slice(slice) => give_lifetimes(&mut slice.elem),
        Type::Path(path) => {
            for segment in &mut path.path.segments {
                if let syn::PathArguments::AngleBracketed(arguments) = &mut segment.arguments {
                    for argument in &mut arguments.args {
                        match argument {
                            syn::GenericArgument::Type(ty) => give_lifetimes(ty),
                            syn::GenericArgument::Lifetime(lifetime) => {
                                *lifetime = syn::Lifetime::new("'static", lifetime.span());
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // The help of a call is its doc comment: the summary must not carry its full stop.
    fn documentation_splits_after_the_first_paragraph() {
        let attributes = Attribute::parse_outer
            .parse_str(
                "/// List the contents\n/// of a file.\n///\n/// The file is read whole.\n///\n/// Twice.",
            )
            .unwrap();
        let (summary, description) = documentation(&attributes);
        assert_eq!(summary, "List the contents of a file");
        assert_eq!(description, "The file is read whole.\n\nTwice.");
    }

    #[test] // A misspelt option must not be dropped in silence.
    fn unknown_call_options_are_refused() {
        let item = quote!(impl Guest { #[call(nmae = "x")] /// Does it.
            pub fn f(&self) -> Result<()> { Ok(()) } });
        assert!(expand(quote!(area = "a"), item).is_err());
    }
}
