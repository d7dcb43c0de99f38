//! The documentation comments of a `wit/` folder, which built components do not have.

#![expect(
    clippy::indexing_slicing,
    reason = "the ids within a Resolve are places in its own arenas"
)]

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use wit_parser::{Resolve, Type, TypeDefKind, TypeId};

use super::BuildError;
use super::world::{nearest_wit, parse};
use crate::shape::{Case, Docs, InterfaceDescription, Shape, Signature, TypeDocs, fields};

/// The packages of a `wit/` folder with their documentation comments.
pub struct Comments {
    resolve: Resolve,
}

impl Comments {
    /// The `wit/` folder that is nearest to a manifest's, if there is one.
    #[must_use]
    pub fn folder(near: &Path) -> Option<PathBuf> {
        nearest_wit(near).ok()
    }

    /// Reads a folder.
    ///
    /// # Errors
    ///
    /// It does not parse.
    pub fn read(wit: &Path) -> Result<Self, BuildError> {
        let (resolve, _) = parse(wit)?;
        Ok(Self { resolve })
    }

    /// What is said of an interface of a component: of the same name and version, and of functions of the same type.
    #[must_use]
    pub fn of(&self, interface: &InterfaceDescription) -> Option<Docs> {
        let resolve = &self.resolve;
        let name = interface.id.to_string();
        let mut all = resolve.interfaces.iter();
        let (_, found) = all.find(|(id, _)| resolve.id_of(*id).as_ref() == Some(&name))?;
        let mut functions = BTreeMap::new();
        let mut types = Types {
            resolve,
            seen: HashSet::new(),
            found: Vec::new(),
        };
        for (name, function) in &found.functions {
            let Some(signature) = types.signature(function) else {
                continue;
            };
            if interface.functions.get(name) != Some(&signature) {
                continue;
            }
            let text = comment(&function.docs).map(str::to_owned);
            functions.extend(text.map(|text| (name.clone(), text)));
            let params = function.params.iter().map(|param| &param.ty);
            for ty in params.chain(&function.result) {
                types.collect(ty);
            }
        }
        let text = comment(&found.docs).map(str::to_owned);
        let docs = Docs::new(text, functions, types.found);
        (!docs.is_empty()).then_some(docs)
    }
}

/// What a documentation comment says.
pub(super) fn comment(docs: &wit_parser::Docs) -> Option<&str> {
    let text = docs.contents.as_deref()?.trim();
    (!text.is_empty()).then_some(text)
}

/// The types that functions have.
struct Types<'a> {
    resolve: &'a Resolve,
    seen: HashSet<TypeId>,
    found: Vec<TypeDocs>,
}

impl Types<'_> {
    /// A function's type; nothing if no message can carry it.
    fn signature(&self, function: &wit_parser::Function) -> Option<Signature> {
        let params = function.params.iter();
        let params = params.map(|param| Some((&*param.name, self.shape(&param.ty)?)));
        Some(Signature {
            params: named(params)?,
            result: match &function.result {
                Some(result) => Some(self.shape(result)?),
                None => None,
            },
        })
    }

    fn shape(&self, ty: &Type) -> Option<Shape> {
        Some(match ty {
            Type::Bool => Shape::Bool,
            Type::U8 => Shape::U8,
            Type::U16 => Shape::U16,
            Type::U32 => Shape::U32,
            Type::U64 => Shape::U64,
            Type::S8 => Shape::S8,
            Type::S16 => Shape::S16,
            Type::S32 => Shape::S32,
            Type::S64 => Shape::S64,
            Type::F32 => Shape::F32,
            Type::F64 => Shape::F64,
            Type::Char => Shape::Char,
            Type::String => Shape::String,
            Type::ErrorContext => return None,
            Type::Id(id) => return self.defined(*id),
        })
    }

    fn defined(&self, id: TypeId) -> Option<Shape> {
        let boxed = |ty: &Type| self.shape(ty).map(Box::new);
        Some(match &self.resolve.types[id].kind {
            TypeDefKind::Type(ty) => return self.shape(ty),
            TypeDefKind::List(item) => match self.shape(item)? {
                Shape::U8 => Shape::Bytes,
                item => Shape::List(Box::new(item)),
            },
            TypeDefKind::Stream(Some(item)) => Shape::Stream(boxed(item)?),
            TypeDefKind::Future(Some(value)) => Shape::Future(boxed(value)?),
            TypeDefKind::FixedLengthList(item, length) => Shape::FixedList(boxed(item)?, *length),
            TypeDefKind::Tuple(tuple) => {
                let items = tuple.types.iter().map(|ty| self.shape(ty));
                Shape::Tuple(items.collect::<Option<_>>()?)
            }
            TypeDefKind::Record(record) => {
                let all = record.fields.iter();
                Shape::Record(named(
                    all.map(|field| Some((&*field.name, self.shape(&field.ty)?))),
                )?)
            }
            TypeDefKind::Variant(variant) => {
                let case = |case: &wit_parser::Case| {
                    let payload = match &case.ty {
                        Some(ty) => Some(self.shape(ty)?),
                        None => None,
                    };
                    let name = case.name.as_str().into();
                    Some(Case { name, payload })
                };
                Shape::Variant(variant.cases.iter().map(case).collect::<Option<_>>()?)
            }
            TypeDefKind::Enum(cases) => Shape::Enum(
                cases
                    .cases
                    .iter()
                    .map(|case| (&*case.name).into())
                    .collect(),
            ),
            TypeDefKind::Option(some) => Shape::Option(boxed(some)?),
            TypeDefKind::Result(result) => {
                let side = |side: &Option<Type>| match side {
                    Some(ty) => Some(Some(boxed(ty)?)),
                    None => Some(None),
                };
                let (ok, err) = (side(&result.ok)?, side(&result.err)?);
                Shape::Result { ok, err }
            }
            TypeDefKind::Flags(flags) => Shape::Flags(
                flags
                    .flags
                    .iter()
                    .map(|flag| (&*flag.name).into())
                    .collect(),
            ),
            _ => return None,
        })
    }

    /// Adds a type and those that it is made of, each once. Only types whose signature has a shape come here.
    fn collect(&mut self, ty: &Type) {
        let Type::Id(id) = ty else { return };
        if !self.seen.insert(*id) {
            return;
        }
        let resolve = self.resolve;
        let def = &resolve.types[*id];
        let mut members = BTreeMap::new();
        let mut add = |name: &str, docs: &wit_parser::Docs| {
            let text = comment(docs).map(str::to_owned);
            members.extend(text.map(|text| (name.to_owned(), text)));
        };
        match &def.kind {
            TypeDefKind::Record(record) => {
                for field in &record.fields {
                    add(&field.name, &field.docs);
                    self.collect(&field.ty);
                }
            }
            TypeDefKind::Variant(variant) => {
                for case in &variant.cases {
                    add(&case.name, &case.docs);
                    case.ty.iter().for_each(|ty| self.collect(ty));
                }
            }
            TypeDefKind::Enum(cases) => cases.cases.iter().for_each(|c| add(&c.name, &c.docs)),
            TypeDefKind::Flags(flags) => flags.flags.iter().for_each(|f| add(&f.name, &f.docs)),
            TypeDefKind::Type(ty)
            | TypeDefKind::Option(ty)
            | TypeDefKind::List(ty)
            | TypeDefKind::FixedLengthList(ty, _) => return self.collect(ty),
            TypeDefKind::Tuple(tuple) => return tuple.types.iter().for_each(|ty| self.collect(ty)),
            TypeDefKind::Result(result) => {
                let sides = result.ok.iter().chain(&result.err);
                return sides.for_each(|ty| self.collect(ty));
            }
            _ => return,
        }
        let text = comment(&def.docs).map(str::to_owned);
        let shape = self.defined(*id);
        self.found.extend(shape.map(|shape| TypeDocs {
            shape,
            text,
            members,
        }));
    }
}

