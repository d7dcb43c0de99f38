// The module's name and its one requirement are those of the bindings that are generated
// from wit/ beside this file when the service is built.
module wit_component

go 1.27

require go.bytecodealliance.org/pkg v0.4.0
