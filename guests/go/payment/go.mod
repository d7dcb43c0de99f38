// The generated bindings call this module wit_component.
module wit_component

go 1.27.1

require go.bytecodealliance.org/pkg v0.4.0

// Comes with wasmbay, which puts it there when it builds the service.
replace go.bytecodealliance.org/pkg => ./.wasmbay/go/pkg