fn named<'n>(
    all: impl Iterator<Item = Option<(&'n str, Shape)>>,
) -> Option<Box<[crate::shape::Field]>> {
    let all = all.map(|one| one.map(|(name, shape)| (name.into(), shape)));
    Some(fields(all.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIT: &str = r#"
        package shop:orders@1.2.0;

        /// Orders.
        interface orders {
            /// What it costs.
            record money {
                /// Cents.
                minor: u64,
                currency: string,
            }
            type price = money;
            variant problem {
                /// Nothing was asked for.
                empty,
                other(price),
            }
            enum kind { /** Now. */ express, normal }

            /// Prices an order. Changes nothing.
            quote: func(skus: list<string>, kind: kind) -> result<list<price>, problem>;
            /// Another type than the component has.
            place: func(sku: string);
            /// Only here.
            gone: func();
            silent: func();
        }

        world w { export orders; }
    "#;

    fn comments() -> Comments {
        let mut resolve = Resolve::default();
        resolve.push_str("orders.wit", WIT).unwrap();
        Comments { resolve }
    }

    const MONEY: &str = "record { minor: u64, currency: string }";

    fn interface(id: &str) -> InterfaceDescription {
        let quote = format!(
            "func(skus: list<string>, kind: enum {{ express, normal }}) -> result<list<{MONEY}>, \
             variant {{ empty, other({MONEY}) }}>"
        );
        let functions = [
            ("quote", &*quote),
            ("place", "func(sku: u64)"),
            ("silent", "func()"),
        ];
        let functions = functions.iter();
        InterfaceDescription {
            id: id.parse().unwrap(),
            functions: functions
                .map(|(name, text)| ((*name).to_owned(), text.parse().unwrap()))
                .collect(),
            types: BTreeMap::new(),
        }
    }

    #[test]
    fn comments_are_of_what_the_component_has() {
        let docs = comments()
            .of(&interface("shop:orders/orders@1.2.0"))
            .unwrap();
        assert_eq!(docs.text.as_deref(), Some("Orders."));
        let functions: Vec<_> = docs.functions.iter().collect();
        let quote = "Prices an order. Changes nothing.".to_owned();
        assert_eq!(functions, [(&"quote".to_owned(), &quote)]);
        let of = |shape: &str| docs.of(&shape.parse().unwrap()).unwrap();
        let money = of(MONEY);
        assert_eq!(money.text.as_deref(), Some("What it costs."));
        assert_eq!(money.member("minor"), Some("Cents."));
        assert_eq!(money.member("currency"), None);
        let problem = of(&format!("variant {{ empty, other({MONEY}) }}"));
        assert_eq!(problem.member("empty"), Some("Nothing was asked for."));
        assert_eq!(
            of("enum { express, normal }").member("express"),
            Some("Now.")
        );
    }

    #[test]
    fn another_version_or_interface_says_nothing() {
        for id in [
            "shop:orders/orders@1.1.0",
            "shop:orders/orders@1.2.1",
            "shop:orders/orders",
            "shop:orders/others@1.2.0",
            "shop:stock/orders@1.2.0",
        ] {
            assert_eq!(comments().of(&interface(id)), None, "{id}");
        }
    }
}
