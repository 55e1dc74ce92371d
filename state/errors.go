package state

import (
	"context"
	"errors"
	"fmt"
)

// ErrorKind is what a caller does about an error: each kind is one answer of the
// API and one exit of the command line.
type ErrorKind uint8

// The kinds of error.
const (
	Invalid     ErrorKind = iota + 1 // the request can never succeed as it is
	NotFound                         // it names something that does not exist
	Conflict                         // it is at odds with what exists
	Exhausted                        // a number or a capacity has run out
	Unavailable                      // the store did not answer; the write may have happened or not
)

func (k ErrorKind) String() string {
	switch k {
	case Invalid:
		return "invalid"
	case NotFound:
		return "not found"
	case Conflict:
		return "conflict"
	case Exhausted:
		return "exhausted"
	case Unavailable:
		return "unavailable"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// Error is every refusal of this room.
type Error struct {
	Kind    ErrorKind
	Field   string // path of what was wrong, e.g. "config.services[0].internal_port"; "" when it is no field
	Message string // what was wrong, what was expected, what to do
	cause   error
}

func (e *Error) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.cause }

// KindOf is the kind of an error of this room, 0 for any other error and for nil.
func KindOf(err error) ErrorKind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func refuse(kind ErrorKind, field, format string, args ...any) error {
	return &Error{Kind: kind, Field: field, Message: fmt.Sprintf(format, args...)}
}

// unavailable wraps an error of the etcd client.
func unavailable(doing string, err error) error {
	remedy := "check that it runs, then try again"
	switch {
	case errors.Is(err, context.Canceled):
		remedy = "the request was cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		remedy = "it did not answer in time; check that it runs, then try again"
	}
	return &Error{Kind: Unavailable, Message: fmt.Sprintf("%s: the store failed (%v): %s", doing, err, remedy), cause: err}
}
