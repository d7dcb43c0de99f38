package card

import "testing"

func TestCheck(t *testing.T) {
	for _, c := range []struct{ number, holder, expires, want string }{
		{"4242 4242 4242 4242", "Ada", "12/30", ""},
		{"4242-4242-4242-4242", "Ada", "12/30", "number: only digits and spaces are allowed"},
		{"", "Ada", "12/30", "number: 12 to 19 digits are needed, not 0"},
		{"4242424242424243", "Ada", "12/30", "number: the check digit is wrong"},
		{"4242424242424242", " ", "12/30", "holder: a name is needed"},
		{"4242424242424242", "Ada", "13/30", "expires: MM/YY is needed"},
		{"4242424242424242", "Ada", "1/2030", "expires: MM/YY is needed"},
	} {
		got := ""
		if _, err := Check(c.number, c.holder, c.expires); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v: got %q", c, got)
		}
	}
}

func TestTestCardsAreValid(t *testing.T) {
	for number := range testCards {
		if !luhn(number) {
			t.Errorf("%s: the check digit is wrong", number)
		}
	}
}

// The twin in Rust has the same test, so the two give the same receipts.
func TestReceiptID(t *testing.T) {
	if got := ReceiptID("ord-1", 8990, "EUR"); got != "rcpt-7625738ac195be52" {
		t.Error(got)
	}
}
