package maps

import (
	"fmt"
	"slices"

	"github.com/sixpn/sixpn/bpf"
)

// serviceKey names a wanted service.
type serviceKey struct {
	VIP
	protocol    uint8
	first, last uint16
}

func (s Service) key() serviceKey { return serviceKey{s.VIP, s.Protocol, s.First, s.Last} }

// spread is what Maglev made of a list of backends.
type spread struct {
	backends  []Backend
	positions []uint32
}

// placement is what a pass knows of a wanted service.
type placement struct {
	id      uint32
	singles []bpf.RouterServiceKey
	ranges  []bpf.RouterServiceRangeKey
}

// serviceKeys are the elements that a service has in the kernel: one in `services`, or
// some in `service_ranges`.
func serviceKeys(s Service) (singles []bpf.RouterServiceKey, ranges []bpf.RouterServiceRangeKey) {
	if s.First == s.Last {
		return []bpf.RouterServiceKey{singleKey(s.VIP, s.Protocol, s.First)}, nil
	}
	for _, block := range prefixes(s.First, s.Last) {
		ranges = append(ranges, rangeKey(s.VIP, s.Protocol, block))
	}
	return nil, ranges
}

func singleKey(vip VIP, protocol uint8, port uint16) bpf.RouterServiceKey {
	return bpf.RouterServiceKey{Network: uint32(vip.Network), Vip: vip.Number, Port: port, Protocol: protocol}
}

func (p *pass) wantedServices() (map[bpf.RouterServiceKey]bool, map[bpf.RouterServiceRangeKey]bool) {
	singles, ranges := map[bpf.RouterServiceKey]bool{}, map[bpf.RouterServiceRangeKey]bool{}
	for _, service := range p.want.Services {
		s, r := serviceKeys(service)
		for _, key := range s {
			singles[key] = true
		}
		for _, key := range r {
			ranges[key] = true
		}
	}
	return singles, ranges
}

// putServices writes services, each after its backends and its region.
func (p *pass) putServices() error {
	services := slices.SortedFunc(slices.Values(p.want.Services), compareServices)
	if err := p.nameServices(services); err != nil {
		return err
	}
	p.indexBackends()
	for _, service := range services {
		if err := p.putService(service); err != nil {
			return err
		}
	}
	for key := range p.spreads {
		if _, ok := p.placed[key]; !ok {
			delete(p.spreads, key)
		}
	}
	return nil
}

// nameServices gives every service its id. One that has an id keeps it; a service
// whose ports were another's keeps that one's, so that the flows of a range that is
// cut, or joined, stay with their backends. Other ids are new: they count up from the
// highest ever given out, which is stored before the first new one is used.
func (p *pass) nameServices(services []Service) error {
	p.placed = map[serviceKey]placement{}
	last := p.lastServiceID()
	stored := p.backends.all[0]
	for _, service := range services {
		placed := placement{}
		placed.singles, placed.ranges = serviceKeys(service)
		id, ok := p.knownID(service)
		if !ok {
			last++
			id = last
		}
		placed.id = id
		p.placed[service.key()] = placed
	}
	stored.Service = last
	return p.putElement("the highest service id", 0, stored)
}

// knownID finds the id that a service's first port has in the kernel, else its lowest
// port that has one.
func (p *pass) knownID(s Service) (uint32, bool) {
	for port := uint32(s.First); port <= uint32(s.Last); port++ {
		if have, ok := p.services.have[singleKey(s.VIP, s.Protocol, uint16(port))]; ok {
			return have.Id, true
		}
		if len(p.ranges.have) == 0 {
			continue
		}
		for bits := uint32(16); ; bits-- {
			block := prefix{uint16(port &^ (0xffff >> bits)), bits}
			if have, ok := p.ranges.have[rangeKey(s.VIP, s.Protocol, block)]; ok {
				return have.Id, true
			}
			if bits == 0 {
				break
			}
		}
	}
	return 0, false
}

