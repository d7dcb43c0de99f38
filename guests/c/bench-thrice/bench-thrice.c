/* Calls another service three times. The receiver of a value from the bindings owns it. */

#include "bench_thrice.h"

void exports_bay_bench_thrice_thrice(exports_bay_bench_thrice_item_t *item, exports_bay_bench_thrice_item_t *ret) {
    bay_bench_echo_item_t before = *item, after;
    for (int call = 0; call < 3; call++) {
        bay_bench_echo_echo(&before, &after);
        bay_bench_echo_item_free(&before);
        before = after;
    }
    *ret = before;
}
