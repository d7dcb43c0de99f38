#include "../{{name}}.c"

#include <assert.h>

/* The bindings of a component free their strings; here the test does. */
void {{snake}}_string_free({{snake}}_string_t *text) {
    free(text->ptr);
}

int main(void) {
    {{snake}}_string_t who = {(uint8_t *)strdup("you"), 3}, greeting;
    exports_demo_{{snake}}_greetings_greet(&who, &greeting);
    assert(greeting.len == strlen("Hello, you!"));
    assert(memcmp(greeting.ptr, "Hello, you!", greeting.len) == 0);
    {{snake}}_string_free(&greeting);
}
