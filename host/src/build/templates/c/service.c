#include "{{snake}}.h"

#include <stdlib.h>
#include <string.h>

/* Of what is passed in, the callee is the owner; of what is returned, the caller. */
void exports_demo_{{snake}}_greetings_greet({{snake}}_string_t *who, {{snake}}_string_t *ret) {
    static const char before[] = "Hello, ", after[] = "!";
    ret->len = strlen(before) + who->len + strlen(after);
    ret->ptr = malloc(ret->len);
    if (ret->ptr == NULL) abort();
    memcpy(ret->ptr, before, strlen(before));
    memcpy(ret->ptr + strlen(before), who->ptr, who->len);
    memcpy(ret->ptr + strlen(before) + who->len, after, strlen(after));
    {{snake}}_string_free(who);
}
