/* The shop's notifications: subscribes to the events of orders and notifies the customer, or sends the
 * message that it is called with. It checks the address, writes the message to the log in place of sending
 * it, and returns an id that follows from the message alone, so that a second delivery has the same id.
 *
 * The receiver of a value from the bindings owns it: the arguments of an export and the results of an
 * import are freed here, the result of an export is freed by the caller.
 * No string ends in a NUL, so lengths go everywhere. */

#include "notifications.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef notifications_string_t string;
typedef exports_shop_notifications_notifier_message_t message;
typedef exports_shop_notifications_notifier_notify_error_t notify_error;

/* For printf's %.*s. */
#define PRINT(s) (int)(s).len, (const char *)(s).ptr

#define LONGEST_EMAIL 254 /* RFC 5321's path without its brackets */

/* A string of its own, as printf would write it. */
__attribute__((format(printf, 1, 2))) static string format(const char *pattern, ...) {
    va_list args, again;
    va_start(args, pattern);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, pattern, args);
    va_end(args);
    if (len < 0) abort();
    char *text = malloc((size_t)len + 1);
    if (text == NULL) abort();
    vsnprintf(text, (size_t)len + 1, pattern, again);
    va_end(again);
    return (string){(uint8_t *)text, (size_t)len};
}

static string borrow(const char *text) {
    string borrowed;
    notifications_string_set(&borrowed, text);
    return borrowed;
}

/* Writes a record and frees its text. */
static void log_and_free(wasi_logging_logging_level_t level, string text) {
    string context = borrow("notifier");
    wasi_logging_logging_log(level, &context, &text);
    notifications_string_free(&text);
}

static bool is_digit(uint8_t byte) {
    return byte >= '0' && byte <= '9';
}

/* name@host.domain: one @ with something before it, and after it a host with a dot inside. */
static bool is_email(string to) {
    const uint8_t *at = memchr(to.ptr, '@', to.len);
    if (at == NULL || at == to.ptr || to.len > LONGEST_EMAIL) return false;
    for (size_t i = 0; i < to.len; i++) {
        if (to.ptr[i] <= ' ' || to.ptr[i] == 0x7f) return false;
    }
    const uint8_t *host = at + 1, *end = to.ptr + to.len;
    size_t len = (size_t)(end - host);
    if (len == 0 || memchr(host, '@', len) != NULL) return false;
    const uint8_t *dot = memchr(host, '.', len);
    return dot != NULL && dot != host && end[-1] != '.';
}

/* E.164: a plus and 8 to 15 digits, the first of them not 0. */
static bool is_phone(string to) {
    if (to.len < 9 || to.len > 16 || to.ptr[0] != '+' || to.ptr[1] == '0') return false;
    for (size_t i = 1; i < to.len; i++) {
        if (!is_digit(to.ptr[i])) return false;
    }
    return true;
}

/* FNV-1a with 64 bits, and a zero byte after each part so that parts cannot run together. */
static uint64_t hash(uint64_t so_far, string part) {
    for (size_t i = 0; i <= part.len; i++) {
        so_far ^= i < part.len ? part.ptr[i] : 0;
        so_far *= UINT64_C(0x100000001b3);
    }
    return so_far;
}

/* The sender of messages: the configuration's `sender`. */
static bool get_sender(string *sender, notify_error *err) {
    string key = borrow("sender");
    notifications_option_string_t value;
    wasi_config_store_error_t failure;
    if (!wasi_config_store_get(&key, &value, &failure)) {
        string why = failure.tag == WASI_CONFIG_STORE_ERROR_IO ? failure.val.io : failure.val.upstream;
        err->tag = EXPORTS_SHOP_NOTIFICATIONS_NOTIFIER_NOTIFY_ERROR_UNAVAILABLE;
        err->val.unavailable = format("config key `sender`: %.*s", PRINT(why));
        wasi_config_store_error_free(&failure);
        return false;
    }
    *sender = value.is_some ? value.val : format("the shop");
    return true;
}

