// Package export_bay_bench_thrice calls another service three times.
package export_bay_bench_thrice

import (
	"wit_component/bay_bench_echo"
	. "wit_component/bay_bench_thrice"
)

// Thrice gives back what the other service gave back each time.
func Thrice(item Item) Item {
	for range 3 {
		item = bay_bench_echo.Echo(item)
	}
	return item
}
