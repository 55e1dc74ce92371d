package state_test

import (
	"testing"

	"github.com/sixpn/sixpn/state"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	e := start(t, t.TempDir())
	s := open(t, e)
	before := e.Health()
	_, revision, err := s.CreateOrg(t.Context(), "acme", "")
	if err != nil {
		t.Fatal(err)
	}
	h := e.Health()
	if !h.Serving || !h.Leader || h.Revision < revision || h.Revision <= before.Revision {
		t.Errorf("after revision %d the store is %+v", revision, h)
	}
	if h.Bytes <= 0 || h.UsedBytes <= 0 || h.UsedBytes > h.Bytes || h.Bytes > h.LimitBytes {
		t.Errorf("sizes are out of proportion: %+v", h)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if h := e.Health(); h != (state.Health{}) {
		t.Errorf("a store that was closed is %+v", h)
	}
}