static bool send(const message *message, string *id, notify_error *err) {
    bool by_email = message->channel == EXPORTS_SHOP_NOTIFICATIONS_NOTIFIER_CHANNEL_EMAIL;
    if (by_email ? !is_email(message->to) : !is_phone(message->to)) {
        err->tag = EXPORTS_SHOP_NOTIFICATIONS_NOTIFIER_NOTIFY_ERROR_INVALID_ADDRESS;
        err->val.invalid_address = format(by_email ? "email: name@host.domain is needed"
                                                   : "sms: + and 8 to 15 digits are needed");
        return false;
    }
    string sender;
    if (!get_sender(&sender, err)) return false;

    const char *channel = by_email ? "email" : "sms";
    uint64_t digest = UINT64_C(0xcbf29ce484222325);
    digest = hash(digest, borrow(channel));
    digest = hash(digest, message->to);
    digest = hash(digest, message->subject);
    digest = hash(digest, message->body);
    *id = format("msg-%016" PRIx64, digest);

    log_and_free(WASI_LOGGING_LOGGING_LEVEL_INFO,
                 format("%.*s: %s from %.*s to %.*s: %.*s", PRINT(*id), channel, PRINT(sender),
                        PRINT(message->to), PRINT(message->subject)));
    log_and_free(WASI_LOGGING_LOGGING_LEVEL_DEBUG,
                 format("%.*s: %.*s", PRINT(*id), PRINT(message->body)));
    notifications_string_free(&sender);
    return true;
}

bool exports_shop_notifications_notifier_send(message *message, string *ret, notify_error *err) {
    bool sent = send(message, ret, err);
    exports_shop_notifications_notifier_message_free(message);
    return sent;
}

/* Notifies a customer of an order, and frees the texts. An event has no id to return. */
static bool notify(string to, string subject, string body, string *err) {
    message message = {
        .channel = EXPORTS_SHOP_NOTIFICATIONS_NOTIFIER_CHANNEL_EMAIL,
        .to = to,
        .subject = subject,
        .body = body,
    };
    string id;
    notify_error failure;
    bool sent = send(&message, &id, &failure);
    if (sent) {
        notifications_string_free(&id);
    } else {
        bool address = failure.tag == EXPORTS_SHOP_NOTIFICATIONS_NOTIFIER_NOTIFY_ERROR_INVALID_ADDRESS;
        *err = address ? failure.val.invalid_address : failure.val.unavailable;
    }
    notifications_string_free(&subject);
    notifications_string_free(&body);
    return sent;
}

/* No message for a placed order: it is paid or rejected within the second. */
bool exports_shop_orders_events_order_placed(exports_shop_orders_events_placed_t *order, string *err) {
    (void)err;
    exports_shop_orders_events_placed_free(order);
    return true;
}

bool exports_shop_orders_events_order_paid(exports_shop_orders_events_paid_t *order, string *err) {
    /* Currencies of the shop have two decimal places. */
    uint64_t units = order->total.minor / 100, cents = order->total.minor % 100;
    bool sent = notify(order->email, format("Your order %.*s", PRINT(order->order_id)),
                       format("Dear %.*s, we are packing it. You paid %" PRIu64 ".%02" PRIu64 " %.*s.",
                              PRINT(order->customer), units, cents, PRINT(order->total.currency)),
                       err);
    exports_shop_orders_events_paid_free(order);
    return sent;
}

bool exports_shop_orders_events_order_rejected(exports_shop_orders_events_rejected_t *order, string *err) {
    bool sent = notify(order->email, format("Your order %.*s was rejected", PRINT(order->order_id)),
                       format("Dear %.*s, we cannot fill it: %.*s.", PRINT(order->customer),
                              PRINT(order->reason)),
                       err);
    exports_shop_orders_events_rejected_free(order);
    return sent;
}
