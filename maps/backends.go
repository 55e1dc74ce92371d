package maps

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/sixpn/sixpn/bpf"
)

// A backend is an element of the array `backends`, found by what is in it: the service
// it belongs to and where it is. Its life:
//
//	free → in use           with the next generation, its load at zero
//	in use → gone           when nothing wants it: its flows get a reset
//	gone → free             when no live flow counts in it, and after the grace period
//
// Gone is for good. A Machine that comes back is another process, and gets another
// element: the flows of the one before must still learn that it is gone.

// user is whose an element is.
type user struct {
	service uint32
	Backend
}

// indexBackends finds the elements in use, once a pass.
func (p *pass) indexBackends() {
	p.users = map[user]uint32{}
	p.keep = map[uint32]bool{}
	p.nextFree = 1
	for index := uint32(1); index <= p.highest; index++ {
		element := p.backends.all[index]
		if !free(element) && !isGone(element) && !p.void[index] {
			p.users[userOf(element)] = index
		}
	}
	for _, service := range p.want.Services {
		id := p.placed[service.key()].id
		for _, backend := range service.All() {
			if index, ok := p.users[user{id, backend}]; ok {
				p.keep[index] = true
			}
		}
	}
}

// putBackend returns the element of a backend, written if there was none, 0 if there
// is no room.
func (p *pass) putBackend(s Service, id uint32, backend Backend) (uint32, error) {
	whose := user{id, backend}
	if index, ok := p.users[whose]; ok {
		return index, nil
	}
	what := fmt.Sprintf("backend %s of network %s, port %d, of service %s", backend.Machine, backend.Network, backend.Port, s.name())
	limit := uint32(len(p.backends.all))
	for p.nextFree < limit && !free(p.backends.all[p.nextFree]) {
		p.nextFree++
	}
	if p.nextFree == limit {
		p.refused = append(p.refused, &CapacityError{tableBackends, what, limit, hints[tableBackends]})
		return 0, nil
	}
	index := p.nextFree
	generation := p.backends.all[index].Generation + 1
	if generation == 0 { // what an element has that never was in use
		generation++
	}
	// No share of the one before is this one's.
	if err := p.write(tableShares, "the share of "+what, limit, func() error {
		return p.storeShare(index, 0, 0)
	}); err != nil {
		return 0, err
	}
	// The load first: it counts flows of this generation only, and there are none.
	if err := p.write(tableBackendLoad, "the load of "+what, limit, func() error {
		return p.maps.BackendLoad.Put(index, bpf.RouterLoad{Generation: generation})
	}); err != nil {
		return 0, err
	}
	if err := p.putElement(what, index, bpf.RouterBackend{
		Network:    uint32(backend.Network),
		Host:       uint32(backend.Host),
		Machine:    uint32(backend.Machine),
		Generation: generation,
		Port:       backend.Port,
		Service:    id,
	}); err != nil {
		return 0, err
	}
	p.highest = max(p.highest, index)
	p.users[whose] = index
	p.keep[index] = true
	return index, nil
}

func (p *pass) putElement(what string, index uint32, element bpf.RouterBackend) error {
	return p.backends.put(p.writer, p.maps.Backends, what, index, element)
}

// flagBackends flags the elements that nothing wants. No service leads to them by now.
func (p *pass) flagBackends() error {
	if p.want.AddOnly {
		return nil
	}
	for index := uint32(1); index <= p.highest; index++ {
		element := p.backends.all[index]
		if free(element) || isGone(element) || p.keep[index] {
			continue
		}
		element.Flags |= flagGone
		if err := p.putElement(elementName(index), index, element); err != nil {
			return err
		}
		p.gone[index] = p.now
		p.newlyGone++
	}
	return nil
}

// freeBackends frees the elements that are gone since long enough and that no flow
// counts in.
func (p *pass) freeBackends() error {
	for index := range p.gone {
		if !isGone(p.backends.all[index]) {
			delete(p.gone, index)
		}
	}
	for index := uint32(1); index <= p.highest; index++ {
		element := p.backends.all[index]
		if free(element) || !isGone(element) {
			continue
		}
		since, ok := p.gone[index]
		if !ok { // flagged before a restart
			p.gone[index] = p.now
			continue
		}
		if p.now.Sub(since) < p.options.Grace {
			continue
		}
		var load bpf.RouterLoad
		if err := p.maps.BackendLoad.Lookup(index, &load); err != nil {
			return fmt.Errorf("maps: read the load of %s: %w", elementName(index), err)
		}
		if load.Live != 0 && load.Generation == element.Generation {
			continue
		}
		if err := p.putElement(elementName(index), index, bpf.RouterBackend{Generation: element.Generation}); err != nil {
			return err
		}
		delete(p.gone, index)
		if p.options.BackendFreed != nil && load.Generation == element.Generation {
			p.options.BackendFreed(backendLoad(index, element, load))
		}
	}
	return nil
}

func elementName(index uint32) string { return fmt.Sprintf("backend %d", index) }

func userOf(element bpf.RouterBackend) user {
	return user{element.Service, backendOf(element)}
}

// lookup reads an element of a table; ok is false if there is none.
func lookup[V any](m *ebpf.Map, name string, key any) (value V, ok bool, err error) {
	if err := m.Lookup(key, &value); errors.Is(err, ebpf.ErrKeyNotExist) {
		return value, false, nil
	} else if err != nil {
		return value, false, fmt.Errorf("maps: read table %q: %w", name, err)
	}
	return value, true, nil
}
