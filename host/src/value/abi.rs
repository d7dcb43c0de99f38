//! wasmtime's traits of values, for values whose types are known at run time only.
//!
//! All `unsafe` of this room is here. wasmtime calls these traits with the function's type as the
//! component declares it; what is done with it is in `lower` and `lift`, which check each value and
//! each address against that type and have no `unsafe`.
//!
//! The traits are hidden and may change with any version of wasmtime. What they have to do is what
//! wasmtime does for its own `Val`, and a test compares the two.

use std::cell::Cell;
use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;

use wasmtime::component::__internal::wasmtime_environ::component::{
    MAX_FLAT_PARAMS, MAX_FLAT_RESULTS,
};
use wasmtime::component::__internal::{
    CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext, LowerContext,
};
use wasmtime::component::{
    Accessor, ComponentNamedList, ComponentType, Func, Lift, LinkerInstance, Lower, TypedFunc,
};
use wasmtime::{AsContextMut, Result, StoreContextMut, ValRaw, bail};

use super::streams::{self, Account};
use super::{Value, lift, lower};
use crate::shape::{Shape, Signature};

/// What the traits ask for when the type is not known. Nothing may rely on the size: where values
/// stand in memory, `lower` and `lift` take size and alignment from the function's type.
const UNKNOWN: CanonicalAbiInfo = CanonicalAbiInfo {
    size32: 0,
    align32: 1,
    size64: 0,
    align64: 1,
    flat_count: Some(0),
};

/// How the result of an exported function gets from the guest to the host.
///
/// On wasmtime's plain engine that is one core value at most, else an address. With concurrency support an
/// asynchronous function may give as many core values as a function may take, and only wasmtime knows
/// whether one does; so their number is part of a Rust type, as for arguments of imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResultPath(usize);

impl ResultPath {
    /// The path on the plain engine, for all functions.
    pub(crate) const PLAIN: Self = Self(MAX_FLAT_RESULTS);

    /// The path on an engine with concurrency support.
    pub(crate) fn concurrent(signature: &Signature) -> Self {
        let count = signature.result.as_ref().map_or(0, flat_count);
        Self(count.min(IN_MEMORY))
    }
}

/// Stands for results that are too many core values for any function.
const IN_MEMORY: usize = MAX_FLAT_PARAMS + 1;

/// Calls an exported function of this instance, whose type is checked against the arguments.
///
/// # Errors
///
/// As `Func::call_async` of wasmtime: arguments of another type, a trap, a result that violates the
/// canonical ABI or takes more than the store's fuel for calls to the host.
///
/// # Cancel safety
///
/// The store of a dropped future is of no further use.
pub(crate) async fn call(
    function: Func,
    store: impl AsContextMut<Data: Send>,
    arguments: &[Value],
    path: ResultPath,
) -> Result<Option<Value>> {
    macro_rules! call {
        ($($count:literal)*) => {
            match path.0 {
                // The plain path, and that of most: not boxed.
                MAX_FLAT_RESULTS => call_with_result::<MAX_FLAT_RESULTS>(function, store, arguments).await,
                $($count => Box::pin(call_with_result::<$count>(function, store, arguments)).await,)*
                _ => Box::pin(call_with_result::<IN_MEMORY>(function, store, arguments)).await,
            }
        };
    }
    call!(0 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
}

async fn call_with_result<const COUNT: usize>(
    function: Func,
    store: impl AsContextMut<Data: Send>,
    arguments: &[Value],
) -> Result<Option<Value>> {
    // SAFETY: what this leaves unchecked is whether the function has these parameters and this
    // result. `Arguments` and `Returned` stand for any: they get the function's own type whenever
    // they are lowered or lifted, and check the values against it then.
    let function = unsafe { TypedFunc::<Arguments<'_>, Returned<COUNT>>::new_unchecked(function) };
    let Returned(result) = function.call_async(store, Arguments(arguments)).await?;
    Ok(result)
}

/// A function that guests import: arguments to a result, which are of the types that it was defined
/// with.
pub(crate) trait Imported<T: 'static>: Send + Sync + 'static {
    /// The account of the streams that are written by the call which the store runs now.
    fn account(&self, data: &mut T) -> Arc<Account>;

    fn call<'a>(
        &self,
        store: StoreContextMut<'a, T>,
        arguments: Vec<Value>,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Value>>> + Send + 'a>>;

    /// As [`Imported::call`] for an `async func`: others of the instance's calls go on meanwhile.
    fn call_concurrent<'a>(
        &self,
        store: &'a Accessor<T>,
        arguments: Vec<Value>,
    ) -> Pin<Box<dyn Future<Output = Result<Option<Value>>> + Send + 'a>>;
}

/// Defines a function of an imported interface, which is an `async func` or a plain one.
///
/// # Errors
///
/// There is one of that name. Whether a component imports it with this signature is checked when the
/// component is linked.
pub(crate) fn define<T: 'static>(
    instance: &mut LinkerInstance<'_, T>,
    name: &str,
    signature: &Signature,
    is_async: bool,
    function: impl Imported<T>,
) -> Result<()> {
    let writes = signature
        .params
        .iter()
        .any(|param| param.shape.has_stream());
    let params = total(signature.params.iter().map(|param| &param.shape));
    let params = within(MAX_FLAT_PARAMS, params);
    let result = signature.result.as_ref();
    match within(MAX_FLAT_RESULTS, result.map_or(0, flat_count)) {
        0 => define_with_result::<T, 0>(instance, name, params, (is_async, writes), function),
        _ => define_with_result::<T, 1>(instance, name, params, (is_async, writes), function),
    }
}

