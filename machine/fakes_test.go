package machine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sixpn/sixpn/machine"
	"github.com/sixpn/sixpn/state"
)

// memoryStore is a machine.Store that keeps its records in memory.
type memoryStore struct {
	mu       sync.Mutex
	revision int64
	machines map[string]state.Machine
	changed  chan struct{} // closed and replaced by each write
	away     error         // what writes return, nil: they work
	journal  *journal
	path     string // where every revision is kept, "" for nowhere
}

func newMemoryStore(j *journal) *memoryStore {
	return &memoryStore{machines: make(map[string]state.Machine), changed: make(chan struct{}), journal: j, revision: 1}
}

func (s *memoryStore) Machines(ctx context.Context, after int64) ([]state.Machine, int64, error) {
	for {
		s.mu.Lock()
		if s.revision > after {
			defer s.mu.Unlock()
			var all []state.Machine
			for _, m := range s.machines {
				all = append(all, m)
			}
			return all, s.revision, nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-changed:
		}
	}
}

func (s *memoryStore) UpdateMachine(_ context.Context, id string, change func(*state.Machine) error) (state.Machine, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil {
		return state.Machine{}, 0, s.away
	}
	m, ok := s.machines[id]
	if !ok {
		return state.Machine{}, 0, fmt.Errorf("machine %s is unknown", id)
	}
	before := m.State
	if err := change(&m); err != nil {
		return state.Machine{}, 0, err
	}
	s.machines[id] = m
	if m.State != before {
		s.journal.add("state %s", m.State)
	}
	s.bump()
	return m, s.revision, nil
}

func (s *memoryStore) DestroyMachine(_ context.Context, id string) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil {
		return 0, s.away
	}
	delete(s.machines, id)
	s.journal.add("destroyed")
	s.bump()
	return s.revision, nil
}

// HandOver and HandBack are a store's that more hosts than one write to; see migrate_test.go.
func (s *memoryStore) HandOver(context.Context, string) (state.Machine, int64, error) {
	return state.Machine{}, 0, errors.New("there is one host only")
}

func (s *memoryStore) HandBack(context.Context, string, string) (state.Machine, int64, error) {
	return state.Machine{}, 0, errors.New("there is one host only")
}

func (s *memoryStore) bump() {
	s.revision++
	if s.path != "" {
		b, err := json.Marshal(s.machines)
		if err == nil {
			err = os.WriteFile(s.path+".new", b, 0o600)
		}
		if err == nil {
			err = os.Rename(s.path+".new", s.path)
		}
		if err != nil {
			panic(err)
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// load takes over what another store kept at path.
func (s *memoryStore) load(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machines, s.path = make(map[string]state.Machine), path
	if err := json.Unmarshal(b, &s.machines); err != nil {
		return err
	}
	s.bump()
	return nil
}

// put writes a record as an API would.
func (s *memoryStore) put(m state.Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.machines[m.ID] = m
	s.bump()
}

// order changes a record as a command would.
func (s *memoryStore) order(t *testing.T, id string, change func(*state.Machine)) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.machines[id]
	if !ok {
		t.Fatalf("machine %s is unknown", id)
	}
	change(&m)
	s.machines[id] = m
	s.bump()
}

func (s *memoryStore) get(id string) (state.Machine, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.machines[id]
	return m, ok
}

func (s *memoryStore) setAway(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = err
}

// memoryPorts is a machine.Ports that raises devices and remembers them.
type memoryPorts struct {
	mu      sync.Mutex
	ports   map[string]machine.Port
	failure error // what Add returns
	refused int   // calls of Add that returned it
	journal *journal
}

func newMemoryPorts(j *journal) *memoryPorts {
	return &memoryPorts{ports: make(map[string]machine.Port), journal: j}
}

func (p *memoryPorts) Add(_ context.Context, port machine.Port) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil {
		p.refused++
		return p.failure
	}
	link, err := netlink.LinkByName(port.Device)
	if err != nil {
		return err
	}
	if uint32(link.Attrs().Index) != port.Ifindex {
		return errors.New("another ifindex")
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	p.ports[port.MachineID] = port
	if port.Adopted {
		p.journal.add("port adopted")
	} else {
		p.journal.add("port added")
	}
	return nil
}

func (p *memoryPorts) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failure = err
}

func (p *memoryPorts) failed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

func (p *memoryPorts) Remove(_ context.Context, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.ports[id]; ok {
		p.journal.add("port removed")
	}
	delete(p.ports, id)
	return nil
}

func (p *memoryPorts) Applied(_ context.Context, revision int64) error {
	p.journal.add("applied")
	return nil
}

func (p *memoryPorts) get(id string) (machine.Port, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	port, ok := p.ports[id]
	return port, ok
}

// journal is the order in which things happened.
type journal struct {
	mu      sync.Mutex
	entries []string
}

func (j *journal) add(format string, a ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, fmt.Sprintf(format, a...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.entries)
}

func (j *journal) clear() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = nil
}
