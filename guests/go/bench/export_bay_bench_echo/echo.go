// Package export_bay_bench_echo is what the benchmarks call.
package export_bay_bench_echo

import . "wit_component/bay_bench_echo"

// Echo gives the item back as it came.
func Echo(item Item) Item {
	return item
}
