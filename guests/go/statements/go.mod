// The generated bindings call this module wit_component.
module wit_component

go 1.27.1

require (
	github.com/jackc/pgx/v5 v5.13.0
	go.bytecodealliance.org/pkg v0.4.0
	wasmbay v0.0.0
)

require (
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/text v0.41.0 // indirect
)

// Both come with wasmbay, which puts them there when it builds the service.
replace (
	go.bytecodealliance.org/pkg => ./.wasmbay/go/pkg
	wasmbay => ./.wasmbay/go/wasmbay
)
