// Package export_shop_payment_payments is the shop's payment service: the package and its
// functions are named as the bindings of shop:payment/payments expect them.
//
// It moves no money: package card has the outcomes of the test cards. Its twin in Rust makes the
// same checks and returns the same receipts.
package export_shop_payment_payments

import (
	"fmt"
	"strconv"
	"strings"

	"wit_component/card"
	. "wit_component/shop_payment_payments"
	"wit_component/wasi_config_store"
	"wit_component/wasi_logging_logging"

	. "go.bytecodealliance.org/pkg/wit/types"
)

// name is what receipts call this implementation unless the configuration has a `processor`.
const name = "go-pay"

// A refund has the number of its receipt.
const refundPrefix = "rfnd-"

// Charge takes the amount from the card, and is what shop:payment/payments exports.
func Charge(orderID string, amount Money, payer Card) Result[Receipt, PaymentError] {
	receipt, refusal := charge(orderID, amount, payer)
	if refusal != nil {
		return Err[Receipt](*refusal)
	}
	return Ok[Receipt, PaymentError](receipt)
}

func charge(orderID string, amount Money, payer Card) (Receipt, *PaymentError) {
	number, err := card.Check(payer.Number, payer.Holder, payer.Expires)
	if err != nil {
		return Receipt{}, new(MakePaymentErrorInvalidCard(err.Error()))
	}
	switch card.OutcomeOf(number) {
	case card.InsufficientFunds:
		return Receipt{}, declined(DeclineReason_InsufficientFunds)
	case card.LimitExceeded:
		return Receipt{}, declined(DeclineReason_LimitExceeded)
	case card.LostOrStolen:
		return Receipt{}, declined(DeclineReason_LostOrStolen)
	case card.NoAnswer:
		return Receipt{}, unavailable("the bank of this card does not answer")
	}
	if text, set, refusal := setting("limit"); refusal != nil {
		return Receipt{}, refusal
	} else if set {
		// The highest amount taken, in minor units, whatever the currency.
		limit, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return Receipt{}, unavailable("config key `limit`: `%s` is no whole number of minor units", text)
		}
		if amount.Minor > limit {
			return Receipt{}, declined(DeclineReason_LimitExceeded)
		}
	}
	processor, set, refusal := setting("processor")
	if refusal != nil {
		return Receipt{}, refusal
	}
	if !set {
		processor = name
	}
	receipt := card.ReceiptID(orderID, amount.Minor, amount.Currency)
	record("order %s charged, %s", orderID, receipt)
	return Receipt{
		Id:        receipt,
		Amount:    amount,
		Processor: processor,
		Card:      number[len(number)-4:],
	}, nil
}

// Refund gives back what a receipt is for. Receipts follow from order and amount, so there is no list of them.
func Refund(orderID string, receiptID string, amount Money) Result[Refunded, RefundError] {
	own := card.ReceiptID(orderID, amount.Minor, amount.Currency)
	if receiptID != own {
		return Err[Refunded](MakeRefundErrorUnknownReceipt(receiptID))
	}
	id := refundPrefix + strings.TrimPrefix(own, card.ReceiptPrefix)
	record("order %s refunded, %s", orderID, id)
	return Ok[Refunded, RefundError](Refunded{Id: id, Amount: amount})
}

// CancelRefund takes a refund back that is not paid out yet.
func CancelRefund(refundID string) Result[Unit, RefundError] {
	if !strings.HasPrefix(refundID, refundPrefix) {
		return Err[Unit](MakeRefundErrorUnknownReceipt(refundID))
	}
	record("refund %s cancelled", refundID)
	return Ok[Unit, RefundError](Unit{})
}

func record(format string, args ...any) {
	wasi_logging_logging.Log(wasi_logging_logging.Level_Info, "payments", fmt.Sprintf(format, args...))
}

func declined(reason DeclineReason) *PaymentError {
	return new(MakePaymentErrorDeclined(reason))
}

func unavailable(format string, args ...any) *PaymentError {
	return new(MakePaymentErrorUnavailable(fmt.Sprintf(format, args...)))
}

// setting returns the configuration's value for a key, and whether there is one.
func setting(key string) (value string, set bool, refusal *PaymentError) {
	result := wasi_config_store.Get(key)
	if result.IsOk() {
		return result.Ok().SomeOr(""), result.Ok().IsSome(), nil
	}
	failure := result.Err()
	why := ""
	switch failure.Tag() {
	case wasi_config_store.Error_Upstream:
		why = failure.Upstream()
	case wasi_config_store.Error_Io:
		why = failure.Io()
	}
	return "", false, unavailable("config key `%s`: %s", key, why)
}