/// The number of core values of parameters or results: none where they are too many, since they
/// stand in memory then.
fn within(most: usize, count: usize) -> usize {
    if count > most { 0 } else { count }
}

fn define_with_result<T: 'static, const RESULTS: usize>(
    instance: &mut LinkerInstance<'_, T>,
    name: &str,
    params: usize,
    (is_async, writes): (bool, bool),
    function: impl Imported<T>,
) -> Result<()> {
    // The number of core values is part of a Rust type, so there is a function for each.
    macro_rules! define {
        ($($count:literal)*) => {
            match params {
                $($count if is_async => instance.func_wrap_concurrent(
                    name,
                    move |store: &Accessor<T>, Passed::<$count>(arguments)| {
                        let attached = match writes {
                            true => store.with(|mut store| {
                                let account = function.account(store.data_mut());
                                streams::attach_all(&arguments, store, &account)
                            }),
                            false => Ok(false),
                        };
                        let returned = function.call_concurrent(store, arguments);
                        Box::pin(async move {
                            attached?;
                            Ok(Returned::<RESULTS>(returned.await?))
                        })
                    },
                ),)*
                $($count => instance.func_wrap_async(
                    name,
                    move |mut store: StoreContextMut<'_, T>, Passed::<$count>(arguments)| {
                        let attached = match writes {
                            true => {
                                let account = function.account(store.data_mut());
                                streams::attach_all(&arguments, &mut store, &account)
                            }
                            false => Ok(false),
                        };
                        let returned = function.call(store, arguments);
                        Box::new(async move {
                            attached?;
                            Ok(Returned::<RESULTS>(returned.await?))
                        })
                    },
                ),)*
                _ => bail!("{params} core values are more than a function can have"),
            }
        };
    }
    define!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
}

/// The number of core values that a value of this shape is, as the canonical ABI flattens it.
fn flat_count(shape: &Shape) -> usize {
    let of = |shape: &Option<Box<Shape>>| shape.as_deref().map_or(0, flat_count);
    match shape {
        Shape::Bool
        | Shape::U8
        | Shape::U16
        | Shape::U32
        | Shape::U64
        | Shape::S8
        | Shape::S16
        | Shape::S32
        | Shape::S64
        | Shape::F32
        | Shape::F64
        | Shape::Char
        | Shape::Enum(_)
        | Shape::Stream(_)
        | Shape::Future(_) => 1,
        Shape::String | Shape::Bytes | Shape::List(_) => 2,
        Shape::FixedList(item, len) => flat_count(item).saturating_mul(*len as usize),
        Shape::Tuple(items) => total(items.iter()),
        Shape::Record(fields) => total(fields.iter().map(|field| &field.shape)),
        Shape::Variant(cases) => {
            let payloads = cases.iter().filter_map(|case| case.payload.as_ref());
            let longest = payloads.map(flat_count).max();
            longest.unwrap_or(0).saturating_add(1)
        }
        Shape::Option(some) => flat_count(some).saturating_add(1),
        Shape::Result { ok, err } => of(ok).max(of(err)).saturating_add(1),
        Shape::Flags(names) => names.len().div_ceil(u32::BITS as usize),
    }
}

fn total<'s>(shapes: impl Iterator<Item = &'s Shape>) -> usize {
    shapes.map(flat_count).fold(0, usize::saturating_add)
}

/// Whether parameters or results are this many core values.
fn check(ty: &InterfaceType, types: &InstanceType<'_>, most: usize, count: usize) -> Result<()> {
    let InterfaceType::Tuple(tuple) = ty else {
        bail!("parameters or results are no tuple");
    };
    let found = types.types[*tuple].abi.flat_count(most).unwrap_or(0);
    if found != count {
        bail!("expected {count} core values, found {found}");
    }
    Ok(())
}

