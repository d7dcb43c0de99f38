package export_demo_{{snake}}_greetings

import "testing"

func TestGreet(t *testing.T) {
	if got := Greet("you"); got != "Hello, you!" {
		t.Errorf("got %q", got)
	}
}
