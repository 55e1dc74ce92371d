package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/sixpn/sixpn/state"
)

// Words of Failure.Status.
const (
	StatusInvalid            = "invalid_argument"
	StatusNotFound           = "not_found"
	StatusNameTaken          = "name_taken"
	StatusExists             = "already_exists"
	StatusConflict           = "conflict"
	StatusFailedPrecondition = "failed_precondition"
	StatusExhausted          = "resource_exhausted"
	StatusDeadline           = "deadline_exceeded"
	StatusForbidden          = "permission_denied"
	StatusUnavailable        = "unavailable"
	StatusInternal           = "internal"
)

// Error is an operation that was refused or failed, on both sides of the socket.
type Error struct {
	Code    int // HTTP status
	Failure Failure
}

func (e *Error) Error() string { return e.Failure.Error }

func refuse(code int, status, field, format string, args ...any) *Error {
	return &Error{code, Failure{Error: fmt.Sprintf(format, args...), Status: status, Field: field}}
}

// Invalid is for what stands behind this package to refuse one member or parameter
// of a request.
func Invalid(field, format string, args ...any) error { return invalid(field, format, args...) }

// invalid refuses one member or parameter of a request.
func invalid(field, format string, args ...any) *Error {
	return refuse(http.StatusUnprocessableEntity, StatusInvalid, field, format, args...)
}

func notFound(field, format string, args ...any) *Error {
	return refuse(http.StatusNotFound, StatusNotFound, field, format, args...)
}

// NotReady is for what stands behind this package to refuse what is not possible now.
func NotReady(format string, args ...any) error { return notReady(format, args...) }

func notReady(format string, args ...any) *Error {
	return refuse(http.StatusPreconditionFailed, StatusFailedPrecondition, "", format, args...)
}

// asError finds the answer for any error.
func asError(err error) *Error {
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	var stored *state.Error
	if errors.As(err, &stored) {
		return fromState(stored)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return refuse(http.StatusRequestTimeout, StatusDeadline, "", "%v", err)
	case errors.Is(err, context.Canceled):
		return refuse(http.StatusServiceUnavailable, StatusUnavailable, "", "the agent is stopping, try again when it is back: %v", err)
	}
	return refuse(http.StatusInternalServerError, StatusInternal, "", "%v", err)
}

func fromState(err *state.Error) *Error {
	code, status := http.StatusInternalServerError, StatusInternal
	switch err.Kind {
	case state.Invalid:
		code, status = http.StatusUnprocessableEntity, StatusInvalid
	case state.NotFound:
		code, status = http.StatusNotFound, StatusNotFound
	case state.Conflict:
		code, status = http.StatusConflict, StatusConflict
		switch err.Field {
		case "name", "slug":
			status = StatusNameTaken
		case "id":
			status = StatusExists
		}
	case state.Exhausted:
		code, status = http.StatusUnprocessableEntity, StatusExhausted
	case state.Unavailable:
		code, status = http.StatusServiceUnavailable, StatusUnavailable
	}
	field := err.Field
	if name, ok := members[field]; ok {
		field = name
	}
	if field == "" {
		return refuse(code, status, "", "%s", err.Message)
	}
	return refuse(code, status, field, "%s: %s", field, err.Message)
}

// members is what the API calls the fields that the store calls otherwise.
var members = map[string]string{
	"org": "org_slug", "app": "app_name", "host": "host_name", "expires": "expires_in", "lease": leaseHeader, "desired": "machine_id",
}

// leaseHeader is the header that a lease's nonce comes in.
const leaseHeader = "fly-machine-lease-nonce"