/// All arguments of an exported function.
struct Arguments<'a>(&'a [Value]);

/// All arguments of an imported function, which are `COUNT` core values. None, if they are in memory.
struct Passed<const COUNT: usize>(Vec<Value>);

/// The result of a function, which is `COUNT` core values. None, if it is in memory.
struct Returned<const COUNT: usize>(Option<Value>);

// SAFETY: `Lower` is a sequence of `ValRaw`, the longest that wasmtime passes to a function as core
// values, so there is room for those of every function. wasmtime lowers to it in all cases, since it
// is not too long for core values, and never relies on `ABI`. No type is checked here because
// `lower` checks each value.
unsafe impl ComponentType for Arguments<'_> {
    type Lower = [ValRaw; MAX_FLAT_PARAMS];
    const ABI: CanonicalAbiInfo = UNKNOWN;

    fn typecheck(_: &InterfaceType, _: &InstanceType<'_>) -> Result<()> {
        Ok(())
    }
}

// SAFETY: it stands for the tuple of all parameters; see `ComponentType`.
unsafe impl ComponentNamedList for Arguments<'_> {}

// SAFETY: every slot is initialised before anything else, and `lower::parameters` writes values of
// the function's types, or the address of their copies in memory that the guest has allocated.
unsafe impl Lower for Arguments<'_> {
    fn linear_lower_to_flat<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        ty: InterfaceType,
        dst: &mut MaybeUninit<Self::Lower>,
    ) -> Result<()> {
        let slots = dst.write([ValRaw::u64(0); MAX_FLAT_PARAMS]);
        lower::parameters(cx, ty, self.0, slots)
    }

    fn linear_lower_to_memory<T>(
        &self,
        _: &mut LowerContext<'_, T>,
        _: InterfaceType,
        _: usize,
    ) -> Result<()> {
        bail!("arguments of an export are lowered to core values")
    }
}

// SAFETY: `Lower` is a sequence of `ValRaw`, as long as `typecheck` has found the parameters to be.
// Where they stand in memory wasmtime has checked their address by their own type and not by `ABI`.
unsafe impl<const COUNT: usize> ComponentType for Passed<COUNT> {
    type Lower = [ValRaw; COUNT];
    const ABI: CanonicalAbiInfo = UNKNOWN;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> Result<()> {
        check(ty, types, MAX_FLAT_PARAMS, COUNT)
    }
}

// SAFETY: it stands for the tuple of all parameters; see `ComponentType`.
unsafe impl<const COUNT: usize> ComponentNamedList for Passed<COUNT> {}

// SAFETY: what is lifted is checked, value by value, by the type that wasmtime gives with it.
unsafe impl<const COUNT: usize> Lift for Passed<COUNT> {
    fn linear_lift_from_flat(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        src: &Self::Lower,
    ) -> Result<Self> {
        Ok(Self(lift::tuple_from_flat(cx, ty, src)?))
    }

    fn linear_lift_from_memory(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        bytes: &[u8],
    ) -> Result<Self> {
        // By `ABI` there are no bytes, but they begin where the arguments do. Should that ever not
        // be so, `lift` finds an address that is not the guest's and refuses it.
        let start = bytes.as_ptr().addr();
        let offset = start.wrapping_sub(cx.memory().as_ptr().addr());
        Ok(Self(lift::tuple_from_memory(cx, ty, offset)?))
    }
}

// SAFETY: `Lower` is a sequence of `ValRaw`. A result that is lifted has the slots that its `ResultPath` says, a
// result that is lowered as many as `typecheck` has found; in both cases wasmtime looks whether there are so
// many. It checks addresses by the result's own type or leaves that to `lift`, and not by `ABI`.
unsafe impl<const COUNT: usize> ComponentType for Returned<COUNT> {
    type Lower = [ValRaw; COUNT];
    const ABI: CanonicalAbiInfo = UNKNOWN;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> Result<()> {
        check(ty, types, MAX_FLAT_RESULTS, COUNT)
    }
}

// SAFETY: it stands for the tuple of all results; see `ComponentType`.
unsafe impl<const COUNT: usize> ComponentNamedList for Returned<COUNT> {}

// SAFETY: what is lifted is checked by the type that wasmtime gives with it, and so is the address
// of a result in memory.
unsafe impl<const COUNT: usize> Lift for Returned<COUNT> {
    fn linear_lift_from_flat(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        src: &Self::Lower,
    ) -> Result<Self> {
        Ok(Self(lift::results(cx, ty, src)?))
    }

