//! Takes integers of 64 bits past `componentize-qjs` 0.4.5, which turns them into floating-point
//! numbers and so rounds them from 2^53 on.
//!
//! A component that the tool makes has one small module for its world, which hands each value of a
//! call to the module with the interpreter, by functions named `wit_dylib_push_u64` and so on. Here
//! those of 64-bit integers are replaced by ones that hand over 16 hexadecimal digits as a string,
//! and `values.js` makes a bigint of them. Delete this once the tool has bigints itself.

use wasm_encoder::reencode::{self, Reencode, ReencodeComponent};
use wasm_encoder::{
    BlockType, CodeSection, ComponentSectionId, Function, FunctionSection, MemArg, Module,
    ModuleSection, RawSection, ValType,
};
use wasmparser::{Parser, Payload, TypeRef};

/// Why a component of the tool's could not be changed.
#[derive(Debug, thiserror::Error)]
pub(in crate::build) enum ExactError {
    /// The tool makes something else now.
    #[error(
        "componentize-qjs made no module that hands over 64-bit integers; wasmbay knows version 0.4.5 of it"
    )]
    Unknown,
    /// It is no component, or one with something new in it.
    #[error("the component that componentize-qjs made cannot be read")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
}

const DIGITS: i32 = 16;

/// The component with exact integers of 64 bits.
pub(in crate::build) fn exact(component: &[u8]) -> Result<Vec<u8>, ExactError> {
    let read = |error: reencode::Error| ExactError::Read(error.to_string().into());
    let mut made = wasm_encoder::Component::new();
    let mut components = Components { replaced: 0 };
    components
        .parse_component(&mut made, Parser::new(0), component)
        .map_err(read)?;
    if components.replaced != 1 {
        return Err(ExactError::Unknown);
    }
    Ok(made.finish())
}

/// Copies everything but the one module.
struct Components {
    replaced: u32,
}

impl Reencode for Components {
    type Error = std::convert::Infallible;
}

impl ReencodeComponent for Components {
    fn parse_component_submodule(
        &mut self,
        component: &mut wasm_encoder::Component,
        _parser: Parser,
        module: &[u8],
    ) -> Result<(), reencode::Error<Self::Error>> {
        let Some(functions) = Functions::of(module)? else {
            component.section(&RawSection {
                id: ComponentSectionId::CoreModule.into(),
                data: module,
            });
            return Ok(());
        };
        let mut made = Module::new();
        functions.parse_core_module(&mut made, module)?;
        component.section(&ModuleSection(&made));
        self.replaced += 1;
        Ok(())
    }
}

/// The places of what the world's module imports, and of what is added to it.
#[derive(Clone, Copy)]
struct Functions {
    push_u64: Import,
    push_s64: Import,
    pop_u64: Import,
    pop_s64: Import,
    push_string: Import,
    pop_string: Import,
    realloc: Import,
    stack: u32,
    /// How many functions there are, imported and defined.
    count: u32,
}

/// An imported function's place and type.
#[derive(Clone, Copy)]
struct Import {
    index: u32,
    ty: u32,
}

