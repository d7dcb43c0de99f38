// Package card checks cards, has the outcomes of the test cards and makes the ids of receipts. It
// knows nothing of WIT.
//
// The expiry date is checked for its form only: without a clock the same card gets the same
// answer every day. An error never repeats any part of a number.
package card

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
)

// Outcome is the outcome of a charge.
type Outcome int

const (
	Accepted Outcome = iota
	InsufficientFunds
	LimitExceeded
	LostOrStolen
	// NoAnswer means that the card's bank cannot be reached.
	NoAnswer
)

var testCards = map[string]Outcome{
	"4000000000000002": InsufficientFunds,
	"4000000000009995": InsufficientFunds,
	"4000000000006975": LimitExceeded,
	"4000000000009979": LostOrStolen,
	"4000000000009987": LostOrStolen,
	"4000000000000119": NoAnswer,
}

// OutcomeOf returns the outcome for a card. Every valid number that is not in the table is accepted,
// such as 4242 4242 4242 4242.
func OutcomeOf(number string) Outcome {
	return testCards[number]
}

var (
	errNotDigits  = errors.New("number: only digits and spaces are allowed")
	errCheckDigit = errors.New("number: the check digit is wrong")
	errNoHolder   = errors.New("holder: a name is needed")
	errExpiry     = errors.New("expires: MM/YY is needed")
)

// Check returns the card's number without its spaces, when all of the card is well formed.
func Check(number, holder, expires string) (string, error) {
	digits := strings.ReplaceAll(number, " ", "")
	switch {
	case !allDigits(digits):
		return "", errNotDigits
	case len(digits) < 12 || len(digits) > 19:
		return "", fmt.Errorf("number: 12 to 19 digits are needed, not %d", len(digits))
	case !luhn(digits):
		return "", errCheckDigit
	case strings.TrimSpace(holder) == "":
		return "", errNoHolder
	case !isMonthAndYear(expires):
		return "", errExpiry
	}
	return digits, nil
}

// ReceiptPrefix is what every receipt's id begins with.
const ReceiptPrefix = "rcpt-"

// ReceiptID is the same for the same order and amount, so that a charge that is sent again
// shows as one.
func ReceiptID(orderID string, minor uint64, currency string) string {
	hash := fnv.New64a()
	fmt.Fprintf(hash, "%s/%d/%s", orderID, minor, currency)
	return fmt.Sprintf("%s%016x", ReceiptPrefix, hash.Sum64())
}

// luhn says whether the last digit is the check digit of the others: every second digit from
// the right is doubled, and the digits of all of them add up to a multiple of ten.
func luhn(digits string) bool {
	sum := 0
	for place := range len(digits) {
		digit := int(digits[len(digits)-1-place] - '0')
		if place%2 == 1 {
			digit *= 2
		}
		sum += digit/10 + digit%10
	}
	return sum%10 == 0
}

func isMonthAndYear(text string) bool {
	month, year, found := strings.Cut(text, "/")
	return found && len(month) == 2 && len(year) == 2 && allDigits(month+year) && "01" <= month && month <= "12"
}

func allDigits(text string) bool {
	return strings.Trim(text, "0123456789") == ""
}