    fn linear_lift_from_memory(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        bytes: &[u8],
    ) -> Result<Self> {
        // As for `Passed`.
        let start = bytes.as_ptr().addr();
        let address = start.wrapping_sub(cx.memory().as_ptr().addr());
        Ok(Self(lift::results_at(cx, ty, address)?))
    }
}

// SAFETY: every slot is initialised before anything else, and `lower` writes a value of the
// function's type to them, or to the address that wasmtime has checked for that type.
unsafe impl<const COUNT: usize> Lower for Returned<COUNT> {
    fn linear_lower_to_flat<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        ty: InterfaceType,
        dst: &mut MaybeUninit<Self::Lower>,
    ) -> Result<()> {
        let slots = dst.write([ValRaw::u64(0); COUNT]);
        lower::tuple_to_flat(cx, ty, self.0.as_slice(), slots)
    }

    fn linear_lower_to_memory<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        ty: InterfaceType,
        offset: usize,
    ) -> Result<()> {
        lower::tuple_to_memory(cx, ty, self.0.as_slice(), offset)
    }
}

/// One item of a stream, or the value of a future.
pub(super) struct Item(pub(super) Value);

thread_local! {
    /// The position of the item that is lifted next, among those that a guest has written at once.
    static POSITION: Cell<usize> = const { Cell::new(0) };
}

/// Lifts items that a guest has written at once, the first of them first.
pub(super) fn lift_items<R>(lift: impl FnOnce() -> R) -> R {
    POSITION.set(0);
    lift()
}

// SAFETY: it is never passed as core values, and stands for a type of any size: wasmtime's own checks of addresses
// by `ABI` are void, and `lower` and `lift` check them by the type that it gives.
unsafe impl ComponentType for Item {
    type Lower = [ValRaw; 0];
    const ABI: CanonicalAbiInfo = UNKNOWN;

    fn typecheck(_: &InterfaceType, _: &InstanceType<'_>) -> Result<()> {
        Ok(())
    }
}

// SAFETY: `lift` checks what it reads. By `ABI` every item begins where the first one does, so its position among
// them is counted here.
unsafe impl Lift for Item {
    fn linear_lift_from_flat(
        _: &mut LiftContext<'_>,
        _: InterfaceType,
        _: &Self::Lower,
    ) -> Result<Self> {
        bail!("items of a stream are lifted from memory")
    }

    fn linear_lift_from_memory(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        bytes: &[u8],
    ) -> Result<Self> {
        let start = bytes.as_ptr().addr();
        let address = start.wrapping_sub(cx.memory().as_ptr().addr());
        let position = POSITION.get();
        POSITION.set(position + 1);
        Ok(Self(lift::item_from_memory(cx, ty, address, position)?))
    }
}

// SAFETY: `lower` checks each value and the place of all of them by the type that wasmtime gives.
unsafe impl Lower for Item {
    fn linear_lower_to_flat<T>(
        &self,
        _: &mut LowerContext<'_, T>,
        _: InterfaceType,
        _: &mut MaybeUninit<Self::Lower>,
    ) -> Result<()> {
        bail!("items of a stream are lowered to memory")
    }

    fn linear_lower_to_memory<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        ty: InterfaceType,
        offset: usize,
    ) -> Result<()> {
        Self::linear_store_list_to_memory(cx, ty, offset, std::slice::from_ref(self))
    }

    fn linear_store_list_to_memory<T>(
        cx: &mut LowerContext<'_, T>,
        ty: InterfaceType,
        offset: usize,
        items: &[Self],
    ) -> Result<()> {
        lower::items_to_memory(cx, ty, offset, items.iter().map(|Self(value)| value))
    }
}

/// Lowers the readable end of a stream or a future: its index.
pub(super) fn handle<T, R>(
    cx: &mut LowerContext<'_, T>,
    ty: InterfaceType,
    reader: &R,
) -> Result<u32>
where
    R: Lower<Lower = ValRaw>,
{
    let mut index = MaybeUninit::new(ValRaw::u32(0));
    reader.linear_lower_to_flat(cx, ty, &mut index)?;
    // SAFETY: it was initialised when it was made.
    Ok(unsafe { index.assume_init() }.get_u32())
}

/// Lowers a string to core values: its address and its length.
pub(super) fn string_to_flat<T>(cx: &mut LowerContext<'_, T>, text: &str) -> Result<[ValRaw; 2]> {
    let mut pair = MaybeUninit::uninit();
    <str as Lower>::linear_lower_to_flat(text, cx, InterfaceType::String, &mut pair)?;
    // SAFETY: lowering initialises all of its destination when it returns `Ok`.
    Ok(unsafe { pair.assume_init() })
}