impl Functions {
    /// `None` if the module is another one.
    fn of(module: &[u8]) -> Result<Option<Self>, wasmparser::Error> {
        let (mut functions, mut globals, mut defined) = (Vec::new(), Vec::new(), 0);
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        match import.ty {
                            TypeRef::Func(ty) => functions.push((import.name, ty)),
                            TypeRef::Global(_) => globals.push(import.name),
                            _ => {}
                        }
                    }
                }
                Payload::FunctionSection(section) => defined = section.count(),
                _ => {}
            }
        }
        let import = |name: &str| {
            let at = functions.iter().position(|(other, _)| *other == name)?;
            let (_, ty) = functions.get(at)?;
            let index = u32::try_from(at).ok()?;
            Some(Import { index, ty: *ty })
        };
        let stack = globals.iter().position(|name| *name == "__stack_pointer");
        let found = || {
            Some(Self {
                push_u64: import("wit_dylib_push_u64")?,
                push_s64: import("wit_dylib_push_s64")?,
                pop_u64: import("wit_dylib_pop_u64")?,
                pop_s64: import("wit_dylib_pop_s64")?,
                push_string: import("wit_dylib_push_string")?,
                pop_string: import("wit_dylib_pop_string")?,
                realloc: import("cabi_realloc")?,
                stack: u32::try_from(stack?).ok()?,
                count: u32::try_from(functions.len()).ok()?.checked_add(defined)?,
            })
        };
        Ok(found())
    }

    fn parse_core_module(
        self,
        made: &mut Module,
        module: &[u8],
    ) -> Result<(), reencode::Error<std::convert::Infallible>> {
        let mut rewrite = Rewrite(self);
        rewrite.parse_core_module(made, Parser::new(0), module)
    }

    /// `(cx, value)`: pushes the digits of the value, the highest first.
    fn push(&self) -> Function {
        let [cx, value, text, at, digit] = [0, 1, 2, 3, 4];
        let mut function = Function::new([(3, ValType::I32)]);
        let mut code = function.instructions();
        // The string is the interpreter's own from here on.
        code.i32_const(0)
            .i32_const(0)
            .i32_const(1)
            .i32_const(DIGITS);
        code.call(self.realloc.index).local_set(text);
        code.loop_(BlockType::Empty);
        code.local_get(value).i64_const(60).i64_shr_u();
        code.i32_wrap_i64().local_set(digit);
        code.local_get(text).local_get(at).i32_add();
        // From '9' to 'a' there are 39 more than from 9 to 10.
        code.local_get(digit).i32_const(0x30).i32_add();
        code.local_get(digit).i32_const(9).i32_gt_u();
        code.i32_const(39).i32_mul().i32_add();
        code.i32_store8(memory(0));
        code.local_get(value)
            .i64_const(4)
            .i64_shl()
            .local_set(value);
        code.local_get(at).i32_const(1).i32_add().local_tee(at);
        code.i32_const(DIGITS).i32_lt_u().br_if(0).end();
        code.local_get(cx).local_get(text).i32_const(DIGITS);
        code.call(self.push_string.index).end();
        function
    }

    /// `(cx) -> value`: pops what `values.js` made of a bigint, and traps where it is anything else.
    fn pop(&self) -> Function {
        let [cx, text, at, digit, value] = [0, 1, 2, 3, 4];
        let mut function = Function::new([(3, ValType::I32), (1, ValType::I64)]);
        let mut code = function.instructions();
        // The string's place is written to memory.
        code.global_get(self.stack).i32_const(16).i32_sub();
        code.local_tee(text).global_set(self.stack);
        code.local_get(cx)
            .local_get(text)
            .call(self.pop_string.index);
        code.i32_const(DIGITS).i32_ne();
        code.if_(BlockType::Empty).unreachable().end();
        code.local_get(text).i32_load(memory(2)).local_set(text);
        code.loop_(BlockType::Empty);
        code.local_get(text).local_get(at).i32_add();
        code.i32_load8_u(memory(0)).local_set(digit);
        code.local_get(value).i64_const(4).i64_shl();
        code.local_get(digit).i32_const(0x30).i32_sub();
        code.local_get(digit).i32_const(0x39).i32_gt_u();
        code.i32_const(39).i32_mul().i32_sub();
        code.i64_extend_i32_u().i64_or().local_set(value);
        code.local_get(at).i32_const(1).i32_add().local_tee(at);
        code.i32_const(DIGITS).i32_lt_u().br_if(0).end();
        code.global_get(self.stack).i32_const(16).i32_add();
        code.global_set(self.stack);
        code.local_get(value).end();
        function
    }
}

fn memory(align: u32) -> MemArg {
    MemArg {
        offset: 0,
        align,
        memory_index: 0,
    }
}

/// Copies a module, and sends its calls elsewhere.
struct Rewrite(Functions);

impl Reencode for Rewrite {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error<Self::Error>> {
        let functions = &self.0;
        Ok(match index {
            index if [functions.push_u64.index, functions.push_s64.index].contains(&index) => {
                functions.count
            }
            index if [functions.pop_u64.index, functions.pop_s64.index].contains(&index) => {
                functions.count + 1
            }
            index => index,
        })
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Result<(), reencode::Error<Self::Error>> {
        reencode::utils::parse_function_section(self, functions, section)?;
        functions.function(self.0.push_u64.ty);
        functions.function(self.0.pop_u64.ty);
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Result<(), reencode::Error<Self::Error>> {
        reencode::utils::parse_code_section(self, code, section)?;
        code.function(&self.0.push());
        code.function(&self.0.pop());
        Ok(())
    }
}
