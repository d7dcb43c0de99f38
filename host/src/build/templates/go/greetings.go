// Package export_demo_{{snake}}_greetings implements demo:{{name}}/greetings: the generated
// bindings call its functions.
package export_demo_{{snake}}_greetings

// Greet returns a greeting for this name.
func Greet(who string) string {
	return "Hello, " + who + "!"
}
