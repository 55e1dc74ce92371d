package state_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sixpn/sixpn/state"
)

// said is a log that is read while it is written.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), what)
}

// A host at work that is removed learns that this is why the store is silent, and its log
// says so once; one whose store is away does not.
func TestRemovedHostIsToldWhy(t *testing.T) {
	t.Parallel()
	const removed, away = "of the fleet no more", "the last state stays in force"
	a := newAuthority(t)
	l := a.listen(t)
	dir := directory(t)
	e := startListening(t, dir, l)
	s := open(t, e)
	work := func(name string) (*state.Store, *said, state.Host) {
		config := state.RemoteConfig{Fleet: true, Endpoints: []string{state.StoreURL(l.Underlay)}, TLS: a.client(t, name)}
		host := record(t, e, name, config.TLS.Certificates[0].Leaf)
		log := &said{}
		remaining, err := state.OpenStore(within(t), state.StoreConfig{
			Client: remote(t, config), Log: slog.New(slog.NewTextHandler(log, nil)), Patience: time.Second, ProbeInterval: 20 * time.Millisecond,
			Refused: func() error { return state.Refusal(config) },
		})
		must(t, err)
		run(t, remaining)
		return remaining, log, host
	}
	gone, log, host := work("gone")
	stays, other, _ := work("stays")
	_, err := s.RemoveHost(within(t), host.ID, false)
	must(t, err)
	eventually(t, "the removed host says why", func() bool { return log.count(removed) > 0 })
	if _, err := gone.Contact(); state.KindOf(err) != state.Conflict || !strings.Contains(err.Error(), state.JoinAgain) {
		t.Errorf("the removed host has no contact because %v, expected %q", err, state.JoinAgain)
	}
	if _, err := stays.Contact(); state.KindOf(err) == state.Conflict || other.count(removed) != 0 {
		t.Errorf("another host has no contact because %v", err)
	}
	must(t, e.Close())
	eventually(t, "the other host says that the store is away", func() bool { return other.count(away) > 0 })
	e = startListening(t, dir, l)
	t.Cleanup(func() { must(t, e.Close()) })
	eventually(t, "the other host has contact again", func() bool { _, err := stays.Contact(); return err == nil })
	if other.count(removed) != 0 || log.count(removed) != 1 {
		t.Errorf("the other host says %d times that it was removed, the removed one %d times, expected once", other.count(removed), log.count(removed))
	}
}
