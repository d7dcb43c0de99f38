// The generated bindings call this module wit_component.
module wit_component

go 1.27.1

require (
	go.bytecodealliance.org/pkg v0.4.0
	wasmbay v0.0.0
)

// Both come with wasmbay, which puts them there when it builds the service.
replace (
	go.bytecodealliance.org/pkg => ./.wasmbay/go/pkg
	wasmbay => ./.wasmbay/go/wasmbay
)