// putService brings one service to the kernel, or notes why there is no room for it.
func (p *pass) putService(s Service) error {
	placed := p.placed[s.key()]
	value := bpf.RouterService{
		Id:        placed.id,
		SoftLimit: s.SoftLimit,
		HardLimit: s.HardLimit,
		Action:    uint8(s.Action),
		Flags:     s.Flags,
	}
	words, prime, err := p.words(s, placed.id)
	if err != nil {
		return err
	}
	region, generation, found := p.findRegion(placed, words, prime)
	if !found {
		var ok bool
		if region, ok = p.holes.take(uint32(len(words))); !ok {
			p.refused = append(p.refused, &CapacityError{
				Table: tableMaglev,
				What:  fmt.Sprintf("service %s needs %d elements in one piece, the largest free one has %d", s.name(), len(words), p.holes.largest()),
				Max:   p.maps.Maglev.MaxEntries(),
				Hint:  hints[tableMaglev],
			})
			return nil // what it had stays
		}
		p.before[region] = true // let go again at the end if no entry takes it
		if err := p.writeRegion(p.writer, "the region of service "+s.name(), region, words); err != nil {
			return err
		}
	}
	value.Offset, value.Prime, value.Generation = region.offset, prime, generation
	if region.length > prime {
		value.Length = region.length
	}

	for _, key := range placed.singles {
		if err := p.tolerate(p.services.put(p.writer, "service "+s.name(), key, value)); err != nil {
			return err
		}
	}
	for _, key := range placed.ranges {
		if err := p.tolerate(p.ranges.put(p.writer, "service "+s.name(), key, value)); err != nil {
			return err
		}
	}
	return nil
}

// words is what the regions of a service should hold, and the length of the nearest:
// indices of backends, and before each farther region its length. It writes the
// backends that are not in the kernel yet.
func (p *pass) words(s Service, id uint32) (words []uint32, prime uint32, err error) {
	if s.Action != bpf.RouterServiceActionSERVICE_BALANCE {
		return nil, 0, nil
	}
	before := p.spreads[s.key()]
	var spreads []spread
	for i, group := range s.groups() {
		var backends []Backend
		var indices []uint32
		for _, backend := range group {
			index, err := p.putBackend(s, id, backend)
			if err != nil {
				return nil, 0, err
			}
			if index != 0 {
				backends, indices = append(backends, backend), append(indices, index)
			}
		}
		if len(backends) == 0 {
			continue
		}
		now := spread{backends: backends}
		if i < len(before) && slices.Equal(before[i].backends, backends) {
			now = before[i]
		} else {
			now.positions = p.options.Maglev(backends)
		}
		spreads = append(spreads, now)
		if prime == 0 {
			prime = uint32(len(now.positions))
		} else {
			words = append(words, uint32(len(now.positions)))
		}
		for _, position := range now.positions {
			words = append(words, indices[position])
		}
	}
	p.spreads[s.key()] = spreads
	return words, prime, nil
}

// findRegion finds the regions that a service has, if they hold these words. Otherwise
// generation is that of the next ones.
func (p *pass) findRegion(placed placement, words []uint32, prime uint32) (region span, generation uint32, found bool) {
	var have []bpf.RouterService
	for _, key := range placed.singles {
		if service, ok := p.services.have[key]; ok {
			have = append(have, service)
		}
	}
	for _, key := range placed.ranges {
		if service, ok := p.ranges.have[key]; ok {
			have = append(have, service)
		}
	}
	// An interrupted pass may have left some blocks of a range with the region before.
	slices.SortStableFunc(have, func(a, b bpf.RouterService) int { return int(int32(b.Generation - a.Generation)) })
	for _, service := range have {
		s := regionsOf(service)
		if service.Id == placed.id && service.Prime == prime && int(s.length) == len(words) && slices.Equal(p.regionWords(s), words) {
			return s, service.Generation, true
		}
	}
	if len(have) > 0 {
		generation = have[0].Generation
	}
	generation++
	if len(words) == 0 { // no backend needs no region
		return span{}, generation, true
	}
	return span{}, generation, false
}

func (p *pass) removeServices() error {
	singles, ranges := p.wantedServices()
	for key := range p.services.have {
		if singles[key] {
			continue
		}
		if err := p.services.remove(p.writer, "a service", key); err != nil {
			return err
		}
	}
	for key := range p.ranges.have {
		if ranges[key] {
			continue
		}
		if err := p.ranges.remove(p.writer, "a service of a range", key); err != nil {
			return err
		}
	}
	return nil
}
