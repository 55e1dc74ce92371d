package bpf

import (
	"strconv"
	"testing"
)

func TestDropReason(t *testing.T) {
	t.Parallel()
	for reason, want := range map[DropReason]string{
		0:                                   "none",
		RouterDropReasonDROP_SPOOFED_SOURCE: "spoofed_source",
		RouterDropReasonDROP_NO_BACKEND:     "no_backend",
		RouterDropReasonDROP_REASONS:        "reason_" + strconv.Itoa(int(RouterDropReasonDROP_REASONS)),
	} {
		if got := reason.String(); got != want {
			t.Errorf("reason %d is called %q, want %q", uint32(reason), got, want)
		}
	}
	reasons := DropReasons()
	if got, want := len(reasons), int(RouterDropReasonDROP_REASONS)-1; got != want {
		t.Fatalf("%d reasons are listed, want %d: all but none", got, want)
	}
	if reasons[0] != 1 {
		t.Errorf("the first reason is %d, want 1: none is no reason", reasons[0])
	}
}
